//! The proxies with a tenth and a half of a processor, as a pod's limits give them. The server has no quota.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Bench, CONNECTIONS, Closed, OVERHEAD};
use crate::failure::Failure;
use crate::load::Work;
use crate::model::Group;
use crate::options::Options;

/// Processors, and how that is named.
const QUOTAS: [(f64, &str, &str); 2] = [
    (0.1, "quota-01", "a tenth of a processor, 16 connections"),
    (0.5, "quota-05", "half a processor, 16 connections"),
];
const LOAD: Closed = Closed { connections: 16, seconds: 1, work: Work::Predict(1) };
const PERIOD: u32 = 100_000;

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
            match ControlGroup::new(&format!("kserve-agent-bench-{}-{number}", std::process::id()), processors) {
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
            for peer in &peers {
                let what = format!("{title}, round {round} of {rounds}: {}", peer.name);
                bench.progress.step(f64::from(LOAD.seconds) + OVERHEAD, &what);
                bench.closed(&load, id, peer, LOAD);
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
    fn new(name: &str, processors: f64) -> Result<Self, Failure> {
        let quota = (processors * f64::from(PERIOD)).round();
        let unified = Path::new("/sys/fs/cgroup");
        if unified.join("cgroup.controllers").exists() {
            fs::write(unified.join("cgroup.subtree_control"), "+cpu")?;
            let group = Self::make(unified, name)?;
            fs::write(group.0.join("cpu.max"), format!("{quota} {PERIOD}"))?;
            return Ok(group);
        }
        // Version 1 of the interface, which some machines still have.
        let group = Self::make(&unified.join("cpu"), name)?;
        fs::write(group.0.join("cpu.cfs_period_us"), PERIOD.to_string())?;
        fs::write(group.0.join("cpu.cfs_quota_us"), quota.to_string())?;
        Ok(group)
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
