//! Sinks that fail, lie or dawdle: every event is delivered in the end or counted, and none waits for another (SPEC L5).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::logger_support::{
    ONE_COURIER, REQUESTS_ONLY, ask, assert_all_arrive, assert_once_each, bad_at_first, post, retries, times,
};
use crate::support::sink::{Event, TAKEN, dead_flag, logging, setup};
use crate::support::{Books, Message, Peer, Server, Sink, holds_within, until};

const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_sink_that_was_down_gets_everything_once() {
    let server = Server::good();
    let (port, flag) = dead_flag();
    let agent = setup(&server, &flag).flags(&[REQUESTS_ONLY]).start();
    ask(&agent, 200);
    until("it was tried", || retries(&agent) > 0);
    let books = Books::of(&agent);
    assert_eq!((books.accepted, books.waiting), (200, 200));
    until("the log says so", || agent.log().contains("Connection refused"));
    assert!(agent.log().contains(&format!("http://127.0.0.1:{port}/events")), "{}", agent.log());
    let sink = Sink::good_on(port);
    assert_once_each(&sink.await_events(200), 200);
    assert_eq!(Books::settled(&agent), Books::all_sent(200));
}

#[test]
fn a_sink_that_dies_and_comes_back_gets_everything() {
    let server = Server::good();
    let first = Sink::good();
    let port = first.port();
    let agent = logging(&server, &first, &[REQUESTS_ONLY]);
    ask(&agent, 50);
    assert_once_each(&first.await_events(50), 50);
    first.kill();
    ask(&agent, 50);
    until("it was tried", || retries(&agent) > 0);
    let second = Sink::good_on(port);
    assert_once_each(&second.await_events(50), 50);
    assert_eq!(Books::settled(&agent), Books::all_sent(100));
}

#[test]
fn a_sink_says_when_to_come_again() {
    const AFTER: Duration = Duration::from_millis(1900);
    let came = Arc::new(Mutex::new(Vec::new()));
    let of_sink = Arc::clone(&came);
    let sink = Sink::with(move |_| {
        let mut came = of_sink.lock().unwrap();
        came.push(Instant::now());
        let late = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nlate";
        if came.len() == 1 { late.as_bytes().to_vec() } else { TAKEN.to_vec() }
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY]);
    ask(&agent, 1);
    sink.await_events(2);
    let came = came.lock().unwrap();
    let waited = came[1] - came[0];
    assert!((AFTER..AFTER * 2).contains(&waited), "{waited:?}");
    assert_eq!((Books::settled(&agent), retries(&agent)), (Books::all_sent(1), 1));
    assert!(agent.log().contains("429"), "{}", agent.log());
}

#[test]
fn a_refused_event_comes_again_and_does_not_hold_up_the_others() {
    let seen = Arc::new(AtomicUsize::new(0));
    let of_sink = Arc::clone(&seen);
    let sink = Sink::with(move |event| match (event.id().as_str(), of_sink.fetch_add(1, Ordering::SeqCst)) {
        ("0", 0) => REFUSED.to_vec(),
        _ => TAKEN.to_vec(),
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER]);
    ask(&agent, 40);
    let events = sink.await_events(41);
    let mut wanted: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    wanted.push("0".to_owned());
    // The order is kept but for the one that had to come again.
    assert_eq!(events.iter().map(Event::id).collect::<Vec<_>>(), wanted);
    assert_eq!((Books::settled(&agent), retries(&agent)), (Books::all_sent(40), 1));
}

#[test]
fn each_status_that_may_pass_is_tried_again() {
    const STATUSES: [u16; 8] = [404, 408, 409, 425, 429, 500, 503, 599];
    let tried = Mutex::new(BTreeMap::<String, usize>::new());
    let sink = Sink::with(move |event| {
        let mut tried = tried.lock().unwrap();
        let times = tried.entry(event.id()).or_default();
        *times += 1;
        let status = if *times == 1 { event.id() } else { "200".to_owned() };
        format!("HTTP/1.1 {status} Any\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY]);
    STATUSES.iter().for_each(|status| assert_eq!(agent.ask(post(&status.to_string())).status(), 200));
    let times = times(&sink.await_events(2 * STATUSES.len()));
    assert!(times.values().all(|times| *times == 2), "{times:?}");
    assert_eq!(Books::settled(&agent), Books::all_sent(STATUSES.len() as u64));
    assert_eq!(retries(&agent), STATUSES.len() as u64);
}

#[test]
fn any_other_status_is_final() {
    const STATUSES: [u16; 8] = [300, 302, 304, 400, 401, 403, 410, 413];
    let sink = Sink::with(|event| {
        format!("HTTP/1.1 {} Any\r\nLocation: /else\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", event.id()).into()
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[]);
    STATUSES.iter().for_each(|status| assert_eq!(agent.ask(post(&status.to_string())).status(), 200));
    let count = 2 * STATUSES.len() as u64;
    until("all are decided", || Books::of(&agent).failed == count);
    let settled = Books::settled(&agent);
    assert_eq!(settled, Books { accepted: count, failed: count, ..Books::default() });
    let metrics = agent.metrics();
    for of in ["request", "response"] {
        let rejected = format!("kserve_logger_events_failed_total{{type=\"{of}\",reason=\"rejected\"}}");
        assert_eq!(metrics.count(&rejected), count / 2);
    }
    assert_eq!((sink.events().len() as u64, retries(&agent)), (count, 0));
}

#[test]
fn a_sink_that_closes_after_each_answer_gets_everything() {
    for says_so in [true, false] {
        let sink = Sink::start(move |mut peer: Peer| {
            if peer.request().is_some() {
                let close = if says_so { "Connection: close\r\n" } else { "" };
                let _ = peer.wire.try_send(format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 0\r\n\r\n"));
            }
        });
        let server = Server::good();
        let agent = logging(&server, &sink, &[REQUESTS_ONLY]);
        ask(&agent, 60);
        until("all are sent", || Books::of(&agent).sent == 60);
        assert_eq!(Books::settled(&agent), Books::all_sent(60));
        assert_once_each(&sink.events(), 60);
    }
}

#[test]
fn a_sink_that_closes_instead_of_answering_is_tried_again() {
    let sink = bad_at_first(3, |peer| drop(peer.request()));
    assert_all_arrive(&sink, &[]);
}

#[test]
fn a_sink_that_forgets_pipelined_requests_gets_everything() {
    // It answers the first of what comes together and throws the rest away.
    let sink = Sink::start(|mut peer: Peer| {
        while peer.request().is_some() {
            peer.wire.buffer.clear();
            if peer.wire.try_send(TAKEN).is_err() {
                return;
            }
        }
    });
    let (gate, server) = held_server();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER, "--log-client-timeout=300ms"]);
    let mut clients: Vec<_> = (0..40).map(|_| agent.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(post(&number.to_string()));
    }
    drop(gate);
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    until("all are sent", || Books::of(&agent).sent == 40);
    assert_eq!(Books::settled(&agent), Books::all_sent(40));
    assert_once_each(&sink.events(), 40);
}

/// A server that answers when the gate is dropped.
fn held_server() -> (mpsc::Sender<()>, Server) {
    let (gate, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let server = Server::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            let _ = opened.lock().unwrap().recv();
            if peer.wire.try_send(crate::support::OK).is_err() {
                return;
            }
        }
    });
    (gate, server)
}

#[test]
fn connections_to_a_good_sink_are_kept() {
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &["--workers=3"]);
    ask(&agent, 300);
    sink.await_events(600);
    assert!(sink.connections() <= 3, "{}", sink.connections());
    assert!(sink.events().iter().all(|event| event.connection() < 3));
}

#[test]
fn one_event_that_breaks_its_connection_does_not_hold_up_the_others() {
    let sink = Sink::start(|mut peer: Peer| {
        while let Some(request) = peer.request() {
            if request.text() == "0" || peer.wire.try_send(TAKEN).is_err() {
                return;
            }
        }
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER]);
    ask(&agent, 1);
    until("it was tried", || retries(&agent) > 0);
    ask(&agent, 20);
    // Two are called 0.
    until("the others are sent", || Books::of(&agent).sent == 19);
    assert_eq!(Books::of(&agent).waiting, 2);
}

#[test]
fn a_sink_that_fails_whatever_it_is_given_is_left_alone_until_it_is_well() {
    const EVENTS: usize = 1000;
    /// What eight attempts with as many as fly together may bring, and a few with one.
    const TRIED_AT_MOST: usize = 300;
    let is_well = Arc::new(AtomicBool::new(false));
    let of_sink = Arc::clone(&is_well);
    let broken = "HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n";
    let sink =
        Sink::with(move |_| if of_sink.load(Ordering::SeqCst) { TAKEN.to_vec() } else { broken.as_bytes().to_vec() });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER]);
    ask(&agent, EVENTS);
    let is_stormed = holds_within(Duration::from_secs(3), || sink.events().len() > TRIED_AT_MOST);
    assert!(!is_stormed, "{} attempts", sink.events().len());
    is_well.store(true, Ordering::SeqCst);
    assert_eq!(Books::settled(&agent), Books::all_sent(EVENTS as u64));
    assert_eq!(times(&sink.events()).len(), EVENTS);
}

#[test]
fn bad_events_one_after_the_other_do_not_hold_up_the_good_ones_for_long() {
    // More than the attempts after which a sink is left alone.
    const BAD: usize = 10;
    let sink = Sink::with(|event| if event.id().len() > 4 { REFUSED.to_vec() } else { TAKEN.to_vec() });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER]);
    for number in 0..BAD {
        assert_eq!(agent.ask(post(&format!("bad-{number}"))).status(), 200);
        // So that each is an attempt of its own, however fast they come, and has failed before the good ones come: while
        // the sink is left alone, one that was never tried would be tried before them.
        until("it was tried", || times(&sink.events()).len() > number);
    }
    ask(&agent, 40);
    until("the good ones are sent", || Books::of(&agent).sent == 40);
    assert_eq!(Books::of(&agent).waiting, BAD as u64);
}

#[test]
fn a_few_bad_events_are_no_reason_to_leave_a_sink_alone() {
    let tries = Arc::new(AtomicUsize::new(0));
    let of_sink = Arc::clone(&tries);
    let sink = Sink::with(move |event| match event.id() {
        id if id.len() <= 4 => TAKEN.to_vec(),
        // Of the attempts that would be enough against a sink the last asks for time.
        _ if of_sink.fetch_add(1, Ordering::Relaxed) < 7 => REFUSED.to_vec(),
        _ => b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER]);
    for number in 0..7 {
        assert_eq!(agent.ask(post(&format!("bad-{number}"))).status(), 200);
    }
    until("each was tried twice", || tries.load(Ordering::Relaxed) == 14);
    ask(&agent, 1);
    until("the good one is sent", || Books::of(&agent).sent == 1);
    assert_eq!(Books::of(&agent).waiting, 7);
}

#[test]
fn no_request_waits_for_a_sink_that_hangs() {
    const ALLOWED: Duration = Duration::from_millis(500);
    let (held, sink_waits) = mpsc::channel::<()>();
    let sink_waits = Mutex::new(sink_waits);
    let sink = Sink::start(move |mut peer: Peer| {
        peer.request();
        let _ = sink_waits.lock().unwrap().recv();
    });
    let server = Server::with(|_: &Message| crate::support::OK.to_vec());
    let agent = logging(&server, &sink, &["--log-client-timeout=60s"]);
    let mut longest = Duration::ZERO;
    for number in 0..500 {
        let began = Instant::now();
        assert_eq!(agent.ask(post(&number.to_string())).status(), 200);
        longest = longest.max(began.elapsed());
    }
    assert!(longest < ALLOWED, "{longest:?}");
    assert_eq!((Books::of(&agent).accepted, Books::of(&agent).sent), (1000, 0));
    drop(held);
}
