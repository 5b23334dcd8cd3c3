//! One step for one model, on a thread of its own.
//!
//! Not here: which step, and what follows when it fails ([`super::models`]).

use std::io;
use std::path::PathBuf;

use super::disk::Disk;
use super::list::{Spec, Version};
use super::models::{Failed, Order};
use super::plan::Step;
use super::server::Repository;
use super::source::{Progress, Source, Stop};
use crate::storage::{Failure, Kind};

/// What steps are done with.
#[derive(Clone)]
pub(super) struct Workbench {
    pub(super) disk: Disk,
    pub(super) repository: Repository,
    /// The folder that local models may lie in.
    pub(super) source_dir: PathBuf,
}

impl Workbench {
    /// Does it.
    pub(super) fn carry_out(&self, order: &Order) -> Result<(), Failed> {
        let Order { name, step, spec, progress, stop } = order;
        match (step, spec) {
            (Step::Pull(version), Some(spec)) => self.pull(name, spec, version, (progress, stop)),
            // It is asked for only with one.
            (Step::Pull(_), None) => Err(Failed::of("no specification".to_owned())),
            (Step::Load(_), _) => {
                self.repository.load(name).map_err(Failed::of)?;
                self.disk.set_loaded(name).map_err(|error| Failed::of(of_disk(&error)))
            }
            (Step::Unload, _) => self.repository.unload(name).map_err(Failed::of),
            (Step::Delete, _) => self.disk.delete(name).map_err(|error| Failed::of(of_disk(&error))),
        }
    }

    fn pull(
        &self,
        name: &str,
        spec: &Spec,
        version: &Version,
        (progress, stop): (&Progress, &Stop),
    ) -> Result<(), Failed> {
        let of_disk = |error: io::Error| Failed::of(of_disk(&error));
        let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let source = Source::of(&spec.storage_uri, &self.source_dir, &env).map_err(Failed::of)?;
        // What is left of other versions takes room.
        self.disk.clean(name, Some(version)).map_err(of_disk)?;
        let hidden = self.disk.hidden(name, version).map_err(of_disk)?;
        super::injected::at("pulling");
        source.fetch(&hidden, progress, stop)?;
        super::injected::at("pulled");
        // It may have gone on after its last look.
        stop.check()?;
        self.disk.place(name, spec).map_err(of_disk)
    }
}

fn of_disk(error: &io::Error) -> String {
    format!("--model-dir: {error}")
}

impl Failed {
    pub(super) fn of(reason: String) -> Self {
        Self { reason, after: None, is_full: false }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let after = match failure.kind {
            Kind::Transient { after } => after,
            Kind::Changed | Kind::Refused => None,
        };
        Self { reason: failure.reason, after, is_full: failure.is_full }
    }
}
