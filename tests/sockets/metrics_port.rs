//! `--metrics-port`: what it answers, and that it is as hard to hurt as the other one (SPEC O1).

use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::agent::free_port;
use crate::support::metrics::SCRAPE;
use crate::support::wire::Ending;
use crate::support::{Agent, Message, Metrics, Server, Wire, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn watched() -> (Server, Agent) {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    (server, agent)
}

#[track_caller]
fn ask(agent: &Agent, request: &str) -> Message {
    let mut client = Wire::connect(agent.metrics_port);
    client.send(request);
    client.response()
}

#[test]
fn metrics_are_prometheus_text_or_openmetrics_as_the_client_likes() {
    let (_server, agent) = watched();
    let got = ask(&agent, SCRAPE);
    assert_eq!(got.field("content-type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(got.text().contains("# TYPE kserve_agent_requests_total counter\n"));
    // What Prometheus 3 sends.
    let accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                  application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                  text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let got = ask(&agent, &format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"));
    assert_eq!(
        got.field("content-type").as_deref(),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(got.text().contains("# TYPE kserve_agent_requests counter\n") && got.text().ends_with("# EOF\n"));
}

#[test]
fn only_metrics_can_be_asked_for_and_nothing_is_passed_on() {
    let (server, agent) = watched();
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 404, "metrics are at /metrics\n"),
        ("GET /v1/models/m HTTP/1.1\r\nHost: a\r\n\r\n", 404, "metrics are at /metrics\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\nK-Network-Probe: queue\r\n\r\n", 404, "metrics are at /metrics\n"),
        ("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 405, "only GET and HEAD are allowed\n"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ""),
    ];
    for (request, status, text) in cases {
        let got = ask(&agent, request);
        assert_eq!(got.status(), status, "{request:?} {got:?}");
        assert!(got.text().contains(text), "{got:?}");
        assert_eq!(got.field("allow").is_some(), status == 405);
    }
    assert_eq!(ask(&agent, "GET /metrics?name=x HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    assert_eq!(agent.metrics().sum("requests_total"), 0);
    assert_eq!(agent.metrics().sum("probes_total"), 0);
}

#[test]
fn a_head_request_gets_the_head_alone() {
    let (_server, agent) = watched();
    let mut client = Wire::connect(agent.metrics_port);
    client.send("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.response_head();
    assert!(head.field("content-length").unwrap().parse::<usize>().unwrap() > 1000);
    // Nothing came between it and the next answer.
    client.send(SCRAPE);
    assert_eq!(client.response().status(), 200);
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let (_server, agent) = watched();
    let mut client = Wire::connect(agent.metrics_port);
    client.send(format!("{SCRAPE}{GET}{SCRAPE}"));
    let statuses = [(); 3].map(|()| client.response().status());
    assert_eq!(statuses, [200, 404, 200]);
}

#[test]
fn a_request_with_a_body_does_not_shift_what_follows() {
    let (server, agent) = watched();
    let mut client = Wire::connect(agent.metrics_port);
    let inside = "GET /inside HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inside}", inside.len()));
    assert_eq!(client.response().status(), 405);
    // Either the body is read away or the connection closes; it is never taken for a request.
    // It may have been closed already.
    let _ = client.try_send("GET /metrics HTTP/1.0\r\n\r\n");
    let (rest, ending) = client.rest();
    let answers = rest.windows(5).filter(|window| window == b"HTTP/").count();
    assert!(answers <= 1 && !rest.windows(3).any(|window| window == b"404"), "{rest:?} {ending:?}");
    assert!(server.seen().is_empty());
}

#[test]
fn what_is_no_http_is_refused() {
    let (_server, agent) = watched();
    for request in
        ["nonsense\r\n\r\n", "GET /metrics HTTP/1.1\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n"]
    {
        let mut client = Wire::connect(agent.metrics_port);
        client.send(request);
        assert_eq!(client.response().status(), 400, "{request:?}");
        assert_ne!(client.rest().1, Ending::Reset);
    }
}

#[test]
fn metrics_are_there_while_the_agent_drains_and_when_there_is_no_server() {
    let agent = Agent::watched(free_port(), &["--drain-period=30s"]);
    assert_eq!(agent.metrics().count("draining"), 0);
    agent.signal(Signal::TERM);
    until("it says so", || agent.metrics().count("draining") == 1);
}

#[test]
fn scrapes_do_not_prolong_the_drain() {
    let server = Server::good();
    let mut agent = Agent::watched(server.port, &["--drain-period=300ms"]);
    agent.signal(Signal::TERM);
    let mut status = None;
    let began = std::time::Instant::now();
    until("it has ended", || {
        if let Ok(mut client) = Wire::try_connect(agent.metrics_port) {
            // It may end between the two.
            let _ = client.try_send(SCRAPE);
            let _ = client.try_response();
        }
        status = agent.ended();
        status.is_some()
    });
    assert!(status.unwrap().success());
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn a_taken_port_costs_the_metrics_and_nothing_else() {
    let server = Server::good();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for flag in ["--metrics-port", "--admin-port"] {
        let agent = Agent::start(server.port, &[&format!("{flag}={port}")]);
        assert_eq!(agent.ask(GET).status(), 200);
        let log = agent.log();
        let line = log.lines().find(|line| line.contains(flag)).unwrap_or_default();
        assert!(line.contains("[WARN]") && line.contains(&port.to_string()) && line.contains("in use"), "{log}");
    }
}

#[test]
fn many_scrapers_read_the_same_truth_under_load() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    let port = agent.metrics_port;
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..4)
            .map(|_| {
                let mut client = agent.connect();
                scope.spawn(move || {
                    for _ in 0..300 {
                        client.send(GET);
                        assert_eq!(client.response().status(), 200);
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let mut before = Metrics::read(port);
                    for _ in 0..50 {
                        let now = Metrics::read(port);
                        assert!(now.since(&before).values().all(|grown| *grown > 0), "no counter falls");
                        assert!(now.count("requests_in_flight") <= 4);
                        before = now;
                    }
                })
            })
            .collect();
        load.into_iter().chain(readers).for_each(|thread| thread.join().unwrap());
    });
    until("all are counted", || agent.metrics().sum("requests_total") == 1200);
}
