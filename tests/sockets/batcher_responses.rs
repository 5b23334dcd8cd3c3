//! Fields of the server's answers: SPEC B12, and B2 where it names one.

use crate::batcher_support::{
    NEVER, answer, assert_turned_away, batching, echo, infer, instances_of, predict, predictions, submit, together,
};
use crate::support::{Message, OK, Server};

const FIELDS: &str = "content-type: application/json\r\nX-Model: m\r\nx-model: n\r\nServer-Timing: total;dur=5\r\n\
    Connection: keep-alive, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
    Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n";

fn with_fields(request: &Message) -> Vec<u8> {
    if !request.line().starts_with("POST") {
        return OK.to_vec();
    }
    let body = format!("{{\"predictions\":[{}]}}", instances_of(request).join(","));
    answer("200 OK", FIELDS, &body)
}

#[track_caller]
fn assert_fields(got: &Message) {
    assert_eq!(got.field("content-type").as_deref(), Some("application/json"), "{got:?}");
    assert_eq!(got.field("x-model").as_deref(), Some("m, n"), "{got:?}");
    assert_eq!(got.field("server-timing").as_deref(), Some("total;dur=5"), "{got:?}");
    assert_eq!(got.field("content-length"), Some(got.body.len().to_string()), "{got:?}");
    for name in ["x-gone", "keep-alive", "proxy-connection", "transfer-encoding", "connection", "trailer"] {
        assert_eq!(got.field(name), None, "{got:?}");
    }
}

#[test]
fn fields_of_the_server_pass_to_every_member_but_cookies_do_not() {
    let server = Server::with(with_fields);
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    for (got, share) in together(&agent, &[predict(&["1"]), predict(&["2", "3"])]).iter().zip([1, 2]) {
        assert_eq!(predictions(got).len(), share);
        assert_fields(got);
        assert_eq!(got.field("set-cookie"), None, "whose it is can't be known");
    }
}

#[test]
fn a_request_that_is_alone_gets_the_cookies_too() {
    let server = Server::with(with_fields);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let got = agent.ask(predict(&["1"]));
    assert_eq!(predictions(&got), ["1"]);
    assert_fields(&got);
    assert_eq!(got.field("set-cookie").as_deref(), Some("a=1, b=2"));
}

#[test]
fn a_failure_that_is_passed_on_brings_its_fields_but_no_cookie() {
    let server = Server::with(|_| answer("503 Busy", FIELDS, "{\"detail\":\"busy\"}"));
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    for got in together(&agent, &[predict(&["1"]), predict(&["2"])]) {
        assert_eq!((got.status(), got.text().as_str()), (503, "{\"detail\":\"busy\"}"));
        assert_fields(&got);
        assert_eq!(got.field("set-cookie"), None);
    }
}

#[test]
fn fields_of_a_v2_answer_pass_and_its_length_is_its_own() {
    let server = Server::with(|request| {
        let reply = String::from_utf8(echo(request)).unwrap();
        reply.replacen("Content-Type: application/json\r\n", FIELDS, 1).into_bytes()
    });
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    let with = |shape: &str, data: &str| {
        infer(&format!("{{\"inputs\":[{{\"name\":\"a\",\"datatype\":\"INT8\",\"shape\":{shape},\"data\":{data}}}]}}"))
    };
    for got in together(&agent, &[with("[1,1]", "[1]"), with("[2,1]", "[2,3]")]) {
        assert_eq!(got.status(), 200, "{}", got.text());
        assert_fields(&got);
        assert_eq!(got.field("set-cookie"), None);
    }
}

#[test]
fn any_framing_of_the_servers_answer_is_read() {
    const BODY: &str = "{\"predictions\":[1,2]}";
    let chunks: String = BODY.chars().map(|c| format!("1;x\r\n{c}\r\n")).collect();
    let answers = [
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nX-Trailer: 1\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BODY}", BODY.len()),
        format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{BODY}"),
        format!("HTTP/1.0 200 OK\r\n\r\n{BODY}"),
        format!("HTTP/1.1 200 OK\r\n\r\n{BODY}"),
    ];
    for bytes in answers {
        let ends = !bytes.contains("chunked") && !bytes.contains("Length: 21\r\n\r\n");
        let reply = bytes.clone();
        let server = Server::start(move |mut peer| {
            while peer.request().is_some() {
                if peer.wire.try_send(&reply).is_err() || ends {
                    return peer.wire.close();
                }
            }
        });
        let agent = batching(&server, &["--max-batchsize=2", NEVER]);
        for _ in 0..3 {
            let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
            let mut got: Vec<String> = got.iter().flat_map(predictions).collect();
            got.sort();
            assert_eq!(got, ["1", "2"], "{bytes}");
        }
    }
}

#[test]
fn a_proxy_named_in_the_environment_is_not_used() {
    let server = Server::with(echo);
    let mut setup = crate::support::Agent::setup(server.port).flags(&["--enable-batcher", "--max-batchsize=1"]);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"] {
        setup = setup.env(name, "http://127.0.0.1:1");
    }
    assert_eq!(predictions(&setup.start().ask(predict(&["1"]))), ["1"]);
}

#[test]
fn an_agent_that_turns_a_request_away_names_no_server() {
    let server = Server::with(with_fields);
    let agent = batching(&server, &["--max-batchsize=9", "--batch-queue=1", NEVER]);
    let _waiting = submit(&agent, predict(&["1"]));
    let got = agent.ask(predict(&["2"]));
    assert_turned_away(&got);
    assert_eq!((got.field("x-model"), got.field("content-length")), (None, Some(got.body.len().to_string())));
}
