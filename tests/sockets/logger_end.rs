//! What becomes of events when the agent ends: SPEC L6.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::batcher_support::{NEVER, echo, predict};
use crate::support::sink::{TAKEN, dead_flag, logging, setup};
use crate::support::{Agent, Books, PATIENCE, Peer, Server, Sink, Wire, alone, holds_within, until};

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
/// SPEC D2: 8 s to finish, and what a thread needs to see that they are over.
const FINISH: Duration = Duration::from_secs(8);
/// The agent's own second for the last events, and a busy machine's.
const GRACE: Duration = Duration::from_secs(3);

fn ask(agent: &Agent, count: usize) {
    let mut client = agent.connect();
    for _ in 0..count {
        client.send(POST);
        assert_eq!(client.response().status(), 200);
    }
}

/// Ends the agent without a quiet time; returns how long that took.
#[track_caller]
fn end(agent: &mut Agent) -> Duration {
    agent.signal(Signal::TERM);
    until("it drains", || agent.log().contains("draining"));
    let began = Instant::now();
    agent.signal(Signal::TERM);
    assert!(agent.wait(FINISH * 3).success(), "{}", agent.log());
    began.elapsed()
}

fn errors(agent: &Agent) -> Vec<String> {
    agent.log().lines().filter(|line| line.contains("[ERROR]")).map(str::to_owned).collect()
}

/// The one error line says how many are lost.
#[track_caller]
fn assert_lost(agent: &Agent, count: usize) {
    let errors = errors(agent);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let wanted = format!("payload log: {count} events were not delivered before the agent ended");
    assert!(errors[0].ends_with(&wanted), "{errors:?}");
}

/// Clients that ask without a pause until the agent takes no more; how many answers they got.
fn load(port: u16) -> Vec<thread::JoinHandle<usize>> {
    let ask = move || {
        let mut answered = 0;
        while let Ok(mut client) = Wire::try_connect(port) {
            while client.try_send(POST).is_ok() && client.try_response().is_ok_and(|got| got.status() == 200) {
                answered += 1;
            }
        }
        answered
    };
    (0..4).map(|_| thread::spawn(ask)).collect()
}

#[test]
fn a_signal_under_load_loses_no_event() {
    let _alone = alone();
    let server = Server::good();
    let answers = Arc::new(AtomicUsize::new(0));
    let of_sink = Arc::clone(&answers);
    let sink = Sink::start(move |mut peer: Peer| {
        while peer.wire.request().is_some() && peer.wire.try_send(TAKEN).is_ok() {
            of_sink.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut agent = Agent::setup(server.port).flags(&[&sink.flag()]).start();
    let clients = load(agent.port);
    until("there is load", || answers.load(Ordering::SeqCst) > 1000);
    end(&mut agent);
    let answered: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    // The sink counts an answer when it has sent it, which may be a moment after the agent has read it.
    holds_within(PATIENCE, || answers.load(Ordering::SeqCst) == 2 * answered);
    assert_eq!(answers.load(Ordering::SeqCst), 2 * answered, "{}", agent.log());
    assert_eq!(errors(&agent), [""; 0]);
}

#[test]
fn what_a_slow_sink_has_not_taken_yet_is_delivered_first() {
    const EVENTS: usize = 400;
    let server = Server::good();
    // Slow enough that most are still there at the end, fast enough for it.
    let sink = Sink::with(|_| {
        thread::sleep(Duration::from_millis(5));
        TAKEN.to_vec()
    });
    let mut agent = logging(&server, &sink, &["--workers=1"]);
    ask(&agent, EVENTS / 2);
    assert!(Books::of(&agent).waiting > EVENTS as u64 / 2);
    assert!(end(&mut agent) < FINISH);
    assert_eq!((sink.events().len(), errors(&agent)), (EVENTS, Vec::new()));
}

#[test]
fn a_dead_sink_does_not_keep_the_agent_and_what_is_lost_is_counted() {
    let server = Server::good();
    let (_, flag) = dead_flag();
    let mut agent = setup(&server, &flag).start();
    ask(&agent, 37);
    until("it was tried", || agent.log().contains("Connection refused"));
    let took = end(&mut agent);
    assert!(took < FINISH + GRACE, "{took:?}");
    assert_lost(&agent, 74);
}

#[test]
fn a_sink_that_hangs_does_not_keep_the_agent() {
    let (held, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let sink = Sink::start(move |mut peer: Peer| {
        // Some are taken and the rest is not.
        for _ in 0..10 {
            peer.request();
            let _ = peer.wire.try_send(TAKEN);
        }
        let _ = released.lock().unwrap().recv();
    });
    let server = Server::good();
    let mut agent = logging(&server, &sink, &["--workers=2", "--log-client-timeout=60s"]);
    ask(&agent, 100);
    until("it takes no more", || Books::of(&agent).sent == 20);
    let took = end(&mut agent);
    assert!(took < FINISH + GRACE, "{took:?}");
    assert_lost(&agent, 180);
    drop(held);
}

#[test]
fn a_sink_that_comes_back_while_the_agent_ends_gets_everything() {
    let server = Server::good();
    let (port, flag) = dead_flag();
    let mut agent = setup(&server, &flag).start();
    ask(&agent, 50);
    until("it was tried", || agent.log().contains("Connection refused"));
    agent.signal(Signal::TERM);
    until("it drains", || agent.log().contains("draining"));
    agent.signal(Signal::TERM);
    until("it finishes", || agent.log().contains("finishing"));
    let sink = Sink::good_on(port);
    let began = Instant::now();
    assert!(agent.wait(FINISH).success());
    assert!(began.elapsed() < FINISH / 2, "{:?}", began.elapsed());
    assert_eq!((sink.events().len(), errors(&agent)), (100, Vec::new()));
}

#[test]
fn the_end_waits_for_nobody_who_asked_for_time() {
    // Fewer than make the agent leave the sink alone, which it would do before it has tried all.
    const EVENTS: usize = 7;
    let seen = AtomicUsize::new(0);
    let sink = Sink::with(move |_| match seen.fetch_add(1, Ordering::SeqCst) {
        ..EVENTS => b"HTTP/1.1 429 Busy\r\nRetry-After: 200\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => TAKEN.to_vec(),
    });
    let server = Server::good();
    let mut agent = logging(&server, &sink, &["--log-mode=request"]);
    ask(&agent, EVENTS);
    until("all wait for their time", || agent.metrics().count("kserve_logger_delivery_retries_total") == EVENTS as u64);
    let took = end(&mut agent);
    assert!(took < FINISH / 2, "{took:?}");
    assert_eq!((sink.events().len(), errors(&agent)), (2 * EVENTS, Vec::new()));
}

#[test]
fn what_the_batcher_holds_is_answered_and_logged() {
    let (server, sink) = (Server::with(echo), Sink::good());
    let mut agent = logging(&server, &sink, &["--enable-batcher", "--max-batchsize=10", NEVER]);
    let mut client = agent.connect();
    client.send(predict(&["1"]));
    sink.await_events(1);
    end(&mut agent);
    assert_eq!(client.response().status(), 200);
    let (request, response) = sink.await_pair();
    assert_eq!(
        (request.text().as_str(), response.text().contains("\"predictions\":[1]")),
        ("{\"instances\":[1]}", true)
    );
    assert_eq!(errors(&agent), [""; 0]);
}
