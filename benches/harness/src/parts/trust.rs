//! The agent against itself under two names, and against itself slowed by 20 µs per request: can this machine, today,
//! tell the same from the different?

use super::{Bench, CONNECTIONS, Closed, OVERHEAD};
use crate::failure::Failure;
use crate::load::Work;
use crate::model::{AGENT, Group};
use crate::options::Options;

pub(crate) const ID: &str = "self";
pub(crate) const AGAIN: &str = "kserve-agent again";
pub(crate) const FAULTY: &str = "test build";
pub(crate) const SLOWED: &str = "test build, slowed by 20 µs";

const PEERS: usize = 5;
const LOAD: Closed = Closed { connections: 64, seconds: 2, work: Work::Predict(1) };

fn rounds(options: &Options) -> usize {
    Bench::rounds(options) + if options.quick { 0 } else { 2 }
}

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let runs = PEERS * rounds(options);
    (runs, runs as f64 * seconds(options))
}

fn seconds(options: &Options) -> f64 {
    OVERHEAD + if options.quick { 1.0 } else { f64::from(LOAD.seconds) }
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let kitchen = bench.kitchen(CONNECTIONS);
    let server = bench.start(&kitchen.server()?)?;
    let recipes = [
        kitchen.agent(AGENT, server.port, &["--threads=1"])?,
        kitchen.agent(AGAIN, server.port, &["--threads=1"])?,
        kitchen.faulty(FAULTY, server.port, false)?,
        kitchen.faulty(SLOWED, server.port, true)?,
    ];
    let load = bench.fast_load();
    let mut peers = vec![server];
    peers.extend(bench.start_all(&recipes));
    bench.measured.open(ID, "64 connections, the agent beside itself", Group::Trust);
    let rounds = rounds(bench.options);
    for round in 1..=rounds {
        for peer in &peers {
            bench.progress.step(seconds(bench.options), &format!("itself, round {round} of {rounds}: {}", peer.name));
            bench.closed(&load, ID, peer, LOAD);
        }
    }
    Ok(())
}
