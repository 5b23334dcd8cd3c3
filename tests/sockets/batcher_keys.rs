//! Who shares a batch with whom, and which fields go along: SPEC B4.

use crate::batcher_support::{
    NEVER, PATH, batching, calls, echo, instances_body, post, posts, predict, predictions, together,
};
use crate::support::{Agent, Message, Server};

const JSON: &str = "Content-Type: application/json\r\n";

/// A request whose parts can be varied one at a time.
struct Request<'a> {
    path: &'a str,
    fields: &'a str,
    /// Members besides `instances`, each with its comma.
    members: &'a str,
}

const PLAIN: Request<'static> = Request { path: PATH, fields: JSON, members: "" };

impl Request<'_> {
    fn with(&self, instance: &str) -> String {
        post(self.path, self.fields, &format!("{{{}\"instances\":[\"{instance}\"]}}", self.members))
    }
}

/// Sends four requests in turns, two of each kind, to a batcher; returns which met in full batches.
#[track_caller]
fn meet(agent: &Agent, server: &Server, a: &Request, b: &Request) -> Vec<String> {
    let before = calls(server).len();
    let names = ["a1", "b1", "a2", "b2"];
    let requests = names.map(|name| if name.starts_with('a') { a.with(name) } else { b.with(name) });
    for (got, name) in together(agent, &requests).iter().zip(names) {
        assert_eq!(predictions(got), [format!("\"{name}\"")]);
    }
    let mut met = calls(server).split_off(before);
    met.iter_mut().for_each(|call| call.sort());
    met.sort();
    met.iter().map(|call| call.join(" ").replace('"', "")).collect()
}

#[test]
fn requests_that_differ_in_any_part_of_the_key_do_not_share_a_batch() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let auth = |value: &str| format!("{JSON}Authorization: {value}\r\n");
    let (one, two, cookie) = (auth("Bearer 1"), auth("Bearer 2"), format!("{JSON}Cookie: a=1\r\n"));
    let cookies = [format!("{JSON}Cookie: a=1\r\nCookie: b=2\r\n"), format!("{JSON}Cookie: b=2\r\n")];
    let fields = |fields| Request { fields, ..PLAIN };
    let members = |members| Request { members, ..PLAIN };
    let path = |path| Request { path, ..PLAIN };
    let pairs = [
        ("path", PLAIN, path("/v1/models/n:predict")),
        ("case of the path", PLAIN, path("/v1/models/M:predict")),
        ("query", path("/v1/models/m:predict?a=1"), path("/v1/models/m:predict?a=2")),
        ("query or none", PLAIN, path("/v1/models/m:predict?a=1")),
        ("value of a member", members("\"signature_name\":\"a\","), members("\"signature_name\":\"b\",")),
        ("bytes of a member", members("\"n\":1,"), members("\"n\":1.0,")),
        ("escapes of a member", members("\"n\":\"a\","), members("\"n\":\"\\u0061\",")),
        ("name of a member", members("\"n\":1,"), members("\"m\":1,")),
        ("member or none", PLAIN, members("\"parameters\":{},")),
        ("a member more", members("\"n\":1,"), members("\"n\":1,\"m\":1,")),
        ("depths of a member", members("\"p\":{\"a\":[1]},"), members("\"p\":{\"a\":[2]},")),
        ("where one member ends", members("\"n\":\"1\",\"m\":2,"), members("\"n\":\"1,m:2\",")),
        ("content type", PLAIN, fields("Content-Type: application/json; charset=utf-8\r\n")),
        ("content type or none", PLAIN, fields("")),
        ("authorization", fields(&one), fields(&two)),
        ("authorization or none", PLAIN, fields(&one)),
        ("cookie", fields(&cookie), fields(&cookies[1])),
        ("a cookie more", fields(&cookie), fields(&cookies[0])),
        ("which key field has the value", fields("Authorization: a=1\r\n"), fields("Cookie: a=1\r\n")),
    ];
    for (part, a, b) in pairs {
        assert_eq!(meet(&agent, &server, &a, &b), ["a1 a2", "b1 b2"], "{part}");
    }
}

#[test]
fn requests_that_differ_in_anything_else_share_a_batch() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER]);
    let fields = |fields| Request { fields, ..PLAIN };
    let pairs = [
        ("a request id", fields("Content-Type: application/json\r\nX-Request-Id: 1\r\n"), PLAIN),
        ("a trace", fields("traceparent: 1\r\nContent-Type: application/json\r\n"), PLAIN),
        ("accepted codings", fields("Content-Type: application/json\r\nAccept-Encoding: gzip\r\n"), PLAIN),
        ("case of a name", fields("content-type: application/json\r\n"), PLAIN),
        ("connection", fields("Content-Type: application/json\r\nConnection: keep-alive, x\r\nX: 1\r\n"), PLAIN),
    ];
    for (part, a, b) in pairs {
        assert_eq!(meet(&agent, &server, &a, &b), ["a1 a2 b1 b2"], "{part}");
    }
    // Framing, version and expectations are of one hop.
    let body = instances_body(&["1"]);
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nHost: a\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let kinds = [
        predict(&["2"]),
        chunked,
        predict(&["3"]).replace("HTTP/1.1", "HTTP/1.0"),
        predict(&["4"]).replacen("\r\n", "\r\nConnection: close\r\n", 1),
    ];
    let before = calls(&server).len();
    let got: Vec<String> = together(&agent, &kinds).iter().flat_map(predictions).collect();
    assert_eq!(got, ["2", "1", "3", "4"]);
    assert_eq!(calls(&server).len(), before + 1);
}

#[test]
fn the_fields_of_the_key_can_be_named() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER, "--batch-key-headers=X-Tenant,x-lane"]);
    let fields = |fields| Request { fields, ..PLAIN };
    for (a, b) in [("X-Tenant: 1\r\n", "x-tenant: 2\r\n"), ("X-Lane: 1\r\n", "X-Tenant: 1\r\n"), ("X-LANE: 1\r\n", "")]
    {
        assert_eq!(meet(&agent, &server, &fields(a), &fields(b)), ["a1 a2", "b1 b2"], "{a} {b}");
    }
    let before = posts(&server).len();
    let mixed = ["Authorization: 1\r\n", "Authorization: 2\r\n"].map(|some| fields(some).with("x"));
    together(&agent, &mixed).iter().for_each(|got| assert_eq!(predictions(got), ["\"x\""]));
    let seen = posts(&server).split_off(before);
    assert_eq!((seen.len(), seen[0].field("authorization")), (1, None), "what is one client's is not all's");
}

#[test]
fn a_request_that_is_alone_reaches_the_server_with_all_its_fields() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let fields = "Content-Type: application/json\r\nAuthorization: Bearer t\r\nX-Request-Id: 7\r\nx-a: 1\r\nX-A: 2\r\n\
        Cookie: a=1; b=2\r\ntraceparent: 00-1-2-01\r\nUser-Agent: c/1\r\nAccept: */*\r\nX-Forwarded-For: 10.0.0.1\r\n\
        Accept-Encoding: gzip, br\r\nExpect: 100-continue\r\nTE: trailers\r\nConnection: keep-alive, X-Gone\r\n\
        X-Gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n";
    let mut client = agent.connect();
    client.send(post(PATH, fields, &instances_body(&["1"])).replace("Host: a", "Host: model.example:81"));
    // The body is there already, so there may be nothing to say first: RFC 9110 §10.1.1.
    let got = client.response();
    let got = if got.status() == 100 { client.response() } else { got };
    assert_eq!(predictions(&got), ["1"]);
    let seen = server.only();
    let wanted = [
        ("host", "model.example:81"),
        ("content-type", "application/json"),
        ("content-length", "17"),
        ("authorization", "Bearer t"),
        ("x-request-id", "7"),
        ("x-a", "1, 2"),
        ("cookie", "a=1; b=2"),
        ("traceparent", "00-1-2-01"),
        ("user-agent", "c/1"),
        ("accept", "*/*"),
    ];
    for (name, value) in wanted {
        assert_eq!(seen.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(seen.field("x-forwarded-for").map(|list| list.replace(' ', "")).as_deref(), Some("10.0.0.1,127.0.0.1"));
    assert_hop_is_clean(&seen);
}

#[test]
fn a_request_without_fields_gets_none_but_the_clients_address() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    assert_eq!(predictions(&agent.ask(post(PATH, "", &instances_body(&["1"])))), ["1"]);
    let mut names: Vec<String> = server.only().fields().into_iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    assert_eq!(names, ["content-length", "host", "x-forwarded-for"]);
}

#[test]
fn only_fields_that_are_equal_in_all_members_are_sent_with_a_batch() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    let with = |number: &str, some: &str| {
        let fields = format!(
            "{JSON}Authorization: Bearer t\r\nX-Equal: 1\r\nX-Request-Id: {number}\r\nX-Many: a\r\n\
            X-Many: b{number}\r\n{some}Accept-Encoding: gzip\r\nTE: trailers\r\nConnection: X-Gone\r\n\
            X-Gone: 1\r\nx-same: v\r\n"
        );
        post(PATH, &fields, &instances_body(&[number])).replace("Host: a", "Host: model.example")
    };
    let requests = [with("1", "X-Some: 1\r\n"), with("2", "X-Some: 1\r\n"), with("3", "").replace("x-same", "X-Same")];
    for (got, number) in together(&agent, &requests).iter().zip(["1", "2", "3"]) {
        assert_eq!(predictions(got), [number]);
    }
    let seen = server.only();
    let wanted = [
        ("host", Some("model.example")),
        ("content-type", Some("application/json")),
        ("authorization", Some("Bearer t")),
        ("x-equal", Some("1")),
        ("x-same", Some("v")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-request-id", None),
        ("x-some", None),
    ];
    for (name, value) in wanted {
        assert_eq!(seen.field(name).as_deref(), value, "{name} in {seen:?}");
    }
    assert!(!seen.field("x-many").is_some_and(|value| value.contains('b')), "{seen:?}");
    assert_eq!(seen.field("content-length"), Some(seen.body.len().to_string()));
    assert_hop_is_clean(&seen);
}

#[test]
fn an_address_that_is_only_one_members_is_not_sent_for_all() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let with = |address: &str| post(PATH, &format!("X-Forwarded-For: {address}\r\n"), &instances_body(&["1"]));
    together(&agent, &[with("10.0.0.1"), with("10.0.0.2")]);
    let seen = server.only();
    let head = String::from_utf8_lossy(&seen.head).into_owned();
    assert!(!head.contains("10.0.0."), "{head}");
}

/// Nothing of the client's hop is left, and there is one framing.
#[track_caller]
fn assert_hop_is_clean(seen: &Message) {
    for name in ["accept-encoding", "expect", "te", "x-gone", "keep-alive", "proxy-connection", "upgrade", "trailer"] {
        assert_eq!(seen.field(name), None, "{seen:?}");
    }
    let connection = seen.field("connection").unwrap_or_default().to_lowercase();
    assert!(matches!(connection.as_str(), "" | "close" | "keep-alive"), "{seen:?}");
    assert!(seen.field("content-length").is_some() != seen.field("transfer-encoding").is_some(), "{seen:?}");
    assert!(!seen.field("content-length").is_some_and(|value| value.contains(',')), "{seen:?}");
}

#[test]
fn a_value_more_in_the_head_is_not_taken_for_a_member_of_the_body() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", "--max-latency=300"]);
    let pairs = [
        ("Content-Type: \"p\"\r\nContent-Type: 1\r\n", "{\"instances\":[1]}", "", "{\"p\":1,\"instances\":[2]}"),
        ("Authorization: cookie\r\n", "{\"instances\":[1]}", "Cookie: cookie\r\n", "{\"instances\":[2]}"),
        (
            "Authorization: a\r\nAuthorization: b\r\n",
            "{\"instances\":[1]}",
            "Authorization: a\r\n",
            "{\"instances\":[2]}",
        ),
    ];
    for (one_head, one, other_head, other) in pairs {
        let before = posts(&server).len();
        let got = together(&agent, &[post(PATH, one_head, one), post(PATH, other_head, other)]);
        assert!(got.iter().all(|answer| answer.status() == 200));
        assert_eq!(posts(&server).len() - before, 2, "{one_head:?} {one} beside {other_head:?} {other}");
    }
}
