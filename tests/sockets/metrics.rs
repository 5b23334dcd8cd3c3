//! What the agent counts, and that it counts it once: SPEC O1.

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use crate::support::agent::free_port;
use crate::support::metrics::{self, SCRAPE};
use crate::support::{Agent, Message, Metrics, OK, Peer, Server, Wire, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// Waits until nothing is under way any more, and then expects exactly these counters to have grown.
#[track_caller]
fn assert_counted(agent: &Agent, before: &Metrics, wanted: &[(&str, u64)]) {
    let now = metrics::assert_counted(agent, before, &["requests_in_flight", "tunnels"], wanted);
    let [requests, rejected] =
        ["requests_total", "requests_rejected_total"].map(|name| now.sum(name) - before.sum(name));
    let [answered, left] = ["request_duration_seconds_count", "requests_total{code=\"none\"}"]
        .map(|name| now.count(name) - before.count(name));
    // A head that was refused has no end from which its time could be taken.
    assert!((requests - rejected..=requests).contains(&(answered + left)), "an answer has a duration");
}

/// A server that answers each request by its path.
fn by_path() -> Server {
    Server::with(|request: &Message| match request.target().as_str() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/302" => b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/404" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/500" => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => OK.to_vec(),
    })
}

#[test]
fn requests_are_counted_by_the_class_of_their_answer() {
    let server = by_path();
    let agent = Agent::watched(server.port, &[]);
    let before = agent.metrics();
    let mut client = agent.connect();
    for path in ["/", "/204", "/302", "/404", "/404", "/500"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.response_head();
        if path == "/" {
            client.expect("{}");
        }
    }
    let counts = [("2xx", 2), ("3xx", 1), ("4xx", 2), ("5xx", 1)];
    let counts = counts.map(|(code, count)| (format!("requests_total{{code=\"{code}\"}}"), count));
    assert_counted(&agent, &before, &counts.each_ref().map(|(name, count)| (name.as_str(), *count)));
    let upstream = agent.metrics().count("upstream_duration_seconds_count");
    assert_eq!(upstream, 6);
}

#[test]
fn bytes_are_counted_to_the_last_one() {
    let server = Server::good();
    // The worker that answers a look has counted what it wrote before.
    let agent = Agent::watched(server.port, &["--threads=1"]);
    let mut scraper = Wire::connect(agent.metrics_port);
    let mut look = || {
        scraper.send(SCRAPE);
        scraper.response()
    };
    let first = look();
    let mut sent = first.head.len() + first.body.len();
    let mut client = agent.connect();
    for _ in 0..3 {
        client.send(POST);
        let answer = client.response();
        sent += answer.head.len() + answer.body.len();
    }
    let received = 3 * POST.len() + SCRAPE.len();
    let grown = Metrics::of(&look()).since(&Metrics::of(&first));
    let grown = ["received_bytes_total", "sent_bytes_total"].map(|name| grown[name]);
    assert_eq!(grown, [received, sent].map(|bytes| bytes as u64));
}

#[test]
fn what_is_under_way_is_seen() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            let _ = released.lock().unwrap().recv();
            peer.wire.send(OK);
        }
    });
    let agent = Agent::watched(server.port, &[]);
    let before = agent.metrics();
    let mut clients: Vec<Wire> = (0..5).map(|_| agent.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    until("the server has all of them", || server.seen().len() == 5);
    let now = agent.metrics();
    let gauges = ["requests_in_flight", "upstream_connections", "connections"].map(|name| now.count(name));
    // The one that asks is not among them.
    assert_eq!(gauges, [5, 5, 5]);
    (0..5).for_each(|_| release.send(()).unwrap());
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    assert_counted(&agent, &before, &[("requests_total{code=\"2xx\"}", 5)]);
    drop(clients);
    until("they are gone", || agent.metrics().count("connections") == 0);
    // What a request took is at least what the server took for it.
    let now = agent.metrics();
    assert!(now.measure("request_duration_seconds_sum") >= now.measure("upstream_duration_seconds_sum"));
}

#[test]
fn a_client_that_leaves_is_counted_without_an_answer() {
    let (hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let server = Server::start(move |mut peer: Peer| {
        peer.request_head();
        let _ = held.lock().unwrap().recv();
    });
    let agent = Agent::watched(server.port, &[]);
    let before = agent.metrics();
    let mut whole = agent.connect();
    whole.send(GET);
    let mut half = agent.connect();
    half.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhi");
    until("the server has both", || server.seen().len() == 2);
    whole.reset();
    half.reset();
    assert_counted(&agent, &before, &[("requests_total{code=\"none\"}", 2)]);
    drop(hold);
}

#[test]
fn what_the_agent_refuses_is_counted_by_reason() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", "bad_request"),
        (long.as_str(), "too_large"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "unsupported"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "unsupported"),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", "unsupported"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "bad_request"),
    ];
    for (request, reason) in cases {
        let before = agent.metrics();
        let got = agent.ask(request);
        let reason = format!("requests_rejected_total{{reason=\"{reason}\"}}");
        let class = format!("requests_total{{code=\"{}xx\"}}", got.status() / 100);
        assert_counted(&agent, &before, &[(reason.as_str(), 1), (class.as_str(), 1)]);
    }
}

#[test]
fn connections_over_the_limit_are_counted_as_evictions_or_as_turned_away() {
    let (hold_back, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let server = Server::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/hold" {
                let _ = held.lock().unwrap().recv();
            }
            peer.wire.send(OK);
        }
    });
    let agent = Agent::watched(server.port, &["--max-connections=2", "--threads=1"]);
    let before = agent.metrics();
    assert_eq!(before.count("connections_limit"), 2);
    let mut idle = agent.connect();
    idle.send(GET);
    assert_eq!(idle.response().status(), 200);
    let hold = "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut busy = [agent.connect(), agent.connect()];
    busy.iter_mut().for_each(|client| client.send(hold));
    until("the server has both", || server.seen().len() == 3);
    assert_eq!(agent.ask(GET).status(), 503);
    // Operators have places of their own.
    assert_eq!(agent.metrics().count("requests_in_flight"), 2);
    drop(hold_back);
    busy.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    // The connections by which the test waits for the start may have been too many as well.
    let grown = agent.metrics().since(&before);
    assert!(grown["connections_evicted_total"] >= 1, "{grown:?}");
    assert_eq!(grown["requests_rejected_total{reason=\"too_many_connections\"}"], 1, "{grown:?}");
}

#[test]
fn a_failing_server_is_counted_by_kind() {
    let broken = |bytes: &'static str| {
        Server::start(move |mut peer: Peer| {
            if peer.request().is_some() {
                peer.wire.send(bytes);
            }
        })
    };
    let cases = [
        ("", "closed", 502),
        ("HTTP/1.1 2", "truncated", 502),
        ("nonsense\r\n\r\n", "bad_response", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", "truncated", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "bad_response", 502),
    ];
    for (bytes, kind, status) in cases {
        let server = broken(bytes);
        let agent = Agent::watched(server.port, &[]);
        let before = agent.metrics();
        let mut client = agent.connect();
        client.send(POST);
        assert_eq!(client.response_head().status(), status, "{bytes:?}");
        if status == 200 {
            client.rest();
        }
        let kind = format!("upstream_errors_total{{kind=\"{kind}\"}}");
        let class = format!("requests_total{{code=\"{}xx\"}}", status / 100);
        assert_counted(&agent, &before, &[(kind.as_str(), 1), (class.as_str(), 1)]);
    }
}

#[test]
fn a_server_that_is_not_there_or_silent_is_counted() {
    let agent = Agent::watched(free_port(), &[]);
    let before = agent.metrics();
    assert_eq!(agent.ask(GET).status(), 502);
    assert_eq!(agent.ask(POST).status(), 502);
    let class = "requests_total{code=\"5xx\"}";
    assert_counted(&agent, &before, &[("upstream_errors_total{kind=\"connect\"}", 2), (class, 2)]);

    let server = Server::start(|mut peer: Peer| {
        peer.request();
        let _ = peer.wire.rest();
    });
    let agent = Agent::watched(server.port, &["--upstream-timeout=50ms"]);
    let before = agent.metrics();
    assert_eq!(agent.ask(GET).status(), 504);
    assert_counted(&agent, &before, &[("upstream_errors_total{kind=\"timeout\"}", 1), (class, 1)]);
}

#[test]
fn a_request_sent_twice_is_one_request_and_one_retry() {
    let server = Server::start(|mut peer: Peer| {
        if peer.request().is_some() {
            peer.wire.send(OK);
            peer.request();
        }
    });
    let agent = Agent::watched(server.port, &["--threads=1"]);
    let before = agent.metrics();
    let mut client = agent.connect();
    for _ in 0..2 {
        client.send(GET);
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(server.seen().len(), 3, "the second request came twice");
    assert_counted(&agent, &before, &[("requests_total{code=\"2xx\"}", 2), ("upstream_retries_total", 1)]);
}

#[test]
fn probes_are_counted_apart_from_requests() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    let before = agent.metrics();
    let probe = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.31\r\n";
    assert_eq!(agent.ask(format!("{probe}K-Network-Probe: queue\r\n\r\n")).status(), 200);
    assert_eq!(agent.ask(format!("{probe}\r\n")).status(), 400);
    let probes = [("probes_total{code=\"2xx\"}", 1), ("probes_total{code=\"4xx\"}", 1)];
    assert_counted(&agent, &before, &probes);
}

#[test]
fn a_tunnel_is_one_request_and_open_until_it_ends() {
    let server = Server::start(|mut peer: Peer| {
        peer.request_head();
        peer.wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let _ = peer.wire.rest();
    });
    let agent = Agent::watched(server.port, &[]);
    let before = agent.metrics();
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response_head().status(), 101);
    until("it is open", || agent.metrics().count("tunnels") == 1);
    client.close();
    let wanted = [("requests_total{code=\"1xx\"}", 1), ("tunnels_opened_total", 1)];
    assert_counted(&agent, &before, &wanted);
}

#[test]
fn a_server_that_is_not_there_is_counted_for_tunnels_too() {
    let agent = Agent::watched(free_port(), &[]);
    let mut client = agent.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.rest();
    until("it is counted", || agent.metrics().count("upstream_errors_total{kind=\"connect\"}") == 1);
    until("it is said", || agent.log().contains("model server: connection refused"));
}
