//! What is not quite right and means one thing all the same: SPEC P13. What goes on is clean.

use crate::batcher_support::{NEVER, batching, predict, predictions, together};
use crate::support::{Agent, Message, Server};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a client gets of a server that answers so, its body's framing included.
fn answered(response: &'static [u8]) -> Message {
    let server = Server::answering(response);
    Agent::start(server.port, &[]).ask(GET)
}

#[test]
fn bytes_over_0x7f_in_a_target_are_percent_encoded() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    for (raw, clean) in [
        ("/v1/models/größe:predict".as_bytes(), "/v1/models/gr%C3%B6%C3%9Fe:predict"),
        ("/m?user=中".as_bytes(), "/m?user=%E4%B8%AD"),
        (b"/latin-\xe9", "/latin-%E9"),
        (b"http://a/\xff", "/%FF"),
        (b"/%C3%B6", "/%C3%B6"),
    ] {
        let request = [b"GET ", raw, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        // A byte at a time, so that the head comes to the parser at every length.
        for pieces in [vec![&request[..]], request.chunks(1).collect()] {
            pieces.into_iter().for_each(|piece| client.send(piece));
            assert_eq!(client.response().status(), 200, "{clean}");
            assert_eq!(server.seen().last().unwrap().target(), clean);
        }
    }
    // Elsewhere in the line they mean nothing.
    assert_eq!(agent.ask(b"G\xc3\xb6T / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 400);
}

#[test]
fn a_target_of_a_batch_is_encoded_too() {
    let server = Server::with(crate::batcher_support::echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let request = predict(&["1"]).replacen("/v1/models/", "/v1/models/ö", 1);
    together(&agent, &[&request, &request]).iter().for_each(|got| assert_eq!(predictions(got), ["1"]));
    assert!(server.only().target().starts_with("/v1/models/%C3%B6"), "{}", server.only().target());
}

#[test]
fn a_target_that_is_too_long_when_it_is_encoded_is_refused() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let with = |count: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "ö".repeat(count));
    assert_eq!(agent.ask(with(2000)).status(), 200);
    assert_eq!(agent.ask(with(3000)).status(), 414);
}

#[test]
fn blanks_before_the_colons_of_a_response_are_removed() {
    let got = answered(b"HTTP/1.1 200 OK\r\nX-A : 1 : 2\r\nContent-Length\t : 2\r\nX-B:3\r\n\r\nok");
    assert_eq!((got.status(), got.text().as_str()), (200, "ok"));
    let head = String::from_utf8(got.head.clone()).unwrap();
    assert!(head.contains("\r\nX-A: 1 : 2\r\n") && head.contains("\r\nX-B:3\r\n"), "{head}");
    assert!(!head.contains(" :") || head.contains("1 : 2"), "{head}");
    // They hide no framing.
    let got = answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    assert_eq!(got.text(), "ok");
    let got =
        answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    assert_eq!(got.status(), 502);
    // A name is still one.
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\nX A : 1\r\nContent-Length: 2\r\n\r\nok").status(), 502);
    assert_eq!(answered(b"HTTP/1.1 200 OK\r\n : 1\r\nContent-Length: 2\r\n\r\nok").status(), 502);
}

#[test]
fn blanks_before_a_colon_are_found_wherever_the_head_is_cut() {
    const RESPONSE: &[u8] =
        b"HTTP/1.1 103 Early\r\nLink : a\r\n\r\nHTTP/1.1 200 OK\r\nX \t: 1\r\nContent-Length : 2\r\n\r\nok";
    for cut in 1..RESPONSE.len() {
        let server = Server::start(move |mut peer| {
            while peer.request().is_some() {
                peer.wire.send(&RESPONSE[..cut]);
                std::thread::yield_now();
                peer.wire.send(&RESPONSE[cut..]);
            }
        });
        let agent = Agent::start(server.port, &["--threads=1"]);
        let mut client = agent.connect();
        client.send(GET);
        assert_eq!(client.response().status(), 103, "{cut}");
        let got = client.response();
        assert_eq!((got.field("x").as_deref(), got.text().as_str()), (Some("1"), "ok"), "{cut}");
    }
}

#[test]
fn blanks_behind_the_sizes_of_a_servers_chunks_are_passed_over() {
    let response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2   \r\nok\r\n1\t \r\n!\r\n0 \r\n\r\n";
    let got = answered(response);
    assert_eq!(got.text(), "ok!");
    assert_eq!(got.framed, b"2\r\nok\r\n1\r\n!\r\n0\r\n\r\n", "what goes on is clean");
    for broken in ["2 x\r\nok\r\n0\r\n\r\n", " 2\r\nok\r\n0\r\n\r\n", "2 \nok\r\n0\r\n\r\n"] {
        let response = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{broken}");
        let server = Server::answering(response);
        let got = Agent::start(server.port, &[]).ask(GET);
        assert_eq!(got.status(), 502, "{broken:?}");
    }
    // Of a client, whose request others may read in another way, they are not.
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let got = agent.ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n");
    assert_eq!(got.status(), 400);
}

#[test]
fn the_same_holds_for_the_answers_to_batches() {
    let answers = [
        "HTTP/1.1 200 OK\r\nX : 1\r\nContent-Length : 21\r\n\r\n{\"predictions\":[1,2]}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n15  \r\n{\"predictions\":[1,2]}\r\n0 \r\n\r\n",
    ];
    for answer in answers {
        let server = Server::answering(answer);
        let agent = batching(&server, &["--max-batchsize=2", NEVER]);
        let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
        assert_eq!(got.iter().flat_map(predictions).count(), 2, "{answer}");
    }
}

#[test]
fn a_response_may_have_512_fields() {
    let with = |count: usize| {
        let fields: String = (1..count).map(|number| format!("X{number}: 1\r\n")).collect();
        let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"));
        Agent::start(server.port, &[]).ask(GET)
    };
    let got = with(512);
    assert_eq!((got.status(), got.field("x511").as_deref()), (200, Some("1")));
    assert_eq!(with(513).status(), 502);
}

#[test]
fn a_server_is_read_as_leniently_behind_a_batch() {
    let many: String = (0..300).map(|number| format!("X-{number}: 1\r\n")).collect();
    let body = "{\"predictions\":[1]}";
    let chunked = format!("{:x}  \r\n{body}\r\n0 \r\n\r\n", body.len());
    let heads = [
        format!(
            "HTTP/1.1 103 Early\r\nLink : a\r\n\r\nHTTP/1.1 200 OK\r\nX-Some : 1\r\nContent-Length : {}\r\n\r\n{body}",
            body.len()
        ),
        format!("HTTP/1.1 200 OK\r\n{many}X-Some: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        format!("HTTP/1.1 200 OK\r\nx-SOME: 1\r\nTransfer-Encoding : chunked\r\n\r\n{chunked}"),
    ];
    for response in heads {
        for cut in
            [1, response.len() / 2, response.find("\r\n\r\n").unwrap() + 2, response.find(" :").unwrap_or(40) + 1]
        {
            let (first, rest) = (response[..cut].to_owned(), response[cut..].to_owned());
            let server = Server::start(move |mut peer| {
                while peer.request().is_some() {
                    peer.wire.send(&first);
                    std::thread::yield_now();
                    peer.wire.send(&rest);
                }
            });
            let agent = batching(&server, &["--max-batchsize=1"]);
            let got = agent.ask(predict(&["1"]));
            assert_eq!(predictions(&got), ["1"], "{cut} {response}");
            assert_eq!(got.field("x-some").as_deref(), Some("1"));
        }
    }
}
