//! How a sink's connections may end, as one matrix: what it answers × how and when the connection ends × what it says of
//! its version and of keeping the connection. In each cell every event arrives or is counted (SPEC L5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::logger_support::{ONE_COURIER, REQUESTS_ONLY, ask, times};
use crate::support::sink::logging;
use crate::support::{Books, PATIENCE, Peer, Server, Sink, holds_within};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    /// Three on each connection, in order.
    All,
    /// What comes first on a connection; the rest is read and forgotten.
    First,
    Nothing,
    HalfAHead,
    /// 413, before the body was read.
    Early,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
    Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Http10,
    Http11,
    Close,
}

const ENDS: [End; 3] = [End::Fin, End::Reset, End::Silence];
const SAYS: [Says; 3] = [Says::Http10, Says::Http11, Says::Close];
/// At once, sooner than the limit of an attempt, and later.
const AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(150), Duration::from_millis(700)];
const LIMIT: &str = "--log-client-timeout=400ms";
const EVENTS: usize = 12;

/// A sink of one cell.
fn sink(answers: Answers, end: End, after: Duration, says: Says) -> (Sink, Arc<AtomicBool>) {
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let sink = Sink::start(move |mut peer: Peer| {
        serve(&mut peer, answers, says);
        // What comes meanwhile is not read: a close then is a reset, as with a server that forgets requests.
        let _ = holds_within(after, || is_over.load(Ordering::Relaxed));
        match end {
            End::Fin => peer.wire.close(),
            End::Reset => peer.wire.reset(),
            End::Silence => _ = holds_within(PATIENCE * 3, || is_over.load(Ordering::Relaxed)),
        }
    });
    (sink, over)
}

fn serve(peer: &mut Peer, answers: Answers, says: Says) {
    let (version, close) = match says {
        Says::Http10 => ("1.0", ""),
        Says::Http11 => ("1.1", ""),
        Says::Close => ("1.1", "Connection: close\r\n"),
    };
    let answer = |status: &str| format!("HTTP/{version} {status}\r\n{close}Content-Length: 0\r\n\r\n");
    let count = if answers == Answers::All { 3 } else { 1 };
    for _ in 0..count {
        let came = if answers == Answers::Early { peer.request_head() } else { peer.request() };
        if came.is_none() {
            return;
        }
        let sent = match answers {
            Answers::All | Answers::First => peer.wire.try_send(answer("200 OK")),
            Answers::Nothing => Ok(()),
            Answers::HalfAHead => peer.wire.try_send(format!("HTTP/{version} 200 O")),
            Answers::Early => peer.wire.try_send(answer("413 Too Large")),
        };
        if sent.is_err() || (answers == Answers::All && says != Says::Http11) {
            return;
        }
    }
}

#[track_caller]
fn assert_cell(answers: Answers, end: End, after: Duration, says: Says) {
    let cell = format!("{answers:?} {end:?} {after:?} {says:?}");
    let server = Server::good();
    let (sink, over) = sink(answers, end, after, says);
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER, LIMIT, "--log-retry-for=3s"]);
    ask(&agent, EVENTS);
    let mut books = Books::of(&agent);
    let is_settled = holds_within(PATIENCE * 3, || {
        books = Books::of(&agent);
        books.accepted == EVENTS as u64 && books.waiting == 0
    });
    over.store(true, Ordering::Relaxed);
    assert!(is_settled, "{cell}: {books:?}\n{}", agent.log());
    assert_eq!(books.accepted, books.sent + books.failed + books.dropped, "{cell}");
    let failed = |reason: &str| {
        agent.metrics().count(&format!("kserve_logger_events_failed_total{{type=\"request\",reason=\"{reason}\"}}"))
    };
    match answers {
        Answers::All | Answers::First => {
            assert_eq!(books.sent, EVENTS as u64, "{cell}\n{}", agent.log());
            assert_eq!(times(&sink.events()).len(), EVENTS, "{cell}");
        }
        Answers::Nothing | Answers::HalfAHead => assert_eq!(failed("expired"), EVENTS as u64, "{cell}"),
        Answers::Early => assert_eq!(failed("rejected"), EVENTS as u64, "{cell}\n{}", agent.log()),
    }
}

/// All cells of one kind of answers, side by side: most of their time is waiting.
fn assert_row(answers: Answers) {
    std::thread::scope(|scope| {
        for says in SAYS {
            for end in ENDS {
                scope.spawn(move || AFTER.iter().for_each(|after| assert_cell(answers, end, *after, says)));
            }
        }
    });
}

#[test]
fn a_sink_that_answers_all_and_ends_gets_all() {
    assert_row(Answers::All);
}

#[test]
fn a_sink_that_answers_the_first_and_ends_gets_all() {
    assert_row(Answers::First);
}

#[test]
fn events_of_a_sink_that_answers_nothing_and_ends_are_counted() {
    assert_row(Answers::Nothing);
}

#[test]
fn events_of_a_sink_that_answers_half_a_head_and_ends_are_counted() {
    assert_row(Answers::HalfAHead);
}

#[test]
fn events_of_a_sink_that_refuses_early_and_ends_are_counted() {
    assert_row(Answers::Early);
}
