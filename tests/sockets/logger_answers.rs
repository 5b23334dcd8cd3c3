//! Answers of log sinks: what is one, and what is none in whatever form it comes (SPEC L5).

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::logger_support::{
    ONE_COURIER, REQUESTS_ONLY, ask, assert_all_arrive, assert_once_each, bad_at_first, post, retries,
};
use crate::support::sink::{TAKEN, logging};
use crate::support::{Books, Peer, Server, Sink, until};

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
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER, "--log-client-timeout=1s"]);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n{}", "x".repeat(BYTES));
    assert_eq!(agent.ask(request).status(), 200);
    assert_eq!(sink.await_events(1)[0].payload().len(), BYTES);
    assert_eq!(Books::settled(&agent), Books::all_sent(1));
    drop(held);
}
