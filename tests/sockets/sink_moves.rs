//! A sink that is somewhere else than it was: redirects, several addresses, and secrets and authorities that are rotated
//! (SPEC L5, L7).

use std::fs;
use std::sync::{Arc, Mutex};

use crate::logger_support::{ONE_COURIER, REQUESTS_ONLY, ask, assert_once_each, post, times};
use crate::support::sink::{TAKEN, flag_of, logging, setup};
use crate::support::{Books, Peer, Server, Sink, until};

fn moved(status: u16, location: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn a_sink_is_asked_through_the_proxy_of_the_environment() {
    let (proxy, server) = (Sink::good(), Server::good());
    let url = format!("http://user:secret@127.0.0.1:{}", proxy.port());
    let agent = setup(&server, "--log-url=http://sink.invalid:8089/events?a=1").flags(&[REQUESTS_ONLY]);
    let agent = agent.env("HTTP_PROXY", url).start();
    ask(&agent, 20);
    for event in proxy.await_events(20) {
        assert!(event.line().starts_with("POST http://sink.invalid:8089/events?a=1 "), "{}", event.line());
        assert_eq!(event.field("host").as_deref(), Some("sink.invalid:8089"));
        assert_eq!(event.field("proxy-authorization").as_deref(), Some("Basic dXNlcjpzZWNyZXQ="));
    }
    assert_eq!(Books::settled(&agent), Books::all_sent(20));
}

#[test]
fn a_redirect_is_followed_to_another_host_without_credentials() {
    for status in [307, 308] {
        let target = Sink::good();
        let location = format!("http://localhost:{}/else?x=1", target.port());
        let first = Sink::with(move |_| moved(status, &location));
        let server = Server::good();
        let flag = format!("--log-url=http://user:password@127.0.0.1:{}/events", first.port());
        let secret = std::env::temp_dir().join(format!("kserve-agent-redirect-{}-{status}", std::process::id()));
        fs::write(&secret, "X-Token: secret\n").unwrap();
        let file = format!("--log-headers-file={}", secret.display());
        let agent = setup(&server, &flag).flags(&[REQUESTS_ONLY, ONE_COURIER, &file]).start();
        ask(&agent, 20);
        assert_once_each(&target.await_events(20), 20);
        assert_eq!(Books::settled(&agent), Books::all_sent(20));
        fs::remove_file(&secret).unwrap();
        for event in target.events() {
            assert!(event.line().starts_with("POST /else?x=1 "), "{}", event.line());
            assert_eq!((event.field("authorization"), event.field("x-token")), (None, None));
        }
        for event in first.events() {
            assert!(event.field("authorization").is_some() && event.field("x-token").is_some());
        }
        assert_eq!((first.events().len(), target.connections()), (20, 1), "each is asked where it is to go");
    }
}

#[test]
fn a_redirect_on_the_same_host_keeps_credentials() {
    let sink = Sink::with(|event| if event.line().contains("/new") { TAKEN.to_vec() } else { moved(307, "/new") });
    let server = Server::good();
    let flag = format!("--log-url=http://user:password@127.0.0.1:{}/events", sink.port());
    let agent = setup(&server, &flag).flags(&[REQUESTS_ONLY]).start();
    ask(&agent, 1);
    let events = sink.await_events(2);
    assert!(events.iter().all(|event| event.field("authorization").is_some()));
    assert_eq!(Books::settled(&agent), Books::all_sent(1));
}

#[test]
fn redirects_in_a_circle_and_to_nowhere_are_counted() {
    let server = Server::good();
    for (location, reason) in [("/round", "expired"), ("ftp://x/", "rejected"), ("http://127.0.0.1:1/", "expired")] {
        let sink = Sink::with(move |_| moved(307, location));
        let agent = logging(&server, &sink, &[REQUESTS_ONLY, "--log-retry-for=600ms"]);
        ask(&agent, 1);
        until("it is given up", || Books::of(&agent).failed == 1);
        let failed = format!("kserve_logger_events_failed_total{{type=\"request\",reason=\"{reason}\"}}");
        assert_eq!(agent.metrics().count(&failed), 1, "{location}");
        assert!(sink.events().len() < 20, "{}", sink.events().len());
    }
}

#[test]
fn fields_of_a_file_are_sent_and_follow_it() {
    let (server, sink) = (Server::good(), Sink::good());
    let secret = std::env::temp_dir().join(format!("kserve-agent-secret-{}", std::process::id()));
    let file = format!("--log-headers-file={}", secret.display());
    let agent = logging(&server, &sink, &[REQUESTS_ONLY, ONE_COURIER, &file]);
    assert_eq!(agent.ask(post("0")).status(), 200);
    until("the log says what is missing", || agent.log().contains("--log-headers-file"));
    assert_eq!(Books::of(&agent).waiting, 1, "it waits for its credentials");
    for token in ["first", "second one"] {
        let new = secret.with_extension("new");
        fs::write(&new, format!("Authorization: Bearer {token}\n")).unwrap();
        fs::rename(&new, &secret).unwrap();
        assert_eq!(agent.ask(post(token.split(' ').next().unwrap())).status(), 200);
        let of_token = Some(format!("Bearer {token}"));
        until("one comes with it", || sink.events().iter().any(|event| event.field("authorization") == of_token));
    }
    fs::remove_file(&secret).unwrap();
    assert_eq!(agent.ask(post("3")).status(), 200);
    until("all are there", || times(&sink.events()).len() == 4);
    assert!(!agent.log().contains("Bearer"), "{}", agent.log());
    assert_eq!(Books::settled(&agent), Books::all_sent(4));
}

#[test]
fn a_query_without_a_path_is_asked_for_with_a_slash() {
    let (server, sink) = (Server::good(), Sink::good());
    let flag = flag_of(sink.port()).replace("/events", "?token=x");
    let agent = setup(&server, &flag).flags(&[REQUESTS_ONLY]).start();
    ask(&agent, 1);
    assert_eq!(sink.await_events(1)[0].line(), "POST /?token=x HTTP/1.1");
}

#[test]
fn a_sink_that_forgets_the_second_of_two_is_found_out_once_and_said_so() {
    let most = Arc::new(Mutex::new(0_u64));
    let of_sink = Arc::clone(&most);
    let sink = Sink::start(move |mut peer: Peer| {
        while peer.request().is_some() {
            let mut most = of_sink.lock().unwrap();
            *most += u64::from(!peer.wire.buffer.is_empty());
            drop(most);
            peer.wire.buffer.clear();
            if peer.wire.try_send(TAKEN).is_err() {
                return;
            }
        }
    });
    let server = Server::good();
    let agent = logging(&server, &sink, &[REQUESTS_ONLY]);
    ask(&agent, 2000);
    until("all are sent", || Books::of(&agent).sent == 2000);
    assert_eq!(Books::settled(&agent), Books::all_sent(2000));
    assert_eq!(times(&sink.events()).len(), 2000);
    let most = *most.lock().unwrap();
    assert!(most <= 1, "one thread has found out, {most}");
    let stopped = agent.metrics().count("kserve_logger_pipelining_stopped_total");
    let lines = agent.log().lines().filter(|line| line.contains("requests that came together")).count() as u64;
    assert_eq!((stopped, lines), (most, most));
}
