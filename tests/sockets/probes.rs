//! Health checks that end at the agent, and what they ask of the container: SPEC H.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::agent::free_port;
use crate::support::{Agent, Message, PATIENCE, Peer, Server, alone};

const KUBELET: &str =
    "GET / HTTP/1.1\r\nHost: model.example\r\nUser-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n\r\n";

/// An HTTP probe of `/ready` on this port, as KServe writes it, with what else the caller puts in.
fn http_probe(port: u16, more: &str) -> String {
    format!(
        r#"{{"httpGet":{{"path":"/ready","port":{port},"host":"127.0.0.1","scheme":"HTTP","httpHeaders":[{{"name":"X-P","value":"1"}}]}},"successThreshold":1{more}}}"#
    )
}

fn with_probe(server: u16, probe: impl Into<String>) -> Agent {
    Agent::setup(server).env("SERVING_READINESS_PROBE", probe).start()
}

/// An answer in the form of the Go agent's transcripts, without `Date` and in no order of fields.
#[track_caller]
fn assert_answer(got: &Message, line: &str, fields: &[(&str, &str)], body: &str) {
    assert_eq!((got.line().as_str(), got.text().as_str()), (line, body));
    for (name, value) in fields {
        assert_eq!(got.field(name).as_deref(), Some(*value), "{name}");
    }
    assert_eq!(got.field("content-length"), Some(body.len().to_string()));
}

/// Path, fields, and the answer's first line, fields and body.
type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
const NOSNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");

#[test]
fn health_checks_are_answered_as_the_go_agent_answers_them() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    let ok = "HTTP/1.1 200 OK";
    let bad = "HTTP/1.1 400 Bad Request";
    let cases: [Case; 8] = [
        ("/", "User-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n", ok, &[TEXT], "queue"),
        ("/ready", "User-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n", ok, &[TEXT], "queue"),
        ("/", "User-Agent: Knative-Activator-Probe\r\nK-Network-Probe: queue\r\n", ok, &[TEXT], "queue"),
        ("/", "User-Agent: kube-probe/1.31\r\n", bad, &[TEXT, NOSNIFF], "unexpected probe header value: \n"),
        (
            "/",
            "User-Agent: kube-probe/1.31\r\nK-Network-Probe: nope\r\n",
            bad,
            &[TEXT, NOSNIFF],
            "unexpected probe header value: nope\n",
        ),
        (
            "/",
            "User-Agent: Knative-Activator-Probe\r\nK-Network-Probe: activator\r\n",
            bad,
            &[TEXT, NOSNIFF],
            "unexpected probe header value: activator\n",
        ),
        ("/", "K-Network-Probe: probe\r\nK-Network-Hash: abc\r\n", ok, &[("K-Network-Hash", "abc")], ""),
        (
            "/",
            "K-Network-Probe: probe\r\n",
            bad,
            &[TEXT, NOSNIFF],
            "a probe request must contain a non-empty \"K-Network-Hash\" header\n",
        ),
    ];
    // All over one connection: an answer of the agent's own is a response like any other.
    let mut client = agent.connect();
    for (path, fields, line, wanted, body) in cases {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: model.example\r\n{fields}\r\n"));
        assert_answer(&client.response(), line, wanted, body);
    }
    assert!(server.seen().is_empty());
}

#[test]
fn what_only_looks_like_a_health_check_is_proxied() {
    let server = Server::good();
    let agent = Agent::start(server.port, &[]);
    for fields in [
        "K-Network-Probe: queue\r\n",
        "K-Network-Probe: other\r\n",
        "User-Agent: Mozilla kube-probe/1.31\r\nK-Network-Probe: queue\r\n",
        "User-Agent: kube-probe\r\n",
    ] {
        let got = agent.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(got.body, b"{}", "{fields}");
        for line in fields.split_terminator("\r\n") {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(server.seen().last().unwrap().field(name).as_deref(), Some(value));
        }
    }
}

#[test]
fn a_container_that_answers_its_probe_is_ready() {
    for (status, ready) in [("200 OK", true), ("204 No", true), ("302 Found", true), ("399 x", true), ("400 x", false)]
    {
        let server = Server::with(move |request| {
            assert_eq!(request.line(), "GET /ready HTTP/1.1");
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:1/\r\n\r\n").into_bytes()
        });
        let agent = with_probe(server.port, http_probe(server.port, ",\"periodSeconds\":5"));
        let got = agent.ask(KUBELET);
        if ready {
            assert_answer(&got, "HTTP/1.1 200 OK", &[TEXT], "queue");
        } else {
            assert_answer(&got, "HTTP/1.1 503 Service Unavailable", &[], "");
        }
        let seen = server.seen().remove(0);
        assert_eq!(seen.field("host"), Some(format!("127.0.0.1:{}", server.port)));
        assert!(seen.field("user-agent").unwrap().starts_with("kube-probe/"), "{seen:?}");
        assert_eq!(seen.field("x-p").as_deref(), Some("1"));
    }
}

#[test]
fn a_container_that_is_not_there_is_not_ready() {
    let port = free_port();
    let paced = "\"successThreshold\":1,\"timeoutSeconds\":1,\"periodSeconds\":5";
    let http = format!(r#"{{"httpGet":{{"path":"/","port":{port},"host":"127.0.0.1"}},{paced}}}"#);
    let tcp = format!(r#"{{"tcpSocket":{{"port":{port},"host":"127.0.0.1"}},{paced}}}"#);
    let grpc = format!(r#"{{"grpc":{{"port":{port}}},{paced}}}"#);
    for probe in [http, tcp, grpc] {
        let agent = with_probe(port, probe);
        assert_answer(&agent.ask(KUBELET), "HTTP/1.1 503 Service Unavailable", &[], "");
    }
}

#[test]
fn a_tcp_probe_needs_a_connection_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = format!(r#"{{"tcpSocket":{{"port":{port},"host":"127.0.0.1"}},"successThreshold":1}}"#);
    let agent = with_probe(port, probe);
    assert_answer(&agent.ask(KUBELET), "HTTP/1.1 200 OK", &[TEXT], "queue");
    assert!(listener.accept().is_ok());
}

#[test]
fn without_a_period_a_probe_is_tried_again_until_it_passes_often_enough() {
    let _alone = alone();
    let tries = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&tries);
    let server = Server::with(move |_| {
        let mut tries = counted.lock().unwrap();
        *tries += 1;
        // Fails three times, passes once, fails once, passes from then on.
        let status = if matches!(*tries, 1..=3 | 5) { "503 No" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let probe = http_probe(server.port, ",\"periodSeconds\":0").replace("Threshold\":1", "Threshold\":2");
    let agent = with_probe(server.port, probe);
    let began = Instant::now();
    assert_eq!(agent.ask(KUBELET).text(), "queue");
    assert_eq!(*tries.lock().unwrap(), 7);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(2), "{took:?}");
}

/// A server whose `/ready` answers only when it is let go.
fn stalled() -> (Server, Arc<(Mutex<bool>, Condvar)>) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let of_server = Arc::clone(&gate);
    let server = Server::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/ready" {
                let (open, opened) = &*of_server;
                let _open = opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap();
            }
            if peer.wire.try_send(crate::support::OK).is_err() {
                return;
            }
        }
    });
    (server, gate)
}

#[test]
fn a_probe_never_holds_up_a_proxied_request() {
    let _alone = alone();
    let (server, gate) = stalled();
    let probe = http_probe(server.port, ",\"timeoutSeconds\":8,\"periodSeconds\":10");
    let agent = Agent::setup(server.port).flags(&["--threads=1"]).env("SERVING_READINESS_PROBE", probe).start();
    let mut prober = agent.connect();
    prober.send(KUBELET);
    crate::support::until("the probe has begun", || !server.seen().is_empty());
    let mut client = agent.connect();
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let began = Instant::now();
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status(), 200);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(prober.response().text(), "queue");
}

#[test]
fn probes_that_arrive_together_share_one_result() {
    let _alone = alone();
    let (server, gate) = stalled();
    let agent = with_probe(server.port, http_probe(server.port, ",\"timeoutSeconds\":8,\"periodSeconds\":10"));
    let mut probers: Vec<_> = (0..50).map(|_| agent.connect()).collect();
    probers[0].send(KUBELET);
    crate::support::until("the probe has begun", || !server.seen().is_empty());
    probers[1..].iter_mut().for_each(|prober| prober.send(KUBELET));
    // A worker answers this after it has taken in the probes that came before it.
    for prober in &mut probers[1..] {
        prober.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for _ in 0..4 {
        assert_eq!(agent.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    }
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    for prober in &mut probers {
        assert_eq!(prober.response().text(), "queue");
    }
    let tries = server.seen().iter().filter(|request| request.target() == "/ready").count();
    // One for the first, and at most one for those that were under way when its result came.
    assert!(tries <= 2, "{tries}");
}

#[test]
fn a_probe_whose_server_stalls_fails_in_its_own_time() {
    let _alone = alone();
    let (server, _gate) = stalled();
    let agent = with_probe(server.port, http_probe(server.port, ",\"timeoutSeconds\":1,\"periodSeconds\":10"));
    let began = Instant::now();
    assert_answer(&agent.ask(KUBELET), "HTTP/1.1 503 Service Unavailable", &[], "");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(950) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_prober_that_leaves_does_no_harm_and_a_pipelined_request_waits_its_turn() {
    let (server, gate) = stalled();
    let agent = with_probe(server.port, http_probe(server.port, ",\"timeoutSeconds\":8,\"periodSeconds\":10"));
    for _ in 0..5 {
        let mut prober = agent.connect();
        prober.send(KUBELET);
    }
    let mut prober = agent.connect();
    prober.send(format!("{KUBELET}GET /x HTTP/1.1\r\nHost: a\r\n\r\n"));
    crate::support::until("the probe has begun", || !server.seen().is_empty());
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(prober.response().text(), "queue");
    assert_eq!(prober.response().body, b"{}");
}

#[test]
fn a_server_that_sends_nonsense_to_a_probe_is_not_ready() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = mpsc::channel::<()>();
    let serving = thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"\0\0\0garbage\r\n\r\n");
            if stopped.try_recv().is_ok() {
                return;
            }
        }
    });
    let paced = ",\"timeoutSeconds\":1,\"periodSeconds\":5";
    let grpc = format!(r#"{{"grpc":{{"port":{port}}},"successThreshold":1{paced}}}"#);
    for probe in [http_probe(port, paced), grpc] {
        let agent = with_probe(port, probe);
        assert_answer(&agent.ask(KUBELET), "HTTP/1.1 503 Service Unavailable", &[], "");
    }
    stop.send(()).unwrap();
    let _ = std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), PATIENCE);
    serving.join().unwrap();
}

#[test]
fn a_probe_that_waits_for_its_result_fails_when_the_drain_begins() {
    let (server, _gate) = stalled();
    let agent = with_probe(server.port, http_probe(server.port, ",\"timeoutSeconds\":8,\"periodSeconds\":10"));
    let mut prober = agent.connect();
    prober.send(KUBELET);
    crate::support::until("the probe has begun", || !server.seen().is_empty());
    let began = Instant::now();
    agent.signal(rustix::process::Signal::TERM);
    let got = prober.response();
    assert_eq!((got.status(), got.text().as_str()), (503, "shutting down\n"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
