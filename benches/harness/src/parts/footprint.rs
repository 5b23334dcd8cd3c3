//! What a peer takes without work: memory idle, per idle and per active connection, start, size of the program.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Bench;
use crate::failure::Failure;
use crate::model::{AGENT, BASELINE, Group, Kind};
use crate::options::Options;
use crate::peer::{GET, Peer, Recipe, free_port};
use crate::stats::show;

pub(crate) const START: &str = "start";
pub(crate) const IDLE: &str = "idle";
pub(crate) const ACTIVE: &str = "active";
pub(crate) const EVERYTHING: &str = "kserve-agent, everything on";

/// Connections with a request that the server is working on.
const IN_FLIGHT: usize = 500;
/// A thread for each connection: measured with fewer.
const THREADED: usize = 1000;
/// Descriptors of a proxy that are no connection's, and of the harness.
const SPARE: usize = 600;
/// Seconds that the connections of a peer take to be made.
const SECONDS: f64 = 3.0;

/// Runs and seconds.
pub(crate) fn plan(options: &Options) -> (usize, f64) {
    let peers = 6 + options.peer.len();
    (3 * peers, peers as f64 * 2.0 * SECONDS)
}

pub(crate) fn run(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let idle = idle_connections(bench);
    start(bench)?;
    idle_cost(bench, idle)?;
    active_cost(bench)
}

/// As many as were asked for, or as the limit of descriptors allows: a proxy in TCP mode has two for each.
fn idle_connections(bench: &mut Bench<'_>) -> usize {
    let asked = bench.options.idle.unwrap_or(if bench.options.quick { 1000 } else { 10_000 });
    let limit = raise_descriptors(2 * asked + SPARE);
    let possible = limit.saturating_sub(SPARE) / 2;
    if possible < asked {
        bench.leave_out(&format!(
            "{asked} idle connections: RLIMIT_NOFILE of {limit} allows {possible}, so it was those (raising it takes CAP_SYS_RESOURCE)"
        ));
    }
    asked.min(possible)
}

/// Asks for so many descriptors, for the harness and what it starts, and returns how many there are now.
fn raise_descriptors(wanted: usize) -> usize {
    let now = getrlimit(Resource::Nofile);
    let (wanted, hard) = (wanted as u64, now.maximum.unwrap_or(u64::MAX));
    if now.current.is_some_and(|current| current < wanted) {
        let limit = |current, maximum| Rlimit { current: Some(current), maximum: Some(maximum) };
        // What may not be raised stays as it is, and is read below.
        if setrlimit(Resource::Nofile, limit(wanted, hard.max(wanted))).is_err() {
            let _ = setrlimit(Resource::Nofile, limit(hard, hard));
        }
    }
    let count = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn start(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let kitchen = bench.kitchen(super::CONNECTIONS);
    let server = bench.start(&kitchen.server()?)?;
    bench.measured.open(START, "start and size", Group::Footprint);
    for _ in 0..Bench::rounds(bench.options) {
        // A port for each start, so that none waits for an earlier one's.
        for recipe in kitchen.proxies(server.port)?.0 {
            match Peer::start(&recipe, Duration::from_secs(10)) {
                Ok(mut peer) => {
                    let listened = peer.listened.as_secs_f64() * 1e3;
                    bench.measured.add(START, &recipe.name, Kind::Listening, listened);
                    let answered = peer.first_answer()?.as_secs_f64() * 1e3;
                    bench.measured.add(START, &recipe.name, Kind::FirstAnswer, answered);
                }
                Err(reason) => bench.leave_out(&format!("{}: {reason}", recipe.name)),
            }
        }
    }
    for recipe in kitchen.proxies(server.port)?.0 {
        bench.progress.step(0.0, &format!("size: {}", recipe.name));
        if let Some(size) = recipe.words.first().and_then(|program| fs::metadata(program).ok()) {
            bench.measured.add(START, &recipe.name, Kind::Binary, size.len() as f64 / 1e6);
        }
    }
    let size = image(bench);
    bench.measured.add(START, AGENT, Kind::Image, size / 1e6);
    Ok(())
}

/// Bytes of the image, where `make image` has made one; of what it would have otherwise.
fn image(bench: &mut Bench<'_>) -> f64 {
    let size_by = |engine: &&str| {
        let output = Command::new(engine).args(["image", "inspect", "--format", "{{.Size}}", IMAGE]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().ok()
    };
    if let Some(size) = ENGINES.iter().find_map(size_by) {
        return size;
    }
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len()) as f64;
    bench.leave_out(
        "the image itself: `make image` has made none that an engine here knows; given is the size of its binary and of \
         this machine's CA certificates, without its base's time zones (1.5 MB) and accounts",
    );
    size(&bench.options.agent) + size(Path::new(CERTIFICATES))
}

const ENGINES: [&str; 2] = ["docker", "podman"];
const IMAGE: &str = "kserve-agent:latest";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

fn idle_cost(bench: &mut Bench<'_>, count: usize) -> Result<(), Failure> {
    let kitchen = bench.kitchen(count + 200);
    let server = bench.start(&kitchen.server()?)?;
    let mut recipes = kitchen.proxies(server.port)?.0;
    let ports = [format!("--metrics-port={}", free_port()?), format!("--admin-port={}", free_port()?)];
    let everything = ["--threads=1", "--enable-batcher", &ports[0], &ports[1]];
    recipes.insert(1, kitchen.agent(EVERYTHING, server.port, &everything)?);
    bench.measured.open(
        IDLE,
        &format!("{} idle connections, each has carried a request", show(count as f64)),
        Group::Footprint,
    );
    for recipe in &recipes {
        let connections = if recipe.name == BASELINE { count.min(THREADED) } else { count };
        bench.progress.step(SECONDS, &format!("{connections} idle connections: {}", recipe.name));
        match idle_of(bench, recipe, connections) {
            Ok((idle, each)) => {
                bench.measured.add(IDLE, &recipe.name, Kind::Idle, idle / f64::from(1 << 20));
                bench.measured.add(IDLE, &recipe.name, Kind::PerIdle, each);
            }
            Err(reason) => bench.leave_out(&format!("idle connections of {}: {reason}", recipe.name)),
        }
    }
    Ok(())
}

fn idle_of(bench: &Bench<'_>, recipe: &Recipe, count: usize) -> Result<(f64, f64), Failure> {
    let peer = bench.start(recipe)?;
    let before = peer.memory("VmRSS:")?;
    let mut clients = Vec::with_capacity(count);
    let mut buf = [0; 4096];
    for _ in 0..count {
        let mut client = connect(peer.port)?;
        client.write_all(GET)?;
        if client.read(&mut buf)? == 0 {
            return Err(Failure::new(format!("closed the connection after {} others", clients.len())));
        }
        clients.push(client);
    }
    Ok((before, (peer.memory("VmRSS:")? - before) / count as f64))
}

/// The server takes its time, so that all connections wait for it at once.
fn active_cost(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let kitchen = bench.kitchen(super::CONNECTIONS);
    let server = bench.start(&kitchen.model_server("slow server", &["--cost-ms=2500"])?)?;
    bench.measured.open(ACTIVE, &format!("{IN_FLIGHT} requests in flight at a slow server"), Group::Footprint);
    for recipe in kitchen.proxies(server.port)?.0 {
        bench.progress.step(SECONDS, &format!("{IN_FLIGHT} active connections: {}", recipe.name));
        match active_of(bench, &recipe) {
            Ok(each) => bench.measured.add(ACTIVE, &recipe.name, Kind::PerActive, each),
            Err(reason) => bench.leave_out(&format!("active connections of {}: {reason}", recipe.name)),
        }
    }
    Ok(())
}

fn active_of(bench: &Bench<'_>, recipe: &Recipe) -> Result<f64, Failure> {
    let body = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
    let request = format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", super::IRIS, body.len());
    let peer = bench.start(recipe)?;
    let before = peer.memory("VmRSS:")?;
    let mut clients = Vec::with_capacity(IN_FLIGHT);
    for _ in 0..IN_FLIGHT {
        let mut client = connect(peer.port)?;
        client.write_all(request.as_bytes())?;
        clients.push(client);
    }
    // They are passed on meanwhile; none is answered before.
    thread::sleep(Duration::from_millis(1000));
    let each = (peer.memory("VmRSS:")? - before) / IN_FLIGHT as f64;
    let mut buf = [0; 4096];
    // Those behind blocking workers would take minutes.
    if recipe.name == AGENT && !clients.iter_mut().all(|client| client.read(&mut buf).is_ok_and(|count| count > 0)) {
        return Err(Failure::new("a request was not answered"));
    }
    Ok(each)
}

fn connect(port: u16) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}
