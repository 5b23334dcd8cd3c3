//! The batcher's policies in front of the KServe SDK's own server (iris, scikit-learn, one process), where its Python
//! packages are there; and what a call of that server costs by its size.

use std::time::Duration;

use super::batcher::{Cell, alternate, ask, client, policies};
use super::{Bench, CONNECTIONS, IRIS, OVERHEAD};
use crate::failure::Failure;
use crate::load::Work;
use crate::model::{Group, Kind};
use crate::options::Options;
use crate::peer::{Peer, Recipe, free_port};

pub(crate) const SWEEP: &str = "kserve-sweep";

const CLIENTS: [usize; 3] = [8, 32, 64];
const SIZES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// Its imports take seconds.
const START: f64 = 8.0;

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let runs = (CLIENTS.len() * 4 + SIZES.len()) * Bench::rounds(options);
    (runs, START + runs as f64 * (1.0 + OVERHEAD))
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let given = bench.options.kserve.as_deref().and_then(|given| given.split_once(','));
    let Some((python, script)) = given.filter(|(python, _)| std::path::Path::new(python).exists()) else {
        bench.leave_out("the KServe SDK's server: its Python packages are not installed (`make bench-kserve` does)");
        return Ok(());
    };
    let port = free_port()?;
    let words = [python, script, &format!("--http_port={port}"), "--enable_grpc=false"].map(str::to_owned).to_vec();
    let recipe = Recipe { name: "KServe SDK".to_owned(), port, words, fault: false };
    let server = Peer::start(&recipe, Duration::from_secs(60))?.settle();
    // Imports what the first request needs.
    client()
        .post(format!("http://127.0.0.1:{port}{IRIS}"))
        .content_type("application/json")
        .send(r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#)?;
    let calls = move |_: &Cell| kserve_calls(port);
    let kitchen = bench.kitchen(CONNECTIONS);
    let load = bench.load(IRIS);
    let mut cells = Vec::new();
    for (name, policy) in policies(20) {
        let policy: Vec<&str> = policy.iter().map(String::as_str).collect();
        let target = bench.start(&kitchen.agent(&name, port, &policy)?)?;
        cells.push(Cell { name, target, server: None, instances: 1, connections: None });
    }
    for clients in CLIENTS {
        let (id, title) = (format!("kserve-{clients}"), format!("iris, {clients} clients"));
        bench.measured.open(&id, &title, Group::Kserve);
        alternate(bench, &load, (&id, &title), clients, &cells, &calls);
    }
    drop(cells);
    sweep(bench, &server)
}

/// One call at a time, of more and more instances.
fn sweep(bench: &mut Bench<'_>, server: &Peer) -> Result<(), Failure> {
    bench.measured.open(SWEEP, "one call at a time, by its number of instances", Group::Kserve);
    let load = bench.load(IRIS);
    let rounds = Bench::rounds(bench.options);
    for round in 1..=rounds {
        for size in SIZES {
            bench.progress.step(1.0 + OVERHEAD, &format!("calls by size, round {round} of {rounds}: {size} instances"));
            let run = load.closed(server, 1, 1, Work::Predict(size))?;
            let name = size.to_string();
            bench.measured.add(SWEEP, &name, Kind::Call, run.count.latency[0] / 1e3);
            bench.measured.add(SWEEP, &name, Kind::Rate, run.rate() * size as f64);
        }
    }
    Ok(())
}

fn kserve_calls(port: u16) -> Result<f64, Failure> {
    let text = ask(port, "/metrics")?;
    let line = text.lines().find(|line| line.starts_with("request_predict_seconds_count"));
    let count = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
    count.ok_or_else(|| Failure::new("the KServe SDK's server does not count its calls"))
}
