//! Servers that fail, and clients that leave: SPEC P8.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::agent::free_port;
use crate::support::wire::Ending;
use crate::support::{Agent, Message, OK, PATIENCE, Peer, Server, Wire, alone};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// How a server ends a connection on which it has sent what it had to send.
#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Reset,
}

/// A server that reads a request, sends these bytes and ends the connection.
fn broken(bytes: &'static str, end: End) -> Server {
    Server::start(move |mut peer: Peer| {
        if peer.request().is_none() {
            return;
        }
        peer.wire.send(bytes);
        if let End::Reset = end {
            // A reset overtakes what the agent has not read yet; the last byte is there when it is all there.
            peer.wire.reset();
        }
    })
}

#[track_caller]
fn assert_one_line(got: &Message, status: u16) {
    assert_eq!(got.status(), status, "{got:?}");
    assert_eq!(got.field("content-type").as_deref(), Some("text/plain; charset=utf-8"));
    let text = got.text();
    assert!(text.len() > 5 && text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
}

#[test]
fn a_server_that_is_not_there_is_a_bad_gateway_on_a_connection_that_stays() {
    let agent = Agent::start(free_port(), &[]);
    let mut client = agent.connect();
    for request in [GET, POST, GET] {
        client.send(request);
        let got = client.response();
        assert_one_line(&got, 502);
        assert_eq!(got.line(), "HTTP/1.1 502 Bad Gateway");
        assert!(got.text().contains("connection refused"), "{}", got.text());
    }
}

#[test]
fn a_server_that_answers_nothing_or_nonsense_is_a_bad_gateway() {
    let cases = [
        ("", End::Close),
        ("", End::Reset),
        ("garbage\r\n\r\n", End::Close),
        ("HTTP/2.0 200 OK\r\n\r\n", End::Close),
        ("SSH-2.0-OpenSSH_9.2\r\n", End::Close),
        ("\u{0}\u{1}\u{2}\u{3}\r\n\r\n", End::Close),
        ("HTTP/1.1 200", End::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", End::Close),
        ("HTTP/1.1 100 Continue\r\n\r\n", End::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", End::Close),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", End::Close),
    ];
    for (bytes, end) in cases {
        let server = broken(bytes, end);
        let agent = Agent::start(server.port, &[]);
        let mut client = agent.connect();
        client.send(POST);
        let mut got = client.response();
        if got.status() == 100 {
            got = client.response();
        }
        assert_one_line(&got, 502);
        // The connection is kept: the client is not at fault.
        client.send(POST);
        assert!(matches!(client.response().status(), 502 | 100), "{bytes:?}");
    }
}

#[test]
fn no_answer_in_time_is_a_gateway_timeout() {
    let _alone = alone();
    let (saw, seen) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        saw.send(peer.wire.rest().1).unwrap();
    });
    let agent = Agent::start(server.port, &["--upstream-timeout=300ms"]);
    let mut client = agent.connect();
    let began = Instant::now();
    client.send(POST);
    assert_one_line(&client.response(), 504);
    let took = began.elapsed();
    assert!((Duration::from_millis(290)..Duration::from_millis(1500)).contains(&took), "{took:?}");
    seen.recv_timeout(PATIENCE).expect("the request at the server is cancelled");
}

#[test]
fn the_time_limit_is_for_the_first_byte_alone() {
    let _alone = alone();
    let server = Server::start(|mut peer: Peer| {
        peer.request();
        peer.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh");
        // Twice the limit: time itself is what is tested.
        thread::sleep(Duration::from_millis(600));
        peer.wire.send("i");
    });
    let agent = Agent::start(server.port, &["--upstream-timeout=300ms"]);
    assert_eq!(agent.ask(GET).text(), "hi");
}

#[test]
fn a_response_that_is_cut_short_looks_cut_short() {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    const IN_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc";
    const BAD_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n";
    for (bytes, end) in [
        (LENGTH, End::Close),
        (LENGTH, End::Reset),
        (CHUNKED, End::Close),
        (CHUNKED, End::Reset),
        (IN_CHUNK, End::Close),
        (BAD_CHUNK, End::Close),
    ] {
        let server = broken(bytes, end);
        let agent = Agent::start(server.port, &[]);
        let mut client = agent.connect();
        client.send(GET);
        let got = client.try_response();
        // A reset may overtake the whole of it; then there is an error to report.
        let is_visible = match &got {
            Err(error) => error.kind() != std::io::ErrorKind::TimedOut,
            Ok(message) => message.status() == 502,
        };
        assert!(is_visible, "{bytes:?} {end:?} {got:?}");
    }
}

#[test]
fn a_response_that_is_cut_short_ends_with_a_reset_where_a_close_is_the_end() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    const CLOSED: &str = "HTTP/1.1 200 OK\r\n\r\nabc";
    for (bytes, end) in [(CHUNKED, End::Close), (CHUNKED, End::Reset), (CLOSED, End::Reset)] {
        let server = broken(bytes, end);
        let agent = Agent::start(server.port, &[]);
        let mut client = agent.connect();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let (got, ending) = client.rest();
        let is_refused = got.starts_with(b"HTTP/1.0 502 ");
        assert!(is_refused || ending == Ending::Reset, "{bytes:?} {end:?} {ending:?}");
    }
}

#[test]
fn a_body_that_a_reset_ends_is_not_whole() {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        peer.wire.send("HTTP/1.1 200 OK\r\n\r\nabc");
        released.lock().unwrap().recv().unwrap();
        peer.wire.reset();
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(GET);
    client.response_head();
    client.expect("3\r\nabc\r\n");
    release.send(()).unwrap();
    assert_eq!(client.rest().0, b"", "no last chunk");
}

/// What the server's end of a connection sees once its client has left.
fn server_that_waits(sends: &'static str) -> (Server, mpsc::Receiver<Instant>) {
    let (saw, seen) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        peer.request_head();
        if peer.wire.try_send(sends).is_ok() {
            peer.wire.patience = PATIENCE;
            let end = Instant::now() + PATIENCE;
            while matches!(peer.wire.fill(end), Ok(1..)) {}
            let _ = saw.send(Instant::now());
        }
    });
    (server, seen)
}

#[track_caller]
fn assert_cancelled(seen: &mpsc::Receiver<Instant>, left: Instant) {
    let saw = seen.recv_timeout(PATIENCE * 2).expect("the server's end is closed");
    let took = saw.saturating_duration_since(left);
    assert!(took < Duration::from_secs(1), "{took:?} after the client had left");
}

#[test]
fn a_client_that_leaves_while_it_waits_cancels_its_request() {
    for leave in [drop::<Wire>, Wire::reset] {
        let (server, seen) = server_that_waits("");
        let agent = Agent::start(server.port, &[]);
        let mut client = agent.connect();
        client.send(POST);
        crate::support::until("the server has the request", || server.seen().len() == 1);
        let left = Instant::now();
        leave(client);
        assert_cancelled(&seen, left);
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_response_cancels_it() {
    let (server, seen) = server_that_waits("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(GET);
    client.response_head();
    client.expect("abc");
    let left = Instant::now();
    drop(client);
    assert_cancelled(&seen, left);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_request_cancels_it() {
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let (server, seen) = server_that_waits("");
        let agent = Agent::start(server.port, &[]);
        let mut client = agent.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        crate::support::until("the server has the head", || server.seen().len() == 1);
        let left = Instant::now();
        drop(client);
        assert_cancelled(&seen, left);
    }
}

#[test]
fn a_client_that_leaves_right_behind_its_request_cancels_it_too() {
    let (server, seen) = server_that_waits("");
    let agent = Agent::start(server.port, &["--threads=1"]);
    // A worker that has something else to do finds the request and the end of the connection at the same time.
    for _ in 0..50 {
        let mut client = agent.connect();
        client.send(GET);
        let left = Instant::now();
        drop(client);
        // The agent may have seen the end before it passed the request on.
        if crate::support::holds_within(Duration::from_millis(50), || !server.seen().is_empty()) {
            assert_cancelled(&seen, left);
        }
    }
}

#[test]
fn a_failure_of_one_exchange_does_not_touch_another() {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        if peer.request().is_some_and(|request| request.target() == "/held") {
            released.lock().unwrap().recv().unwrap();
            peer.wire.send(OK);
        } else {
            peer.wire.reset();
        }
    });
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut held = agent.connect();
    held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(agent.ask(POST).status(), 502);
    }
    release.send(()).unwrap();
    assert_eq!(held.response().status(), 200);
}
