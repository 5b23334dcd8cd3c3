//! What the agent writes to its log: SPEC O3.

use std::io::Write;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::agent::free_port;
use crate::support::{Agent, OK, PATIENCE, Peer, Server, Wire, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Waits until the agent has said all that it says at the start.
fn started(agent: &Agent) -> String {
    until("it serves", || agent.log().contains("serving on port"));
    agent.log()
}

fn lines(agent: &Agent, what: &str) -> Vec<String> {
    agent.log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
}

#[test]
fn a_failing_server_is_one_line_with_a_count_at_the_end_and_its_return_another() {
    let port = free_port();
    let mut agent = Agent::start(port, &["--threads=1", "--drain-period=1ms"]);
    for _ in 0..50 {
        assert_eq!(agent.ask(GET).status(), 502);
    }
    until("it says so", || !lines(&agent, "connection refused").is_empty());
    let said = lines(&agent, "connection refused");
    assert_eq!(said.len(), 1, "{}", agent.log());
    assert!(said[0].contains("[WARN] model server: connection refused"), "{}", said[0]);
    let _server = Server::start_on(port, |mut peer: Peer| {
        while peer.request().is_some() {
            peer.wire.send(OK);
        }
    });
    assert_eq!(agent.ask(GET).status(), 200);
    until("it says so", || !lines(&agent, "answers again").is_empty());
    agent.signal(Signal::TERM);
    agent.wait(PATIENCE);
    until("it tells what it left out", || !lines(&agent, "connect: 49 more like it").is_empty());
}

#[test]
fn good_traffic_writes_nothing() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    assert_eq!(agent.ask(GET).status(), 200);
    let before = started(&agent);
    for _ in 0..100 {
        agent.ask(GET);
    }
    assert_eq!(agent.log(), before);
}

#[test]
fn a_client_can_not_fill_the_log() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let before = started(&agent).lines().count();
    for request in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/3.0\r\nHost: a\r\n\r\n"] {
        for _ in 0..100 {
            assert!(agent.ask(request).status() >= 400);
        }
    }
    let written = agent.log().lines().count() - before;
    // Bad requests and what is not supported are two kinds.
    assert!((1..=2).contains(&written), "{}", agent.log());
}

#[test]
fn the_start_says_what_the_agent_was_told_and_what_it_chose() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &["--enable-batcher", "--batch-policy=eager"]);
    let log = started(&agent);
    let configuration = log.lines().find_map(|line| line.split_once("configuration: ")).unwrap().1;
    let configuration: serde_json::Value = serde_json::from_str(configuration).unwrap();
    assert_eq!(configuration["port"], agent.port);
    assert_eq!(configuration["batcher"]["concurrency"], 2);
    assert!(configuration["max_connections"].as_u64().unwrap() > 10);
    assert!(log.contains(&format!("kserve-agent {} starts", env!("CARGO_PKG_VERSION"))));
}

/// Not left behind by a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The test's own end of the pipe is never read.
#[test]
fn a_log_that_nobody_reads_stops_no_request() {
    let server = Server::good();
    let (reader, mut pipe) = std::io::pipe().unwrap();
    // It is full before the agent writes its first line.
    rustix::io::ioctl_fionbio(&pipe, true).unwrap();
    while pipe.write_all(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&pipe, false).unwrap();
    let port = free_port();
    let ports = [format!("--port={port}"), format!("--component-port={}", server.port)];
    let agent = Command::new(env!("CARGO_BIN_EXE_kserve-agent"))
        .args(ports)
        .args(["--metrics-port=0", "--admin-port=0", "--log-level=trace", "--drain-period=1ms"])
        .stderr(pipe)
        .spawn()
        .unwrap();
    let mut agent = Killed(agent);
    until("it serves", || Wire::try_connect(port).is_ok());
    for request in ["nonsense\r\n\r\n", GET, GET] {
        let mut client = Wire::connect(port);
        client.send(request);
        assert!([200, 400].contains(&client.response().status()));
    }
    kill_process(Pid::from_child(&agent.0), Signal::TERM).unwrap();
    until("it ends", || agent.0.try_wait().unwrap().is_some_and(|status| status.success()));
    drop(reader);
}
