//! What is to be done for a model, from what is wanted, what lies on the disk and what the server was told (SPEC M2). Pure.
//!
//! ```text
//!   wanted, not on disk ───▶ Pull ─▶ on disk, not loaded ─▶ Load ─▶ ready
//!   wanted in another version ─▶ Pull: the new one takes the place of the old at once ─▶ Load ─▶ ready
//!   not wanted, may be loaded ─▶ Unload ─▶ on disk ─▶ Delete ─▶ forgotten
//! ```
//!
//! `--model-update` says whether the old version is unloaded and deleted before the new one is pulled.
//!
//! One step at a time: after each, whatever it came to, the next is asked for anew, so the latest list wins. A changed model
//! is not unloaded before the new version is loaded: servers replace one by the other, and no request fails in between.
//!
//! Not here: how a step is done, and when a failed one is tried again.

use std::fmt;

use super::list::Version;

/// What is known about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The version that there is to be; `None`: none.
    pub(super) wanted: Option<Version>,
    /// The version on disk, whole.
    pub(super) on_disk: Option<Version>,
    pub(super) server: Server,
    /// The version on disk is to go before another one comes.
    pub(super) makes_way: bool,
}

/// What the model server was told last about a model, as far as it took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// It was not asked.
    Unknown,
    /// It has none of this name.
    Without,
    /// It has loaded this version.
    With(Version),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Fetch this version and put it in its place.
    Pull(Version),
    /// Let the server load what lies on the disk.
    Load(Version),
    /// Let the server unload it.
    Unload,
    /// Delete it from the disk.
    Delete,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull(_) => "downloaded",
            Self::Load(_) => "loaded",
            Self::Unload => "unloaded",
            Self::Delete => "deleted",
        })
    }
}

impl Facts {
    /// The next step; `None`: everything is as it should be.
    pub(super) fn next(&self) -> Option<Step> {
        match (&self.wanted, &self.on_disk) {
            (Some(wanted), Some(on_disk)) if wanted == on_disk => match &self.server {
                Server::With(loaded) if loaded == wanted => None,
                _ => Some(Step::Load(wanted.clone())),
            },
            (Some(_), Some(_)) if self.makes_way && self.server != Server::Without => Some(Step::Unload),
            (Some(_), Some(_)) if self.makes_way => Some(Step::Delete),
            (Some(wanted), _) => Some(Step::Pull(wanted.clone())),
            (None, _) if self.server != Server::Without => Some(Step::Unload),
            (None, Some(_)) => Some(Step::Delete),
            (None, None) => None,
        }
    }

    /// Whether a step under way is still of use.
    pub(super) fn allows(&self, step: &Step) -> bool {
        match step {
            Step::Pull(version) => self.wanted.as_ref() == Some(version),
            // Too short to be stopped; the next step sets it right.
            Step::Load(_) | Step::Unload | Step::Delete => true,
        }
    }

    /// A step was done.
    pub(super) fn done(&mut self, step: &Step) {
        match step {
            Step::Pull(version) => self.on_disk = Some(version.clone()),
            Step::Load(version) => self.server = Server::With(version.clone()),
            Step::Unload => self.server = Server::Without,
            Step::Delete => self.on_disk = None,
        }
    }

    /// Nothing is left of the model.
    pub(super) fn is_forgotten(&self) -> bool {
        self.wanted.is_none() && self.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u8) -> Version {
        Version::of_hex(&format!("{number:064x}")).unwrap()
    }

    fn facts(wanted: Option<u8>, on_disk: Option<u8>, server: Server) -> Facts {
        Facts { wanted: wanted.map(version), on_disk: on_disk.map(version), server, makes_way: false }
    }

    #[test]
    fn a_new_model_is_pulled_and_loaded() {
        let mut model = facts(Some(1), None, Server::Unknown);
        for step in [Step::Pull(version(1)), Step::Load(version(1))] {
            assert_eq!(model.next().as_ref(), Some(&step));
            model.done(&step);
        }
        assert_eq!(model.next(), None);
    }

    #[test]
    fn a_changed_model_makes_way_if_it_must() {
        let mut model = Facts { makes_way: true, ..facts(Some(2), Some(1), Server::With(version(1))) };
        for step in [Step::Unload, Step::Delete, Step::Pull(version(2)), Step::Load(version(2))] {
            assert_eq!(model.next().as_ref(), Some(&step));
            model.done(&step);
        }
        assert_eq!(model.next(), None);
    }

    #[test]
    fn a_changed_model_is_replaced_without_being_unloaded() {
        let mut model = facts(Some(2), Some(1), Server::With(version(1)));
        for step in [Step::Pull(version(2)), Step::Load(version(2))] {
            assert_eq!(model.next().as_ref(), Some(&step));
            model.done(&step);
        }
        assert_eq!(model.next(), None);
    }

    #[test]
    fn a_removed_model_is_unloaded_and_then_deleted() {
        let mut model = facts(None, Some(1), Server::With(version(1)));
        for step in [Step::Unload, Step::Delete] {
            assert_eq!(model.next().as_ref(), Some(&step));
            assert!(!model.is_forgotten());
            model.done(&step);
        }
        assert!(model.is_forgotten());
    }

    #[test]
    fn a_model_that_is_there_and_ready_is_left_alone() {
        assert_eq!(facts(Some(1), Some(1), Server::With(version(1))).next(), None);
        assert_eq!(facts(Some(1), Some(1), Server::Unknown).next(), Some(Step::Load(version(1))));
        assert_eq!(facts(Some(1), Some(1), Server::Without).next(), Some(Step::Load(version(1))));
    }

    #[test]
    fn a_pull_that_nobody_wants_any_more_is_stopped() {
        let pull = Step::Pull(version(1));
        assert!(facts(Some(1), None, Server::Unknown).allows(&pull));
        assert!(!facts(Some(2), None, Server::Unknown).allows(&pull));
        assert!(!facts(None, None, Server::Unknown).allows(&pull));
    }

    /// Whatever the history of lists, failures, crashes and servers that start anew: once the list stays as it is,
    /// everything comes to agree with it, and a model is never deleted while the server may have it.
    #[test]
    fn every_history_converges() {
        for seed in 0..2000_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut draw = |most: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % most
            };
            let mut model = facts(None, None, Server::Unknown);
            for _ in 0..50 {
                match draw(5) {
                    0 => {
                        model.wanted =
                            [None, Some(version(1)), Some(version(2))][usize::try_from(draw(3)).unwrap()].clone()
                    }
                    // The server, or the agent, was started anew.
                    1 => model.server = Server::Unknown,
                    _ => {
                        if let Some(step) = model.next() {
                            assert!(step != Step::Delete || model.server == Server::Without, "seed {seed}");
                            // It fails, or is done.
                            if draw(3) > 0 {
                                model.done(&step);
                            }
                        }
                    }
                }
            }
            let mut steps = 0;
            while let Some(step) = model.next() {
                model.done(&step);
                steps += 1;
                assert!(steps <= 3, "seed {seed}: {model:?}");
            }
            match &model.wanted {
                Some(wanted) => {
                    assert_eq!((model.on_disk.as_ref(), &model.server), (Some(wanted), &Server::With(wanted.clone())))
                }
                None => assert!(model.is_forgotten() && model.on_disk.is_none()),
            }
        }
    }
}
