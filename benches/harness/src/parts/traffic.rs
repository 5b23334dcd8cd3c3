//! All proxies in front of the fast server: connections, fixed rates, bodies. Rounds alternate between the peers.

use std::thread;
use std::time::Duration;

use super::{Bench, CONNECTIONS, Closed, OVERHEAD};
use crate::failure::Failure;
use crate::load::{Load, Work};
use crate::model::{DIRECT, Distribution, Group, Kind};
use crate::options::Options;
use crate::parse::Log;
use crate::peer::Peer;
use crate::process::Used;

/// What is asked of every peer in its turn.
#[derive(Debug, Clone, Copy)]
enum Drive {
    Closed(Closed),
    /// Requests per second.
    Open(usize),
}

struct Scenario {
    id: &'static str,
    title: &'static str,
    group: Group,
    drive: Drive,
    is_quick: bool,
}

const LOOK: Duration = Duration::from_millis(100);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const fn closed(
    id: &'static str,
    title: &'static str,
    group: Group,
    to: (usize, u32, Work),
    is_quick: bool,
) -> Scenario {
    let (connections, seconds, work) = to;
    Scenario { id, title, group, drive: Drive::Closed(Closed { connections, seconds, work }), is_quick }
}

const fn open(id: &'static str, title: &'static str, rate: usize, is_quick: bool) -> Scenario {
    Scenario { id, title, group: Group::Rates, drive: Drive::Open(rate), is_quick }
}

const SCENARIOS: [Scenario; 15] = [
    closed("c1", "1 connection", Group::Connections, (1, 2, Work::Predict(1)), true),
    closed("c16", "16 connections", Group::Connections, (16, 1, Work::Predict(1)), false),
    closed("c64", "64 connections", Group::Connections, (64, 2, Work::Predict(1)), true),
    closed("c256", "256 connections", Group::Connections, (256, 1, Work::Predict(1)), false),
    closed("c1000", "1 000 connections", Group::Connections, (1000, 1, Work::Predict(1)), false),
    closed("close", "a new connection per request, 32 clients", Group::Connections, (32, 2, Work::Close), false),
    open("r1000", "1 000 requests/s", 1000, false),
    open("r5000", "5 000 requests/s", 5000, true),
    open("r20000", "20 000 requests/s", 20_000, false),
    closed("up-64k", "64 KiB up, 8 connections", Group::Bodies, (8, 1, Work::Upload(64 * KIB)), false),
    closed("up-1m", "1 MiB up, 8 connections", Group::Bodies, (8, 2, Work::Upload(MIB)), false),
    closed("up-10m", "10 MiB up, 8 connections", Group::Bodies, (8, 1, Work::Upload(10 * MIB)), false),
    closed("down-64k", "64 KiB down, 8 connections", Group::Bodies, (8, 1, Work::Download(64 * KIB)), false),
    closed("down-1m", "1 MiB down, 8 connections", Group::Bodies, (8, 1, Work::Download(MIB)), false),
    closed("down-10m", "10 MiB down, 8 connections", Group::Bodies, (8, 2, Work::Download(10 * MIB)), true),
];

fn chosen(options: &Options, parts: &[Group]) -> Vec<&'static Scenario> {
    SCENARIOS.iter().filter(|one| parts.contains(&one.group) && (one.is_quick || !options.quick)).collect()
}

impl Drive {
    fn seconds(self, quick: bool) -> f64 {
        match self {
            Self::Closed(to) => OVERHEAD + if quick { 1.0 } else { f64::from(to.seconds) },
            Self::Open(_) => OVERHEAD + open_seconds(quick),
        }
    }
}

fn open_seconds(quick: bool) -> f64 {
    if quick { 1.5 } else { 2.5 }
}

/// Runs and seconds.
pub(crate) fn plan(options: &Options, parts: &[Group]) -> (usize, f64) {
    let peers = 6 + options.peer.len();
    let runs = peers * Bench::rounds(options);
    let chosen = chosen(options, parts);
    let seconds: f64 = chosen.iter().map(|one| one.drive.seconds(options.quick)).sum();
    (runs * chosen.len(), seconds * runs as f64)
}

pub(crate) fn run(bench: &mut Bench<'_>, parts: &[Group]) -> Result<(), Failure> {
    let chosen = chosen(bench.options, parts);
    if chosen.is_empty() {
        return Ok(());
    }
    make_files(bench)?;
    let kitchen = bench.kitchen(CONNECTIONS);
    let server = bench.start(&kitchen.server()?)?;
    let (recipes, missing) = kitchen.proxies(server.port)?;
    for what in missing {
        bench.leave_out(&what);
    }
    let has_files = crate::peer::find("nginx").is_some();
    let load = bench.fast_load();
    let mut peers = vec![server];
    peers.extend(bench.start_all(&recipes));
    for scenario in chosen {
        if scenario.group == Group::Bodies && !has_files {
            bench.leave_out("large bodies: the fast server, nginx, is not installed");
            continue;
        }
        bench.measured.open(scenario.id, scenario.title, scenario.group);
        alternate(bench, &load, scenario, &peers);
        look_for_spinning(bench, scenario, &peers);
    }
    if parts.contains(&Group::Connections) {
        count_calls(bench, &load, &peers);
    }
    Ok(())
}

fn alternate(bench: &mut Bench<'_>, load: &Load, scenario: &Scenario, peers: &[Peer]) {
    let rounds = Bench::rounds(bench.options);
    let mut logs = vec![Vec::new(); peers.len()];
    for round in 1..=rounds {
        for (peer, log) in peers.iter().zip(&mut logs) {
            let what = format!("{}, round {round} of {rounds}: {}", scenario.title, peer.name);
            bench.progress.step(scenario.drive.seconds(bench.options.quick), &what);
            match scenario.drive {
                Drive::Closed(to) => bench.closed(load, scenario.id, peer, to),
                Drive::Open(rate) => log.extend(fixed_rate(bench, load, scenario.id, peer, rate)),
            }
        }
    }
    for (peer, mut latencies) in peers.iter().zip(logs) {
        if !latencies.is_empty() {
            latencies.sort_by(f64::total_cmp);
            let all = Log { latencies, ..Log::default() };
            let points = Distribution::PERCENTS.map(|percent| (percent, all.percentile(percent))).to_vec();
            let (scenario, peer) = (scenario.id.to_owned(), peer.name.clone());
            bench.measured.distributions.push(Distribution { scenario, peer, points });
        }
    }
}

/// A peer that is busy without work would be measured along with all that come after it.
fn look_for_spinning(bench: &mut Bench<'_>, scenario: &Scenario, peers: &[Peer]) {
    thread::sleep(LOOK);
    let before: Vec<Used> = peers.iter().map(|peer| Used::by(&peer.processes())).collect();
    thread::sleep(LOOK);
    for (peer, before) in peers.iter().zip(before) {
        let share = Used::by(&peer.processes()).since(&before) / LOOK.as_secs_f64();
        if share > 0.1 {
            bench.leave_out(&format!(
                "figures after “{}” are disturbed: {} went on using {:.0} % of a processor without work",
                scenario.title,
                peer.name,
                share * 100.0
            ));
        }
    }
}

/// The latencies of one run, which also adds its figures.
fn fixed_rate(bench: &mut Bench<'_>, load: &Load, id: &str, peer: &Peer, rate: usize) -> Vec<f64> {
    match load.open(peer, rate, open_seconds(bench.options.quick)) {
        Ok((run, log)) => {
            for (kind, value) in run.figures(Work::Predict(1), 1) {
                bench.measured.add(id, &peer.name, kind, value);
            }
            log.latencies
        }
        Err(reason) => {
            bench.leave_out(&format!("{id}: {reason}"));
            Vec::new()
        }
    }
}

fn count_calls(bench: &mut Bench<'_>, load: &Load, peers: &[Peer]) {
    if crate::peer::find("strace").is_none() {
        bench.leave_out("socket calls per request: strace is not installed");
        return;
    }
    bench.measured.open("calls", "calls per request, 16 connections, counted by strace", Group::Connections);
    for peer in peers.iter().filter(|peer| peer.name != DIRECT) {
        match load.calls(peer) {
            Ok((bytes, polls)) => {
                bench.measured.add("calls", &peer.name, Kind::Calls, bytes);
                bench.measured.add("calls", &peer.name, Kind::Polls, polls);
            }
            Err(reason) => bench.leave_out(&format!("socket calls of {}: {reason}", peer.name)),
        }
    }
}

/// What the fast server has to download. Not zeros, which a file system may not store.
fn make_files(bench: &Bench<'_>) -> Result<(), Failure> {
    let folder = bench.folder.join("files");
    std::fs::create_dir_all(&folder)?;
    for scenario in &SCENARIOS {
        if let Drive::Closed(Closed { work: Work::Download(size), .. }) = scenario.drive {
            std::fs::write(folder.join(size.to_string()), b"kserve-agent ".repeat(size / 13 + 1).split_at(size).0)?;
        }
    }
    Ok(())
}
