//! The payload log in a bucket: who makes its files (SPEC L8, L9). What real stores make of it is shown in `tests/stores`.

use std::collections::BTreeSet;
use std::fs;

use crate::logger_support::post;
use crate::support::agent::{Setup, free_port};
use crate::support::sink::setup;
use crate::support::{Agent, Books, Message, Server, alone, until};

const STORED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// An agent that logs into a bucket of the store on this port.
fn into_bucket(server: &Server, store: u16) -> Setup {
    setup(server, "--log-url=s3://bucket")
        .flags(&["--log-store-path=logs"])
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{store}"))
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
}

/// Asks once and waits until both objects are stored; returns them by name.
fn ask(agent: &Agent, store: &Server) -> Vec<Message> {
    assert_eq!(agent.ask(post("a")).status(), 200);
    assert_eq!(Books::settled(agent), Books::all_sent(2));
    let mut stored = store.seen();
    stored.sort_by_key(Message::target);
    stored
}

/// Ports of TCP that a process listens on.
fn listening(pid: u32) -> BTreeSet<u16> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links: BTreeSet<String> = files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let sockets = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets
        .filter(|fields| fields[3] == "0A" && links.contains(&format!("socket:[{}]", fields[9])))
        .map(|fields| u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn records_are_marshalled_in_process_and_no_port_is_opened() {
    let (server, store) = (Server::good(), Server::answering(STORED));
    let agent = into_bucket(&server, store.port).start();
    let stored = ask(&agent, &store);
    assert_eq!(stored.len(), 2);
    for (object, of) in stored.iter().zip(["request", "response"]) {
        assert!(object.line().starts_with(&format!("PUT /bucket/logs/a-{of}.json?")), "{}", object.line());
        let record: serde_json::Value = serde_json::from_slice(&object.body).unwrap();
        assert_eq!(record["reqType"], format!("org.kubeflow.serving.inference.{of}"));
    }
    assert_eq!(listening(agent.pid()), BTreeSet::from([agent.port, agent.metrics_port, agent.admin_port]));
}

#[test]
fn any_marshaller_port_is_harmless_and_unused() {
    // What listens there is somebody else's.
    let (server, other) = (Server::good(), Server::good());
    let ports = [0, 70_000, u32::from(free_port()), u32::from(other.port)];
    for port in ports {
        let store = Server::answering(STORED);
        let agent = into_bucket(&server, store.port).flags(&[&format!("--log-marshaller-port={port}")]).start();
        assert_eq!(ask(&agent, &store).len(), 2, "{port}");
        assert_eq!(listening(agent.pid()), BTreeSet::from([agent.port, agent.metrics_port, agent.admin_port]));
        assert!(!agent.log().contains("marshaller"), "{}", agent.log());
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn another_marshaller_is_asked_over_http() {
    let (server, store) = (Server::good(), Server::answering(STORED));
    let file = b"HTTP/1.1 200 OK\r\nX-Log-Marshal-Extension: avro\r\nContent-Length: 4\r\n\r\nfile";
    let marshaller = Server::answering(file);
    let url = format!("--log-marshaller-url=http://127.0.0.1:{}/make", marshaller.port);
    let agent = into_bucket(&server, store.port).flags(&[&url, "--log-store-format=avro"]).start();
    let stored = ask(&agent, &store);
    assert_eq!(stored.iter().map(Message::text).collect::<Vec<_>>(), ["file", "file"]);
    assert!(stored[0].line().starts_with("PUT /bucket/logs/a-request.avro?"), "{}", stored[0].line());
    let asked = marshaller.seen();
    assert_eq!(asked.len(), 2);
    for asked in asked {
        assert_eq!(asked.line(), "POST /make HTTP/1.1");
        let records: Vec<serde_json::Value> = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!(records.len(), 1);
    }
}

#[test]
fn a_marshaller_that_is_away_is_waited_for() {
    let (server, store) = (Server::good(), Server::answering(STORED));
    let url = format!("--log-marshaller-url=http://127.0.0.1:{}/marshal", free_port());
    let agent = into_bucket(&server, store.port).flags(&[&url]).start();
    assert_eq!(agent.ask(post("a")).status(), 200);
    until("the log says so", || agent.log().contains("log marshaller http://127.0.0.1"));
    let books = Books::of(&agent);
    assert_eq!((books.accepted, books.waiting, store.seen().len()), (2, 2, 0));
}

/// Nothing of an object lies in memory beside the events that it is made of, whatever its format and its payloads (SPEC L4).
#[test]
fn memory_stays_within_the_room_when_a_store_takes_nothing() {
    const SMALL: usize = 2;
    const LARGE: usize = 50_000;
    let _alone = alone();
    let refusing = Server::answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    for (format, body, store) in [
        ("json", SMALL, free_port()),
        ("json", LARGE, refusing.port),
        ("csv", SMALL, refusing.port),
        ("parquet", SMALL, refusing.port),
        ("parquet", LARGE, free_port()),
    ] {
        assert_memory_is_bounded(format, body, store);
    }
    let objects = refusing.seen();
    assert!(objects.iter().any(|object| object.body.len() > ROOM / 4), "large ones were sent");
}

/// What events may hold.
const ROOM: usize = 16 << 20;
/// What a worker and the delivery threads need once there is traffic, and what the allocator keeps.
const REST: usize = 4 << 20;

/// Fills the room with payloads of so many bytes.
fn assert_memory_is_bounded(format: &str, body: usize, store: u16) {
    let server = Server::good();
    let (room, format_flag) = (format!("--log-queue-bytes={ROOM}"), format!("--log-store-format={format}"));
    let agent = into_bucket(&server, store).flags(&[&room, &format_flag, "--log-batch-size=1000000"]).start();
    let before = agent.resident_kib();
    let payload = "x".repeat(body);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\n\r\n{payload}").repeat(10);
    let (mut client, mut most) = (agent.connect(), 0);
    for number in 0.. {
        client.send(&request);
        (0..10).for_each(|_| assert_eq!(client.response().status(), 200));
        if number % 20 == 0 {
            most = most.max(agent.resident_kib());
            if Books::of(&agent).dropped > 0 {
                break;
            }
        }
    }
    until("a second attempt was made", || agent.metrics().count("kserve_logger_delivery_retries_total") > 1);
    let grown = usize::try_from((most.max(agent.resident_kib()) - before) * 1024).unwrap();
    assert!(grown <= ROOM + REST, "{format}, {body} bytes a payload: {grown}");
}
