//! What passes, what is consumed, what is added: SPEC P1, P3, P4, P5.

use std::net::{Ipv6Addr, TcpStream};

use crate::support::{Agent, Message, OK, Server, Wire};

/// Sends one request through an agent; returns what the server read and what the client got.
fn pass(request: impl AsRef<[u8]>, response: &'static [u8]) -> (Message, Message) {
    let server = Server::answering(response);
    let agent = Agent::start(server.port, &[]);
    let got = agent.ask(request);
    (server.only(), got)
}

/// The fields of a request without the one that the agent adds.
fn fields_but_forwarded_for(message: &Message) -> Vec<(String, String)> {
    message.fields().into_iter().filter(|(name, _)| name != "X-Forwarded-For").collect()
}

fn list(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_request_reaches_the_server_as_it_was_sent_and_nothing_is_added() {
    let request = b"POST /v1/Models/M%2f:predict?x=%20y&&z HTTP/1.1\r\nhOST: Model.example:81\r\nx-b: 2\r\nX-A: 1\r\n\
        X-B: 3\r\nx-Empty:\r\nX-Latin: caf\xe9\r\nContent-Length: 3\r\nCookie: a=1; b=2\r\nCookie: c=3\r\n\r\nabc";
    let (seen, _) = pass(request, OK);
    assert_eq!(seen.line(), "POST /v1/Models/M%2f:predict?x=%20y&&z HTTP/1.1");
    let wanted = [
        ("hOST", "Model.example:81"),
        ("x-b", "2"),
        ("X-A", "1"),
        ("X-B", "3"),
        ("x-Empty", ""),
        ("X-Latin", "caf\u{e9}"),
        ("Content-Length", "3"),
        ("Cookie", "a=1; b=2"),
        ("Cookie", "c=3"),
    ];
    assert_eq!(fields_but_forwarded_for(&seen), list(&wanted));
    assert_eq!(seen.body, b"abc");
}

#[test]
fn a_response_reaches_the_client_as_it_was_sent() {
    let response = b"HTTP/1.1 207 Multi  Status!\r\nset-Cookie: a=1\r\nServer: x\r\nSet-Cookie: b=2\r\nx-empty:\r\n\
        X-Latin: caf\xe9\r\nContent-Length: 3\r\nDate: Mon, 23 Nov 2026 19:44:25 GMT\r\n\r\nabc";
    let (_, got) = pass("GET / HTTP/1.1\r\nHost: a\r\n\r\n", response);
    assert_eq!([got.head, got.body].concat(), response);
}

#[test]
fn any_method_passes() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let methods = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "get", "X"];
    for method in methods {
        assert_eq!(agent.ask(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).status(), 200, "{method}");
    }
    let seen: Vec<String> = server.seen().iter().map(|request| request.line().replace(" / HTTP/1.1", "")).collect();
    assert_eq!(seen, methods);
}

#[test]
fn any_status_passes_with_its_reason() {
    let server = Server::with(|request| {
        let line = request.target().replace("/", "").replace('_', " ");
        format!("HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\n{{}}").into_bytes()
    });
    let agent = Agent::start(server.port, &[]);
    for line in ["200_OK", "201_Created", "299_", "404_Not_Found", "418_I'm_a_teapot", "500_Oops", "599_x"] {
        let got = agent.ask(format!("GET /{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(got.line(), format!("HTTP/1.1 {}", line.replace('_', " ")));
        assert_eq!(got.body, b"{}");
    }
}

#[test]
fn a_compressed_body_passes_compressed_to_a_client_that_did_not_ask_for_it() {
    let response = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\n\x1f\x8b\x08\x00\xff\x00";
    let (seen, got) = pass("GET / HTTP/1.1\r\nHost: a\r\n\r\n", response);
    assert_eq!(seen.field("accept-encoding"), None);
    assert_eq!(got.field("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(got.body, b"\x1f\x8b\x08\x00\xff\x00");
}

#[test]
fn bytes_of_every_value_pass_both_ways_in_both_framings() {
    let body: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let server = Server::with(|request| {
        let is_chunked = request.field("transfer-encoding").is_some();
        let framing = if is_chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", request.framed.len())
        };
        [format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes(), &request.framed].concat()
    });
    let agent = Agent::start(server.port, &[]);
    let length = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(70_001) {
        chunked.extend_from_slice(format!("{:x};ext=\"1\"\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    for request in [[length.into_bytes(), body.clone()].concat(), chunked] {
        assert!(agent.ask(request).body == body);
    }
}

#[test]
fn hop_by_hop_fields_of_a_request_end_at_the_agent() {
    let request = "GET / HTTP/1.1\r\nHost: model.example\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\n\
        Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\nX-Kept: 1\r\n\r\n";
    let (seen, _) = pass(request, OK);
    let wanted = [("Host", "model.example"), ("TE", "trailers"), ("X-Kept", "1")];
    assert_eq!(fields_but_forwarded_for(&seen), list(&wanted));
}

#[test]
fn hop_by_hop_fields_of_a_response_end_at_the_agent() {
    let response = b"HTTP/1.1 200 OK\r\nConnection: keep-alive, x-gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\n\
        Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n";
    let (_, got) = pass("GET / HTTP/1.1\r\nHost: a\r\n\r\n", response);
    assert_eq!(got.fields(), list(&[("X-Kept", "1"), ("Content-Length", "0")]));
}

#[test]
fn te_goes_on_only_as_trailers() {
    for (te, wanted) in [
        ("trailers", Some("trailers")),
        ("deflate, trailers", Some("trailers")),
        ("gzip", None),
        ("trailers\r\nTE: gzip", Some("trailers")),
    ] {
        let (seen, _) = pass(format!("GET / HTTP/1.1\r\nHost: a\r\nTE: {te}\r\n\r\n"), OK);
        assert_eq!(seen.field("te").as_deref(), wanted, "{te}");
    }
}

#[test]
fn trailers_pass_both_ways() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-more: 2\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n";
    let (seen, got) = pass(request, response);
    assert_eq!(seen.field("trailer").as_deref(), Some("X-Sum"));
    assert!(seen.framed.ends_with(b"0\r\nX-Sum: 1\r\nx-more: 2\r\n\r\n"), "{seen:?}");
    assert_eq!(got.field("trailer").as_deref(), Some("X-Sum"));
    assert!(got.framed.ends_with(b"0\r\nX-Sum: 3\r\n\r\n"), "{got:?}");
}

#[test]
fn the_clients_address_is_appended_and_forwarded_made_as_knative_makes_it() {
    // Rows 1 to 3 are the Go agent's transcripts; the rest follows Knative's shim.
    let cases: [(&str, &str, Option<&str>); 9] = [
        ("", "127.0.0.1", None),
        (
            "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer.example\r\n",
            "1.2.3.4, 5.6.7.8, 127.0.0.1",
            Some("for=1.2.3.4;host=outer.example;proto=https, for=5.6.7.8"),
        ),
        ("Forwarded: for=9.9.9.9\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4, 127.0.0.1", Some("for=9.9.9.9")),
        ("X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1, 127.0.0.1", Some("for=\"[2001:db8::1]\"")),
        ("X-Forwarded-Proto: http\r\n", "127.0.0.1", Some("proto=http")),
        ("X-Forwarded-Host: h.example\r\n", "127.0.0.1", Some("host=h.example")),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n", "127.0.0.1", Some("host=h;proto=https")),
        ("x-forwarded-for: 1.1.1.1\r\n", "1.1.1.1, 127.0.0.1", Some("for=1.1.1.1")),
        (
            "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n",
            "1.1.1.1, 2.2.2.2, 127.0.0.1",
            Some("for=1.1.1.1"),
        ),
    ];
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    for (index, (fields, forwarded_for, forwarded)) in cases.into_iter().enumerate() {
        agent.ask(format!("GET / HTTP/1.1\r\nHost: model.example\r\n{fields}\r\n"));
        let seen = server.seen().remove(index);
        assert_eq!(seen.field("x-forwarded-for").as_deref(), Some(forwarded_for), "{fields}");
        assert_eq!(seen.field("forwarded").as_deref(), forwarded, "{fields}");
        assert_eq!(seen.field("via"), None);
    }
}

#[test]
fn a_client_over_ipv6_is_named_by_its_address() {
    let Ok(probe) = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        return eprintln!("no IPv6 here: not tried");
    };
    drop(probe);
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = Wire::of(TcpStream::connect((Ipv6Addr::LOCALHOST, agent.port)).unwrap());
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert_eq!(server.only().field("x-forwarded-for").as_deref(), Some("::1"));
}

#[test]
fn an_http_1_0_request_without_host_gets_the_servers_address() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    agent.ask("GET / HTTP/1.0\r\n\r\n");
    agent.ask("GET / HTTP/1.0\r\nHost: own\r\n\r\n");
    let seen = server.seen();
    assert_eq!(seen[0].line(), "GET / HTTP/1.1");
    assert_eq!(seen[0].field("host"), Some(format!("127.0.0.1:{}", server.port)));
    assert_eq!(seen[1].field("host").as_deref(), Some("own"));
}
