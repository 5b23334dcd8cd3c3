//! What `make bench` is told.

use std::path::PathBuf;

use argh::FromArgs;

use crate::failure::Failure;
use crate::model::Group;

/// Measures kserve-agent beside its peers on this machine and writes report.html, report.json and report.md.
#[derive(FromArgs)]
pub(crate) struct Options {
    /// the agent's release binary
    #[argh(option)]
    pub(crate) agent: PathBuf,
    /// the same, built with the feature fault-injection
    #[argh(option)]
    pub(crate) faulty_agent: PathBuf,
    /// the example model server
    #[argh(option)]
    pub(crate) model_server: PathBuf,
    /// the baseline proxy
    #[argh(option)]
    pub(crate) baseline: PathBuf,
    /// folder of the peers' configurations: benches/peers
    #[argh(option)]
    pub(crate) peers: PathBuf,
    /// a Python with the KServe SDK, and a script that serves iris with it: PYTHON,SCRIPT
    #[argh(option)]
    pub(crate) kserve: Option<String>,
    /// where the report goes
    #[argh(option)]
    pub(crate) out: PathBuf,
    /// where the README's pictures go; without it they are made anew nowhere
    #[argh(option)]
    pub(crate) pictures: Option<PathBuf>,
    /// parts to measure, with commas: connections, single, rates, bodies, footprint, batcher, kserve, payload, faults, quota, self
    #[argh(option)]
    pub(crate) only: Option<String>,
    /// one more peer, NAME=COMMAND, in which {{port}} and {{server}} are filled in; may be given several times
    #[argh(option)]
    pub(crate) peer: Vec<String>,
    /// rounds (5; with --quick 3)
    #[argh(option)]
    pub(crate) rounds: Option<usize>,
    /// idle connections (10000; with --quick 1000)
    #[argh(option)]
    pub(crate) idle: Option<usize>,
    /// a report.json: writes its report anew, and measures nothing
    #[argh(option)]
    pub(crate) again: Option<PathBuf>,
    /// the most telling scenarios only, in under three minutes
    #[argh(switch)]
    pub(crate) quick: bool,
}

impl Group {
    /// Parts of the run in its order, by their name on the command line.
    const NAMES: [(&str, Self); 11] = [
        ("self", Self::Trust),
        ("connections", Self::Connections),
        ("single", Self::Single),
        ("rates", Self::Rates),
        ("bodies", Self::Bodies),
        ("footprint", Self::Footprint),
        ("batcher", Self::Batcher),
        ("kserve", Self::Kserve),
        ("payload", Self::Payload),
        ("faults", Self::Faults),
        ("quota", Self::Quota),
    ];
    const QUICK: [Self; 7] =
        [Self::Trust, Self::Connections, Self::Single, Self::Rates, Self::Bodies, Self::Footprint, Self::Batcher];

    pub(crate) fn chosen(only: Option<&str>, quick: bool) -> Result<Vec<Self>, Failure> {
        let Some(only) = only else {
            let parts = Self::NAMES.into_iter().map(|(_, part)| part);
            return Ok(parts.filter(|part| !quick || Self::QUICK.contains(part)).collect());
        };
        let known = |name: &str| Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, part)| *part);
        let names = only.split(',').map(str::trim);
        names.map(|name| known(name).ok_or_else(|| unknown(name))).collect()
    }
}

fn unknown(name: &str) -> Failure {
    let names = Group::NAMES.map(|(name, _)| name).join(", ");
    Failure::new(format!("no part {name}; there are {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_chosen_by_name() {
        assert_eq!(Group::chosen(Some("batcher, self"), true).ok(), Some(vec![Group::Batcher, Group::Trust]));
        assert!(Group::chosen(Some("batchr"), false).is_err_and(|reason| reason.0.contains("batchr")));
        assert_eq!(Group::chosen(None, false).map(|parts| parts.len()).ok(), Some(11));
        assert_eq!(Group::chosen(None, true).map(|parts| parts.len()).ok(), Some(7));
    }
}
