//! When a request is sent a second time, and when never: SPEC P9.
//!
//! Each scripted server answers one request, so that its connection counts as reused, and then misbehaves on it.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::support::{Agent, Message, OK, PATIENCE, Peer, Server, Wire, until};

const GET: &str = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// How the first connection's second request ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Reset,
    /// Some bytes, and then a close.
    After(&'static str),
}

/// Answers the first request on each connection, reads the second and ends the connection; connections after the
/// first answer everything.
fn fails_on_reuse(end: End) -> Server {
    Server::start(move |mut peer: Peer| {
        if peer.request().is_none() || peer.wire.try_send(OK).is_err() {
            return;
        }
        while peer.request().is_some() {
            if peer.number > 0 {
                peer.wire.send(OK);
                continue;
            }
            match end {
                End::Close => return,
                End::Reset => return peer.wire.reset(),
                End::After(bytes) => return peer.wire.send(bytes),
            }
        }
    })
}

/// Sends a first request and then this one, over one client connection and one worker.
fn second(server: &Server, request: &str) -> (Agent, Message) {
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    client.send(request);
    (agent, client.response())
}

/// How often the server read the second request.
fn copies(server: &Server) -> usize {
    server.seen().iter().filter(|request| request.target() == "/second").count()
}

#[test]
fn a_post_that_the_server_read_is_never_sent_again() {
    for end in [End::Close, End::Reset, End::After("HTTP/1.1 2")] {
        let server = fails_on_reuse(end);
        let (_agent, got) = second(&server, POST);
        assert_eq!((got.status(), copies(&server)), (502, 1), "{end:?}");
    }
}

#[test]
fn a_get_is_sent_once_more_over_a_new_connection_if_the_first_was_reused() {
    for end in [End::Close, End::Reset] {
        let server = fails_on_reuse(end);
        let (_agent, got) = second(&server, GET);
        assert_eq!((got.status(), copies(&server)), (200, 2), "{end:?}");
        assert_eq!(server.seen().last().unwrap().connection, 1, "over a new connection");
    }
}

#[test]
fn every_idempotent_method_is_sent_once_more_and_no_other() {
    for (method, wanted) in [("HEAD", 2), ("PUT", 2), ("DELETE", 2), ("OPTIONS", 2), ("PATCH", 1), ("get", 1), ("X", 1)]
    {
        let server = fails_on_reuse(End::Close);
        let agent = Agent::start(server.port, &["--threads=1"]);
        let mut client = agent.connect();
        client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response();
        client.send(format!("{method} /second HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.response_head().status(), if wanted == 2 { 200 } else { 502 }, "{method}");
        assert_eq!(copies(&server), wanted, "{method}");
    }
}

#[test]
fn a_get_is_not_sent_again_once_a_byte_of_a_response_has_come() {
    for bytes in ["H", "HTTP/1.1 2", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let server = fails_on_reuse(End::After(bytes));
        let agent = Agent::start(server.port, &["--threads=1"]);
        let mut client = agent.connect();
        client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response();
        client.send(GET);
        let mut got = client.response();
        if got.status() == 103 {
            got = client.response();
        }
        assert_eq!((got.status(), copies(&server)), (502, 1), "{bytes}");
    }
}

#[test]
fn a_get_over_a_new_connection_is_sent_once() {
    let server = Server::start(|mut peer: Peer| {
        peer.request();
    });
    let agent = Agent::start(server.port, &[]);
    assert_eq!(agent.ask(GET).status(), 502);
    assert_eq!(copies(&server), 1);
}

#[test]
fn a_get_whose_second_try_fails_as_well_is_a_bad_gateway() {
    let server = Server::start(|mut peer: Peer| {
        if peer.request().is_some_and(|request| request.target() == "/first") {
            peer.wire.send(OK);
            peer.request();
        }
    });
    let (_agent, got) = second(&server, GET);
    assert_eq!((got.status(), copies(&server)), (502, 2));
}

/// A server that closes each connection after its first answer, and says when it has.
fn closes_after_one() -> (Server, mpsc::Receiver<()>) {
    let (closed, is_closed) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        if peer.request().is_some() {
            peer.wire.send(OK);
        }
        peer.wire.close();
        let _ = closed.send(());
    });
    (server, is_closed)
}

#[test]
fn a_post_after_the_server_closed_its_idle_connection_is_answered() {
    const ROUNDS: usize = 300;
    let (server, is_closed) = closes_after_one();
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    for round in 0..ROUNDS {
        client.send(POST);
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (200, "{}"), "round {round}");
        is_closed.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(copies(&server), ROUNDS);
}

#[test]
fn a_post_in_two_pieces_after_the_server_closed_its_idle_connection_is_answered() {
    const ROUNDS: usize = 300;
    let (server, is_closed) = closes_after_one();
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    // As Python's http.client sends: the head by itself, then the body.
    let (head, body) = POST.split_at(POST.len() - 2);
    for round in 0..ROUNDS {
        client.send(head);
        client.send(body);
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (200, "{}"), "round {round}");
        is_closed.recv_timeout(PATIENCE).unwrap();
    }
    assert_eq!(copies(&server), ROUNDS);
}

/// Sends a request of so many bytes over a reused connection to a server that reads a part of it, shuts down and
/// closes: what Python's socketserver does when a handler fails on the head. The kernel makes a FIN and a reset of that,
/// as it does for a request that met a closed connection.
fn post_to_a_server_that_reads_a_part(length: usize, part: usize) {
    const ROUNDS: usize = 100;
    let server = Server::start(move |mut peer: Peer| {
        if peer.request().is_none() || peer.wire.try_send(OK).is_err() {
            return;
        }
        let mut bytes = vec![std::mem::MaybeUninit::uninit(); part];
        if matches!(peer.wire.socket().recv(&mut bytes), Ok(1..)) {
            peer.wire.end();
        }
    });
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    let head = format!("POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    for round in 0..ROUNDS {
        client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status(), 200);
        client.send(format!("{head}{}", "x".repeat(length)));
        let status = client.response().status();
        assert_eq!((status, copies(&server)), (502, 0), "round {round}: the server had read a part of it");
    }
}

#[test]
fn a_post_that_the_server_read_a_block_of_is_never_sent_again() {
    // 8192 is what Python reads at once; the agent keeps up to 16 KiB of a request to send it again.
    post_to_a_server_that_reads_a_part(15_000, 8192);
}

#[test]
fn a_post_longer_than_what_the_server_reads_at_once_is_never_sent_again() {
    // 4096 is what Go reads at once. A shorter POST is taken to be read whole or not at all: the README says so.
    post_to_a_server_that_reads_a_part(4_200, 4096);
}

#[test]
fn an_idle_connection_is_dropped_when_the_server_closes_its_side() {
    let (saw, seen) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        peer.wire.send(OK);
        peer.wire.end();
        saw.send(peer.wire.rest().0).unwrap();
    });
    let agent = Agent::start(server.port, &[]);
    assert_eq!(agent.ask(GET).status(), 200);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), b"");
}

#[test]
fn an_idle_connection_that_the_server_writes_to_is_not_used_again() {
    let (spoke, has_spoken) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            // Behind the answer comes one to a question that nobody asked, as a server may send before it closes.
            let sent = peer
                .wire
                .try_send(OK)
                .and_then(|()| peer.wire.try_send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"));
            // The agent's end of the loopback has it when the call returns; or had closed already.
            let _ = spoke.send(());
            if sent.is_err() {
                return;
            }
        }
    });
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    for round in 0..100 {
        client.send(GET);
        assert_eq!(client.response().status(), 200, "round {round}");
        has_spoken.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn a_short_request_in_pieces_reaches_the_server_in_one() {
    let (saw, seen) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        for number in 100.. {
            let Ok(1..) = peer.wire.fill(Instant::now() + PATIENCE) else { return };
            let is_whole = peer.wire.buffer.ends_with(format!("\r\n\r\n{number}").as_bytes());
            let request = peer.wire.request().unwrap();
            assert_eq!(request.body, number.to_string().as_bytes());
            // Nothing is left of the one before, nothing is sent twice.
            assert_eq!(peer.wire.buffer, b"");
            saw.send(is_whole).unwrap();
            peer.wire.send(OK);
        }
    });
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    for number in 100..300 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
        let body = number.to_string();
        client.send(&body[..1]);
        client.send(&body[1..]);
        assert_eq!(client.response().status(), 200);
    }
    let whole = seen.try_iter().filter(|is_whole| *is_whole).count();
    // On a busy machine the second piece may be late.
    assert!(whole > 150, "{whole} of 200 came in one piece");
}

#[test]
fn connections_are_reused_last_in_first_out() {
    let server = Server::good();
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut clients: Vec<Wire> = (0..4).map(|_| agent.connect()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    }
    until("all four are under way", || server.connections() == 4);
    for client in &mut clients {
        client.send("x");
        assert_eq!(client.response().status(), 200);
    }
    let last = server.seen().last().unwrap().connection;
    for _ in 0..10 {
        assert_eq!(agent.ask(GET).status(), 200);
        assert_eq!(server.seen().last().unwrap().connection, last);
    }
    assert_eq!(server.connections(), 4);
}

#[test]
fn a_get_that_many_stale_connections_swallow_is_answered() {
    // All of the pool has gone stale at once, as after a restart of the server.
    let server = fails_on_reuse(End::Close);
    let agent = Agent::start(server.port, &["--threads=1"]);
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = agent.connect();
            thread::spawn(move || {
                client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
                client.response().status()
            })
        })
        .collect();
    askers.into_iter().for_each(|asker| assert_eq!(asker.join().unwrap(), 200));
    assert_eq!(agent.ask(GET).status(), 200);
}
