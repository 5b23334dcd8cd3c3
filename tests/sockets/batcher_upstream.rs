//! The batcher as a client of the model server, which must not show that another client speaks: SPEC B7, B8; P1, P5,
//! P8, P9, P11 as far as they hold for calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::batcher_support::{
    Gate, NEVER, PATH, answer, batching, echo, instances_body, instances_of, json, post, posts, predict, predictions,
    sizes, submit, together,
};
use crate::support::{Message, Peer, Server, Wire, alone, until};

#[test]
fn any_target_reaches_the_server_as_it_is() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let targets = [
        "/v1/../models//./m:predict",
        "//evil.example/m:predict",
        "/@evil.example:80/m:predict",
        "/v1/%2e%2E/%2f%zz:predict?a=%20+b&&=",
        "/v1/models/m:predict?q=http://x/y?z&c=:predict",
        "/v1/models/m;v=1,(2)'!$*~_-.:predict",
    ];
    for target in targets {
        assert_eq!(predictions(&agent.ask(post(target, "", &instances_body(&["1"])))), ["1"], "{target}");
        assert_eq!(posts(&server).pop().unwrap().target(), target);
    }
    // Not every target is a URI to every library; such a request passes, batched or not.
    let target = "/v1/models/m|x\"{}^`\\:predict?a=<b>|";
    assert_eq!(agent.ask(post(target, "", &instances_body(&["1"]))).status(), 200);
    assert_eq!(posts(&server).pop().unwrap().target(), target);
}

#[test]
fn bytes_of_any_field_value_pass_both_ways() {
    let server = Server::with(|request| {
        let body = format!("{{\"predictions\":[{}]}}", instances_of(request).join(","));
        let head =
            format!("HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Tab: a\tb\r\nContent-Length: {}\r\nX-Latin: caf", body.len());
        [head.as_bytes(), b"\xe9\r\n\r\n", body.as_bytes()].concat()
    });
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let request = post(PATH, "X-Empty:\r\nX-Tab: a\tb\r\nX-Latin: caf?\r\n", &instances_body(&["1"]));
    let request: Vec<u8> = request.bytes().map(|byte| if byte == b'?' { 0xe9 } else { byte }).collect();
    let mut messages = together(&agent, &[&request, &request]);
    assert!(messages.iter().all(|got| predictions(got) == ["1"]));
    messages.push(server.only());
    for message in messages {
        assert_eq!(message.field("x-empty").as_deref(), Some(""));
        assert_eq!(message.field("x-tab").as_deref(), Some("a\tb"));
        assert_eq!(message.field("x-latin").as_deref(), Some("caf\u{e9}"));
    }
}

/// Many fields and large ones, within the limits of SPEC P11: the lines, and the name and length of the last.
fn large_heads() -> impl Iterator<Item = (String, String, usize)> {
    [(1, 60_000), (60, 900), (120, 10)].into_iter().map(|(count, length)| {
        let lines = (0..count).map(|number| format!("X-{number}: {}\r\n", "v".repeat(length))).collect();
        (lines, format!("x-{}", count - 1), length)
    })
}

#[test]
fn a_request_head_near_the_limits_reaches_the_server() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    for (lines, last, length) in large_heads() {
        let got = agent.ask(post(PATH, &lines, &instances_body(&["1"])));
        assert_eq!(got.status(), 200, "{last} of {length} bytes: {}", got.text());
        assert_eq!(posts(&server).pop().unwrap().field(&last).map(|value| value.len()), Some(length));
    }
}

#[test]
fn a_response_head_near_the_limits_reaches_the_client() {
    for (lines, last, length) in large_heads() {
        let server = Server::answering(answer("200 OK", &lines, "{\"predictions\":[1]}"));
        let agent = batching(&server, &["--max-batchsize=1"]);
        let got = agent.ask(predict(&["1"]));
        assert_eq!(got.status(), 200, "{last} of {length} bytes: {}", got.text());
        assert_eq!(got.field(&last).map(|value| value.len()), Some(length));
    }
}

#[test]
fn a_failure_in_a_coding_of_the_servers_choice_is_passed_on_as_it_is() {
    let server =
        Server::answering(answer("401 No", "Content-Encoding: gzip\r\nWWW-Authenticate: Basic\r\n", "\u{1f}x"));
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    for got in together(&agent, &[predict(&["1"]), predict(&["2"])]) {
        assert_eq!((got.status(), got.text().as_str()), (401, "\u{1f}x"));
        assert_eq!(got.field("content-encoding").as_deref(), Some("gzip"));
        assert_eq!(got.field("www-authenticate").as_deref(), Some("Basic"));
    }
}

/// Refuses each request when it has read the head, and then reads on or closes. More comes than the kernel buffers, so
/// that the agent is still writing.
fn refused_early(reads_on: bool) -> Message {
    let server = Server::start(move |mut peer: Peer| {
        peer.request_head();
        let _ = peer.wire.try_send(answer("413 Large", "Connection: close\r\n", "too large"));
        peer.wire.end();
        if reads_on {
            let _ = peer.wire.rest();
        }
    });
    let agent = batching(&server, &["--max-batchsize=1"]);
    agent.ask(predict(&[&format!("\"{}\"", "x".repeat(16 << 20))]))
}

#[test]
fn a_refusal_that_comes_before_the_body_is_read_is_passed_on() {
    let got = refused_early(true);
    assert_eq!((got.status(), got.text().as_str()), (413, "too large"));
}

#[test]
fn a_refusal_of_a_server_that_closes_without_reading_the_body_is_passed_on() {
    let got = refused_early(false);
    assert_eq!((got.status(), got.text().as_str()), (413, "too large"));
}

#[test]
fn the_time_limit_is_for_the_first_byte_alone() {
    let _alone = alone();
    let server = Server::start(|mut peer: Peer| {
        peer.request();
        peer.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{");
        // Twice the limit: time itself is what is tested.
        thread::sleep(Duration::from_millis(600));
        peer.wire.send("\"predictions\":[1]}");
    });
    let agent = batching(&server, &["--max-batchsize=1", "--upstream-timeout=300ms"]);
    assert_eq!(predictions(&agent.ask(predict(&["1"]))), ["1"]);
}

#[test]
fn a_connection_that_has_been_idle_for_long_is_not_used_again() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1", "--batch-concurrency=1"]);
    let mut client = agent.connect();
    for pause in [0, 0, 4] {
        // Common servers close after 5 s, so the agent must be done with it before.
        thread::sleep(Duration::from_secs(pause));
        client.send(predict(&["1"]));
        assert_eq!(predictions(&client.response()), ["1"]);
    }
    let connections: Vec<usize> = posts(&server).iter().map(|call| call.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

#[test]
fn tries_one_by_one_are_no_more_at_once_than_batches_may_be() {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let of_server = Arc::clone(&most);
    let server = Server::with(move |request: &Message| {
        of_server.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Long enough to meet others.
        thread::sleep(Duration::from_millis(5));
        now.fetch_sub(1, Ordering::SeqCst);
        match instances_of(request).len() {
            1 => echo(request),
            _ => answer("500 Oops", "", "oops"),
        }
    });
    let agent = batching(&server, &["--max-batchsize=8", "--batch-concurrency=2", NEVER]);
    let got = together(&agent, &vec![predict(&["1"]); 24]);
    assert!(got.iter().all(|got| predictions(got) == ["1"]));
    // Three batches, each in two halves, four quarters and eight requests.
    assert_eq!(sizes(&server).len(), 3 * (1 + 2 + 4 + 8));
    assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
}

#[test]
fn parts_of_a_large_request_are_no_more_at_once_than_batches_may_be() {
    let gate = Gate::new();
    let agent = batching(&gate.server, &["--max-batchsize=2", "--batch-concurrency=2", "--max-latency=20"]);
    let mut client = submit(&agent, predict(&["1"; 20]));
    gate.open(10);
    assert_eq!(predictions(&client.response()), ["1"; 20]);
    assert!(gate.most() <= 2 && sizes(&gate.server) == [2; 10], "{} {:?}", gate.most(), sizes(&gate.server));
}

#[test]
fn a_key_with_a_long_queue_does_not_keep_another_from_its_turn() {
    for policy in ["--batch-policy=window", "--batch-policy=eager", "--batch-policy=adaptive"] {
        let gate = Gate::new();
        let agent = batching(&gate.server, &[policy, "--max-batchsize=1", "--batch-concurrency=1", NEVER]);
        let crowd = |count: usize| -> Vec<Wire> { (0..count).map(|_| submit(&agent, predict(&["0"]))).collect() };
        let mut waiting = crowd(5);
        let mut other = submit(&agent, post("/v1/models/other:predict", "", &instances_body(&["1"])));
        // Two calls later the batcher knows of all of them; what it learns at one time may leave in any order.
        gate.reached(1);
        gate.open(2);
        gate.reached(3);
        waiting.extend(crowd(5));
        // The rest of those who came before it, and it.
        gate.open(4);
        assert_eq!(predictions(&other.response()), ["1"], "{policy}");
        gate.open(5);
        waiting.iter_mut().for_each(|client| assert_eq!(predictions(&client.response()), ["0"]));
    }
}

#[test]
fn a_server_that_comes_back_is_found_again() {
    let server = Server::with(echo);
    let port = server.port;
    let agent = batching(&server, &["--max-batchsize=1"]);
    let mut client = agent.connect();
    client.send(predict(&["1"]));
    assert_eq!(predictions(&client.response()), ["1"]);
    server.kill();
    client.send(predict(&["2"]));
    assert_eq!(client.response().status(), 502);
    let _server = Server::start_on(port, |mut peer: Peer| {
        while peer.request().is_some() && peer.wire.try_send(json("{\"predictions\":[3]}")).is_ok() {}
    });
    client.send(predict(&["3"]));
    assert_eq!(predictions(&client.response()), ["3"]);
}

/// Answers its first request with a 500 that keeps the connection, and closes it when the next one has come, as Starlette
/// does with an exception that nobody caught.
fn closing_behind_a_500(mut peer: Peer) {
    while let Some(request) = peer.request() {
        if request.text().contains("bad") {
            peer.wire.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops");
            // A close now would be seen in time; this one is met by the next request.
            let _ = peer.wire.fill(std::time::Instant::now() + Duration::from_millis(50));
            return peer.wire.reset();
        }
        peer.wire.send(echo(&request));
    }
}

#[test]
fn a_connection_that_carried_a_500_is_not_used_again() {
    let server = Server::start(closing_behind_a_500);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let bad = instances_body(&["\"bad\""]);
    let got = together(&agent, &[post(PATH, "", &bad), post(PATH, "", &instances_body(&["1"]))]);
    assert_eq!(got.iter().map(Message::status).collect::<Vec<_>>(), [500, 200]);
    // The same without a batch.
    let mut client = agent.connect();
    for (instance, status) in [("\"bad\"", 500), ("1", 200), ("\"bad\"", 500), ("2", 200)] {
        client.send(post("/v1/models/m:explain", "", &instances_body(&[instance])));
        assert_eq!(client.response().status(), status);
    }
}

#[test]
fn a_call_that_nobody_waits_for_any_more_is_ended_and_its_place_is_free() {
    let server = Server::start(|mut peer: Peer| {
        while let Some(request) = peer.request() {
            if request.text().contains("hang") {
                let _ = peer.wire.rest();
                return;
            }
            peer.wire.send(echo(&request));
        }
    });
    let agent = batching(&server, &["--batch-policy=eager", "--max-latency=60000", "--max-batchsize=2"]);
    let hanging = instances_body(&["\"hang\""]);
    let clients = ["/a:predict", "/b:predict"].map(|path| submit(&agent, post(path, "", &hanging)));
    until("both places are taken", || posts(&server).len() == 2);
    let mut other = submit(&agent, post(PATH, "", &instances_body(&["1"])));
    clients.into_iter().for_each(Wire::close);
    assert_eq!(predictions(&other.response()), ["1"]);
}

#[test]
fn an_idle_connection_is_closed_before_the_server_would() {
    let (ended, end) = std::sync::mpsc::channel();
    let ended = std::sync::Mutex::new(ended);
    let server = Server::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            peer.wire.send(echo(&request));
        }
        let _ = ended.lock().unwrap().send(());
    });
    let agent = batching(&server, &["--batch-policy=eager"]);
    assert_eq!(predictions(&agent.ask(post(PATH, "", &instances_body(&["1"])))), ["1"]);
    // Common Python servers close after 5 s.
    end.recv_timeout(Duration::from_millis(4500)).expect("it is closed after 3 s");
}
