//! The room that events have: what finds none is counted, memory stays bounded, and requests wait only if they are meant
//! to (SPEC L3, L4).

use std::sync::{Mutex, mpsc};
use std::time::Instant;

use crate::support::sink::{dead_flag, logging, setup};
use crate::support::{Agent, Books, Metrics, OK, PATIENCE, Peer, Server, Sink, Wire, holds_within, until};

const MIB: usize = 1024 * 1024;
/// The longest payload that is logged.
const LONGEST: usize = 32 * MIB;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A body of so many bytes in chunks of a size that no buffer has.
fn chunked(length: usize) -> Vec<u8> {
    const CHUNK: usize = 999_983;
    let mut body = Vec::new();
    for at in (0..length).step_by(CHUNK) {
        let size = CHUNK.min(length - at);
        body.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        body.resize(body.len() + size, b'x');
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

fn sized(length: usize) -> Vec<u8> {
    let mut message = format!("Content-Length: {length}\r\n\r\n").into_bytes();
    message.resize(message.len() + length, b'x');
    message
}

fn framed(length: usize, is_chunked: bool) -> Vec<u8> {
    if is_chunked { [b"Transfer-Encoding: chunked\r\n\r\n", &chunked(length)[..]].concat() } else { sized(length) }
}

fn dropped(metrics: &Metrics, of: &str, why: &str) -> u64 {
    metrics.count(&format!("kserve_logger_events_dropped_total{{type=\"{of}\",reason=\"{why}\"}}"))
}

/// A server that answers with so many bytes.
fn long_server(length: usize, is_chunked: bool) -> Server {
    Server::answering([b"HTTP/1.1 200 OK\r\n", &framed(length, is_chunked)[..]].concat())
}

fn long_request(length: usize, is_chunked: bool) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nHost: a\r\n", &framed(length, is_chunked)[..]].concat()
}

#[test]
fn a_payload_of_32_mib_is_logged_both_ways() {
    // Both at once, and a little of what is said about them.
    let room = format!("--log-queue-bytes={}", 2 * LONGEST + MIB);
    for is_chunked in [false, true] {
        let (server, sink) = (long_server(LONGEST, is_chunked), Sink::good());
        let agent = logging(&server, &sink, &["--log-client-timeout=60s", &room]);
        let mut client = agent.connect();
        client.send(long_request(LONGEST, is_chunked));
        assert_eq!(client.response().body.len(), LONGEST);
        let books = Books::settled(&agent);
        assert_eq!(books, Books::all_sent(2), "chunked: {is_chunked}\n{}", agent.log());
        for event in sink.await_events(2) {
            assert!(event.payload().len() == LONGEST && event.payload().iter().all(|byte| *byte == b'x'));
        }
    }
}

#[test]
fn a_longer_payload_is_counted_and_passes() {
    for is_chunked in [false, true] {
        let (server, sink) = (long_server(LONGEST + 1, is_chunked), Sink::good());
        let agent = logging(&server, &sink, &[]);
        let mut client = agent.connect();
        client.send(long_request(LONGEST + 1, is_chunked));
        assert_eq!(client.response().body.len(), LONGEST + 1);
        assert_eq!(server.only().body.len(), LONGEST + 1);
        assert_eq!(Books::settled(&agent), Books { dropped: 2, ..Books::default() });
        let metrics = agent.metrics();
        assert_eq!(["request", "response"].map(|of| dropped(&metrics, of, "too_large")), [1, 1]);
        until("the log says so", || agent.log().contains("longer than 32 MiB"));
        assert!(sink.events().is_empty());
    }
}

#[test]
fn what_finds_no_room_is_counted_and_passes() {
    let server = Server::good();
    let (_, flag) = dead_flag();
    let agent = setup(&server, &flag).flags(&["--log-queue-bytes=100000"]).start();
    let limit = agent.metrics().count("kserve_logger_queue_limit_bytes");
    assert_eq!(limit, 100_000);
    let mut client = agent.connect();
    let request = post(&"x".repeat(2000));
    for _ in 0..500 {
        client.send(&request);
        assert_eq!(client.response().status(), 200);
    }
    let metrics = agent.metrics();
    let books = Books::of(&agent);
    assert_eq!((books.accepted + books.dropped, books.sent, books.failed), (1000, 0, 0));
    assert_eq!(books.dropped, dropped(&metrics, "request", "full") + dropped(&metrics, "response", "full"));
    // So many requests of 2 000 bytes alone would fit, if nothing else did; responses fit where no request does.
    assert!((40..100).contains(&books.accepted), "{books:?}");
    assert!(metrics.count("kserve_logger_queue_bytes") <= limit);
    until("the log says so", || agent.log().contains("--log-queue-bytes"));
}

#[test]
fn room_that_is_free_again_is_used() {
    let server = Server::good();
    let (port, flag) = dead_flag();
    let agent = setup(&server, &flag).flags(&["--log-queue-bytes=100000"]).start();
    let ask = |count: usize| (0..count).for_each(|_| assert_eq!(agent.ask(post(&"x".repeat(2000))).status(), 200));
    ask(100);
    let full = Books::of(&agent);
    assert!(full.dropped > 0);
    let sink = Sink::good_on(port);
    sink.await_events(usize::try_from(full.accepted).unwrap());
    let empty = Books::settled(&agent);
    ask(10);
    let books = Books::settled(&agent);
    assert_eq!((books.accepted, books.dropped), (empty.accepted + 20, empty.dropped));
}

/// Many small payloads cost more beside themselves than large ones.
#[test]
fn memory_stays_within_the_room_whatever_the_payloads() {
    const ROOM: usize = 16 * MIB;
    /// What a worker needs for itself once there is traffic, and what the allocator keeps.
    const REST: usize = 4 * MIB;
    for (body, requests) in [("x".repeat(2), 40_000), ("x".repeat(50_000), 1000)] {
        let server = Server::good();
        let (_, flag) = dead_flag();
        let agent = setup(&server, &flag).flags(&[&format!("--log-queue-bytes={ROOM}")]).start();
        let before = agent.resident_kib();
        let request = post(&body).repeat(10);
        let mut client = agent.connect();
        for _ in 0..requests / 10 {
            client.send(&request);
            (0..10).for_each(|_| assert_eq!(client.response().status(), 200));
        }
        let held = agent.metrics().count("kserve_logger_queue_bytes");
        assert!(Books::of(&agent).dropped > 0, "full: {held}");
        let grown = usize::try_from((agent.resident_kib() - before) * 1024).unwrap();
        assert!(grown <= ROOM + REST, "{} bytes a payload: {grown} for {held}", body.len());
    }
}

/// An agent that makes requests wait, and where its sink is to be.
fn blocking(server: &Server, room: usize) -> (Agent, u16) {
    let (port, flag) = dead_flag();
    let flags = ["--log-when-full=block", &format!("--log-queue-bytes={room}")];
    (setup(server, &flag).flags(&flags).start(), port)
}

fn delayed(agent: &Agent) -> u64 {
    agent.metrics().count("kserve_logger_requests_delayed_total")
}

/// Asks until a request has to wait; returns its client and how many were answered before.
fn fill(agent: &Agent) -> (Wire, u64) {
    let request = post(&"x".repeat(2000));
    for answered in 0.. {
        let mut client = agent.connect();
        client.send(&request);
        let waits = || delayed(agent) > 0;
        until("it is answered or waits", || client.fill(Instant::now()).is_ok() || waits());
        if client.buffer.is_empty() && waits() {
            return (client, answered);
        }
    }
    unreachable!()
}

#[test]
fn block_makes_requests_wait_and_loses_nothing() {
    let server = Server::good();
    let (agent, port) = blocking(&server, 100_000);
    let (mut waiting, answered) = fill(&agent);
    let mut also: Vec<Wire> = (0..10).map(|_| agent.connect()).collect();
    also.iter_mut().for_each(|client| client.send(post("more")));
    until("all of them wait", || delayed(&agent) == 11);
    assert_eq!(server.seen().len() as u64, answered, "a request that waits has not gone on");
    // Probes are no requests.
    assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\n\r\n").status(), 400);

    let sink = Sink::good_on(port);
    assert_eq!(waiting.response().status(), 200);
    also.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    let books = Books::settled(&agent);
    assert_eq!(books, Books::all_sent(2 * (answered + 11)));
    sink.await_events(usize::try_from(books.sent).unwrap());
    assert_eq!(delayed(&agent), 11);
}

#[test]
fn a_client_that_leaves_while_it_waits_is_forgotten() {
    let server = Server::good();
    let (agent, port) = blocking(&server, 100_000);
    let (waiting, answered) = fill(&agent);
    let connections = |agent: &Agent| agent.metrics().sum("connections");
    let before = connections(&agent);
    waiting.close();
    until("its connection is closed", || connections(&agent) < before);
    let sink = Sink::good_on(port);
    assert_eq!(Books::settled(&agent), Books::all_sent(2 * answered));
    sink.await_events(usize::try_from(2 * answered).unwrap());
    assert_eq!(agent.ask(GET).status(), 200);
    assert_eq!(server.seen().len() as u64, answered + 1, "what it asked is asked no more");
}

#[test]
fn requests_that_wait_go_on_when_what_took_the_room_is_no_event() {
    let server = Server::start(|mut peer: Peer| while peer.request().is_some() && peer.wire.try_send(OK).is_ok() {});
    let (agent, _) = blocking(&server, 2 * MIB);
    // The room is one upload's, and its client leaves.
    let mut upload = agent.connect();
    upload.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    upload.send(vec![b'x'; 3 * MIB / 2]);
    until("it has the room", || agent.metrics().count("kserve_logger_queue_bytes") > MIB as u64);
    let mut waiting = agent.connect();
    waiting.send(GET);
    until("the other waits", || delayed(&agent) == 1);
    upload.reset();
    assert_eq!(waiting.response().status(), 200);
}

#[test]
fn a_payload_that_grows_too_long_gives_its_room_to_who_waits() {
    let server = Server::good();
    let (agent, _) = blocking(&server, 60 * MIB);
    let mut upload = agent.connect();
    upload.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut body = chunked(LONGEST + MIB);
    body.truncate(body.len() - 5);
    let at = body.len() - 4 * MIB;
    upload.send(&body[..at]);
    until("it has the room", || agent.metrics().count("kserve_logger_queue_bytes") > 30 * MIB as u64);
    let mut waiting = agent.connect();
    waiting.send(GET);
    until("the other waits", || delayed(&agent) == 1);
    upload.send(&body[at..]);
    assert_eq!(waiting.response().status(), 200);
}

#[test]
fn a_request_that_waits_ends_with_the_agent() {
    let server = Server::good();
    let (mut agent, _) = blocking(&server, 100_000);
    let (mut waiting, _) = fill(&agent);
    agent.signal(rustix::process::Signal::TERM);
    until("it drains", || agent.log().contains("draining"));
    agent.signal(rustix::process::Signal::TERM);
    let began = Instant::now();
    assert!(agent.wait(PATIENCE * 2).success());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    waiting.rest();
}

#[test]
fn without_block_a_full_queue_delays_nobody() {
    let (held, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let sink = Sink::start(move |mut peer: Peer| {
        peer.request();
        let _ = released.lock().unwrap().recv();
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &["--log-queue-bytes=10000", "--log-client-timeout=60s"]);
    assert!(holds_within(PATIENCE, || {
        assert_eq!(agent.ask(GET).status(), 200);
        Books::of(&agent).dropped > 100
    }));
    assert_eq!(delayed(&agent), 0);
    drop(held);
}
