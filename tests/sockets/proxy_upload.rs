//! Answers that come before the request has ended: SPEC P6.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Agent, OK, PATIENCE, Peer, Server, Wire};

/// A server that reads the head, answers, and reads no byte of the body.
fn hasty() -> Server {
    Server::start(|mut peer: Peer| {
        peer.request_head();
        peer.wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo long");
    })
}

/// Sends a body of so many MiB, to its end or until nobody takes it any more.
fn upload(client: &Wire, mebibytes: usize) -> thread::JoinHandle<()> {
    let mut sender = Wire::of(client.socket().try_clone().unwrap());
    thread::spawn(move || {
        let block = vec![b'x'; 1 << 20];
        let _ = (0..mebibytes).try_for_each(|_| sender.try_send(&block));
    })
}

#[test]
fn an_answer_reaches_a_client_that_is_still_sending() {
    let server = hasty();
    let agent = Agent::start(server.port, &[]);
    for _ in 0..10 {
        let mut client = agent.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 33554432\r\n\r\n");
        let upload = upload(&client, 32);
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (413, "too long"));
        assert_eq!(got.field("connection").as_deref(), Some("close"));
        drop(client);
        upload.join().unwrap();
    }
}

#[test]
fn an_answer_reaches_a_client_that_sends_everything_first() {
    let server = hasty();
    let agent = Agent::start(server.port, &[]);
    for _ in 0..5 {
        let mut client = agent.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n");
        upload(&client, 8).join().unwrap();
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (413, "too long"));
    }
}

#[test]
fn the_rest_of_a_refused_body_is_not_taken_for_a_request() {
    let server = hasty();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n");
    assert_eq!(client.response().status(), 413);
    let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.rest().0, b"");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn an_upload_that_the_server_takes_slowly_outlasts_the_wait_for_its_response() {
    // The wait for a response begins with the last byte that the server took: SPEC P8.
    const LENGTH: usize = 64 << 20;
    let server = Server::start(|mut peer: Peer| {
        peer.request_head();
        let mut read = std::mem::take(&mut peer.wire.buffer).len();
        let mut step = 0;
        while read < LENGTH && matches!(peer.wire.fill(Instant::now() + PATIENCE), Ok(1..)) {
            read += std::mem::take(&mut peer.wire.buffer).len();
            if read >> 19 > step {
                step = read >> 19;
                thread::sleep(Duration::from_millis(10));
            }
        }
        peer.wire.send(OK);
    });
    let agent = Agent::start(server.port, &["--upstream-timeout=500ms"]);
    let mut client = agent.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"));
    let began = Instant::now();
    client.send(vec![b'x'; LENGTH]);
    assert_eq!(client.response().status(), 200);
    assert!(began.elapsed() > Duration::from_millis(600), "too quick to tell: {:?}", began.elapsed());
}
