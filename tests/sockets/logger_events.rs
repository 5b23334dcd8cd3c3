//! What is said about requests and responses that are logged: SPEC L1, L2.
//!
//! The expected attributes are those that the Go agent was recorded with (`go-agent/transcripts.json`), times and made-up
//! ids aside; the response's content type is the response's own, which is a deliberate difference.

use std::collections::BTreeMap;

use crate::batcher_json::{items, members};
use crate::support::sink::{Event, logging, pair, setup};
use crate::support::{Books, Server, Sink, until};

/// The flags of the recording.
const NAMES: [&str; 4] =
    ["--inference-service=iris", "--namespace=prod", "--endpoint=default", "--component=predictor"];

const POST: &str = "POST /v1/models/m:predict HTTP/1.1\r\nHost: model.example\r\nContent-Type: application/json\r\n\
                    Content-Length: 17\r\n\r\n{\"instances\":[1]}";

const PREDICTIONS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.iris+json\r\nContent-Length: 19\r\n\r\n{\"predictions\":[1]}";

/// A request with this field besides.
fn post_with(field: &str) -> String {
    POST.replace("Content-Type", &format!("{field}\r\nContent-Type"))
}

/// What is said about an event, but for when, and for what the connection is about.
fn attributes(event: &Event) -> BTreeMap<String, String> {
    let varies = ["ce-id", "ce-time", "ce-recordedtime", "host", "user-agent", "content-length"];
    event.fields().into_iter().filter(|(name, _)| !varies.contains(&name.as_str())).collect()
}

fn table(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// RFC 3339 in UTC, to be compared as text down to the microsecond.
#[track_caller]
fn time(event: &Event, name: &str) -> String {
    let value = event.field(name).unwrap();
    let (whole, rest) = value.split_at(19);
    let shape: String = whole.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "{value}");
    let fraction = rest.strip_suffix('Z').unwrap().trim_start_matches('.');
    assert!(fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit()), "{value}");
    format!("{whole}.{fraction:0<6.6}")
}

#[track_caller]
fn assert_is_uuid4(id: &str) {
    let shape: String = id.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect();
    assert_eq!(shape, "00000000-0000-0000-0000-000000000000", "{id}");
    assert!(id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
}

#[test]
fn events_have_the_attributes_that_the_go_agent_gives_them() {
    let (server, sink) = (Server::answering(PREDICTIONS), Sink::good());
    let agent = logging(&server, &sink, &NAMES);
    assert_eq!(agent.ask(POST).status(), 200);
    let (request, response) = sink.await_pair();
    let source = format!("http://localhost:{}/", agent.port);
    let common = [
        ("ce-specversion", "1.0"),
        ("ce-source", source.as_str()),
        ("ce-inferenceservicename", "iris"),
        ("ce-namespace", "prod"),
        ("ce-component", "predictor"),
        ("ce-endpoint", "default"),
        ("ce-metadata", "{}"),
    ];
    for (event, of, content_type, payload) in [
        (&request, "request", "application/json", "{\"instances\":[1]}"),
        (&response, "response", "application/vnd.iris+json", "{\"predictions\":[1]}"),
    ] {
        let of = format!("org.kubeflow.serving.inference.{of}");
        let own = [("ce-type", of.as_str()), ("content-type", content_type)];
        assert_eq!(attributes(event), table(&[&common[..], &own].concat()));
        assert_eq!((event.line().as_str(), event.text().as_str()), ("POST /events HTTP/1.1", payload));
        let [time, recorded] = ["ce-time", "ce-recordedtime"].map(|name| time(event, name));
        assert!(time <= recorded, "{time} {recorded}");
    }
    assert_is_uuid4(&request.id());
    assert_eq!(request.id(), response.id());
    assert!(time(&request, "ce-time") <= time(&response, "ce-time"));
    assert_eq!(Books::settled(&agent), Books::all_sent(2));
}

#[test]
fn the_source_metadata_and_annotations_are_as_recorded() {
    let (server, sink) = (Server::answering(PREDICTIONS), Sink::good());
    let flags = ["--metadata-headers=X-Tenant,X-Other", "--metadata-annotations=team=a,owner=b", "--source-uri=pod-7"];
    let agent = logging(&server, &sink, &[&NAMES[..], &flags].concat());
    agent.ask(post_with("X-Tenant: blue\r\nX-Tenant: red"));
    let (request, response) = sink.await_pair();
    for event in [request, response] {
        assert_eq!(event.field("ce-source").as_deref(), Some("pod-7"));
        assert_eq!(event.field("ce-metadata").as_deref(), Some(r#"{"X-Tenant":["blue","red"]}"#));
        assert_eq!(event.field("ce-annotations").as_deref(), Some(r#"{"owner":"b","team":"a"}"#));
    }
}

#[test]
fn metadata_names_match_whatever_their_case_and_come_as_they_were_asked_for() {
    let (server, sink) = (Server::good(), Sink::good());
    let flags = ["--metadata-headers=x-TENANT,X-Quote", "--metadata-headers=X-Empty,x-none,X-Tenant"];
    let agent = logging(&server, &sink, &flags);
    agent.ask(post_with("X-tenant: blue\r\nX-QUOTE: a\"b\\c\r\nX-Empty:\r\nx-Tenant: rot-gr\u{fc}n\r\nX-Other: no"));
    let (request, response) = sink.await_pair();
    for event in [request, response] {
        let metadata = event.field("ce-metadata").unwrap();
        let metadata: BTreeMap<&str, Vec<&str>> =
            members(&metadata).into_iter().map(|(name, list)| (name, items(list))).collect();
        let wanted = [
            ("x-TENANT", vec!["\"blue\"", "\"rot-gr%C3%BCn\""]),
            ("X-Quote", vec![r#""a\"b\\c""#]),
            ("X-Empty", vec!["\"\""]),
        ];
        assert_eq!(metadata, wanted.into_iter().collect());
    }
}

#[test]
fn a_request_without_body_is_an_empty_event() {
    let (server, sink) = (Server::answering(PREDICTIONS), Sink::good());
    let agent = logging(&server, &sink, &NAMES);
    agent.ask("GET /v1/models/m HTTP/1.1\r\nHost: model.example\r\n\r\n");
    let (request, response) = sink.await_pair();
    assert_eq!((request.payload(), request.field("content-type")), (&b""[..], None));
    assert_eq!(request.field("content-length").as_deref(), Some("0"));
    assert_eq!(response.text(), "{\"predictions\":[1]}");
}

#[test]
fn a_given_id_is_kept_for_both_events() {
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &[]);
    let long = "0123456789".repeat(1024);
    // What no field can carry is percent-encoded (CloudEvents' HTTP binding §3.1.3.2); the rest is as the Go agent has it.
    let ids = [
        ("abc", "abc"),
        ("a b\"c\\d%20,;=é", "a b\"c\\d%20,;=%C3%A9"),
        ("tab\there", "tab%09here"),
        ("{}", "{}"),
        (&long, &long),
    ];
    let mut client = agent.connect();
    for (number, (given, kept)) in ids.iter().enumerate() {
        client.send(post_with(&format!("cE-iD: {given}")));
        assert_eq!(client.response().status(), 200);
        let events = sink.await_events(2 * (number + 1));
        let (request, response) = pair(events[2 * number..].to_vec());
        assert_eq!([request.id(), response.id()], [(*kept).to_owned(), (*kept).to_owned()]);
    }
    assert_eq!(server.seen()[1].field("ce-id").as_deref(), Some("a b\"c\\d%20,;=\u{c3}\u{a9}"), "it goes on unchanged");
    // Bytes that are no text have no meaning that could be kept; the event comes all the same.
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nCe-Id: \xff\xfe\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    let (request, response) = pair(sink.await_events(12)[10..].to_vec());
    assert_eq!(request.id(), response.id());
    assert!(request.id().is_ascii() && !request.id().is_empty());
}

#[test]
fn an_empty_id_is_none_and_no_two_requests_share_one() {
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &[]);
    let mut client = agent.connect();
    for request in [POST.to_owned(), post_with("Ce-Id:"), post_with("Ce-Id: \t "), POST.to_owned()] {
        client.send(request);
        client.response();
    }
    let mut ids = BTreeMap::<String, usize>::new();
    sink.await_events(8).iter().for_each(|event| *ids.entry(event.id()).or_default() += 1);
    assert_eq!(ids.values().collect::<Vec<_>>(), [&2; 4], "{ids:?}");
    ids.keys().for_each(|id| assert_is_uuid4(id));
}

#[test]
fn a_path_query_and_user_of_the_url_reach_the_sink() {
    let (server, sink) = (Server::good(), Sink::good());
    let url = sink.flag().replace("127.0.0.1", "me:se%20cret@localhost").replace("/events", "/a/b?c=d&e");
    let agent = setup(&server, &url).start();
    agent.ask(POST);
    let (request, _) = sink.await_pair();
    assert_eq!(request.line(), "POST /a/b?c=d&e HTTP/1.1");
    assert_eq!(request.field("authorization").as_deref(), Some("Basic bWU6c2UgY3JldA=="));
    assert!(request.field("host").unwrap().starts_with("localhost:"));
    until("the start is logged", || agent.log().contains("configuration"));
    assert!(!agent.log().contains("cret"), "{}", agent.log());
}
