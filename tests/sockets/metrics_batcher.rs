//! What the batcher counts: SPEC O1.

use rustix::process::Signal;

use crate::batcher_support::{
    Gate, NEVER, PATH, batching_watched, echo, instances_body, json, leave, post, predict, submit, together,
};
use crate::support::metrics::{self, SCRAPE};
use crate::support::{Agent, Message, Metrics, Server, Wire, until};

#[track_caller]
fn assert_counted(agent: &Agent, before: &Metrics, wanted: &[(&str, u64)]) {
    let idle = ["requests_in_flight", "batches_in_flight", "batch_queue_requests", "batch_held_bytes"];
    metrics::assert_counted(agent, before, &idle, wanted);
}

#[test]
fn a_batch_is_counted_by_why_it_left() {
    let server = Server::with(echo);
    let cases = [
        ("full", &["--max-batchsize=4", NEVER][..], 4),
        ("latency", &["--max-batchsize=32", "--max-latency=20"], 1),
        ("eager", &["--max-batchsize=32", NEVER, "--batch-policy=eager"], 1),
    ];
    for (trigger, flags, requests) in cases {
        let agent = batching_watched(&server, flags);
        let before = agent.metrics();
        let requests: Vec<String> = (0..requests).map(|number| predict(&[&number.to_string()])).collect();
        assert!(together(&agent, &requests).iter().all(|got| got.status() == 200));
        let trigger = format!("batches_total{{trigger=\"{trigger}\"}}");
        assert_counted(&agent, &before, &[(&trigger, 1), ("requests_total{code=\"2xx\"}", requests.len() as u64)]);
        let now = agent.metrics();
        let counts =
            ["batch_size_sum", "batch_size_count", "batch_wait_seconds_count", "batch_call_duration_seconds_count"];
        let counts = counts.map(|name| now.count(name));
        let requests = requests.len() as u64;
        assert_eq!(counts, [requests, 1, requests, 1]);
    }
}

#[test]
fn what_leaves_at_the_end_is_counted_as_drained() {
    let gate = Gate::new();
    let agent = batching_watched(&gate.server, &[NEVER, "--drain-period=1ms"]);
    let mut client = submit(&agent, predict(&["1"]));
    let mut scraper = Wire::connect(agent.metrics_port);
    agent.signal(Signal::TERM);
    gate.reached(1);
    scraper.send(SCRAPE);
    let now = Metrics::of(&scraper.response());
    let seen = ["batches_total{trigger=\"drain\"}", "batches_in_flight", "draining", "requests_in_flight"];
    assert_eq!(seen.map(|name| now.count(name)), [1, 1, 1, 1]);
    gate.open(1);
    assert_eq!(client.response().status(), 200);
}

#[test]
fn what_waits_is_seen_and_a_client_that_leaves_waits_no_more() {
    let server = Server::with(echo);
    let agent = batching_watched(&server, &[NEVER, "--batch-queue=7"]);
    let before = agent.metrics();
    let clients: Vec<_> = (0..3).map(|_| submit(&agent, predict(&["1", "2"]))).collect();
    let now = agent.metrics();
    let seen = ["batch_queue_requests", "batch_queue_limit", "requests_in_flight"].map(|name| now.count(name));
    assert_eq!(seen, [3, 7, 3]);
    assert!(now.count("batch_held_bytes") >= 3 * instances_body(&["1", "2"]).len() as u64);
    leave(&agent, clients, Wire::reset);
    until("none of them waits", || agent.metrics().count("batch_queue_requests") == 0);
    let now = agent.metrics();
    assert_eq!(now.since(&before).get("requests_total{code=\"none\"}"), Some(&3));
    assert_eq!((now.count("requests_in_flight"), now.count("batch_held_bytes")), (0, 0));
}

#[test]
fn what_finds_no_place_or_is_late_is_counted_by_reason() {
    let gate = Gate::new();
    let flags = ["--batch-queue=1", "--max-batchsize=1", "--batch-concurrency=1", "--batch-policy=eager"];
    let agent = batching_watched(&gate.server, &flags);
    let before = agent.metrics();
    let mut runs = submit(&agent, predict(&["1"]));
    gate.reached(1);
    let mut waits = submit(&agent, predict(&["2"]));
    assert_eq!(agent.ask(predict(&["3"])).status(), 503);
    gate.open(2);
    assert_eq!((runs.response().status(), waits.response().status()), (200, 200));
    let wanted = [
        ("batches_total{trigger=\"full\"}", 2),
        ("requests_rejected_total{reason=\"batch_queue_full\"}", 1),
        // Two of them are those by which the test waits.
        ("requests_total{code=\"2xx\"}", 4),
        ("requests_total{code=\"5xx\"}", 1),
    ];
    assert_counted(&agent, &before, &wanted);
}

#[test]
fn a_body_that_is_no_predict_request_is_counted() {
    let server = Server::with(echo);
    let agent = batching_watched(&server, &["--max-latency=5", "--max-batchsize=2"]);
    let before = agent.metrics();
    assert_eq!(agent.ask(post(PATH, "", "{\"instances\":")).status(), 400);
    let wanted = [("requests_rejected_total{reason=\"bad_request\"}", 1), ("requests_total{code=\"4xx\"}", 1)];
    assert_counted(&agent, &before, &wanted);
}

#[test]
fn a_batch_whose_call_fails_is_counted_and_asked_again_request_by_request() {
    // Alone each of them is fine.
    let server = Server::with(|request: &Message| match request.text().matches(',').count() {
        0 => echo(request),
        _ => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let agent = batching_watched(&server, &["--max-batchsize=2", NEVER]);
    let before = agent.metrics();
    let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
    assert!(got.iter().all(|got| got.status() == 200), "{got:?}");
    let wanted =
        [("batches_total{trigger=\"full\"}", 1), ("batch_retries_total", 1), ("requests_total{code=\"2xx\"}", 2)];
    assert_counted(&agent, &before, &wanted);
    assert_eq!(agent.metrics().count("batch_call_duration_seconds_count"), 3);
}

#[test]
fn a_server_that_fails_batches_is_counted_for_each_request() {
    let cases: [(&str, &[u8]); 3] = [
        ("bad_response", b"nonsense\r\n\r\n"),
        ("closed", b""),
        ("truncated", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    ];
    for (kind, bytes) in cases {
        let server = Server::start(move |mut peer| {
            if peer.request().is_some() {
                peer.wire.send(bytes);
            }
        });
        let agent = batching_watched(&server, &["--max-batchsize=2", NEVER]);
        let before = agent.metrics();
        let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
        assert!(got.iter().all(|got| got.status() == 502), "{got:?}");
        let kind = format!("upstream_errors_total{{kind=\"{kind}\"}}");
        let grown = agent.metrics().since(&before);
        assert_eq!(grown.get(&kind), Some(&2), "{grown:?} {}", agent.log());
    }
}

#[test]
fn without_a_batcher_there_are_no_metrics_of_it() {
    let server = Server::with(|_: &Message| json("{}"));
    let agent = Agent::watched(server.port, &[]);
    assert_eq!(agent.metrics().sum("batches_total"), 0);
    let mut client = Wire::connect(agent.metrics_port);
    client.send(SCRAPE);
    assert!(!client.response().text().contains("kserve_agent_batch"));
}
