//! Servers that fail a batch: SPEC B8; P8 and P9 as far as they concern it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::batcher_support::{
    NEVER, PATH, answer, assert_one_line, batching, calls, echo, instances_body, instances_of, json, post, posts,
    predict, predictions, sizes, submit, together,
};
use crate::support::agent::free_port;
use crate::support::{Agent, Message, PATIENCE, Peer, Server, alone, until};

/// A server that answers `status` to a call with the instance `"bad"` in it, and echoes others.
fn refusing(status: &'static str) -> Server {
    Server::with(move |request: &Message| {
        if is_bad(&instances_of(request)) {
            let fields = "Content-Type: text/x; a=b\r\nX-Reason: r\r\nLocation: /elsewhere\r\nRetry-After: 7\r\n";
            return answer(status, fields, "it is bad");
        }
        echo(request)
    })
}

fn is_bad(instances: &[String]) -> bool {
    instances.iter().any(|instance| instance == "\"bad\"")
}

#[track_caller]
fn assert_passed_on(got: &Message, status: &str) {
    assert_eq!((&got.line()[9..12], got.text().as_str()), (&status[..3], "it is bad"));
    assert_eq!(got.field("content-type").as_deref(), Some("text/x; a=b"), "{status}");
    assert_eq!(got.field("content-length").as_deref(), Some("9"), "{status}");
    assert_eq!(got.field("x-reason").as_deref(), Some("r"), "{status}");
    assert_eq!(got.field("location").as_deref(), Some("/elsewhere"), "{status}");
    assert_eq!(got.field("retry-after").as_deref(), Some("7"), "{status}");
}

#[test]
fn a_refusal_that_is_not_about_one_request_is_passed_to_every_member() {
    let statuses = ["301 M", "302 F", "307 T", "401 U", "403 F", "405 M", "408 T", "429 S", "502 B", "503 B", "599 X"];
    for status in statuses {
        let server = refusing(status);
        let agent = batching(&server, &["--max-batchsize=3", NEVER]);
        let mut clients = [agent.connect(), agent.connect()];
        for _ in 0..2 {
            clients[0].send(predict(&["1", "\"bad\""]));
            clients[1].send(predict(&["2"]));
            clients.iter_mut().for_each(|client| assert_passed_on(&client.response(), status));
        }
        assert_eq!(sizes(&server), [3, 3], "{status} is neither retried nor followed");
    }
}

#[test]
fn a_batch_that_may_have_one_bad_request_is_tried_request_by_request() {
    for status in ["400 B", "404 N", "413 T", "422 U", "500 I"] {
        let server = refusing(status);
        let agent = batching(&server, &["--max-batchsize=4", NEVER]);
        let with = |number: &str, instances: &[&str]| {
            post(PATH, &format!("X-Request-Id: {number}\r\nX-All: 1\r\n"), &instances_body(instances))
        };
        let requests = [with("7", &["1", "2"]), with("8", &["\"bad\""]), with("9", &["3"])];
        let got = together(&agent, &requests);
        assert_eq!(predictions(&got[0]), ["1", "2"], "{status}");
        assert_passed_on(&got[1], status);
        assert_eq!(predictions(&got[2]), ["3"], "{status}");
        let mut seen = posts(&server);
        let whole = seen.remove(0);
        assert_eq!((instances_of(&whole).len(), whole.field("x-request-id")), (4, None));
        // Whose half is whose depends on the order of arrival. What is alone has its own bytes and all of its fields.
        let own = [("7", "1,2"), ("8", "\"bad\""), ("9", "3")]
            .map(|(id, instances)| (id.to_owned(), instances_body(&[instances])));
        let alone = |call: &Message| call.field("x-request-id").map(|id| (id, call.text()));
        let alone: Vec<_> = seen.iter().filter_map(alone).collect();
        assert!(alone.contains(&own[1]) && alone.iter().all(|call| own.contains(call)), "{status}: {alone:?}");
        let mut passed: Vec<String> = seen.iter().map(instances_of).filter(|call| !is_bad(call)).flatten().collect();
        passed.sort();
        assert_eq!(passed, ["1", "2", "3"], "{status}");
    }
}

#[test]
fn a_request_that_is_alone_is_not_tried_again() {
    for status in ["400 B", "404 N", "413 T", "422 U", "500 I", "503 B"] {
        let server = refusing(status);
        let agent = batching(&server, &["--max-batchsize=1"]);
        assert_passed_on(&agent.ask(predict(&["\"bad\""])), status);
        assert_eq!(sizes(&server), [1], "{status}");
    }
}

#[test]
fn when_every_try_fails_each_member_has_its_own_answer() {
    let server = Server::with(|request: &Message| {
        let instances = instances_of(request);
        let status = if instances.len() > 1 { "500 I" } else { ["400 B", "503 B"][usize::from(instances[0] == "2")] };
        answer(status, "Content-Type: text/x\r\n", &instances.join("+"))
    });
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
    let got: Vec<_> = got.iter().map(|got| (got.status(), got.text())).collect();
    assert_eq!(got, [(400, "1".to_owned()), (503, "2".to_owned())]);
}

#[test]
fn a_server_that_is_not_there_is_a_bad_gateway_for_every_member() {
    let agent = Agent::start(free_port(), &["--enable-batcher", "--max-batchsize=2", NEVER]);
    let mut clients = [agent.connect(), agent.connect()];
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| client.send(predict(&["1"])));
        clients.iter_mut().for_each(|client| assert_one_line(&client.response(), 502));
    }
}

#[test]
fn nothing_or_nonsense_is_a_bad_gateway_for_every_member_and_is_not_asked_for_twice() {
    let cases = [
        "",
        "garbage\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"predictions\":[1,2]}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n{\"predictions\":[1,2]}\r\n",
        "HTTP/1.1 503 Busy\r\nContent-Length: 50\r\n\r\nbusy",
        "HTTP/1.1 500 Oops\r\nContent-Length: 50\r\n\r\noops",
    ];
    for bytes in cases {
        let server = Server::start(move |mut peer: Peer| {
            if peer.request().is_some() {
                let _ = peer.wire.try_send(bytes);
                peer.wire.close();
            }
        });
        let agent = batching(&server, &["--max-batchsize=2", NEVER]);
        for got in together(&agent, &[predict(&["1"]), predict(&["2"])]) {
            assert_eq!(got.status(), 502, "{bytes:?} {got:?} {}", got.text());
            assert_one_line(&got, 502);
        }
        assert_eq!(sizes(&server), [2], "{bytes:?}");
    }
}

#[test]
fn a_call_that_met_its_end_on_a_kept_connection_is_not_sent_twice() {
    let server = Server::start(|mut peer: Peer| {
        // The first is answered, the second is read and dropped.
        if let Some(request) = peer.request() {
            let _ = peer.wire.try_send(echo(&request));
            peer.request();
            peer.wire.close();
        }
    });
    let agent = batching(&server, &["--max-batchsize=1", "--batch-concurrency=1"]);
    assert_eq!(predictions(&agent.ask(predict(&["1"]))), ["1"]);
    assert_one_line(&agent.ask(predict(&["2"])), 502);
    assert_eq!(calls(&server), [["1"], ["2"]]);
    let connections: Vec<usize> = posts(&server).iter().map(|call| call.connection).collect();
    assert_eq!(connections, [0, 0], "the connection is kept");
}

#[test]
fn a_server_that_closes_its_idle_connections_fails_no_request() {
    let closed = Arc::new(AtomicUsize::new(0));
    let of_server = Arc::clone(&closed);
    let server = Server::start(move |mut peer: Peer| {
        if let Some(request) = peer.request() {
            let _ = peer.wire.try_send(echo(&request));
            peer.wire.close();
            of_server.fetch_add(1, Ordering::SeqCst);
        }
    });
    let agent = batching(&server, &["--max-batchsize=1", "--batch-concurrency=1"]);
    let mut client = agent.connect();
    for round in 1..=50 {
        client.send(predict(&["1"]));
        assert_eq!(predictions(&client.response()), ["1"], "round {round}");
        until("the server has closed", || closed.load(Ordering::SeqCst) == round);
    }
}

#[test]
fn no_answer_in_time_is_a_gateway_timeout_for_every_member() {
    let _alone = alone();
    let (saw, seen) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        let _ = saw.send(peer.wire.rest().1);
    });
    let agent = batching(&server, &["--max-batchsize=2", NEVER, "--upstream-timeout=300ms"]);
    let began = Instant::now();
    for got in together(&agent, &[predict(&["1"]), predict(&["2"])]) {
        assert_one_line(&got, 504);
    }
    let took = began.elapsed();
    assert!((Duration::from_millis(290)..Duration::from_secs(3)).contains(&took), "{took:?}");
    seen.recv_timeout(PATIENCE).expect("the call at the server is given up");
    assert_eq!(sizes(&server), [2]);
}

#[test]
fn without_a_time_limit_a_slow_answer_is_waited_for() {
    let gate = crate::batcher_support::Gate::new();
    let agent = batching(&gate.server, &["--max-batchsize=1"]);
    let mut client = submit(&agent, predict(&["1"]));
    gate.reached(1);
    // Longer than the time over which a client must keep its pace, and than what libraries allow for parts of a call.
    std::thread::sleep(Duration::from_secs(11));
    gate.open(1);
    assert_eq!(predictions(&client.response()), ["1"]);
}

#[test]
fn a_list_of_the_wrong_length_or_no_list_is_asked_for_again_and_passed_on_as_it_is() {
    let cases = [
        ("{\"predictions\":[7710,7720]}", Some(2)),
        ("{\"predictions\":[7710,7720,7730,7740]}", Some(4)),
        ("{\"predictions\":[]}", Some(0)),
        ("{\"predictions\":[[7710,7720,7730]]}", Some(1)),
        ("{\"x\":[7710,7720,7730]}", None),
        ("{}", None),
        ("{\"predictions\":{}}", None),
        ("{\"predictions\":null}", None),
        ("{\"predictions\":\"[7710,7720,7730]\"}", None),
        ("{\"predictions\":[7710,7720,7730]", None),
        ("{\"predictions\":[7710,7720,30}", None),
        ("{\"predictions\":[7710,7720,7730]}x", None),
        ("[7710,7720,7730]", None),
        ("nope", None),
        ("", None),
    ];
    for (body, length) in cases {
        for requests in [vec![predict(&["1"]), predict(&["2", "3"])], vec![predict(&["1", "2", "3"])]] {
            let server = Server::answering(json(body));
            let agent = batching(&server, &["--max-batchsize=3", NEVER]);
            for (got, instances) in together(&agent, &requests).iter().zip([requests.len() % 2 * 2 + 1, 2]) {
                assert_eq!(got.status(), 200, "{body} {}", got.text());
                assert_eq!(got.field("content-type").as_deref(), Some("application/json"), "{body}");
                // To a request that it fits it is an answer like any other.
                if length == Some(instances) {
                    assert_eq!(predictions(got).len(), instances);
                } else {
                    assert_eq!(got.text(), body);
                }
            }
            let wanted: &[usize] = if requests.len() > 1 { &[3, 1, 2] } else { &[3] };
            let mut sizes = sizes(&server);
            // Halves are asked side by side.
            sizes[1..].sort_unstable();
            assert_eq!(sizes, wanted, "{body}");
        }
    }
}

#[test]
fn after_any_failure_the_next_batch_is_served() {
    let number = AtomicUsize::new(0);
    let server = Server::with(move |request: &Message| match number.fetch_add(1, Ordering::SeqCst) {
        0 => json("{\"predictions\":[]}"),
        1 => answer("503 B", "", "busy"),
        2 => b"garbage\r\n\r\n".to_vec(),
        3 => answer("302 F", "Location: http://127.0.0.1:1/\r\n", ""),
        _ => echo(request),
    });
    let agent = batching(&server, &["--max-batchsize=1", "--batch-concurrency=1"]);
    let mut client = agent.connect();
    let statuses: Vec<u16> = (0..6)
        .map(|_| {
            client.send(predict(&["1"]));
            client.response().status()
        })
        .collect();
    assert_eq!(statuses, [200, 503, 502, 302, 200, 200]);
}
