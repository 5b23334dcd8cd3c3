//! Bytes pass when they come, and wait in bounded memory when they can't: SPEC P2.

use std::sync::{Mutex, mpsc};
use std::thread;

use crate::support::{Agent, OK, Peer, Server, alone, holds_within};

/// Growth that one stream may cost: the 256 KiB of SPEC P2 twice over, for what the allocator rounds up.
const STREAM_KIB: u64 = 512;

/// A server whose response head and pieces are sent when the test says so.
fn told() -> (Server, mpsc::Sender<&'static str>) {
    let (tell, told) = mpsc::channel::<&'static str>();
    let told = Mutex::new(told);
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        let told = told.lock().unwrap();
        while let Ok(bytes) = told.recv() {
            if bytes.is_empty() || peer.wire.try_send(bytes).is_err() {
                return;
            }
        }
    });
    (server, tell)
}

#[test]
fn a_chunk_of_a_response_arrives_before_the_next_is_produced() {
    let (server, tell) = told();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    tell.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert_eq!(client.response_head().status(), 200);
    for event in ["8\r\ndata: 1\n\r\n", "8\r\ndata: 2\n\r\n", "8\r\ndata: 3\n\r\n", "0\r\n\r\n"] {
        tell.send(event).unwrap();
        client.expect(event);
    }
}

#[test]
fn a_piece_of_a_response_with_a_length_arrives_before_the_next_is_produced() {
    let (server, tell) = told();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    tell.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n").unwrap();
    assert_eq!(client.response_head().status(), 200);
    for piece in ["ab", "cd", "ef"] {
        tell.send(piece).unwrap();
        client.expect(piece);
    }
}

#[test]
fn a_piece_of_a_response_that_ends_with_its_connection_arrives_before_the_next_is_produced() {
    let (server, tell) = told();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    tell.send("HTTP/1.0 200 OK\r\n\r\n").unwrap();
    assert_eq!(client.response_head().status(), 200);
    tell.send("hello").unwrap();
    client.expect("5\r\nhello\r\n");
    tell.send("bye").unwrap();
    client.expect("3\r\nbye\r\n");
    tell.send("").unwrap();
    client.expect("0\r\n\r\n");
}

#[test]
fn a_chunk_line_that_comes_in_parts_still_frames_the_same_data() {
    let (server, tell) = told();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for part in ["HTTP/1.1 200 OK\r\nTransfer-Enc", "oding: chunked\r\n\r", "\n0", "0A;x=", "y\r", "\n01234", "56789\r"]
    {
        tell.send(part).unwrap();
    }
    assert_eq!(client.response_head().status(), 200);
    tell.send("\n0\r\n\r").unwrap();
    tell.send("\n").unwrap();
    let got = loop {
        let end = std::time::Instant::now() + client.patience;
        if client.buffer.ends_with(b"0\r\n\r\n") || client.fill(end).unwrap() == 0 {
            break String::from_utf8(client.buffer.clone()).unwrap();
        }
    };
    assert!(got.contains("0123456789\r\n0\r\n\r\n"), "{got:?}");
}

#[test]
fn a_piece_of_a_request_arrives_before_the_next_is_sent() {
    let requests = [
        ("Content-Length: 6", ["ab", "cd", "ef"]),
        ("Transfer-Encoding: chunked", ["2\r\nab\r\n", "2\r\ncd\r\n", "0\r\n\r\n"]),
    ];
    for (framing, pieces) in requests {
        let (saw, seen) = mpsc::channel();
        let server = Server::start(move |mut peer: Peer| {
            peer.request_head().unwrap();
            saw.send("head").unwrap();
            for piece in pieces {
                peer.wire.expect(piece);
                saw.send(piece).unwrap();
            }
            peer.wire.send(OK);
        });
        let agent = Agent::start(server.port, &[]);
        let mut client = agent.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        assert_eq!(seen.recv_timeout(client.patience), Ok("head"));
        for piece in pieces {
            client.send(piece);
            assert_eq!(seen.recv_timeout(client.patience), Ok(piece));
        }
        assert_eq!(client.response().status(), 200);
    }
}

#[test]
fn both_directions_stream_at_the_same_time() {
    let server = Server::start(|mut peer: Peer| {
        peer.request_head().unwrap();
        peer.wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..10 {
            peer.wire.expect("4\r\nping\r\n");
            peer.wire.send("4\r\npong\r\n");
        }
        peer.wire.expect("0\r\n\r\n");
        peer.wire.send("0\r\n\r\n");
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.response_head().status(), 200);
    for _ in 0..10 {
        client.send("4\r\nping\r\n");
        client.expect("4\r\npong\r\n");
    }
    client.send("0\r\n\r\n");
    client.expect("0\r\n\r\n");
}

#[test]
fn a_large_upload_to_a_server_that_reads_late_costs_bounded_memory_and_arrives_whole() {
    const LENGTH: usize = 192 << 20;
    let _alone = alone();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        if peer.request_head().is_some_and(|head| head.target() == "/small") {
            peer.wire.send(OK);
            return;
        }
        released.lock().unwrap().recv().unwrap();
        let (mut read, mut sum) = (0, 0_u64);
        while read < LENGTH {
            read += peer.wire.buffer.len();
            sum += peer.wire.buffer.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            peer.wire.buffer.clear();
            if read < LENGTH {
                let end = std::time::Instant::now() + peer.wire.patience;
                assert!(peer.wire.fill(end).unwrap() > 0);
            }
        }
        let body = format!("{read} {sum}");
        peer.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    });
    let agent = Agent::start(server.port, &[]);
    agent.ask("GET /small HTTP/1.1\r\nHost: a\r\n\r\n");
    let before = agent.resident_kib();
    let mut client = agent.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"));
    let mut sender = crate::support::Wire::of(client.socket().try_clone().unwrap());
    let sent = thread::spawn(move || {
        let block: Vec<u8> = (0..=250).cycle().take(1 << 20).collect();
        (0..LENGTH >> 20).for_each(|_| sender.send(&block));
        u64::try_from(LENGTH >> 20).unwrap() * block.iter().map(|byte| u64::from(*byte)).sum::<u64>()
    });
    let over = |most: u64| agent.resident_kib() > before + most;
    // Once it is blocked nothing moves: it has what it will ever have.
    assert!(!holds_within(std::time::Duration::from_millis(300), || over(STREAM_KIB)), "while blocked");
    release.send(()).unwrap();
    let mut most = 0;
    while !sent.is_finished() {
        most = most.max(agent.resident_kib());
        thread::yield_now();
    }
    assert_eq!(client.response().text(), format!("{LENGTH} {}", sent.join().unwrap()));
    assert!(most <= before + STREAM_KIB, "{most} KiB, before {before} KiB");
}

#[test]
fn a_large_download_to_a_client_that_reads_late_costs_bounded_memory_and_arrives_whole() {
    const LENGTH: usize = 96 << 20;
    let _alone = alone();
    let (blocked, is_blocked) = mpsc::channel();
    let server = Server::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/small" {
                peer.wire.send(OK);
                continue;
            }
            peer.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
            let block: Vec<u8> = (0..=250).cycle().take(251 << 12).collect();
            let mut left = LENGTH;
            while left > 0 {
                // More than every buffer on the way holds: from here on it is the agent that waits.
                if left < LENGTH - (80 << 20) {
                    let _ = blocked.send(());
                }
                let part = left.min(block.len());
                peer.wire.send(&block[..part]);
                left -= part;
            }
        }
    });
    let agent = Agent::start(server.port, &[]);
    agent.ask("GET /small HTTP/1.1\r\nHost: a\r\n\r\n");
    let before = agent.resident_kib();
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let over = || agent.resident_kib() > before + STREAM_KIB;
    assert!(!holds_within(std::time::Duration::from_millis(300), over), "while blocked");
    assert!(is_blocked.try_recv().is_err(), "80 MiB went somewhere though nobody read them");
    let got = client.response();
    assert_eq!(got.body.len(), LENGTH);
    assert!(got.body.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
    assert!(agent.resident_kib() <= before + STREAM_KIB);
}
