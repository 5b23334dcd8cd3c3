//! Limits that can be met at once: SPEC P11. Those that take time are in [`super::deadlines`].

use std::sync::{Mutex, mpsc};

use crate::support::{Agent, OK, Peer, Server, Wire, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The status that a request gets, and that its connection is closed.
#[track_caller]
fn refused(agent: &Agent, request: &[u8]) -> u16 {
    let mut client = agent.connect();
    // It may be refused before all of it is sent.
    let _ = client.try_send(request);
    let got = client.response();
    assert_eq!(got.field("connection").as_deref(), Some("close"));
    assert!(got.text().ends_with('\n') && got.text().lines().count() == 1, "{got:?}");
    assert_eq!(client.rest().0, b"");
    got.status()
}

#[test]
fn a_head_over_64_kib_is_refused_and_one_below_passes() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let with = |length: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(length)).into_bytes();
    assert_eq!(agent.ask(with(63 * 1024)).status(), 200);
    assert_eq!(refused(&agent, &with(64 * 1024)), 431);
    assert_eq!(refused(&agent, &with(4 << 20)), 431);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_head_that_never_ends_is_refused_as_soon_as_it_is_too_large() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    let line = format!("X: {}\r\n", "x".repeat(1000));
    while client.try_send(&line).is_ok() {
        let end = std::time::Instant::now() + std::time::Duration::from_millis(1);
        if matches!(client.fill(end), Ok(1..)) {
            break;
        }
    }
    assert_eq!(client.response().status(), 431);
}

#[test]
fn more_than_128_fields_are_refused_and_128_pass() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let with = |count: usize| {
        let fields: String = (1..count).map(|number| format!("X{number}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
    };
    assert_eq!(agent.ask(with(128)).status(), 200);
    assert_eq!(refused(&agent, &with(129)), 431);
    assert_eq!(refused(&agent, &with(5000)), 431);
}

#[test]
fn a_request_line_over_16_kib_is_refused_and_one_below_passes() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let with = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length)).into_bytes();
    assert_eq!(agent.ask(with(16_000)).status(), 200);
    assert_eq!(refused(&agent, &with(16 * 1024)), 414);
    assert_eq!(refused(&agent, &with(1 << 20)), 414);
    // Without its end it is too long all the same.
    assert_eq!(refused(&agent, format!("GET /{}", "x".repeat(17_000)).as_bytes()), 414);
}

#[test]
fn a_response_head_over_64_kib_is_a_bad_gateway() {
    let server = Server::with(|request| {
        let length: usize = request.target()[1..].parse().unwrap();
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\n{{}}", "x".repeat(length)).into_bytes()
    });
    let agent = Agent::start(server.port, &[]);
    assert_eq!(agent.ask("GET /60000 HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    assert_eq!(agent.ask("GET /70000 HTTP/1.1\r\nHost: a\r\n\r\n").status(), 502);
    assert_eq!(agent.ask("GET /5000000 HTTP/1.1\r\nHost: a\r\n\r\n").status(), 502);
}

#[test]
fn trailers_and_chunk_extensions_have_limits() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "x".repeat(20 * 1024);
    for body in [format!("1;{long}\r\na\r\n0\r\n\r\n"), format!("1\r\na\r\n0\r\nX: {long}\r\n\r\n")] {
        let mut client = agent.connect();
        let _ = client.try_send(format!("{HEAD}{body}"));
        assert_eq!(client.response().status(), 431);
    }
}

/// A connection on which one request has been answered.
fn idle(agent: &Agent) -> Wire {
    let mut client = agent.connect();
    client.send(GET);
    assert_eq!(client.response().status(), 200);
    client
}

/// So many idle connections, none of them turned away for one that has just left.
fn all_idle(agent: &Agent, count: usize) -> Vec<Wire> {
    let mut clients = Vec::new();
    until("all are served", || {
        clients = (0..count).map(|_| agent.connect()).collect();
        clients.iter_mut().all(|client: &mut Wire| {
            client.try_send(GET).is_ok() && client.try_response().is_ok_and(|got| got.status() == 200)
        })
    });
    clients
}

#[test]
fn at_the_cap_the_connection_that_has_been_idle_longest_makes_room() {
    for threads in ["--threads=1", "--threads=2"] {
        let server = Server::good();
        let agent = Agent::start(server.port, &[threads, "--max-connections=4"]);
        let mut clients = all_idle(&agent, 4);
        // The order in which they become idle is what is tested; the agent tells times apart by the millisecond.
        for client in &mut clients {
            client.send(GET);
            assert_eq!(client.response().status(), 200);
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        // The first is used again, so now the second has been idle longest.
        clients[0].send(GET);
        assert_eq!(clients[0].response().status(), 200);
        let mut new = idle(&agent);
        assert_eq!(clients.remove(1).rest().0, b"", "{threads}");
        for client in clients.iter_mut().chain([&mut new]) {
            client.send(GET);
            assert_eq!(client.response().status(), 200, "{threads}");
        }
    }
}

#[test]
fn a_client_that_has_just_left_makes_room() {
    let server = Server::good();
    for threads in ["--threads=1", "--threads=2"] {
        let agent = Agent::start(server.port, &[threads, "--max-connections=4"]);
        drop(all_idle(&agent, 4));
        for round in 0..100 {
            // Each takes the place of one that is idle or gone; none of them is busy.
            let mut clients: Vec<Wire> = (0..4).map(|_| agent.connect()).collect();
            for client in &mut clients {
                let _ = client.try_send(GET);
                assert_eq!(client.response().status(), 200, "{threads} round {round}");
            }
        }
    }
}

#[test]
fn at_the_cap_with_none_idle_a_connection_is_turned_away_until_there_is_room() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            if released.lock().unwrap().recv().is_err() || peer.wire.try_send(OK).is_err() {
                return;
            }
        }
    });
    let agent = Agent::start(server.port, &["--max-connections=2"]);
    let mut busy: Vec<Wire> = Vec::new();
    until("both are under way", || {
        while busy.len() < 2 {
            let mut client = agent.connect();
            client.send(GET);
            busy.push(client);
        }
        // One that came too early to count was turned away; it makes way for another.
        busy.retain(|client| server.connections() == 2 || !is_answered(client));
        server.seen().len() >= 2
    });
    for _ in 0..20 {
        let mut client = agent.connect();
        let _ = client.try_send(GET);
        let got = client.response();
        assert_eq!((got.status(), got.field("retry-after").as_deref()), (503, Some("1")));
    }
    release.send(()).unwrap();
    release.send(()).unwrap();
    let mut first = busy.remove(0);
    assert_eq!(first.response().status(), 200);
    release.send(()).unwrap();
    assert_eq!(agent.ask(GET).status(), 200);
}

/// Whether something, or the end, waits to be read.
fn is_answered(client: &Wire) -> bool {
    let socket = client.socket();
    socket.set_nonblocking(true).unwrap();
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let answered = socket.peek(&mut byte).is_ok();
    socket.set_nonblocking(false).unwrap();
    answered
}

#[test]
fn a_burst_at_the_cap_finds_room_as_long_as_connections_are_idle() {
    // Connections of all workers are idle, so each of the new ones has one to take the place of.
    const CAP: usize = 8;
    let server = Server::good();
    let agent = Agent::start(server.port, &["--threads=2", "--max-connections=8"]);
    let mut idle: Vec<Wire> = (0..CAP).map(|_| idle(&agent)).collect();
    for round in 0..50 {
        let mut new: Vec<Wire> = (0..CAP / 2).map(|_| agent.connect()).collect();
        for client in &mut new {
            let _ = client.try_send(GET);
        }
        for client in &mut new {
            assert_eq!(client.response().status(), 200, "round {round}: turned away though others were idle");
        }
        idle.drain(..CAP / 2);
        idle.append(&mut new);
    }
}

#[test]
fn silent_tunnels_and_connections_without_a_first_byte_make_way_for_others() {
    // A server that takes connections and says nothing.
    let server = Server::start(|mut peer: Peer| drop(peer.wire.rest()));
    for silence in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""] {
        for threads in ["--threads=1", "--threads=2"] {
            let agent = Agent::start(server.port, &[threads, "--max-connections=8"]);
            let mut held: Vec<Wire> = (0..8).map(|_| agent.connect()).collect();
            held.iter_mut().for_each(|client| client.send(silence));
            let probe = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n\r\n";
            // Not those whose first byte may be on its way.
            until(&format!("there is room {threads} {silence:?}"), || {
                let mut client = agent.connect();
                client.try_send(probe).and_then(|()| client.try_response()).is_ok_and(|got| got.status() == 200)
            });
        }
    }
}
