//! The batcher's policies in front of example servers with a known cost, each policy with a server of its own.

use std::thread;
use std::time::Duration;

use super::{Bench, CONNECTIONS, IRIS, OVERHEAD};
use crate::failure::Failure;
use crate::load::{Load, Run, Work};
use crate::model::{Group, Kind};
use crate::options::Options;
use crate::peer::Peer;
use crate::process;

pub(crate) const NO_BATCHER: &str = "no batcher";
pub(crate) const EAGER: &str = "eager";
pub(crate) const ADAPTIVE: &str = "adaptive";
pub(crate) const FULL: &str = "full batches of 32, posted straight";
pub(crate) const CAP: usize = 32;
pub(crate) const IDLE: &str = "batcher-idle";

const CLIENTS: [usize; 4] = [1, 32, 128, 512];
/// Two processors of the server's own would be idle while the third call is on its way.
const FULL_CONNECTIONS: usize = 3;
const COST: [&str; 2] = ["--cost-ms=5", "--cost-per-instance-ms=0.1"];
const SERVERS: [(&str, &str); 3] = [
    ("a", "a server that answers at once"),
    ("b", "one call at a time, 5 ms and 0.1 ms per instance"),
    ("c", "the same cost, calls in parallel"),
];

/// The name of a policy's row, and the agent's flags; `window` in milliseconds.
pub(crate) fn policies(window: u32) -> Vec<(String, Vec<String>)> {
    let on = |more: &[&str]| {
        let flags = ["--enable-batcher", "--max-batchsize=32"].iter().chain(more);
        flags.map(|flag| (*flag).to_owned()).collect()
    };
    vec![
        (NO_BATCHER.to_owned(), Vec::new()),
        (format!("window, {window} ms"), on(&["--batch-policy=window", &format!("--max-latency={window}")])),
        (EAGER.to_owned(), on(&["--batch-policy=eager", "--max-latency=1000"])),
        (ADAPTIVE.to_owned(), on(&["--batch-policy=adaptive", "--max-latency=1000"])),
    ]
}

/// Where the load of a row goes, and how the calls of its server are counted.
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) target: Peer,
    /// `None`: the target is the server, which is told from outside.
    pub(crate) server: Option<Peer>,
    /// Flowers in each request.
    pub(crate) instances: usize,
    /// The same for any number of clients, where it is given.
    pub(crate) connections: Option<usize>,
}

fn clients(options: &Options, server: &str) -> Vec<usize> {
    match (options.quick, server) {
        (true, "c") => Vec::new(),
        (true, _) => vec![128],
        _ => CLIENTS.to_vec(),
    }
}

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let rows = |server: &str| if server == "a" { 4 } else { 5 };
    let cells: usize = SERVERS.iter().map(|(id, _)| rows(id) * clients(options, id).len()).sum();
    let runs = cells * Bench::rounds(options);
    (runs, runs as f64 * (1.0 + OVERHEAD) + if options.quick { 0.0 } else { 14.0 })
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    for (id, title) in SERVERS {
        let clients = clients(bench.options, id);
        if clients.is_empty() {
            continue;
        }
        let cells = cells(bench, id)?;
        let load = bench.load(IRIS);
        for count in clients {
            let scenario = format!("batcher-{id}-{count}");
            let title = format!("{title}, {count} client{}", if count == 1 { "" } else { "s" });
            bench.measured.open(&scenario, &title, Group::Batcher);
            let ask = |cell: &Cell| cell.server.as_ref().unwrap_or(&cell.target).port;
            alternate(bench, &load, (&scenario, &title), count, &cells, &|cell| example_calls(ask(cell)));
            shares(bench, &scenario);
        }
    }
    if bench.options.quick { Ok(()) } else { idle(bench) }
}

fn cells(bench: &Bench<'_>, id: &str) -> Result<Vec<Cell>, Failure> {
    let kitchen = bench.kitchen(CONNECTIONS);
    let flags: Vec<&str> = match id {
        "b" => COST.into_iter().chain(["--serial"]).collect(),
        "c" => COST.to_vec(),
        _ => Vec::new(),
    };
    let mut rows = policies(10);
    if id == "c" {
        let (_, mut eager) = rows[2].clone();
        eager.push("--batch-concurrency=32".to_owned());
        rows.push(("eager, 32 at once".to_owned(), eager));
    }
    let mut cells = Vec::new();
    for (name, policy) in rows {
        let server = bench.start(&kitchen.model_server("server", &flags)?)?;
        let policy: Vec<&str> = policy.iter().map(String::as_str).collect();
        let target = bench.start(&kitchen.agent(&name, server.port, &policy)?)?;
        cells.push(Cell { name, target, server: Some(server), instances: 1, connections: None });
    }
    if id == "b" {
        let target = bench.start(&kitchen.model_server(FULL, &flags)?)?;
        let connections = Some(FULL_CONNECTIONS);
        cells.push(Cell { name: FULL.to_owned(), target, server: None, instances: CAP, connections });
    }
    Ok(cells)
}

/// Rounds over all cells; `calls` tells how many calls the server of one has had.
pub(crate) fn alternate(
    bench: &mut Bench<'_>,
    load: &Load,
    (id, title): (&str, &str),
    clients: usize,
    cells: &[Cell],
    calls: &dyn Fn(&Cell) -> Result<f64, Failure>,
) {
    let rounds = Bench::rounds(bench.options);
    for round in 1..=rounds {
        for cell in cells {
            bench.progress.step(1.0 + OVERHEAD, &format!("{title}, round {round} of {rounds}: {}", cell.name));
            let run = || -> Result<(Run, f64), Failure> {
                let before = calls(cell)?;
                let connections = cell.connections.unwrap_or(clients);
                let run = load.closed(&cell.target, connections, 1, Work::Predict(cell.instances))?;
                let made = (calls(cell)? - before).max(1.0);
                let per_call = run.count.requests * cell.instances as f64 / made;
                Ok((run, per_call))
            };
            match run() {
                Ok((run, per_call)) => note(bench, id, cell, &run, per_call),
                Err(reason) => bench.leave_out(&format!("{title}: {reason}")),
            }
        }
    }
}

fn note(bench: &mut Bench<'_>, id: &str, cell: &Cell, run: &Run, per_call: f64) {
    let mut add = |kind, value| bench.measured.add(id, &cell.name, kind, value);
    add(Kind::Rate, run.rate() * cell.instances as f64);
    // A server that is asked directly is no agent.
    if cell.instances == 1 {
        add(Kind::Cpu, run.cpu);
    }
    for (kind, value) in Kind::LATENCIES.into_iter().zip(run.count.latency) {
        add(kind, value);
    }
    add(Kind::PerCall, per_call);
    add(Kind::Errors, run.count.errors);
}

/// What each row reaches of what full batches do, round by round.
fn shares(bench: &mut Bench<'_>, id: &str) {
    let full = bench.measured.runs(id, FULL, Kind::Rate).to_vec();
    let names: Vec<String> = bench.measured.peers(id).into_iter().map(str::to_owned).collect();
    for name in names {
        let runs = bench.measured.runs(id, &name, Kind::Rate).to_vec();
        for share in crate::stats::paired(&runs, &full, |rate, full| rate / full * 100.0) {
            bench.measured.add(id, &name, Kind::Share, share);
        }
    }
}

/// Context switches while nothing is asked for. Connections that are kept for 3 s after traffic are given time to go.
fn idle(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let cells = cells(bench, "a")?;
    let load = bench.load(IRIS);
    bench.measured.open(IDLE, "idle, after traffic", Group::Batcher);
    for cell in &cells {
        load.closed(&cell.target, 32, 1, Work::Predict(1))?;
    }
    thread::sleep(Duration::from_secs(5));
    let before: Vec<f64> = cells.iter().map(|cell| process::switches(cell.target.pid)).collect();
    thread::sleep(Duration::from_secs(3));
    for (cell, before) in cells.iter().zip(before) {
        bench.measured.add(IDLE, &cell.name, Kind::WakeUps, process::switches(cell.target.pid) - before);
    }
    Ok(())
}

/// A GET's answer.
pub(crate) fn ask(port: u16, path: &str) -> Result<String, Failure> {
    Ok(client().get(format!("http://127.0.0.1:{port}{path}")).call()?.body_mut().read_to_string()?)
}

pub(crate) fn client() -> ureq::Agent {
    ureq::Agent::new_with_config(ureq::Agent::config_builder().proxy(None).build())
}

fn example_calls(port: u16) -> Result<f64, Failure> {
    let stats: serde_json::Value = serde_json::from_str(&ask(port, "/v2/models/iris/stats")?)?;
    let count = stats.pointer("/model_stats/0/execution_count").and_then(serde_json::Value::as_f64);
    count.ok_or_else(|| Failure::new("the example server does not count its calls"))
}
