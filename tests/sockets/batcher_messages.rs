//! Which requests are batched, and what their messages look like: SPEC B1, B2; P6 and P11 as far as they concern those.

use std::time::{Duration, Instant};

use crate::batcher_support::{
    NEVER, PATH, V2_PATH, batch_of, batching, calls, echo, infer, instances_body, post, posts, predict, predictions,
    together,
};
use crate::support::{Agent, Server};

/// Bodies and the texts that they are refused with; the first five as in `go-agent/transcripts.json`.
const REFUSED: [(&str, &str); 33] = [
    ("{\"instances\":[]}", "no instances in the request\n"),
    ("{\"x\":1}", "no instances in the request\n"),
    ("nope", "can't Unmarshal body\n"),
    ("", "can't Unmarshal body\n"),
    ("{\"instances\":{}}", "can't Unmarshal body\n"),
    ("{}", "no instances in the request\n"),
    (" { \"instances\" : [ \r\n\t] } ", "no instances in the request\n"),
    ("{\"instances\":null}", "no instances in the request\n"),
    ("{\"x\":{\"instances\":[1]}}", "no instances in the request\n"),
    ("{\"x\":\"\\\"instances\\\":[1]\"}", "no instances in the request\n"),
    ("{\"instances\":5}", "can't Unmarshal body\n"),
    ("{\"instances\":\"[1]\"}", "can't Unmarshal body\n"),
    ("[1]", "can't Unmarshal body\n"),
    ("{\"instances\":[1]", "can't Unmarshal body\n"),
    ("{\"instances\":[1}", "can't Unmarshal body\n"),
    ("{\"instances\":[1,]}", "can't Unmarshal body\n"),
    ("{\"instances\":[1]}]", "can't Unmarshal body\n"),
    ("{\"instances\":[1] \"x\":2}", "can't Unmarshal body\n"),
    ("{\"instances\":[\"\\x\"]}", "can't Unmarshal body\n"),
    ("{\"instances\":[01]}", "can't Unmarshal body\n"),
    ("{\"instances\":[1.]}", "can't Unmarshal body\n"),
    ("{\"instances\":[-]}", "can't Unmarshal body\n"),
    ("{\"instances\":[+1]}", "can't Unmarshal body\n"),
    ("{\"instances\":[1e]}", "can't Unmarshal body\n"),
    ("{\"instances\":[nan]}", "can't Unmarshal body\n"),
    ("{\"instances\":[Inf]}", "can't Unmarshal body\n"),
    ("{\"instances\":[nul]}", "can't Unmarshal body\n"),
    ("{\"instances\":[\"\t\"]}", "can't Unmarshal body\n"),
    ("{\"instances\":[\"\\u00g0\"]}", "can't Unmarshal body\n"),
    ("{\"instances\":[{\"a\"}]}", "can't Unmarshal body\n"),
    ("{\"instances\":[1],}", "can't Unmarshal body\n"),
    ("{\"instances\":[1]}\u{0}", "can't Unmarshal body\n"),
    ("\u{feff}{\"instances\":[1]}", "can't Unmarshal body\n"),
];

#[test]
fn a_body_that_is_no_predict_request_is_refused_with_the_go_agents_text_and_the_connection_stays() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-latency=50"]);
    let mut client = agent.connect();
    for (body, text) in REFUSED {
        client.send(post(PATH, "", body));
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (400, text), "{body}");
        assert_eq!(got.field("content-type").as_deref(), Some("text/plain; charset=utf-8"), "{body}");
        assert_eq!(got.field("connection"), None, "{body}");
    }
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    client.send(predict(&["1"]));
    assert_eq!(predictions(&client.response()), ["1"]);
}

#[test]
fn a_body_that_can_not_be_read_is_refused_and_the_connection_closed() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-latency=50"]);
    let chunked = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let half = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\n\r\n{{\"instances\"");
    let cases = [
        (format!("{chunked}zz\r\n"), false),
        (format!("{chunked}1\r\n{{xx"), false),
        (format!("{chunked}\r\n"), false),
        (format!("{chunked}-1\r\n"), false),
        (half.clone(), true),
        (half.replace(" 17", " 7999999"), true),
        (format!("{chunked}5\r\n{{\"ins"), true),
        (format!("{chunked}11\r\n{{\"instances\":[1]}}\r\n"), true),
        (format!("{chunked}11\r\n{{\"instances\":[1]}}\r\n0\r\n"), true),
    ];
    for (request, ends) in cases {
        let mut client = agent.connect();
        client.send(&request);
        if ends {
            client.end();
        }
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (400, "can't read body\n"), "{request:?}");
        assert_eq!(got.field("connection").as_deref(), Some("close"), "{request:?}");
        assert_eq!(client.rest().0, b"", "{request:?}");
    }
    assert!(server.seen().is_empty(), "{:?}", server.seen());
}

#[test]
fn a_body_that_stops_is_refused_in_time() {
    const WINDOW: Duration = Duration::from_secs(3);
    let server = Server::with(echo);
    let agent = batching(&server, &["--request-body-timeout=3s"]);
    let mut client = agent.connect();
    client.patience = WINDOW + Duration::from_secs(10);
    client.send(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{{"));
    let began = Instant::now();
    assert_eq!(client.response().status(), 408);
    assert!(began.elapsed() + Duration::from_millis(100) >= WINDOW, "{:?}", began.elapsed());
    assert!(server.seen().is_empty());
}

#[test]
fn a_post_to_any_path_that_ends_in_predict_is_batched() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-latency=5"]);
    for target in [PATH, "/v1/models/m:predict?a=1&b=:explain", "/:predict", "/custom/x%2Fy:predict?"] {
        let got = agent.ask(post(target, "Content-Type: application/json\r\n", "{\"instances\":[1]}"));
        assert_eq!(predictions(&got), ["1"]);
        assert_eq!(posts(&server).last().unwrap().target(), target, "path and query reach the server as they are");
    }
}

#[test]
fn a_request_that_is_no_candidate_goes_straight_through() {
    const BODY: &str = "{\"instances\":[1]}";
    let server =
        Server::with(|_| b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 19\r\n\r\n{\"predictions\":[1]}".to_vec());
    // Whatever the batcher took would wait for a second one.
    let agent = batching(&server, &[NEVER]);
    let targets = [
        ("GET", PATH),
        ("PUT", PATH),
        ("PATCH", PATH),
        ("DELETE", PATH),
        ("post", PATH),
        ("POST", "/v1/models/m:explain"),
        ("POST", "/v1/models/m:predict/"),
        ("POST", "/v1/models/m:predict2"),
        ("POST", "/v1/models/mpredict"),
        ("POST", "/v1/models/m?x=:predict"),
        ("POST", "/v1/completions"),
        ("POST", "/"),
        ("GET", V2_PATH),
        ("PUT", V2_PATH),
        ("POST", "/v2/models/m/infer/"),
        ("POST", "/v2/models/m/ready"),
        ("POST", "/v2/models/m/generate"),
        ("POST", "/v2/models/m/versions/1"),
        ("POST", "/v2/models/m/versions/1/x/infer"),
        ("POST", "/v2/models/infer"),
        ("POST", "/v3/models/m/infer"),
        ("POST", "/v2/models/m/versions/1/explain"),
    ];
    for (method, target) in targets {
        let request = post(target, "Content-Type: application/json\r\nX-B: 2\r\n", BODY).replacen("POST", method, 1);
        assert_passes(&agent, &server, &request, BODY);
    }
    let fields = [
        "Content-Encoding: gzip\r\n",
        "content-encoding: br\r\n",
        "Content-Encoding: identity, zstd\r\n",
        "Ce-Specversion: 1.0\r\nCe-Id: 1\r\n",
        "ce-specversion: 1.0\r\n",
        "Content-Type: application/cloudevents+json\r\n",
        "Content-Type: Application/CloudEvents-batch+json; charset=utf-8\r\n",
    ];
    for fields in fields {
        assert_passes(&agent, &server, &post(PATH, fields, BODY), BODY);
    }
}

#[test]
fn a_v2_request_that_can_not_be_merged_goes_straight_through() {
    let server =
        Server::with(|_| b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 19\r\n\r\n{\"predictions\":[1]}".to_vec());
    let agent = batching(&server, &[NEVER]);
    let good = |name: &str, shape: &str, rest: &str| {
        format!("{{\"name\":\"{name}\",\"datatype\":\"INT32\",\"shape\":{shape}{rest}}}")
    };
    let one = good("a", "[1,2]", ",\"data\":[1,2]");
    let bodies = [
        "nope".to_owned(),
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        "{\"inputs\":[]}".to_owned(),
        "{\"inputs\":{}}".to_owned(),
        format!("{{\"inputs\":[{one}]"),
        format!("{{\"inputs\":[{one},{}]}}", good("b", "[2,2]", ",\"data\":[1,2,3,4]")),
        format!("{{\"inputs\":[{}]}}", good("a", "[1,2]", "")),
        format!("{{\"inputs\":[{}]}}", good("a", "[1,2]", ",\"parameters\":{\"binary_data_size\":8}")),
        format!("{{\"inputs\":[{}]}}", good("a", "[0,2]", ",\"data\":[]")),
        format!("{{\"inputs\":[{}]}}", good("a", "[]", ",\"data\":[1]")),
        format!("{{\"inputs\":[{}]}}", good("a", "[2,2]", ",\"data\":[1,2,3]")),
        format!("{{\"inputs\":[{}]}}", good("a", "[-1,2]", ",\"data\":[1,2]")),
        format!("{{\"inputs\":[{}]}}", good("a", "[1.0,2]", ",\"data\":[1,2]")),
        format!("{{\"inputs\":[{}]}}", good("a", "[18446744073709551617,2]", ",\"data\":[1,2]")),
        format!("{{\"inputs\":[{}]}}", good("a", "[4294967296,4294967296]", ",\"data\":[]")),
        format!("{{\"inputs\":[{}]}}", good("a", "5", ",\"data\":[1,2]")),
        format!("{{\"inputs\":[{one}],\"parameters\":{{\"binary_data_output\":true}}}}"),
        format!("{{\"inputs\":[{one}],\"outputs\":[{{\"name\":\"o\",\"parameters\":{{\"binary_data\":true}}}}]}}"),
    ];
    for body in bodies {
        assert_passes(&agent, &server, &infer(&body), &body);
    }
    let whole = format!("{{\"inputs\":[{one}]}}");
    assert_passes(&agent, &server, &post(V2_PATH, "Inference-Header-Content-Length: 5\r\n", &whole), &whole);
}

/// Both messages pass unchanged, apart from the field that the agent adds for the client's address.
#[track_caller]
fn assert_passes(agent: &Agent, server: &Server, request: &str, body: &str) {
    let before = server.seen().len();
    let got = agent.ask(request);
    assert_eq!((got.status(), got.text().as_str()), (200, "{\"predictions\":[1]}"), "{request}");
    let seen = server.seen().remove(before);
    assert_eq!(seen.text(), body, "{request}");
    let head = String::from_utf8(seen.head).unwrap().replace("X-Forwarded-For: 127.0.0.1\r\n", "");
    assert_eq!(head, request[..request.len() - body.len()]);
}

#[test]
fn an_identity_coding_is_batched() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-latency=5"]);
    for fields in ["Content-Encoding: identity\r\n", "content-encoding: Identity\r\n"] {
        assert_eq!(predictions(&agent.ask(post(PATH, fields, "{\"instances\":[1]}"))), ["1"]);
    }
}

#[test]
fn without_the_flag_nothing_is_batched() {
    let server = Server::with(echo);
    let agent = Agent::start(server.port, &["--max-latency=600000"]);
    assert_eq!(agent.ask(predict(&["1"])).text(), "{\"predictions\":[1]}");
    assert_eq!(agent.ask(post(PATH, "", "{}").replace("POST", "GET")).text(), "{}");
}

#[test]
fn members_of_a_batch_have_its_id_and_no_other_has() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER]);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let got = together(&agent, &[predict(&["1", "[2]"]), predict(&["{\"a\":3}"]), predict(&["4"])]);
        let got: Vec<_> = got.iter().map(batch_of).collect();
        assert!(got.iter().all(|(id, _)| *id == got[0].0), "{got:?}");
        let shares: Vec<_> = got.iter().map(|(_, share)| share.join(" ")).collect();
        assert_eq!(shares, ["1 [2]", "{\"a\":3}", "4"]);
        ids.push(got[0].0.clone());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    assert!(calls(&server).iter().all(|call| call.len() == 4));
}

#[test]
fn an_http_1_0_client_is_batched_and_its_connection_ends_unless_it_asks() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let old = predict(&["1"]).replace("HTTP/1.1", "HTTP/1.0").replace("Host: a\r\n", "");
    let mut client = agent.connect();
    client.send(&old);
    assert_eq!(predictions(&client.response()), ["1"]);
    assert_eq!(client.rest().0, b"");
    let mut client = agent.connect();
    for _ in 0..2 {
        client.send(old.replacen("\r\n", "\r\nConnection: keep-alive\r\n", 1));
        assert_eq!(predictions(&client.response()), ["1"]);
    }
}

#[test]
fn a_chunked_request_is_batched_and_has_one_framing_at_the_server() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let body = instances_body(&["[1, 2]"]);
    let chunks: String = body.chars().map(|c| format!("1;x=1\r\n{c}\r\n")).collect();
    let mut client = agent.connect();
    for _ in 0..2 {
        client.send(format!(
            "POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nX: 1\r\n\r\n"
        ));
        assert_eq!(predictions(&client.response()), ["[1, 2]"]);
    }
    for seen in server.seen() {
        assert_eq!(seen.text(), body);
        let framings = seen.fields().into_iter().filter(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        assert_eq!(framings.count(), 1, "{seen:?}");
    }
}

#[test]
fn a_client_that_expects_100_is_told_by_the_agent() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let request = predict(&["1"]).replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
    let (head, body) = request.split_at(request.find("{").unwrap());
    let mut client = agent.connect();
    for _ in 0..2 {
        client.send(head);
        assert_eq!(client.response().status(), 100);
        assert!(server.seen().iter().all(|seen| seen.field("expect").is_none()));
        client.send(body);
        assert_eq!(predictions(&client.response()), ["1"]);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_whether_they_are_batched_or_not() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", "--max-latency=20"]);
    let mut client = agent.connect();
    let pass = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client
        .send([&predict(&["1", "2"]), pass, &predict(&["3"]), &post(PATH, "", "{}"), &predict(&["4"]), pass].concat());
    assert_eq!(predictions(&client.response()), ["1", "2"]);
    assert_eq!(client.response().text(), "{}");
    assert_eq!(predictions(&client.response()), ["3"]);
    assert_eq!(client.response().status(), 400);
    assert_eq!(predictions(&client.response()), ["4"]);
    assert_eq!(client.response().text(), "{}");
}

#[test]
fn a_client_that_asks_for_it_is_closed_after_its_answer() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let mut client = agent.connect();
    client.send(predict(&["1"]).replacen("\r\n", "\r\nConnection: close\r\n", 1));
    let got = client.response();
    assert_eq!((predictions(&got), got.field("connection").as_deref()), (vec!["1".to_owned()], Some("close")));
    assert_eq!(client.rest().0, b"");
}

#[test]
fn a_request_in_pieces_is_batched_whatever_the_pieces() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let request = predict(&["\"a\\\"]\"", "{\"b\":[\"\u{e9}\"]}"]);
    let mut client = agent.connect();
    for at in 1..request.len() {
        client.send(&request.as_bytes()[..at]);
        client.send(&request.as_bytes()[at..]);
        assert_eq!(predictions(&client.response()), ["\"a\\\"]\"", "{\"b\":[\"\u{e9}\"]}"], "cut at {at}");
    }
}

#[test]
fn a_body_of_nothing_but_brackets_does_not_end_the_agent() {
    let server = Server::with(|_| crate::batcher_support::json("{\"predictions\":[1]}"));
    let agent = batching(&server, &["--max-batchsize=1"]);
    for opening in ["[", "{\"a\":"] {
        for body in [opening.repeat(300_000), format!("{{\"instances\":[{}", opening.repeat(300_000))] {
            let got = agent.ask(post(PATH, "", &body));
            assert_eq!((got.status(), got.text().as_str()), (400, "can't Unmarshal body\n"));
        }
    }
    // Whether so deep a list is taken or refused is not said; that the agent stays is.
    let deep = [&"[".repeat(300_000), "1", &"]".repeat(300_000)].concat();
    let got = agent.ask(predict(&[&deep]));
    assert!(matches!(got.status(), 200 | 400), "{got:?}");
    assert_eq!(agent.ask(predict(&["1"])).status(), 200);
}
