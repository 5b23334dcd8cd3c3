//! Sinks behind TLS, and what they are verified against: SPEC L7.

use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{io, thread};

use crate::support::agent::Setup;
use crate::support::sink::setup;
use crate::support::tls::{Authority, TlsSink, mounted};
use crate::support::{Agent, Books, Peer, Server, until};

/// A request whose payload has this text.
fn post(text: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// Two authorities and a sink that has the first one's certificate; `None`, and a line that says so: there is no openssl.
fn authorities(name: &str) -> Option<(Authority, Authority, TlsSink)> {
    let made = Authority::new(&format!("{name}-right")).zip(Authority::new(&format!("{name}-wrong")));
    let Some((right, wrong)) = made else {
        eprintln!("no openssl: TLS to the sink was not tried");
        return None;
    };
    let sink = TlsSink::start(&right);
    Some((right, wrong, sink))
}

fn trusting(setup: Setup, authority: &Authority) -> Setup {
    setup.env("SSL_CERT_FILE", authority.certificate().to_str().unwrap())
}

#[track_caller]
fn assert_delivers(agent: &Agent, sink: &TlsSink) {
    let mut client = agent.connect();
    for number in 0..50 {
        client.send(post(&format!("n-{number}")));
        assert_eq!(client.response().status(), 200);
    }
    until("all are sent", || Books::of(agent).sent == 50);
    assert_eq!(Books::settled(agent), Books::all_sent(50));
    let mut payloads = sink.payloads();
    payloads.sort();
    let mut wanted: Vec<String> = (0..50).map(|number| format!("n-{number}")).collect();
    wanted.sort();
    assert_eq!(payloads, wanted);
}

/// Events wait, and the log says why in one line.
#[track_caller]
fn assert_is_refused(agent: &Agent, sink: &TlsSink, why: &str) {
    assert_eq!(agent.ask(post("secret")).status(), 200);
    until("the log names the cause", || agent.log().contains(why));
    let log = agent.log();
    let line = log.lines().find(|line| line.contains(why)).unwrap();
    assert!(line.contains("[WARN]") && line.contains(&format!("https://127.0.0.1:{}/events", sink.port)), "{line}");
    let books = Books::of(agent);
    assert_eq!((books.accepted, books.waiting, books.sent + books.failed), (1, 1, 0));
    assert!(sink.payloads().is_empty());
}

const REQUESTS_ONLY: &str = "--log-mode=request";

#[test]
fn a_sink_that_the_system_trusts_gets_events() {
    let Some((right, _, sink)) = authorities("system") else { return };
    let server = Server::good();
    let agent = trusting(setup(&server, &sink.flag()).flags(&[REQUESTS_ONLY]), &right).start();
    assert_delivers(&agent, &sink);
}

#[test]
fn a_sink_of_another_authority_gets_nothing() {
    let Some((_, wrong, sink)) = authorities("wrong") else { return };
    let server = Server::good();
    let agent = trusting(setup(&server, &sink.flag()).flags(&[REQUESTS_ONLY]), &wrong).start();
    assert_is_refused(&agent, &sink, "UnknownIssuer");
}

#[test]
fn a_sink_of_another_name_gets_nothing() {
    let Some((right, _, sink)) = authorities("name") else { return };
    let server = Server::good();
    let url = sink.flag().replace("127.0.0.1", "127.0.0.2");
    let agent = trusting(setup(&server, &url).flags(&[REQUESTS_ONLY]), &right).start();
    // Nobody listens there; the certificate is asked for under the name that it does not have.
    assert_eq!(agent.ask(post("secret")).status(), 200);
    until("the log names the cause", || agent.log().contains("log sink https://127.0.0.2"));
    assert!(sink.payloads().is_empty());
}

#[test]
fn verification_can_be_skipped_with_a_warning() {
    let Some((_, wrong, sink)) = authorities("skip") else { return };
    let server = Server::good();
    // As the KServe controller writes it.
    let flags = [REQUESTS_ONLY, "--logger-tls-skip-verify", "true"];
    let agent = trusting(setup(&server, &sink.flag()).flags(&flags), &wrong).start();
    until("the start is logged", || agent.log().contains("configuration"));
    let warnings = agent.log().lines().filter(|line| line.contains("--logger-tls-skip-verify")).count();
    assert_eq!(warnings, 1, "{}", agent.log());
    assert_delivers(&agent, &sink);
}

#[test]
fn not_skipping_is_not_skipping() {
    let Some((_, wrong, sink)) = authorities("false") else { return };
    let server = Server::good();
    let flags = [REQUESTS_ONLY, "--logger-tls-skip-verify", "false"];
    let agent = trusting(setup(&server, &sink.flag()).flags(&flags), &wrong).start();
    assert_is_refused(&agent, &sink, "UnknownIssuer");
}

#[test]
fn a_mounted_authority_is_the_only_one() {
    let Some((right, wrong, sink)) = authorities("mounted") else { return };
    let may = |flag: &str| {
        let script = "mount -t tmpfs tmpfs /etc";
        Command::new("unshare").args([flag, "sh", "-c", script]).output().is_ok_and(|run| run.status.success())
    };
    let Some(flag) = ["-m", "-rm"].into_iter().find(|flag| may(flag)) else {
        return eprintln!("no mount namespace to be had: the mounted authority was not tried");
    };
    let server = Server::good();
    let within = |trusted: &Authority, file: &Authority, name: &str| {
        let mount = mounted(&file.certificate(), name);
        let flags = [REQUESTS_ONLY, &format!("--logger-ca-cert-file={name}")];
        trusting(setup(&server, &sink.flag()).flags(&flags), trusted).within(flag, &mount).start()
    };
    let agent = within(&right, &wrong, "service-ca.crt");
    assert_is_refused(&agent, &sink, "UnknownIssuer");
    assert!(agent.log().contains("/etc/tls/logger/service-ca.crt"), "{}", agent.log());
    drop(agent);
    assert_delivers(&within(&wrong, &right, "other.crt"), &sink);
}

#[test]
fn a_refusal_before_the_end_of_an_event_is_heard_over_tls() {
    let Some((right, _, sink)) = authorities("early") else { return };
    let server = Server::good();
    let flags = [REQUESTS_ONLY, "--workers=1"];
    let agent = trusting(setup(&server, &sink.flag()).flags(&flags), &right).start();
    // More than both ends' sockets hold.
    assert_eq!(agent.ask(post(&"x".repeat(24 << 20))).status(), 200);
    until("the long one is decided", || Books::of(&agent).failed == 1);
    assert!(agent.log().contains("status 413"), "{}", agent.log());
    assert_eq!(agent.ask(post("short")).status(), 200);
    assert_eq!(Books::settled(&agent), Books { accepted: 2, sent: 1, failed: 1, ..Books::default() });
    assert_eq!(sink.payloads(), ["short"]);
}

#[test]
fn a_sink_that_speaks_no_tls_is_a_clear_line() {
    let plain = Server::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let Some((right, _, _)) = authorities("plain") else { return };
    let server = Server::good();
    let url = format!("--log-url=https://127.0.0.1:{}/events", plain.port);
    let agent = trusting(setup(&server, &url).flags(&[REQUESTS_ONLY, "--log-client-timeout=1s"]), &right).start();
    assert_eq!(agent.ask(post("secret")).status(), 200);
    until("the log names the sink", || agent.log().contains("log sink https://127.0.0.1"));
    assert_eq!(Books::of(&agent).waiting, 1);
}

/// A proxy that makes tunnels to this port whatever it is asked for, or none. What it was asked.
fn tunnelling(to: Option<u16>) -> (Server, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let proxy = Server::start(move |mut peer: Peer| {
        let Some(request) = peer.request_head() else { return };
        seen.lock().unwrap().push(String::from_utf8(request.head.clone()).unwrap());
        let Some(to) = to else { return peer.wire.send("HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n") };
        let sink = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
        peer.wire.send("HTTP/1.1 200 Connected\r\n\r\n");
        let client = TcpStream::from(peer.wire.socket().try_clone().unwrap());
        let (mut up, mut back) = (client.try_clone().unwrap(), sink.try_clone().unwrap());
        let (mut from_client, mut to_sink) = (client, sink);
        let there = thread::spawn(move || _ = io::copy(&mut from_client, &mut to_sink));
        let _ = io::copy(&mut back, &mut up);
        let _ = there.join();
    });
    (proxy, asked)
}

#[test]
fn a_sink_with_tls_is_reached_by_a_tunnel_through_the_proxy_of_the_environment() {
    let Some((_right, _, sink)) = authorities("proxy") else { return };
    let server = Server::good();
    let flags = [REQUESTS_ONLY, "--log-url=https://sink.invalid/events", "--logger-tls-skip-verify=true"];
    let setup = |proxy: &Server| {
        let url = format!("http://user:secret@127.0.0.1:{}", proxy.port);
        Agent::setup(server.port).flags(&["--threads=1"]).flags(&flags).watched().env("HTTPS_PROXY", url).start()
    };
    let (proxy, asked) = tunnelling(Some(sink.port));
    assert_delivers(&setup(&proxy), &sink);
    let head = asked.lock().unwrap()[0].clone();
    assert!(head.starts_with("CONNECT sink.invalid:443 HTTP/1.1\r\nHost: sink.invalid:443\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{head}");
    let (proxy, _) = tunnelling(None);
    let agent = setup(&proxy);
    assert_eq!(agent.ask(post("x")).status(), 200);
    until("the log says it", || agent.log().contains("the proxy gives no tunnel: it has answered 407"));
    assert!(!agent.log().contains("secret"), "{}", agent.log());
}
