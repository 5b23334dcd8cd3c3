//! What must not stop or slow anyone else: DESIGN §4.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::batcher_support::{batching_watched, echo, predict};
use crate::support::agent::free_port;
use crate::support::{Agent, OK, Peer, Server, Wire, alone, holds_within, possible_connections, process, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// Descriptors of an agent that is to have too few of them; it takes no more than ten clients.
const DESCRIPTORS: u32 = 64;

#[test]
fn more_clients_than_descriptors_are_turned_away_and_it_is_over_when_they_go() {
    let _alone = alone();
    let (server, hold) = holding();
    let agent = Agent::setup(server.port).descriptors(DESCRIPTORS).watched().start();
    // Which limit they meet, that of connections or that of descriptors, depends on how fast a worker takes over what
    // the one that accepts hands it.
    let lines = ["too many connections", "out of file descriptors"];
    assert!(a_crowd_is_turned_away(&agent, hold, &lines) > 0);
    let metrics = agent.metrics();
    let rejected = |reason| metrics.count(&format!("requests_rejected_total{{reason=\"{reason}\"}}"));
    assert!(rejected("too_many_connections") + rejected("out_of_descriptors") > 0);
}

#[test]
fn running_out_of_descriptors_turns_clients_away_and_is_over_when_they_go() {
    // Fewer than the clients that the agent takes, so that neither they nor their requests have all they need.
    const ROOM: usize = 5;
    let _alone = alone();
    let (server, hold) = holding();
    let agent = Agent::setup(server.port).descriptors(DESCRIPTORS).watched().start();
    // This one has both of its own.
    let mut first = agent.connect();
    first.send(GET);
    until("the server has a request", || server.seen().len() == 1);
    // The agent takes no more clients than it had descriptors for when it started: it runs out only if it has fewer since.
    process::descriptor_limit(agent.pid(), process::descriptors(agent.pid()) + ROOM);
    a_crowd_is_turned_away(&agent, hold, &["out of file descriptors"]);
    assert_eq!(first.response().status(), 200);
    assert!(agent.metrics().count("requests_rejected_total{reason=\"out_of_descriptors\"}") > 0);
}

/// A server that answers nobody until what is returned with it is dropped: how many requests are under way at once is
/// then no matter of speed.
fn holding() -> (Server, mpsc::Sender<()>) {
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let server = Server::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            let _ = held.lock().unwrap().recv();
            if peer.wire.try_send(OK).is_err() {
                return;
            }
        }
    });
    (server, hold)
}

/// Lets 500 clients ask at once, of whom some are turned away with one of these lines in the log. `hold` is what the
/// server waits for. Returns how many are served.
fn a_crowd_is_turned_away(agent: &Agent, hold: mpsc::Sender<()>, lines: &[&str]) -> usize {
    let mut clients: Vec<Wire> = (0..possible_connections(500)).map(|_| agent.connect()).collect();
    for client in &mut clients {
        // It may have been turned away already.
        let _ = client.try_send(GET);
    }
    until("some are turned away", || lines.iter().any(|line| agent.log().contains(line)));
    drop(hold);
    let mut served = 0;
    for client in &mut clients {
        match client.try_response() {
            Ok(got) if got.status() == 200 => served += 1,
            Ok(got) => assert_eq!((got.status(), got.field("retry-after").as_deref()), (503, Some("1"))),
            Err(error) => panic!("neither served nor turned away: {error}"),
        }
    }
    assert!(process::descriptors(agent.pid()) <= DESCRIPTORS as usize);
    drop(clients);
    let recovered = holds_within(Duration::from_secs(1), || (0..10).all(|_| agent.ask(GET).status() == 200));
    assert!(recovered, "not within a second");
    let lines = agent.log().lines().count();
    assert!(lines < 50, "{lines} lines of log:\n{}", agent.log());
    served
}

/// Address space that a thread's stack takes.
const STACK: u64 = 2 << 20;

#[test]
fn without_room_for_a_thread_a_batch_waits_until_there_is_one() {
    let server = Server::with(echo);
    let agent = batching_watched(&server, &["--max-latency=1"]);
    // What the worker keeps it has from now on.
    assert_eq!(agent.ask(GET).status(), 200);
    let room = STACK - 4096;
    let before = process::address_space_limit(agent.pid(), process::address_space(agent.pid()) + room);
    let mut waiting: Vec<Wire> = (0..3).map(|_| agent.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send(predict(&["1"])));
    until("there is no thread", || agent.log().contains("no thread for a batch"));
    assert_eq!(agent.metrics().count("batches_in_flight"), 0);
    process::address_space_limit(agent.pid(), before);
    waiting.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200, "{}", agent.log()));
    assert_eq!(agent.log().matches("no thread for a batch").count(), 1, "{}", agent.log());
}

#[test]
fn clients_that_declare_a_gibibyte_and_stall_cost_little_memory() {
    let _alone = alone();
    let server = Server::start(|mut peer: Peer| {
        peer.request_head();
        let _ = peer.wire.rest();
    });
    let agent = Agent::start(server.port, &[]);
    let before = agent.resident_kib();
    let count = possible_connections(1000);
    let clients: Vec<Wire> = (0..count)
        .map(|number| {
            let mut client = agent.connect();
            let framing = if number % 2 == 0 { "Content-Length: 1073741824" } else { "Transfer-Encoding: chunked" };
            let chunk = if number % 2 == 0 { "" } else { "40000000\r\n" };
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{chunk}{}", "x".repeat(16_000)));
            client
        })
        .collect();
    until("the server has all heads", || server.seen().len() == count);
    let grown = agent.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for {count}");
    drop(clients);
    until("all of them are gone", || process::descriptors(agent.pid()) < 100);
}

#[test]
fn clients_that_push_against_a_server_that_does_not_read_cost_bounded_memory() {
    const COUNT: usize = 100;
    let _alone = alone();
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let server = Server::start(move |mut peer: Peer| {
        peer.request_head();
        let _ = held.lock().unwrap().recv();
    });
    let agent = Agent::start(server.port, &[]);
    let before = agent.resident_kib();
    let clients: Vec<Wire> = (0..COUNT)
        .map(|_| {
            let client = agent.connect();
            client.socket().set_nonblocking(true).unwrap();
            client.socket().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1073741824\r\n\r\n").unwrap();
            client
        })
        .collect();
    let block = vec![b'x'; 1 << 20];
    // As long as any of them gets rid of something.
    let mut moved = Instant::now();
    while moved.elapsed() < Duration::from_millis(300) {
        for client in &clients {
            if matches!(client.socket().send(&block), Ok(1..)) {
                moved = Instant::now();
            }
        }
    }
    let grown = agent.resident_kib().saturating_sub(before);
    assert!(grown < 256 * 100 + 2048, "{grown} KiB for {COUNT}");
    drop(hold);
}

/// When a request was under way, and how it ended.
struct Asked {
    from: Instant,
    to: Instant,
    /// The status, or 0 if the connection failed.
    status: u16,
}

#[test]
fn a_server_that_is_killed_and_started_again_is_missed_only_while_it_is_down() {
    let _alone = alone();
    let port = free_port();
    let start =
        || Server::start_on(port, |mut peer| while peer.request().is_some() && peer.wire.try_send(OK).is_ok() {});
    let mut server = start();
    let agent = Agent::start(port, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (stop, mut client) = (Arc::clone(&stop), agent.connect());
            thread::spawn(move || {
                let mut asked = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let from = Instant::now();
                    client.send(if (asked.len() + number) % 2 == 0 { GET } else { POST });
                    // 502 keeps the connection, so no response at all is a failure of its own.
                    let status = client.try_response().map_or(0, |got| got.status());
                    asked.push(Asked { from, to: Instant::now(), status });
                    assert_ne!(status, 0, "a connection failed");
                }
                asked
            })
        })
        .collect();
    let mut down = Vec::new();
    for _ in 0..3 {
        until("requests are answered", || server.seen().len() > 200);
        let from = Instant::now();
        server.kill();
        until("it is missed", || agent.ask(GET).status() == 502);
        server = start();
        down.push((from, Instant::now()));
    }
    until("requests are answered again", || server.seen().len() > 500);
    stop.store(true, Ordering::SeqCst);
    let asked: Vec<Asked> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let missed = asked.iter().filter(|asked| asked.status != 200);
    assert!(missed.clone().count() > 0);
    for asked in missed {
        assert_eq!(asked.status, 502);
        let overlaps = |(from, to): &(Instant, Instant)| asked.from <= *to && asked.to >= *from;
        let after = down.iter().filter(|(_, to)| *to < asked.from).map(|(_, to)| asked.from - *to).min();
        assert!(down.iter().any(overlaps), "missed while the server was up, {after:?} after it came back");
    }
}

#[test]
fn clients_that_reset_do_not_take_new_ones_along() {
    // What becomes known of a connection that has just ended must not be held against the one in its place.
    let _alone = alone();
    let server = Server::good();
    let agent = Agent::start(server.port, &["--threads=1"]);
    let end = Instant::now() + Duration::from_secs(2);
    let vandals: Vec<_> = (0..4)
        .map(|number| {
            let port = agent.port;
            thread::spawn(move || {
                let mut random = Random(number);
                while Instant::now() < end {
                    let mut client = Wire::connect(port);
                    // A tunnel whose ends both come to an end while the reset is on its way.
                    let _ = client.try_send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                    client.end();
                    for _ in 0..random.next() % 16 {
                        thread::yield_now();
                    }
                    client.reset();
                }
            })
        })
        .collect();
    let mut failed = Vec::new();
    let mut answered = 0;
    while Instant::now() < end {
        let mut client = agent.connect();
        match client.try_send(POST).and_then(|()| client.try_response()) {
            Ok(got) if got.status() == 200 => answered += 1,
            other => failed.push(other.map(|got| got.status())),
        }
    }
    vandals.into_iter().for_each(|vandal| vandal.join().unwrap());
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), answered + failed.len(), failed[0]);
}

/// Pseudo-random numbers (Knuth's MMIX constants): the same ones for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next() % 256).unwrap()
    }
}

/// Bytes that a client with a fault, or a grudge, may send.
fn garbage(random: &mut Random) -> Vec<u8> {
    const SEEDS: [&str; 6] = [
        GET,
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
        "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\nExpect: 100-continue\r\n\r\n",
    ];
    let mut bytes = SEEDS[random.next() % SEEDS.len()].as_bytes().to_vec();
    if random.next().is_multiple_of(8) {
        bytes = (0..random.next() % 5000).map(|_| random.byte()).collect();
    }
    for _ in 0..random.next() % 4 {
        let at = random.next() % (bytes.len() + 1);
        match random.next() % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.byte()),
            2 if at < bytes.len() => bytes[at] = random.byte(),
            _ => {
                let copy = bytes[at..].to_vec();
                bytes.extend_from_slice(&copy);
            }
        }
    }
    bytes
}

#[test]
fn garbage_does_not_disturb_good_traffic() {
    let _alone = alone();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let end = Instant::now() + Duration::from_secs(4);
    let vandals: Vec<_> = (0..2)
        .map(|number| {
            let port = agent.port;
            thread::spawn(move || {
                let mut random = Random(seed + number);
                let mut count = 0;
                while Instant::now() < end {
                    let mut client = Wire::connect(port);
                    let bytes = garbage(&mut random);
                    let at = random.next() % (bytes.len() + 1);
                    let sent = client.try_send(&bytes[..at]).and_then(|()| client.try_send(&bytes[at..]));
                    match random.next() % 4 {
                        0 => client.reset(),
                        1 => client.end(),
                        2 if sent.is_ok() => {
                            let _ = client.fill(Instant::now() + Duration::from_millis(2));
                        }
                        _ => {}
                    }
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut kept = agent.connect();
    let mut answered = 0;
    while Instant::now() < end {
        for request in [GET, POST] {
            kept.send(request);
            assert_eq!(kept.response().status(), 200, "seed {seed}");
            assert_eq!(agent.ask(request).status(), 200, "seed {seed}");
            answered += 1;
        }
    }
    let sent: usize = vandals.into_iter().map(|vandal| vandal.join().unwrap()).sum();
    assert!(answered > 100 && sent > 100, "{answered} {sent}");
    until("nothing of it is left", || process::descriptors(agent.pid()) < 64);
}
