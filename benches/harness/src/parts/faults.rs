//! What a sink that fails does to requests: an agent whose sink does not do what it should, one whose sink does, and one
//! without a payload log, by one connection each in turn.
//!
//! The failing one is loaded first, so that tens of thousands of events wait, and come again.

use std::time::Duration;

use super::payload::{Agent, DEAD, HEALTHY, NO_LOG};
use super::single::connect;
use super::{Bench, CONNECTIONS, OVERHEAD};
use crate::client::{BLOCK, Turns};
use crate::failure::Failure;
use crate::load::{Load, Work};
use crate::model::{Group, Kind};
use crate::options::Options;
use crate::peer::Peer;
use crate::place;
use crate::sink::Way;
use crate::stats::quantile;

/// Scenario, the failing peer's name, and what its sink does; without a sink nobody listens.
const FAULTS: [(&str, &str, Option<Way>); 6] = [
    (DEAD_ID, DEAD, None),
    (TOO_MANY_ID, TOO_MANY, Some(Way::refusing(SAYS_TOO_MANY))),
    (BROKEN_ID, BROKEN, Some(Way::refusing(SAYS_BROKEN))),
    (GARBAGE_ID, GARBAGE, Some(Way::Lies(b"\0\x01 200 garbage\r\n\r\n"))),
    (SILENT_ID, SILENT, Some(Way::Silent)),
    (TRICKLE_ID, TRICKLE, Some(Way::Trickles(Duration::from_secs(1)))),
];
pub(crate) const DEAD_ID: &str = "fault-dead";
pub(crate) const TOO_MANY_ID: &str = "fault-429";
pub(crate) const TOO_MANY: &str = "sink that answers 429";
pub(crate) const BROKEN_ID: &str = "fault-500";
pub(crate) const BROKEN: &str = "sink that answers 500";
pub(crate) const GARBAGE_ID: &str = "fault-garbage";
pub(crate) const GARBAGE: &str = "sink that answers garbage";
pub(crate) const SILENT_ID: &str = "fault-silent";
pub(crate) const SILENT: &str = "sink that answers nothing";
pub(crate) const TRICKLE_ID: &str = "fault-trickle";
pub(crate) const TRICKLE: &str = "sink that reads a byte a second";

const SAYS_TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
const SAYS_BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

const LOAD_SECONDS: u32 = 1;
const LOAD_CONNECTIONS: usize = 64;
/// Blocks of each agent in a round: 0.4 s of requests, so that a hundred of them are slower than p99.
const TURNS: usize = 16;

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let runs = FAULTS.len() * Bench::rounds(options);
    (runs, runs as f64 * SECONDS)
}

const SECONDS: f64 = LOAD_SECONDS as f64 + (3 * TURNS) as f64 * BLOCK.as_secs_f64() + 4.0 * OVERHEAD;

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let server = bench.start(&bench.kitchen(CONNECTIONS).server()?)?;
    let load = bench.fast_load();
    for (id, name, _) in FAULTS {
        bench.measured.open(id, &format!("1 connection, payload log, {name}"), Group::Faults);
    }
    let rounds = Bench::rounds(bench.options);
    for round in 1..=rounds {
        for fault in FAULTS {
            let name = fault.1;
            bench.progress.step(SECONDS, &format!("payload log, a failing sink, round {round} of {rounds}: {name}"));
            if let Err(reason) = one(bench, &load, &server, fault) {
                bench.leave_out(&format!("payload log, sink: {name}: {reason}"));
            }
        }
    }
    Ok(())
}

fn one(
    bench: &mut Bench<'_>,
    load: &Load,
    server: &Peer,
    (id, name, way): (&str, &str, Option<Way>),
) -> Result<(), Failure> {
    let failing = Agent::start(bench, server.port, (name, way))?;
    let healthy = Agent::start(bench, server.port, (HEALTHY, Some(Way::HEALTHY)))?;
    let without = Agent::start(bench, server.port, (NO_LOG, None))?;
    let run = load.closed(&failing.peer, LOAD_CONNECTIONS, LOAD_SECONDS, Work::Predict(1))?;
    let peak = run.figures(Work::Predict(1), LOAD_CONNECTIONS).into_iter().find(|figure| figure.0 == Kind::Peak);
    if let Some((kind, value)) = peak {
        bench.measured.add(id, name, kind, value);
    }
    let processor = place::processors()?[0];
    let peers = [&without.peer, &healthy.peer, &failing.peer];
    for peer in peers.into_iter().chain([server]) {
        place::put_on(processor, peer)?;
    }
    let mut turns = Turns::new(connect(bench, peers));
    let samples = turns.round(TURNS, processor)?;
    for (client, samples) in turns.clients.iter().zip(samples) {
        for (kind, share) in [(Kind::P50, 0.5), (Kind::P99, 0.99)] {
            bench.measured.add(id, &client.name, kind, quantile(&samples, share));
        }
    }
    Ok(())
}
