//! Sinks that fail, lie or dawdle: every event is delivered in the end or counted, and none waits for another (SPEC L5).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::sink::{Event, TAKEN, dead_flag, logging, setup};
use crate::support::{Agent, Books, Message, Peer, Server, Sink, until};

const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
const ONE_COURIER: &str = "--workers=1";
const REQUESTS_ONLY: &str = "--log-mode=request";

/// A request whose event has this id, and its id as payload.
fn post(id: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nCe-Id: {id}\r\nContent-Length: {}\r\n\r\n{id}", id.len())
}

/// Sends so many requests, named `0` and so on, over one connection, each after the answer to the one before.
fn ask(agent: &Agent, count: usize) {
    let mut client = agent.connect();
    for number in 0..count {
        client.send(post(&number.to_string()));
        assert_eq!(client.response().status(), 200);
    }
}

/// How often each event was read, by its id.
fn times(events: &[Event]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    events.iter().for_each(|event| *times.entry(event.id()).or_default() += 1);
    times
}

/// Each of so many events, once.
#[track_caller]
fn assert_once_each(events: &[Event], count: usize) {
    let wanted: BTreeMap<String, usize> = (0..count).map(|number| (number.to_string(), 1)).collect();
    assert_eq!(times(events), wanted);
    events.iter().for_each(|event| assert_eq!(event.text(), event.id()));
}

fn retries(agent: &Agent) -> u64 {
    agent.metrics().count("kserve_logger_delivery_retries_total")
}

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
    const STATUSES: [u16; 6] = [408, 425, 429, 500, 503, 599];
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
    const STATUSES: [u16; 8] = [300, 302, 304, 400, 401, 404, 413, 418];
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

/// Answers in every form that is a success; the sink's script is made of them in turn.
#[test]
fn a_success_is_one_in_whatever_form_it_comes() {
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000));
    let forms: Vec<String> = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 202 \r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Nobody asked\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk",
        huge.as_str(),
    ]
    .map(str::to_owned)
    .to_vec();
    let count = forms.len();
    let sink = Sink::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            let form = &forms[request.text().parse::<usize>().unwrap() % forms.len()];
            let closes = form.contains("HTTP/1.0") || form.contains("close");
            if peer.wire.try_send(form).is_err() || closes {
                return;
            }
        }
    });
    let server = Server::good();
    // A timeout that no answer may need: nothing waits for more bytes than the answer has.
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER, "--log-client-timeout=60s"]);
    for number in 0..3 * count {
        assert_eq!(agent.ask(post(&number.to_string())).status(), 200);
        sink.await_events(number + 1);
    }
    assert_once_each(&sink.events(), 3 * count);
    assert_eq!((Books::settled(&agent), retries(&agent)), (Books::all_sent(3 * count as u64), 0));
}

#[test]
fn an_answer_cut_anywhere_is_the_same_answer() {
    const ANSWER: &[u8] =
        b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let sink = Sink::start(|mut peer: Peer| {
        while let Some(request) = peer.request() {
            let (head, tail) = ANSWER.split_at(request.text().parse().unwrap());
            if peer.wire.try_send(head).is_err() || peer.wire.try_send(tail).is_err() {
                return;
            }
        }
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER]);
    ask(&agent, ANSWER.len());
    assert_once_each(&sink.await_events(ANSWER.len()), ANSWER.len());
    assert_eq!((Books::settled(&agent), sink.connections()), (Books::all_sent(ANSWER.len() as u64), 1));
}

/// What a sink does to the first connections, before it does well.
fn bad_at_first(times: usize, bad: impl Fn(&mut Peer) + Send + Sync + 'static) -> Sink {
    let begun = AtomicUsize::new(0);
    Sink::start(move |mut peer: Peer| {
        if begun.fetch_add(1, Ordering::SeqCst) < times {
            return bad(&mut peer);
        }
        while peer.request().is_some() && peer.wire.try_send(TAKEN).is_ok() {}
    })
}

/// Delivers some events to a sink that is bad to its first connection; returns the agent for a look.
#[track_caller]
fn assert_all_arrive(sink: &Sink, flags: &[&str]) -> Agent {
    let server = Server::good();
    let agent = logging(&server, sink, &[flags, &[REQUESTS_ONLY, ONE_COURIER]].concat());
    ask(&agent, 20);
    until("all are sent", || Books::of(&agent).sent == 20);
    assert_eq!(Books::settled(&agent), Books::all_sent(20));
    assert_eq!(times(&sink.events()).len(), 20);
    agent
}

#[test]
fn garbage_is_no_answer() {
    for garbage in
        ["what?\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n"]
    {
        let sink = bad_at_first(1, move |peer| {
            peer.request();
            let _ = peer.wire.try_send(garbage);
            peer.request();
        });
        let agent = assert_all_arrive(&sink, &[]);
        until("the log names the cause", || agent.log().contains("no HTTP"));
        assert!(retries(&agent) >= 1);
    }
}

#[test]
fn a_head_without_end_is_no_answer() {
    let sink = bad_at_first(1, |peer| {
        peer.request();
        let _ = peer.wire.try_send("HTTP/1.1 200 OK\r\n");
        while peer.wire.try_send("X-More: and more\r\n".repeat(100)).is_ok() {}
    });
    assert_all_arrive(&sink, &["--log-client-timeout=60s"]);
}

#[test]
fn a_sink_that_says_nothing_is_left_in_time() {
    let sink = bad_at_first(1, |peer| {
        peer.request();
        peer.request();
    });
    let agent = assert_all_arrive(&sink, &["--log-client-timeout=300ms"]);
    until("the log names the cause", || agent.log().contains("timed out"));
}

#[test]
fn a_sink_that_takes_nothing_is_left_in_time() {
    const BYTES: usize = 8 * 1024 * 1024;
    let (held, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let sink = bad_at_first(1, move |_| {
        let _ = released.lock().unwrap().recv();
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER, "--log-client-timeout=300ms"]);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n{}", "x".repeat(BYTES));
    assert_eq!(agent.ask(request).status(), 200);
    assert_eq!(sink.await_events(1)[0].payload().len(), BYTES);
    assert_eq!(Books::settled(&agent), Books::all_sent(1));
    drop(held);
}

#[test]
fn one_byte_at_a_time_is_too_slow() {
    let sink = bad_at_first(1, |peer| {
        peer.request();
        for byte in TAKEN.iter().cycle() {
            // Each wait for a byte is shorter than the limit; all of them together are not.
            std::thread::sleep(Duration::from_millis(100));
            if *byte == b'\n' || peer.wire.try_send([*byte]).is_err() {
                return;
            }
        }
    });
    let began = Instant::now();
    let agent = assert_all_arrive(&sink, &["--log-client-timeout=500ms"]);
    until("the log names the cause", || agent.log().contains("timed out"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn endless_interim_answers_are_left_in_time() {
    let sink = bad_at_first(1, |peer| {
        peer.request();
        while peer.wire.try_send("HTTP/1.1 102 Processing\r\n\r\n".repeat(1000)).is_ok() {}
    });
    assert_all_arrive(&sink, &["--log-client-timeout=300ms"]);
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
fn an_answer_before_the_whole_event_counts() {
    let sink = Sink::start(|mut peer: Peer| {
        while let Some(head) = peer.request_head() {
            let length: usize = head.field("content-length").unwrap().parse().unwrap();
            if length > 1000 {
                // As servers do that limit bodies: they say so and close, and what they did not read is reset.
                let _ = peer.wire.try_send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                return;
            }
            peer.wire.expect("x".repeat(length));
            peer.wire.send(TAKEN);
        }
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER]);
    for length in [8 * 1024 * 1024, 3, 200_000, 3] {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
        assert_eq!(agent.ask(request).status(), 200);
    }
    let settled = Books::settled(&agent);
    assert_eq!(settled, Books { accepted: 4, sent: 2, failed: 2, ..Books::default() }, "{}", agent.log());
    assert_eq!(retries(&agent), 0, "{}", agent.log());
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
