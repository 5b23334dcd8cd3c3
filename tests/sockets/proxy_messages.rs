//! The forms that HTTP/1 messages come in: SPEC P6.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::support::wire::Ending;
use crate::support::{Agent, OK, Peer, Server};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The answer to a request for `/n`: `n`.
fn echo_target(request: &crate::support::Message) -> Vec<u8> {
    let target = request.target();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}{}",
        target.len() + request.body.len(),
        request.text()
    )
    .into_bytes()
}

#[test]
fn an_http_1_0_client_is_answered_in_its_version_and_closed() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let got = client.response();
    assert_eq!(got.line(), "HTTP/1.0 200 OK");
    assert_eq!(got.body, b"{}");
    assert_eq!(client.rest(), (vec![], Ending::Closed));
}

#[test]
fn an_http_1_0_client_may_keep_its_connection() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let got = client.response();
        assert_eq!(got.line(), "HTTP/1.0 200 OK");
        assert!(got.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")), "{got:?}");
    }
}

#[test]
fn an_http_1_0_client_gets_a_chunked_response_bare_and_a_close_for_its_end() {
    let server =
        Server::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = client.response_head();
    assert_eq!(head.field("transfer-encoding"), None);
    assert_eq!(client.rest(), (b"abcde".to_vec(), Ending::Closed));
}

#[test]
fn a_client_that_asks_for_a_close_gets_one() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.response().field("connection").as_deref(), Some("close"));
    assert_eq!(client.rest(), (vec![], Ending::Closed));
}

#[test]
fn requests_one_after_the_other_share_a_connection_on_both_sides() {
    let server = Server::with(echo_target);
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    for number in 0..50 {
        client.send(format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n:x"));
        assert_eq!(client.response().text(), format!("/{number}:x"));
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn five_hundred_pipelined_requests_are_answered_in_order() {
    let server = Server::with(echo_target);
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    let request = |number: usize| match number % 3 {
        0 => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n"),
        1 => format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
        _ => format!(
            "PUT /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
        ),
    };
    client.send((0..500).map(request).collect::<String>());
    for number in 0..500 {
        let body = if number % 3 == 0 { "" } else { "body" };
        assert_eq!(client.response().text(), format!("/{number}{body}"));
    }
}

#[test]
fn a_pipelined_request_behind_a_slow_one_waits_for_its_turn() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::with(move |request| {
        if request.target() == "/slow" {
            let _ = released.lock().unwrap().recv();
        }
        echo_target(request)
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
    // Another client's request shows that the agent has had its turn.
    assert_eq!(agent.ask("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").text(), "/other");
    assert!(server.seen().iter().all(|request| request.target() != "/quick"));
    release.send(()).unwrap();
    assert_eq!(client.response().text(), "/slow");
    assert_eq!(client.response().text(), "/quick");
}

const EXPECTING: &str = "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";

#[test]
fn a_100_from_the_server_reaches_the_client_before_it_sends_its_body() {
    let server = Server::start(|mut peer: Peer| {
        peer.request_head().unwrap();
        peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        peer.wire.expect("hi");
        peer.wire.send(OK);
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(EXPECTING);
    assert_eq!(client.response().line(), "HTTP/1.1 100 Continue");
    client.send("hi");
    assert_eq!(client.response().status(), 200);
    assert_eq!(server.only().field("expect").as_deref(), Some("100-continue"));
}

#[test]
fn a_client_that_does_not_wait_for_the_100_is_served_as_well() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    for _ in 0..2 {
        client.send(format!("{EXPECTING}hi"));
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(server.seen()[1].body, b"hi");
}

#[test]
fn a_final_status_instead_of_the_100_is_passed_on_and_the_connection_closed() {
    let server = Server::start(|mut peer: Peer| {
        peer.request_head().unwrap();
        peer.wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
        let _ = peer.wire.rest();
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(EXPECTING);
    let got = client.response();
    assert_eq!((got.status(), got.text().as_str()), (401, "no"));
    assert_eq!(got.field("connection").as_deref(), Some("close"));
    assert_eq!(client.rest().0, b"");
}

#[test]
fn interim_responses_pass_when_they_come() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            peer.wire.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            let _ = released.lock().unwrap().recv();
            peer.wire.send(OK);
        }
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(GET);
    assert_eq!(client.response().line(), "HTTP/1.1 102 Processing");
    let hints = client.response();
    assert_eq!((hints.status(), hints.field("link").as_deref()), (103, Some("</a>")));
    release.send(()).unwrap();
    assert_eq!(client.response().status(), 200);
    // HTTP/1.0 has no interim responses.
    release.send(()).unwrap();
    assert_eq!(agent.ask("GET / HTTP/1.0\r\n\r\n").line(), "HTTP/1.0 200 OK");
}

#[test]
fn responses_without_a_body_leave_the_connection_usable_on_both_sides() {
    let server = Server::with(|request| {
        let answer: &[u8] = match request.target().as_str() {
            "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"1\"\r\n\r\n",
            _ => OK,
        };
        answer.to_vec()
    });
    let agent = Agent::start(server.port, &["--threads=1"]);
    let mut client = agent.connect();
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_head().field("content-length").as_deref(), Some("1000"));
    client.send("GET /204 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response_head().line(), "HTTP/1.1 204 No Content");
    client.send("GET /304 HTTP/1.1\r\nHost: a\r\n\r\n");
    let got = client.response_head();
    assert_eq!((got.status(), got.field("etag").as_deref()), (304, Some("\"1\"")));
    client.send(GET);
    assert_eq!(client.response().body, b"{}");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_response_that_ends_with_its_connection_is_chunked_for_the_client() {
    let server = Server::start(|mut peer: Peer| {
        peer.request();
        peer.wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of ");
        peer.wire.send("it");
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    for _ in 0..2 {
        client.send(GET);
        let got = client.response();
        assert_eq!(got.field("transfer-encoding").as_deref(), Some("chunked"));
        assert_eq!(got.text(), "all of it");
    }
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response_head().field("transfer-encoding"), None);
    assert_eq!(client.rest(), (b"all of it".to_vec(), Ending::Closed));
}

#[test]
fn an_http_1_0_server_is_understood() {
    let server = Server::start(|mut peer: Peer| {
        peer.request();
        peer.wire.send("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    for _ in 0..3 {
        client.send(GET);
        let got = client.response();
        assert_eq!((got.line().as_str(), got.text().as_str()), ("HTTP/1.1 200 OK", "ok"));
    }
    assert_eq!(server.connections(), 3);
}
