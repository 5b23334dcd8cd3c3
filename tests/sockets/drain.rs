//! The end of the agent: SPEC D, O4.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::wire::Ending;
use crate::support::{Agent, OK, Peer, Server, Wire, alone, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PROBE: &str = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";

/// A server with slow answers beside quick ones; each `()` lets one slow answer end.
///
/// `/stream` begins at once and ends when it is let go, `/held` begins when it is let go.
fn slow_and_quick() -> (Server, mpsc::Sender<()>) {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            let wait = || released.lock().unwrap().recv();
            let sent = match request.target().as_str() {
                "/stream" => {
                    let begun = peer.wire.try_send(STREAM);
                    let _ = wait();
                    begun.and_then(|()| peer.wire.try_send("0\r\n\r\n"))
                }
                "/bare" => {
                    let begun = peer.wire.try_send("HTTP/1.1 200 OK\r\n\r\nabc");
                    let _ = wait();
                    begun
                }
                "/held" => {
                    let _ = wait();
                    peer.wire.try_send(OK)
                }
                _ => peer.wire.try_send(OK),
            };
            if sent.is_err() || request.target() == "/bare" {
                return;
            }
        }
    });
    (server, release)
}

/// Clients that ask without a pause over kept and over new connections until they are told to stop; each says what
/// went wrong.
fn load(agent: &Agent, stop: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<(usize, Option<String>)>> {
    let port = agent.port;
    (0..4)
        .map(|_| {
            let stop = Arc::clone(stop);
            thread::spawn(move || {
                let mut kept = Wire::connect(port);
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    for new in [false, true] {
                        let ask = |client: &mut Wire| client.try_send(GET).and_then(|()| client.try_response());
                        let answer =
                            if new { Wire::try_connect(port).and_then(|mut c| ask(&mut c)) } else { ask(&mut kept) };
                        match answer {
                            Ok(got) if got.status() == 200 => count += 1,
                            other => return (count, Some(format!("new {new}: {other:?}"))),
                        }
                    }
                }
                (count, None)
            })
        })
        .collect()
}

/// Asks for the path and waits until the server has the request.
fn begin(agent: &Agent, server: &Server, path: &str, version: &str) -> Wire {
    let mut client = agent.connect();
    let before = server.seen().len();
    client.send(format!("GET {path} HTTP/{version}\r\nHost: a\r\n\r\n"));
    until("the server has it", || server.seen()[before..].iter().any(|request| request.target() == path));
    client
}

#[test]
fn a_signal_under_load_fails_no_request() {
    const PERIOD: Duration = Duration::from_secs(1);
    let _alone = alone();
    let (server, release) = slow_and_quick();
    let mut agent = Agent::start(server.port, &["--drain-period=1s"]);
    let mut stream = begin(&agent, &server, "/stream", "1.1");
    stream.response_head();
    stream.expect("3\r\nabc\r\n");
    // So many that every worker has some of them.
    let mut idle: Vec<Wire> = (0..8).map(|_| agent.connect()).collect();
    for client in &mut idle {
        client.send(GET);
        assert_eq!(client.response().status(), 200);
    }
    let mut prober = agent.connect();
    prober.send(PROBE);
    assert_eq!(prober.response().text(), "queue");
    let stop = Arc::new(AtomicBool::new(false));
    let clients = load(&agent, &stop);

    agent.signal(Signal::TERM);
    let signalled = Instant::now();
    until("probes fail", || {
        prober.send(PROBE);
        let got = prober.response();
        got.status() == 503 && got.text() == "shutting down\n"
    });
    let took = signalled.elapsed();
    assert!(took <= Duration::from_millis(100), "probes failed {took:?} after the signal");

    // The load goes on beyond the period: it is counted from the last request.
    assert!(!crate::support::holds_within(PERIOD * 3 / 2, || clients.iter().any(thread::JoinHandle::is_finished)));
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        let (count, failure) = client.join().unwrap();
        assert!(count > 0 && failure.is_none(), "after {count}: {failure:?}");
    }
    // The quiet time begins anew with a request, and a long one waits through it.
    let mut held = begin(&agent, &server, "/held", "1.1");
    let last = Instant::now();
    for client in &mut idle {
        assert_eq!(client.rest(), (vec![], Ending::Closed));
    }
    let took = last.elapsed() + Duration::from_millis(50);
    assert!(took >= PERIOD && took < PERIOD * 2, "the quiet time took {took:?}");
    until("the port is closed", || Wire::try_connect(agent.port).is_err());
    release.send(()).unwrap();
    release.send(()).unwrap();
    let got = held.response();
    assert_eq!((got.status(), got.field("connection").as_deref()), (200, Some("close")));
    assert_eq!(held.rest(), (vec![], Ending::Closed));
    stream.expect("0\r\n\r\n");
    assert_eq!(stream.rest(), (vec![], Ending::Closed));
    assert_eq!(agent.wait(Duration::from_secs(2)).code(), Some(0));
}

#[test]
fn without_anything_to_do_the_agent_ends_after_the_quiet_time() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Agent::start(Server::good().port, &["--drain-period=500ms"]);
        let began = Instant::now();
        agent.signal(signal);
        assert_eq!(agent.wait(Duration::from_secs(5)).code(), Some(0), "{signal:?}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(490) && took < Duration::from_secs(2), "{signal:?} {took:?}");
    }
}

#[test]
fn a_second_signal_skips_the_quiet_time() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::INT)] {
        let (server, release) = slow_and_quick();
        let mut agent = Agent::start(server.port, &["--threads=1", "--drain-period=60s"]);
        let mut idle = agent.connect();
        idle.send(GET);
        assert_eq!(idle.response().status(), 200);
        let mut held = begin(&agent, &server, "/held", "1.1");
        agent.signal(first);
        until("the drain has begun", || agent.ask(PROBE).status() == 503);
        agent.signal(second);
        assert_eq!(idle.rest(), (vec![], Ending::Closed));
        until("the port is closed", || Wire::try_connect(agent.port).is_err());
        release.send(()).unwrap();
        let got = held.response();
        assert_eq!((got.status(), got.field("connection").as_deref()), (200, Some("close")));
        assert_eq!(agent.wait(Duration::from_secs(5)).code(), Some(0));
    }
}

#[test]
fn every_probe_fails_during_the_drain_and_requests_are_served() {
    let (server, _release) = slow_and_quick();
    let agent = Agent::start(server.port, &["--drain-period=60s"]);
    agent.signal(Signal::TERM);
    until("the drain has begun", || agent.ask(PROBE).status() == 503);
    for agent_name in ["kube-probe/1.31", "Knative-Activator-Probe"] {
        for header in ["K-Network-Probe: queue\r\n", "K-Network-Probe: nope\r\n", ""] {
            let got = agent.ask(format!("GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent_name}\r\n{header}\r\n"));
            assert_eq!((got.status(), got.text().as_str()), (503, "shutting down\n"), "{agent_name} {header}");
        }
    }
    let mut client = agent.connect();
    for _ in 0..3 {
        client.send(GET);
        let got = client.response();
        assert_eq!((got.status(), got.field("connection")), (200, None));
    }
}

#[test]
fn what_does_not_end_in_time_is_cut_so_that_it_shows() {
    const FINISH: Duration = Duration::from_secs(8);
    let (server, release) = slow_and_quick();
    let mut agent = Agent::start(server.port, &["--drain-period=100ms"]);
    let mut stream = begin(&agent, &server, "/stream", "1.1");
    stream.response_head();
    stream.expect("3\r\nabc\r\n");
    let mut bare = begin(&agent, &server, "/bare", "1.0");
    bare.response_head();
    bare.expect("abc");
    let mut held = begin(&agent, &server, "/held", "1.1");
    let began = Instant::now();
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(FINISH + Duration::from_secs(3)).code(), Some(0));
    let took = began.elapsed();
    assert!(took >= FINISH, "{took:?}");
    assert_eq!(stream.rest().0, b"", "no last chunk");
    assert_eq!(held.rest().0, b"");
    assert_eq!(bare.rest(), (vec![], Ending::Reset), "a close would be the end of this body");
    drop(release);
}

#[test]
fn a_port_in_use_ends_the_agent_with_the_flag_named() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut agent = Agent::setup(1).spawn(port);
    assert_eq!(agent.wait(Duration::from_secs(5)).code(), Some(1));
    until("it says why", || agent.log().contains("--port") && agent.log().contains(&port.to_string()));
}
