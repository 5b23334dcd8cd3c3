//! What each proxy adds to a request when there is one connection, told in nanoseconds: all proxies in turn, every few
//! hundred requests another one, and everyone on a processor that is known.

use super::{Bench, CONNECTIONS, FAST, IRIS};
use crate::client::{BLOCK, Client, Turns};
use crate::failure::Failure;
use crate::model::{DIRECT, Distribution, Group, Kind};
use crate::options::Options;
use crate::peer::{Peer, find};
use crate::place;
use crate::stats::quantile;

/// All on one processor: what is measured is work.
pub(crate) const TOGETHER: &str = "one";
/// The client apart from the proxy and the server, as one of another machine would be: each request and each answer has
/// to wake a processor that sleeps.
pub(crate) const APART: &str = "one-apart";

const PLACES: [(&str, &str); 2] = [
    (TOGETHER, "1 connection, client, proxy and server on one processor"),
    (APART, "1 connection, the client on a processor of its own"),
];
/// Blocks of each peer in a round: 0.3 s of requests, so that dozens of them are slower than p99.
const TURNS: usize = 12;

/// More than elsewhere: it is a small difference that is to be told.
fn rounds(options: &Options) -> usize {
    Bench::rounds(options) * if options.quick { 1 } else { 3 }
}

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let runs = PLACES.len() * rounds(options);
    (runs, runs as f64 * seconds(6 + options.peer.len()))
}

fn seconds(peers: usize) -> f64 {
    (peers * TURNS) as f64 * BLOCK.as_secs_f64()
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let kitchen = bench.kitchen(CONNECTIONS);
    let server = bench.start(&kitchen.server()?)?;
    let (recipes, missing) = kitchen.proxies(server.port)?;
    for what in missing {
        bench.leave_out(&what);
    }
    let mut peers = vec![server];
    peers.extend(bench.start_all(&recipes));
    let mut turns = Turns::new(connect(bench, &peers));
    let processors = place::processors()?;
    for ((id, title), processor) in PLACES.into_iter().zip(processors.iter().copied()) {
        for peer in &peers {
            place::put_on(processor, peer)?;
        }
        bench.measured.open(id, title, Group::Single);
        all_rounds(bench, id, &mut turns, processors[0])?;
    }
    if processors.len() < PLACES.len() {
        bench.leave_out("one connection, the client apart: there is one processor");
    }
    Ok(())
}

/// A client for each peer that can be asked.
pub(super) fn connect<'p>(bench: &mut Bench<'_>, peers: impl IntoIterator<Item = &'p Peer>) -> Vec<Client> {
    let path = if find("nginx").is_some() { FAST } else { IRIS };
    let mut clients = Vec::new();
    for peer in peers {
        match Client::connect(&peer.name, peer.port, path) {
            Ok(client) => clients.push(client),
            Err(reason) => bench.leave_out(&format!("one connection: {reason}")),
        }
    }
    clients
}

/// All rounds of a scenario.
fn all_rounds(bench: &mut Bench<'_>, id: &str, turns: &mut Turns, processor: usize) -> Result<(), Failure> {
    let mut all = vec![Vec::new(); turns.clients.len()];
    let rounds = rounds(bench.options);
    for round in 1..=rounds {
        let what = format!("1 connection, all peers in turn, round {round} of {rounds}");
        bench.progress.step(seconds(turns.clients.len()), &what);
        let samples = turns.round(TURNS, processor)?;
        note(bench, id, &turns.clients, &samples);
        for (all, samples) in all.iter_mut().zip(samples) {
            all.extend(samples);
        }
    }
    for (client, mut samples) in turns.clients.iter().zip(all) {
        samples.sort_by(f64::total_cmp);
        let points = Distribution::PERCENTS.map(|percent| (percent, quantile(&samples, percent / 100.0))).to_vec();
        bench.measured.distributions.push(Distribution { scenario: id.to_owned(), peer: client.name.clone(), points });
    }
    Ok(())
}

/// The percentiles of a round, and by how much they are over the server's own in that round.
fn note(bench: &mut Bench<'_>, id: &str, clients: &[Client], samples: &[Vec<f64>]) {
    let direct = clients.iter().position(|client| client.name == DIRECT).map(|place| &samples[place]);
    for (client, samples) in clients.iter().zip(samples) {
        for (kind, share) in Kind::LATENCIES.into_iter().zip([0.5, 0.9, 0.99, 0.999]) {
            bench.measured.add(id, &client.name, kind, quantile(samples, share));
        }
        let Some(direct) = direct.filter(|_| client.name != DIRECT) else { continue };
        for (kind, share) in [(Kind::AddedP50, 0.5), (Kind::AddedP99, 0.99)] {
            bench.measured.add(id, &client.name, kind, quantile(samples, share) - quantile(direct, share));
        }
    }
}
