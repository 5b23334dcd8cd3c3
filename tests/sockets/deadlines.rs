//! Limits that are times: SPEC P9, P11. Each takes what the contract says, so all of them run at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::logger_support::{REQUESTS_ONLY, ask, assert_once_each};
use crate::support::sink::{dead_flag, setup};
use crate::support::wire::Ending;
use crate::support::{Agent, Books, OK, Peer, Server, Sink, Wire, holds_within, possible_connections};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// The time a head may take.
const HEAD: Duration = Duration::from_secs(30);
/// The window of the slowest pace, and how it is set.
const WINDOW: Duration = Duration::from_secs(10);
const OF_WINDOW: &str = "--request-body-timeout=10s";
/// How late a deadline may be on a busy machine.
const LATE: Duration = Duration::from_secs(3);
/// How early: the clocks of both ends differ by what lies between their readings.
const EARLY: Duration = Duration::from_millis(100);

#[test]
fn every_deadline_holds() {
    let scenarios: [(&str, fn()); 17] = [
        ("a head in drips is cut at an absolute deadline", a_head_in_drips_is_cut_at_an_absolute_deadline),
        ("a new connection without a byte is closed", a_new_connection_without_a_byte_is_closed),
        ("a later head has a time of its own", a_later_head_has_a_time_of_its_own),
        ("two thousand drips do not disturb good traffic", two_thousand_drips_do_not_disturb_good_traffic),
        ("a body that stops is refused", a_body_that_stops_is_refused),
        ("a body in drips is refused", a_body_in_drips_is_refused),
        ("a body may pause for less than its limit", a_body_may_pause_for_less_than_its_limit),
        ("a body that is slow but not too slow passes", a_body_that_is_slow_but_not_too_slow_passes),
        ("a server that reads late is not the client's fault", a_server_that_reads_late_is_not_the_clients_fault),
        ("a server that never says 100 is at fault", a_server_that_never_says_100_is_at_fault),
        ("a response that nobody takes is cut", a_response_that_nobody_takes_is_cut),
        ("a response taken in drips is cut", a_response_taken_in_drips_is_cut),
        ("a response may pause", a_response_may_pause),
        ("a silent tunnel stays", a_silent_tunnel_stays),
        ("a server that takes no connection is given up", a_server_that_takes_no_connection_is_given_up),
        ("an idle connection to the server is dropped", an_idle_connection_to_the_server_is_dropped),
        ("a sink that is down for a while gets everything", a_sink_that_is_down_for_a_while_gets_everything),
    ];
    let running = scenarios.map(|(name, run)| (name, thread::Builder::new().name(name.into()).spawn(run).unwrap()));
    let failed: Vec<&str> =
        running.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect();
    assert!(failed.is_empty(), "{failed:?}; see above");
}

#[track_caller]
fn assert_took(began: Instant, wanted: Duration) {
    let took = began.elapsed();
    assert!(took + EARLY >= wanted && took <= wanted + LATE, "took {took:?}, wanted {wanted:?}");
}

fn a_head_in_drips_is_cut_at_an_absolute_deadline() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    let mut client = agent.connect();
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    for _ in 0..9 {
        thread::sleep(Duration::from_secs(3));
        client.send("X: 1\r\n");
    }
    let got = client.response();
    assert_took(began, HEAD);
    assert_eq!((got.status(), got.field("connection").as_deref()), (408, Some("close")));
    assert_eq!(client.rest().0, b"");
    assert!(server.seen().is_empty(), "{:?}", server.seen());
    assert_eq!(agent.metrics().count("requests_rejected_total{reason=\"slow_client\"}"), 1);
}

fn a_new_connection_without_a_byte_is_closed() {
    let agent = Agent::start(Server::good().port, &[]);
    let began = Instant::now();
    let mut client = agent.connect();
    client.patience = HEAD + LATE;
    assert_eq!(client.rest(), (vec![], Ending::Closed));
    assert_took(began, HEAD);
}

fn a_later_head_has_a_time_of_its_own() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send(GET);
    client.response();
    thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    client.send("GET / HTTP/1.1\r\n");
    client.patience = HEAD + LATE;
    assert_eq!(client.response().status(), 408);
    assert_took(began, HEAD);
}

fn two_thousand_drips_do_not_disturb_good_traffic() {
    let count = possible_connections(2000);
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut good = agent.connect();
    let began = Instant::now();
    let mut drips: Vec<Wire> = (0..count).map(|_| agent.connect()).collect();
    let connected = Instant::now();
    drips.iter_mut().for_each(|drip| drip.send("GET / HTTP/1.1\r\n"));
    let mut next_drip = connected;
    let mut answered = 0;
    while connected.elapsed() < HEAD - Duration::from_secs(1) {
        if Instant::now() >= next_drip {
            next_drip += Duration::from_secs(4);
            drips.iter_mut().for_each(|drip| drip.send("X"));
        }
        good.send(GET);
        assert_eq!(good.response().status(), 200);
        // A new client gets in as well.
        assert_eq!(agent.ask(GET).status(), 200);
        answered += 1;
        // Good traffic at a pace that leaves the processors to the tests beside this one.
        thread::sleep(Duration::from_millis(20));
    }
    assert!(answered > 100, "{answered}");
    for drip in &mut drips {
        assert_eq!(drip.response().status(), 408);
        assert_eq!(drip.rest().0, b"");
    }
    let spread = connected - began;
    assert!(connected.elapsed() <= HEAD + LATE + spread, "{:?}", connected.elapsed());
    good.send(GET);
    assert_eq!(good.response().status(), 200);
}

fn a_body_that_stops_is_refused() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[OF_WINDOW]);
    let mut client = agent.connect();
    client.patience = WINDOW * 2 + LATE;
    let began = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc");
    assert_eq!(client.response().status(), 408);
    let took = began.elapsed();
    assert!(took + EARLY >= WINDOW && took <= WINDOW + LATE, "{took:?}");
    assert_eq!(client.rest().0, b"");
    assert_eq!(agent.metrics().count("requests_rejected_total{reason=\"slow_client\"}"), 1);
}

fn a_body_in_drips_is_refused() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[OF_WINDOW]);
    let mut client = agent.connect();
    let began = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    // 200 bytes/s, a little below 240.
    while client.buffer.is_empty() && began.elapsed() < WINDOW * 2 + LATE {
        let _ = client.try_send(format!("64\r\n{}\r\n", "x".repeat(100)));
        let _ = client.fill(Instant::now() + Duration::from_millis(500));
    }
    assert_eq!(client.response().status(), 408);
    assert!(began.elapsed() + EARLY >= WINDOW);
}

fn a_body_may_pause_for_less_than_its_limit() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    thread::sleep(HEAD + Duration::from_secs(1));
    client.send("0\r\n\r\n");
    assert_eq!(client.response().status(), 200);
}

fn a_body_that_is_slow_but_not_too_slow_passes() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[OF_WINDOW]);
    let mut client = agent.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12600\r\n\r\n");
    for _ in 0..42 {
        client.send("x".repeat(300));
        thread::sleep(Duration::from_millis(600));
    }
    assert_eq!(client.response().status(), 200);
    assert_eq!(server.only().body.len(), 12_600);
}

fn a_server_that_reads_late_is_not_the_clients_fault() {
    const LENGTH: usize = 64 << 20;
    let server = Server::start(|mut peer: Peer| {
        peer.request_head();
        thread::sleep(WINDOW + Duration::from_secs(2));
        let end = Instant::now() + WINDOW * 2;
        let mut read = std::mem::take(&mut peer.wire.buffer).len();
        while read < LENGTH && matches!(peer.wire.fill(end), Ok(1..)) {
            read += std::mem::take(&mut peer.wire.buffer).len();
        }
        peer.wire.send(OK);
    });
    let agent = Agent::start(server.port, &[OF_WINDOW]);
    let mut client = agent.connect();
    client.patience = WINDOW * 3;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n"));
    client.send(vec![b'x'; LENGTH]);
    assert_eq!(client.response().status(), 200);
}

/// A server with a response that no buffer on the way holds; it says when its connection was ended.
fn large() -> (Server, Receiver<Instant>) {
    let (cut, is_cut) = channel();
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        let _ = peer.wire.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 256 << 20));
        peer.wire.patience = WINDOW * 3;
        let block = vec![b'x'; 1 << 20];
        while peer.wire.try_send(&block).is_ok() {}
        let _ = cut.send(Instant::now());
    });
    (server, is_cut)
}

fn a_server_that_never_says_100_is_at_fault() {
    let server = Server::start(|mut peer: Peer| {
        peer.request_head();
        peer.wire.rest();
    });
    let agent = Agent::watched(server.port, &[]);
    let mut client = agent.connect();
    client.patience = HEAD + LATE * 2;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let began = Instant::now();
    assert_eq!(client.response().status(), 504);
    assert_took(began, HEAD);
    let metrics = agent.metrics();
    assert_eq!(metrics.count("upstream_errors_total{kind=\"timeout\"}"), 1);
    assert_eq!(metrics.count("requests_rejected_total{reason=\"slow_client\"}"), 0);
}

fn a_response_that_nobody_takes_is_cut() {
    let (server, is_cut) = large();
    let agent = Agent::watched(server.port, &[OF_WINDOW]);
    let mut client = agent.connect();
    let began = Instant::now();
    client.send(GET);
    client.response_head();
    let took = is_cut.recv_timeout(WINDOW * 2 + LATE).expect("not cut").duration_since(began);
    assert!(took + EARLY >= WINDOW, "{took:?}");
    let (got, ending) = client.rest();
    assert_eq!(ending, Ending::Reset);
    assert!(got.len() < 256 << 20);
    assert_eq!(agent.metrics().count("requests_rejected_total{reason=\"slow_client\"}"), 1);
}

fn a_response_taken_in_drips_is_cut() {
    let (server, is_cut) = large();
    let agent = Agent::start(server.port, &[OF_WINDOW]);
    let mut client = agent.connect();
    // A small window, so that what is taken here is soon what is taken from the agent.
    client.socket().set_recv_buffer_size(4096).unwrap();
    let began = Instant::now();
    client.send(GET);
    client.response_head();
    let mut bytes = [std::mem::MaybeUninit::uninit(); 50];
    let cut = loop {
        // 100 bytes/s.
        let _ = client.socket().recv(&mut bytes);
        match is_cut.recv_timeout(Duration::from_millis(500)) {
            Ok(cut) => break cut,
            Err(_) => assert!(began.elapsed() < WINDOW * 3, "not cut"),
        }
    };
    assert!(cut.duration_since(began) + EARLY >= WINDOW);
}

fn a_response_may_pause() {
    let server = Server::start(|mut peer: Peer| {
        peer.request();
        thread::sleep(WINDOW + Duration::from_secs(2));
        peer.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
        thread::sleep(WINDOW + Duration::from_secs(2));
        peer.wire.send("cd");
    });
    let agent = Agent::start(server.port, &[OF_WINDOW]);
    let mut client = agent.connect();
    client.patience = WINDOW * 3;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response().text(), "abcd");
}

fn a_silent_tunnel_stays() {
    let server = Server::start(|mut peer: Peer| {
        peer.request_head();
        peer.wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n");
        peer.wire.patience = HEAD + WINDOW;
        peer.wire.expect("late");
        peer.wire.send("late too");
    });
    let agent = Agent::start(server.port, &[]);
    let mut client = agent.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(client.response().status(), 101);
    thread::sleep(HEAD + Duration::from_secs(1));
    client.send("late");
    client.expect("late too");
}

fn a_server_that_takes_no_connection_is_given_up() {
    // With a full backlog the kernel drops what asks for a connection.
    let server = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    server.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    server.listen(0).unwrap();
    let port = server.local_addr().unwrap().as_socket().unwrap().port();
    let _full = Wire::connect(port);
    let agent = Agent::watched(port, &[]);
    let began = Instant::now();
    let mut client = agent.connect();
    client.send(GET);
    assert_eq!(client.response().status(), 502);
    assert_took(began, Duration::from_secs(5));
    assert_eq!(agent.metrics().count("upstream_errors_total{kind=\"connect_timeout\"}"), 1);
}

fn an_idle_connection_to_the_server_is_dropped() {
    let (saw, seen) = channel();
    let server = Server::start(move |mut peer: Peer| {
        peer.request();
        peer.wire.send(OK);
        let idle = Instant::now();
        let (_, ending) = peer.wire.rest();
        saw.send((idle.elapsed(), ending)).unwrap();
    });
    let agent = Agent::start(server.port, &[]);
    assert_eq!(agent.ask(GET).status(), 200);
    let (kept, ending) = seen.recv_timeout(WINDOW).unwrap();
    assert_eq!(ending, Ending::Closed);
    assert!((Duration::from_millis(2900)..Duration::from_secs(5)).contains(&kept), "{kept:?}");
}

fn a_sink_that_is_down_for_a_while_gets_everything() {
    const DOWN: Duration = Duration::from_secs(20);
    const LONGEST_WAIT: Duration = Duration::from_secs(30);
    let server = Server::good();
    let (port, flag) = dead_flag();
    let agent = setup(&server, &flag).flags(&[REQUESTS_ONLY]).start();
    ask(&agent, 1000);
    thread::sleep(DOWN);
    assert_eq!(Books::of(&agent).waiting, 1000);
    let sink = Sink::good_on(port);
    assert!(holds_within(LONGEST_WAIT + LATE, || sink.events().len() >= 1000), "{}", sink.events().len());
    assert_once_each(&sink.events(), 1000);
    assert_eq!(Books::settled(&agent), Books::all_sent(1000));
}

// The longest of all tests: nothing else ends an event's time.
#[test]
fn events_that_nobody_takes_are_given_up_after_five_minutes() {
    const TRIED_FOR: Duration = Duration::from_secs(300);
    /// An event whose next attempt would be later than that has none.
    const LONGEST_WAIT: Duration = Duration::from_secs(30);
    let server = Server::good();
    let (_, flag) = dead_flag();
    let agent = setup(&server, &flag).flags(&[REQUESTS_ONLY]).start();
    let began = Instant::now();
    // Those that nobody has tried yet have their five minutes before them.
    ask(&agent, 1);
    assert!(holds_within(TRIED_FOR + LATE, || Books::of(&agent).failed == 1), "{:?}", Books::of(&agent));
    assert!(began.elapsed() + LONGEST_WAIT >= TRIED_FOR, "{:?}", began.elapsed());
    assert_eq!(agent.metrics().count("kserve_logger_events_failed_total{type=\"request\",reason=\"expired\"}"), 1);
}
