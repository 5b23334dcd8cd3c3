//! No two listeners on one port, and no proxy that forwards to itself.
//!
//! The metrics and status ports are new with this agent. Their defaults give way, so that a manifest written for the Go
//! agent, where those numbers were free, works as it did; only a port that was asked for is worth an error.

use super::report::{Report, not_allowed};
use std::num::NonZeroU16;

/// A port that some flag wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// With dashes.
    pub(super) flag: &'static str,
    /// `None`: nothing is wanted, or it was not a port.
    pub(super) port: Option<NonZeroU16>,
    /// What happens when it is taken.
    pub(super) claim: Claim,
}

/// How much a port matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// The agent is of no use without it.
    Needed,
    /// Turned off on request only.
    Asked,
    /// Turned off when it is taken.
    Spare,
}

/// Gives each its port or `None`, in the order wanted; a clash is an error that names both flags, or a warning.
pub(super) fn settle<const N: usize>(wanted: [Wanted; N], report: &mut Report) -> [Option<NonZeroU16>; N] {
    let mut settled = wanted.map(|wanted| wanted.port);
    let mut order: Vec<usize> = (0..N).collect();
    // Stable: among equals, who is wanted first has it.
    order.sort_by_key(|&index| wanted[index].claim);
    for (at, &index) in order.iter().enumerate() {
        let Some(port) = settled[index] else { continue };
        let Some(&owner) = order[..at].iter().find(|&&other| settled[other] == Some(port)) else {
            continue;
        };
        let (flag, owner) = (wanted[index].flag, wanted[owner].flag);
        if wanted[index].claim == Claim::Spare {
            settled[index] = None;
            report.warn(format!("{flag} is turned off: {owner} has its default port {port}"));
        } else {
            let allowed = format!("a port other than that of {owner}");
            report.usage_error(not_allowed(flag, &port.to_string(), &allowed));
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Outcome;

    fn wanted(flag: &'static str, port: u16, claim: Claim) -> Wanted {
        Wanted { flag, port: NonZeroU16::new(port), claim }
    }

    fn settled<const N: usize>(all: [Wanted; N]) -> ([u16; N], Vec<String>, Vec<String>) {
        let mut report = Report::default();
        let ports = settle(all, &mut report).map(|port| port.map_or(0, NonZeroU16::get));
        match report.outcome(None) {
            Outcome::Usage { errors, warnings, .. } => (ports, errors, warnings),
            _ => (ports, vec![], vec![]),
        }
    }

    #[test]
    fn different_ports_stay() {
        let all = [wanted("--a", 1, Claim::Needed), wanted("--b", 2, Claim::Spare)];
        assert_eq!(settled(all), ([1, 2], vec![], vec![]));
    }

    #[test]
    fn ports_that_are_off_never_clash() {
        let all = [wanted("--a", 0, Claim::Asked), wanted("--b", 0, Claim::Asked)];
        assert_eq!(settled(all), ([0, 0], vec![], vec![]));
    }

    #[test]
    fn two_that_were_asked_for_are_an_error_that_names_both() {
        let all = [wanted("--a", 7, Claim::Needed), wanted("--b", 7, Claim::Asked)];
        let line = "--b: \"7\" is not allowed: a port other than that of --a".to_owned();
        assert_eq!(settled(all).1, [line]);
    }

    #[test]
    fn a_default_gives_way_to_a_later_one_that_was_asked_for() {
        let all = [wanted("--a", 7, Claim::Spare), wanted("--b", 7, Claim::Asked)];
        let (ports, errors, warnings) = settled(all);
        assert_eq!((ports, errors.len(), warnings.len()), ([0, 7], 0, 1));
        assert!(warnings[0].contains("--a") && warnings[0].contains("--b"), "{warnings:?}");
    }
}
