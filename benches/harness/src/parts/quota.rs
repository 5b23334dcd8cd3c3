//! The proxies with a tenth and a half of a processor, as a pod's limits give them. The server has no quota.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Bench, CONNECTIONS, Closed, OVERHEAD};
use crate::failure::Failure;
use crate::load::Work;
use crate::model::{Group, Kind};
use crate::options::Options;

pub(crate) const TENTH: &str = "quota-01";
pub(crate) const HALF: &str = "quota-05";

/// Processors, and how that is named.
const QUOTAS: [(f64, &str, &str); 2] =
    [(0.1, TENTH, "a tenth of a processor, 16 connections"), (0.5, HALF, "half a processor, 16 connections")];
const LOAD: Closed = Closed { connections: 16, seconds: 1, work: Work::Predict(1) };
/// Microseconds; the kubelet's.
const PERIOD: u32 = 100_000;
const HIERARCHY: &str = "/sys/fs/cgroup";

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let runs = QUOTAS.len() * (5 + options.peer.len()) * Bench::rounds(options);
    (runs, runs as f64 * (f64::from(LOAD.seconds) + OVERHEAD))
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    for (processors, id, title) in QUOTAS {
        let kitchen = bench.kitchen(CONNECTIONS);
        let server = bench.start(&kitchen.server()?)?;
        let (recipes, _) = kitchen.proxies(server.port)?;
        let peers = bench.start_all(&recipes);
        let mut groups = Vec::new();
        for (number, peer) in peers.iter().enumerate() {
            let name = format!("kserve-agent-bench-{}-{number}", std::process::id());
            match ControlGroup::new(Path::new(HIERARCHY), &name, processors) {
                Ok(group) => {
                    for pid in peer.processes() {
                        fs::write(group.0.join("cgroup.procs"), pid.to_string())?;
                    }
                    groups.push(group);
                }
                Err(reason) => {
                    bench.leave_out(&format!("processor quotas: no control group can be made here ({reason})"));
                    return Ok(());
                }
            }
        }
        bench.measured.open(id, title, Group::Quota);
        let load = bench.fast_load();
        let rounds = Bench::rounds(bench.options);
        for round in 1..=rounds {
            for (peer, group) in peers.iter().zip(&groups) {
                let what = format!("{title}, round {round} of {rounds}: {}", peer.name);
                bench.progress.step(f64::from(LOAD.seconds) + OVERHEAD, &what);
                let before = group.periods();
                bench.closed(&load, id, peer, LOAD);
                let (all, throttled) = group.periods();
                let share = (throttled - before.1) / (all - before.0).max(1.0);
                bench.measured.add(id, &peer.name, Kind::Throttled, share * 100.0);
            }
        }
        // Before the groups, which go when nobody is in them.
        drop(peers);
    }
    Ok(())
}

/// A group with a quota. Dropping it removes it.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new(hierarchy: &Path, name: &str, processors: f64) -> Result<Self, Failure> {
        let quota = (processors * f64::from(PERIOD)).round();
        if hierarchy.join("cgroup.controllers").exists() {
            // In a container this fails, as the group that is seen there has processes of its own.
            fs::write(hierarchy.join("cgroup.subtree_control"), "+cpu")?;
            let group = Self::make(hierarchy, name)?;
            fs::write(group.0.join("cpu.max"), format!("{quota} {PERIOD}"))?;
            return Ok(group);
        }
        // Version 1 of the interface, which some machines still have.
        let group = Self::make(&hierarchy.join("cpu"), name)?;
        fs::write(group.0.join("cpu.cfs_period_us"), PERIOD.to_string())?;
        fs::write(group.0.join("cpu.cfs_quota_us"), quota.to_string())?;
        Ok(group)
    }

    /// Periods in which the group had something to do, and those in which it used up its quota.
    fn periods(&self) -> (f64, f64) {
        let text = fs::read_to_string(self.0.join("cpu.stat")).unwrap_or_default();
        let count = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            line.unwrap_or_default()
        };
        (count("nr_periods "), count("nr_throttled "))
    }

    fn make(parent: &Path, name: &str) -> Result<Self, Failure> {
        let path = parent.join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A process may take a moment to be gone; an empty group that stays harms nobody.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a hierarchy that a group is made in, and what a new group's say.
    fn group_in(name: &str, files: &[&str], written: &[&str]) -> Result<Vec<String>, Failure> {
        let hierarchy = std::env::temp_dir().join(format!("kserve-agent-quota-{name}-{}", std::process::id()));
        for file in files {
            let path = hierarchy.join(file);
            fs::create_dir_all(path.parent().unwrap_or(&hierarchy))?;
            fs::write(path, "")?;
        }
        let group = ControlGroup::new(&hierarchy, "g", 0.5);
        let texts = group.and_then(|group| {
            fs::write(group.0.join("cpu.stat"), "nr_periods 20\nnr_throttled 5\nthrottled_usec 7\n")?;
            assert_eq!(group.periods(), (20.0, 5.0));
            written.iter().map(|file| Ok(fs::read_to_string(hierarchy.join(file))?)).collect()
        });
        fs::remove_dir_all(&hierarchy)?;
        texts
    }

    #[test]
    fn half_a_processor_is_half_of_a_period_in_both_versions() -> Result<(), Failure> {
        let unified = group_in("v2", &["cgroup.controllers"], &["cgroup.subtree_control", "g/cpu.max"])?;
        assert_eq!(unified, ["+cpu", "50000 100000"]);
        let first = group_in("v1", &["cpu/tasks"], &["cpu/g/cpu.cfs_period_us", "cpu/g/cpu.cfs_quota_us"])?;
        assert_eq!(first, ["100000", "50000"]);
        Ok(())
    }
}
