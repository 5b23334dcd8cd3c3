//! The payload log with a sink that takes events at once, one that takes a second for each answer, and none at all:
//! what it costs requests, what memory it takes, and whether every event comes.

use std::thread;
use std::time::{Duration, Instant};

use super::batcher::ask;
use super::{Bench, CONNECTIONS, OVERHEAD};
use crate::failure::Failure;
use crate::load::{Load, Work};
use crate::model::{Group, Kind};
use crate::options::Options;
use crate::parse::metric;
use crate::peer::{Peer, Recipe, free_port};
use crate::sink::{Sink, Way};

/// As fast as they go.
pub(crate) const FULL: &str = "log-64";
/// At a rate that leaves the processors idle most of the time.
pub(crate) const CALM: &str = "log-1000";
pub(crate) const NO_LOG: &str = "no log";
pub(crate) const HEALTHY: &str = "healthy sink";
pub(crate) const SLOW: &str = "slow sink";
pub(crate) const DEAD: &str = "dead sink";

const ROWS: [(&str, Option<Way>); 4] =
    [(NO_LOG, None), (HEALTHY, Some(Way::HEALTHY)), (SLOW, Some(Way::late(LATE))), (DEAD, None)];
const CLIENTS: usize = 64;
const RATE: usize = 1000;
/// A sink that is waited for by every worker most of the time.
const LATE: Duration = Duration::from_secs(1);
/// How long the last events may take after the load.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(2);

fn seconds(options: &Options) -> (u32, f64) {
    if options.quick { (1, 1.0) } else { (3, 1.5) }
}

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let runs = ROWS.len() * Bench::rounds(options);
    let (full, calm) = seconds(options);
    // An agent of its own for each, whose last events are waited for.
    (runs, runs as f64 * (f64::from(full) + calm + 2.0 * OVERHEAD + 1.0))
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let kitchen = bench.kitchen(CONNECTIONS);
    let server = bench.start(&kitchen.server()?)?;
    let load = bench.fast_load();
    bench.measured.open(FULL, "64 connections, every request and answer logged", Group::Payload);
    bench.measured.open(CALM, "1 000 requests/s, every request and answer logged", Group::Payload);
    let rounds = Bench::rounds(bench.options);
    let (full, calm) = seconds(bench.options);
    for round in 1..=rounds {
        for (name, way) in ROWS {
            let planned = f64::from(full) + calm + 2.0 * OVERHEAD + 1.0;
            bench.progress.step(planned, &format!("payload log, round {round} of {rounds}: {name}"));
            let ended = Agent::start(bench, server.port, (name, way)).and_then(|agent| one(bench, &load, name, &agent));
            if let Err(reason) = ended {
                bench.leave_out(&format!("payload log, {name}: {reason}"));
            }
        }
    }
    Ok(())
}

/// An agent with its sink, which goes after it.
pub(super) struct Agent {
    pub(super) peer: Peer,
    metrics: u16,
    sink: Option<Sink>,
}

impl Agent {
    /// `way`: of its sink, which is not there without.
    pub(super) fn start(bench: &Bench<'_>, server: u16, (name, way): (&str, Option<Way>)) -> Result<Self, Failure> {
        let sink = way.map(Sink::start).transpose()?;
        let metrics = free_port()?;
        let mut flags = vec!["--threads=1".to_owned(), format!("--metrics-port={metrics}")];
        if name != NO_LOG {
            // Nobody listens where nobody did a moment ago.
            let port = sink.as_ref().map_or_else(free_port, |sink| Ok(sink.port))?;
            flags.extend([format!("--log-url=http://127.0.0.1:{port}"), "--log-mode=all".to_owned()]);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let recipe: Recipe = bench.kitchen(CONNECTIONS).agent(name, server, &flags)?;
        Ok(Self { peer: bench.start(&recipe)?, metrics, sink })
    }

    fn events(&self) -> Result<Events, Failure> {
        let text = ask(self.metrics, "/metrics")?;
        let of = |name: &str| metric(&text, name).unwrap_or_default();
        Ok(Events {
            accepted: of(ACCEPTED),
            sent: of("kserve_logger_events_sent_total"),
            failed: of("kserve_logger_events_failed_total"),
            dropped: of("kserve_logger_events_dropped_total"),
        })
    }

    /// How long it takes until no event waits any more.
    fn lag(&self) -> Result<f64, Failure> {
        let began = Instant::now();
        loop {
            let events = self.events()?;
            if events.sent + events.failed >= events.accepted || began.elapsed() > PATIENCE {
                return Ok(began.elapsed().as_secs_f64());
            }
            thread::sleep(LOOK);
        }
    }
}

/// The agent's own count.
struct Events {
    accepted: f64,
    sent: f64,
    failed: f64,
    dropped: f64,
}

const ACCEPTED: &str = "kserve_logger_events_accepted_total";

/// Both loads, one after the other.
fn one(bench: &mut Bench<'_>, load: &Load, name: &str, agent: &Agent) -> Result<(), Failure> {
    let (full, calm) = seconds(bench.options);
    let (run, _) = load.open(&agent.peer, RATE, calm)?;
    for (kind, value) in run.figures(Work::Predict(1), 1) {
        bench.measured.add(CALM, name, kind, value);
    }
    let is_healthy = name == HEALTHY;
    if is_healthy {
        agent.lag()?;
    }
    let received = || agent.sink.as_ref().map_or(0.0, Sink::received);
    let (before, received_before) = (agent.events()?, received());
    let run = load.closed(&agent.peer, CLIENTS, full, Work::Predict(1))?;
    for (kind, value) in run.figures(Work::Predict(1), CLIENTS) {
        bench.measured.add(FULL, name, kind, value);
    }
    if name == NO_LOG {
        return Ok(());
    }
    let mut add = |kind, value| bench.measured.add(FULL, name, kind, value);
    if is_healthy {
        add(Kind::Lag, agent.lag()?);
        // An event of each request that was answered, and one of its answer.
        add(Kind::Lost, (2.0 * run.count.requests - (received() - received_before)).max(0.0));
    }
    let after = agent.events()?;
    add(Kind::Accepted, after.accepted - before.accepted);
    add(Kind::Sent, after.sent - before.sent);
    add(Kind::Failed, after.failed - before.failed);
    add(Kind::Dropped, after.dropped - before.dropped);
    Ok(())
}
