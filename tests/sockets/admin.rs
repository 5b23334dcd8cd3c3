//! The status page's server: SPEC O2. What the page does with it is tested in a browser (`tests/page`).

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::batcher_support::{batching_watched, echo, predict, together};
use crate::support::{Agent, Message, Server, Wire, until};

fn ask(agent: &Agent, request: &str) -> Message {
    let mut client = Wire::connect(agent.admin_port);
    client.send(request);
    client.response()
}

fn status(agent: &Agent) -> Value {
    let got = ask(agent, "GET /status.json HTTP/1.1\r\nHost: localhost:9090\r\n\r\n");
    assert_eq!((got.status(), got.field("content-type").as_deref()), (200, Some("application/json")));
    assert_eq!(got.field("cache-control").as_deref(), Some("no-store"));
    serde_json::from_slice(&got.body).unwrap()
}

/// The first value of a family.
fn value<'a>(status: &'a Value, family: &str) -> &'a Value {
    let families = status["families"].as_array().unwrap();
    let found = families.iter().find(|known| known["name"] == format!("kserve_agent_{family}"));
    &found.unwrap_or_else(|| panic!("no {family}"))["samples"][0]
}

#[test]
fn the_status_is_what_the_agent_was_told_and_what_it_counts() {
    let server = Server::with(echo);
    let agent = batching_watched(&server, &["--max-batchsize=4", "--max-latency=60000", "--batch-queue=17"]);
    let requests: Vec<String> = (0..4).map(|number| predict(&[&number.to_string()])).collect();
    together(&agent, &requests);
    let mut status = status(&agent);
    until("the forwarder has it behind itself", || {
        status = self::status(&agent);
        value(&status, "batches_in_flight")["value"] == 0
    });
    assert_eq!((&status["name"], &status["state"]), (&"kserve-agent".into(), &"serving".into()));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let started = status["started"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&(status["time"].as_f64().unwrap() - started)));
    assert!(!status["host"].as_str().unwrap().is_empty());
    let config = &status["config"];
    assert_eq!((&config["port"], &config["component_port"]), (&agent.port.into(), &server.port.into()));
    assert_eq!(
        (&config["metrics_port"], &config["admin_port"]),
        (&agent.metrics_port.into(), &agent.admin_port.into())
    );
    assert_eq!((&config["workers"], &config["pinned"]), (&1.into(), &false.into()));
    let batcher = serde_json::json!({
        "policy": "window", "max_batch_size": 4, "max_latency_ms": 60_000.0, "concurrency": 32, "queue": 17,
        "held_bytes_limit": 64 * 1024 * 1024,
    });
    assert_eq!(config["batcher"], batcher);
    assert_eq!(value(&status, "batch_size")["count"], 1);
    assert_eq!(value(&status, "batch_size")["sum"], 4.0);
    let counts = value(&status, "batch_size")["counts"].as_array().unwrap();
    let bounds = value(&status, "batch_size")["bounds"].as_array().unwrap();
    assert_eq!((counts.len(), counts.iter().position(|count| *count == 1)), (bounds.len() + 1, Some(2)));
}

#[test]
fn the_page_can_load_and_send_nothing_else() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    let policies = [(); 2].map(|()| {
        let got = ask(&agent, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        assert_eq!((got.status(), got.field("content-type").as_deref()), (200, Some("text/html; charset=utf-8")));
        let policy = got.field("content-security-policy").unwrap();
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        let whole = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert_eq!(policy, whole);
        assert_eq!(got.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2, "a style and a script");
        nonce
    });
    assert_ne!(policies[0], policies[1]);
}

#[test]
fn another_sites_page_gets_nothing_under_its_own_name() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    for host in ["evil.example", "evil.example:9090", "localhost.evil.example", ""] {
        let got = ask(&agent, &format!("GET /status.json HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(got.status(), 403, "{host}");
        assert!(got.text().contains("localhost"), "{}", got.text());
    }
    assert_eq!(ask(&agent, "GET /status.json HTTP/1.0\r\n\r\n").status(), 403, "no Host");
}

#[test]
fn what_is_not_there_is_said() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    assert_eq!(ask(&agent, "GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n").status(), 404);
    let got = ask(&agent, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((got.status(), got.field("allow").as_deref()), (405, Some("GET, HEAD")));
    assert!(server.seen().is_empty());
}

#[test]
fn the_page_is_on_the_loopback_alone() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X} ", agent.admin_port);
    let listening: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .filter(|local| format!("{local} ").ends_with(&port))
        .collect();
    let loopback = format!("{:08X}", u32::from_le_bytes(Ipv4Addr::LOCALHOST.octets()));
    assert!(listening.iter().any(|local| local.starts_with(&loopback)), "{listening:?}");
    assert!(!listening.iter().any(|local| local.starts_with("00000000")), "{listening:?}");
}

/// By another server's memory such a length ended the process.
#[test]
fn what_is_sent_to_the_page_costs_nothing_and_stops_nobody() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    for length in ["5000", "99999999999999"] {
        let mut client = Wire::connect(agent.admin_port);
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"));
        assert_eq!(client.response().status(), 405);
        assert_eq!(ask(&agent, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status(), 200);
    }
}

/// A client that hogs an operator's port makes room for the next one.
#[test]
fn the_newest_operator_has_a_place_in_any_case() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &["--max-connections=1"]);
    let _hogs: Vec<Wire> = (0..100).map(|_| Wire::connect(agent.metrics_port)).collect();
    assert_eq!(agent.metrics().count("connections"), 0);
    assert_eq!(status(&agent)["state"], "serving");
    assert!(crate::support::process::descriptors(agent.pid()) < 60);
    assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
}

#[test]
fn a_browser_that_stays_does_not_hold_the_end() {
    let server = Server::good();
    let mut agent = Agent::watched(server.port, &["--drain-period=1ms"]);
    let mut browser = Wire::connect(agent.admin_port);
    browser.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localh");
    assert_eq!(browser.response().status(), 200);
    agent.signal(rustix::process::Signal::TERM);
    assert!(agent.wait(std::time::Duration::from_secs(2)).success());
}
