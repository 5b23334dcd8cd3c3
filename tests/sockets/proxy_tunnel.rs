//! Connections that become tunnels: upgrades and HTTP/2 with prior knowledge: SPEC P7.

use std::thread;

use crate::support::wire::Ending;
use crate::support::{Agent, Peer, Server, Wire};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A server that switches, and then does as `serve` says.
fn switching(serve: impl Fn(&mut Wire) + Send + Sync + 'static) -> Server {
    Server::start(move |mut peer: Peer| {
        peer.request_head().unwrap();
        peer.wire.send(SWITCHED);
        serve(&mut peer.wire);
    })
}

/// Opens a tunnel by an upgrade.
fn tunnel(agent: &Agent) -> Wire {
    let mut client = agent.connect();
    client.send(UPGRADE);
    assert_eq!(client.response().status(), 101);
    client
}

/// Sends back what comes until the end.
fn echo(wire: &mut Wire) {
    loop {
        let bytes = std::mem::take(&mut wire.buffer);
        if !bytes.is_empty() && wire.try_send(&bytes).is_err() {
            return;
        }
        let end = std::time::Instant::now() + wire.patience;
        if !matches!(wire.fill(end), Ok(1..)) {
            return;
        }
    }
}

#[test]
fn an_upgrade_becomes_a_tunnel_with_its_fields_passed_on() {
    let server = switching(echo);
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(UPGRADE);
    let got = client.response();
    assert_eq!(got.line(), "HTTP/1.1 101 Switching Protocols");
    assert_eq!(got.field("upgrade").as_deref(), Some("websocket"));
    assert!(got.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert_eq!(got.field("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let seen = server.only();
    assert_eq!(seen.field("upgrade").as_deref(), Some("websocket"));
    assert!(seen.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{seen:?}");
    for bytes in ["\u{1}ping", "GET / HTTP/1.1\r\n\r\n", "\0\0\0"] {
        client.send(bytes);
        client.expect(bytes);
    }
}

#[test]
fn data_that_came_with_the_upgrade_goes_through_the_tunnel_in_order() {
    let server = Server::start(|mut peer: Peer| {
        peer.request_head().unwrap();
        peer.wire.send(format!("{SWITCHED}first"));
        peer.wire.expect("early and late");
        peer.wire.send(" second");
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(format!("{UPGRADE}early"));
    assert_eq!(client.response().status(), 101);
    client.send(" and late");
    client.expect("first second");
}

#[test]
fn a_client_that_has_sent_its_last_byte_still_gets_the_servers() {
    let server = switching(|wire| {
        assert_eq!(wire.rest(), (b"last words".to_vec(), Ending::Closed));
        wire.send("goodbye");
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = tunnel(&agent);
    client.send("last words");
    client.end();
    assert_eq!(client.rest(), (b"goodbye".to_vec(), Ending::Closed));
}

#[test]
fn a_server_that_has_sent_its_last_byte_still_gets_the_clients() {
    let (saw, seen) = std::sync::mpsc::channel();
    let server = switching(move |wire| {
        wire.send("goodbye");
        wire.end();
        saw.send(wire.rest()).unwrap();
    });
    let agent = Agent::start(server.port, &[]);
    for _ in 0..50 {
        let mut client = tunnel(&agent);
        assert_eq!(client.rest(), (b"goodbye".to_vec(), Ending::Closed));
        client.send("last words");
        client.end();
        assert_eq!(seen.recv_timeout(client.patience).unwrap(), (b"last words".to_vec(), Ending::Closed));
    }
}

#[test]
fn what_a_tunnel_carries_waits_for_a_reader_and_arrives_whole() {
    const LENGTH: usize = 24 << 20;
    let server = switching(echo);
    let agent = Agent::start(server.port, &[]);
    let mut client = tunnel(&agent);
    let before = agent.resident_kib();
    let mut sender = Wire::of(client.socket().try_clone().unwrap());
    let sent = thread::spawn(move || {
        let block: Vec<u8> = (0..=250).cycle().take(251 << 12).collect();
        let mut left = LENGTH;
        while left > 0 {
            let part = left.min(block.len());
            sender.send(&block[..part]);
            left -= part;
        }
        sender.end();
    });
    // Reading begins late, so both directions fill up first; the echo needs no reader to end but this one.
    crate::support::holds_within(std::time::Duration::from_millis(100), || sent.is_finished());
    let (got, ending) = client.rest();
    sent.join().unwrap();
    assert_eq!((got.len(), ending), (LENGTH, Ending::Closed));
    assert!(got.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
    let grown = agent.resident_kib().saturating_sub(before);
    assert!(grown <= 512, "{grown} KiB");
}

#[test]
fn a_refused_upgrade_is_a_response_like_any_other() {
    let server = Server::answering(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno");
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    for _ in 0..2 {
        client.send(UPGRADE);
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (426, "no"));
    }
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_bad_gateway() {
    let server = switching(echo);
    let agent = Agent::start(server.port, &[]);
    let got = agent.ask("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(got.status(), 502);
    // `Upgrade` without its connection option is not a request for one (RFC 9110 §7.8).
    let got = agent.ask("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(got.status(), 502);
}

#[test]
fn a_connection_that_opens_with_the_http_2_preface_is_a_tunnel() {
    let server = Server::start(|mut peer: Peer| {
        peer.wire.expect(PREFACE);
        peer.wire.send("\0\0\0\u{4}\0\0\0\0\0");
        echo(&mut peer.wire);
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(format!("{PREFACE}frames"));
    client.expect("\0\0\0\u{4}\0\0\0\0\0frames");
    client.send("more");
    client.expect("more");
}

#[test]
fn a_preface_in_parts_is_recognised() {
    let server = Server::start(|mut peer: Peer| {
        peer.wire.expect(PREFACE);
        echo(&mut peer.wire);
    });
    let agent = Agent::start(server.port, &[]);
    for at in 1..PREFACE.len() {
        let mut client = agent.connect();
        client.send(&PREFACE[..at]);
        // One more connection served shows that the agent has seen the first part.
        drop(agent.connect());
        client.send(&PREFACE[at..]);
        client.send("x");
        client.expect("x");
    }
}

#[test]
fn a_tunnel_to_a_server_that_is_down_is_closed() {
    let agent = Agent::start(crate::support::agent::free_port(), &[]);
    let mut client = agent.connect();
    client.send(PREFACE);
    assert_eq!(client.rest().0, b"");
}

#[test]
fn a_server_that_resets_its_side_ends_the_clients() {
    let server = switching(|wire| {
        wire.expect("x");
        wire.socket().set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = tunnel(&agent);
    client.send("x");
    assert_eq!(client.rest().0, b"");
}

#[test]
fn a_client_that_resets_its_side_ends_the_servers() {
    let (saw, seen) = std::sync::mpsc::channel();
    let server = switching(move |wire| {
        wire.expect("x");
        wire.send("y");
        saw.send(wire.rest().0).unwrap();
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = tunnel(&agent);
    client.send("x");
    client.expect("y");
    client.reset();
    assert_eq!(seen.recv_timeout(crate::support::PATIENCE).unwrap(), b"");
}
