//! What requests and answers may hold, and who makes way: SPEC B10, P2.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::batcher_json::{items, member};
use crate::batcher_support::{
    NEVER, PATH, batching, batching_watched, echo, instances_of, json, post, predict, predictions, sizes, submit,
    together,
};
use crate::support::{Agent, Message, Peer, Server, Wire, alone, holds_within, until};

const MIB: usize = 1 << 20;
/// What clients and server may make the agent hold (SPEC B10): twice the budget and 16 MiB.
const MEMORY_KIB: u64 = (2 * 64 + 16) * 1024;

/// Answers each `POST` with one prediction as long as the number in its path says, in MiB; framed as its path says.
fn large(mut peer: Peer) {
    while let Some(request) = peer.request() {
        let target = request.target();
        let size: usize = target.split('/').nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
        let body = format!("{{\"predictions\":[\"{}\"]}}", "a".repeat(size * MIB));
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Model: m\r\n";
        let whole = if target.contains("chunked") {
            let chunks = body.as_bytes().chunks(100_000);
            let chunk = |chunk: &[u8]| format!("{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap());
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.map(chunk).collect::<String>())
        } else if target.contains("close") {
            format!("{head}\r\n{body}")
        } else {
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
        };
        if peer.wire.try_send(whole).is_err() || target.contains("close") {
            return peer.wire.close();
        }
    }
}

fn ask_for(size: usize, framing: &str) -> String {
    post(&format!("/{size}/{framing}:predict"), "", "{\"instances\":[1]}")
}

#[test]
fn an_answer_larger_than_its_share_is_streamed_whole_whatever_its_framing() {
    let _alone = alone();
    let server = Server::start(large);
    let agent = batching_watched(&server, &["--max-batchsize=1"]);
    let before = agent.metrics();
    for framing in ["length", "chunked", "close"] {
        for size in [7, 9, 20] {
            let mut client = agent.connect();
            // Twice, so that what follows on either connection is in order.
            for _ in 0..2 {
                client.send(ask_for(size, framing));
                let got = client.response();
                let text = got.text();
                let values = items(member(&text, "predictions").unwrap());
                assert_eq!((got.status(), values.len(), values[0].len()), (200, 1, size * MIB + 2), "{framing} {size}");
                assert_eq!((got.field("x-model").as_deref(), got.field("connection")), (Some("m"), None));
                assert_eq!(
                    member(&text, "batchId").is_some(),
                    size < 8,
                    "{framing} {size}: what is held is in our form"
                );
            }
        }
    }
    let old = post("/9/chunked:predict", "", "{\"instances\":[1]}").replace("HTTP/1.1", "HTTP/1.0");
    let mut client = agent.connect();
    client.send(old);
    let (bytes, _) = client.rest();
    assert!(bytes.ends_with(b"aaa\"]}") && bytes.len() > 9 * MIB, "{}", bytes.len());
    let counted = agent.metrics().since(&before);
    assert_eq!(counted.get("requests_total{code=\"2xx\"}"), Some(&19), "{counted:?}");
    assert!(holds_within(Duration::from_secs(10), || agent.metrics().count("batch_answers_bytes") == 0));
}

#[test]
fn a_batch_whose_answer_is_larger_than_its_share_is_asked_again() {
    let _alone = alone();
    let server = Server::with(|request: &Message| {
        let one = |value: &String| format!("\"{}{value}\"", "a".repeat(5 * MIB));
        json(&format!("{{\"predictions\":[{}]}}", instances_of(request).iter().map(one).collect::<Vec<_>>().join(",")))
    });
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
    for (got, own) in got.iter().zip(["a1\"", "a2\""]) {
        let values = predictions(got);
        assert!(values.len() == 1 && values[0].len() > 5 * MIB && values[0].ends_with(own));
    }
    assert_eq!(sizes(&server), [2, 1, 1]);
}

#[test]
fn an_answer_that_is_cut_in_the_middle_looks_cut_and_is_not_counted_as_good() {
    let server = Server::start(|mut peer: Peer| {
        if peer.request().is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 20 * MIB);
            let _ = peer.wire.try_send(head + &"a".repeat(10 * MIB));
            peer.wire.close();
        }
    });
    let agent = batching(&server, &["--max-batchsize=1"]);
    let mut client = agent.connect();
    client.send(predict(&["1"]));
    let (bytes, _) = client.rest();
    assert!(bytes.starts_with(b"HTTP/1.1 200") && bytes.len() < 11 * MIB);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_is_not_counted_as_served() {
    let _alone = alone();
    let server = Server::start(large);
    let agent = batching_watched(&server, &["--max-batchsize=1"]);
    let before = agent.metrics();
    let mut client = agent.connect();
    // Larger than what sockets take by themselves, and held.
    socket2::SockRef::from(&**client.socket()).set_recv_buffer_size(4096).unwrap();
    client.send(ask_for(7, "length"));
    until("a part of it waits", || agent.metrics().count("batch_answers_bytes") > 0);
    client.reset();
    until("it is over", || agent.metrics().count("requests_in_flight") == 0);
    let counted = agent.metrics().since(&before);
    assert_eq!(counted.get("requests_total{code=\"none\"}"), Some(&1), "{counted:?}");
    assert_eq!(counted.get("requests_total{code=\"2xx\"}"), None, "{counted:?}");
}

/// A request whose body is announced, and as much of it as it may have without being whole.
fn slow_upload(agent: &Agent, length: usize) -> Wire {
    let mut client = agent.connect();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    // It may be turned away meanwhile.
    let _ = client.try_send(head + &" ".repeat(length - 20_000));
    client
}

#[test]
fn slow_uploads_turn_nobody_away() {
    let _alone = alone();
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", "--max-latency=1", "--threads=1"]);
    let slow = AtomicUsize::new(0);
    let mut held = Vec::new();
    for uploads in [1, 10] {
        while held.len() < uploads {
            held.push(slow_upload(&agent, 8 * MIB));
            slow.fetch_add(1, Ordering::SeqCst);
        }
        // The slowest makes way when it has held its part for a moment.
        std::thread::sleep(Duration::from_millis(300));
        let refused: Vec<u16> = (0..1000)
            .map(|number| agent.ask(predict(&[&format!("\"{}{number}\"", "x".repeat(3000))])).status())
            .filter(|status| *status != 200)
            .collect();
        assert_eq!(refused, [0; 0], "beside {uploads} slow uploads");
    }
    // Those that made way are served all the same, once they have come.
    let mut client = held.remove(0);
    client.send(format!("{}{{\"instances\":[1]}}", " ".repeat(20_000 - 17)));
    assert!(client.response().text().contains("\"predictions\":[1]"));
}

#[test]
fn memory_stays_within_its_bound_whatever_clients_and_server_send() {
    let _alone = alone();
    let server = Server::start(large);
    let agent = batching_watched(&server, &["--max-batchsize=1", "--threads=1"]);
    let reader = |size: usize| {
        let mut client = agent.connect();
        socket2::SockRef::from(&**client.socket()).set_recv_buffer_size(4096).unwrap();
        client.send(ask_for(size, ["length", "chunked"][size % 2]));
        client
    };
    let mut clients: Vec<Wire> = (0..8).map(|_| reader(60)).collect();
    clients.extend((0..32).map(|number| reader(6 + number % 2)));
    clients.extend((0..16).map(|_| slow_upload(&agent, 7 * MIB)));
    let mut most = 0;
    let grows = || {
        let before = most;
        most = most.max(agent.resident_kib());
        most > before
    };
    until("it does not grow any more", {
        let mut grows = grows;
        move || {
            !(0..5).any(|_| {
                std::thread::sleep(Duration::from_millis(100));
                grows()
            })
        }
    });
    let most = agent.resident_kib();
    let metrics = agent.metrics();
    let held = ["batch_held_bytes", "batch_answers_bytes"].map(|name| metrics.count(name));
    assert!(most < MEMORY_KIB, "{most} KiB, of which are held {held:?}");
    let mut small = submit(&agent, predict(&["1"]));
    assert_eq!(small.response().status(), 200);
}
