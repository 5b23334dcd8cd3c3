//! Which requests and responses are logged: SPEC L1, L2, `--log-mode`, `--log-all-responses`, `--log-sample`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::sink::{Event, logging, pair};
use crate::support::{Agent, Books, Message, OK, Peer, Server, Sink, Wire, holds_within};

const POST: &str = "POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                    Content-Length: 17\r\n\r\n{\"instances\":[1]}";

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno";

#[test]
fn the_log_mode_says_which_of_the_two_is_logged() {
    for (mode, wanted) in [("request", [true].as_slice()), ("response", &[false]), ("all", &[true, false])] {
        let (server, sink) = (Server::good(), Sink::good());
        let agent = logging(&server, &sink, &[&format!("--log-mode={mode}")]);
        agent.ask(POST);
        let events = sink.await_events(wanted.len());
        let got: BTreeSet<bool> = events.iter().map(Event::is_request).collect();
        assert_eq!(got, wanted.iter().copied().collect(), "{mode}");
        assert_eq!(Books::settled(&agent), Books::all_sent(wanted.len() as u64));
    }
}

/// A server that answers each path's number.
fn by_status() -> Server {
    Server::with(|request: &Message| match request.target().trim_start_matches('/') {
        "200" => OK.to_vec(),
        "404" => NOT_FOUND.to_vec(),
        "204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n".to_vec(),
        status => format!("HTTP/1.1 {status} Any\r\nContent-Length: 3\r\n\r\n{status}").into_bytes(),
    })
}

const STATUSES: [u16; 8] = [200, 201, 204, 304, 404, 422, 500, 503];

fn ask_each_status(agent: &Agent) {
    let mut client = agent.connect();
    for status in STATUSES {
        client.send(format!("GET /{status} HTTP/1.1\r\nHost: a\r\nCe-Id: {status}\r\n\r\n"));
        assert_eq!(client.response().status(), status);
    }
}

#[test]
fn only_a_200_is_logged() {
    let (server, sink) = (by_status(), Sink::good());
    let agent = logging(&server, &sink, &[]);
    ask_each_status(&agent);
    let responses: Vec<Event> =
        sink.await_events(STATUSES.len() + 1).into_iter().filter(|event| !event.is_request()).collect();
    assert_eq!(responses.len(), 1);
    assert_eq!((responses[0].id().as_str(), responses[0].field("ce-statuscode")), ("200", None));
}

#[test]
fn all_responses_are_logged_with_their_status_if_asked_for() {
    let (server, sink) = (by_status(), Sink::good());
    let agent = logging(&server, &sink, &["--log-all-responses"]);
    ask_each_status(&agent);
    let mut seen = BTreeMap::new();
    for event in sink.await_events(2 * STATUSES.len()) {
        let status = event.field("ce-statuscode");
        if event.is_request() {
            assert_eq!(status, None);
        } else {
            assert_eq!(status.as_ref(), Some(&event.id()));
            seen.insert(event.id(), event.text());
        }
    }
    let wanted = STATUSES.map(|status| {
        let payload = match status {
            200 => "{}".to_owned(),
            204 | 304 => String::new(),
            404 => "no".to_owned(),
            _ => status.to_string(),
        };
        (status.to_string(), payload)
    });
    assert_eq!(seen, wanted.into_iter().collect());
}

#[test]
fn the_agents_own_answers_are_logged_as_the_client_got_them() {
    let server = Server::start(|mut peer: Peer| {
        while let Some(request) = peer.request() {
            match request.target().as_str() {
                "/silent" => drop(peer.request()),
                "/garbage" => return drop(peer.wire.try_send("what?\r\n\r\n")),
                _ => return,
            }
        }
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &["--log-all-responses", "--upstream-timeout=200ms"]);
    for (number, (path, status)) in [("/silent", 504), ("/garbage", 502), ("/closes", 502)].into_iter().enumerate() {
        let got = agent.ask(POST.replace("/v1/models/m:predict", path));
        assert_eq!(got.status(), status);
        let (request, response) = pair(sink.await_events(2 * number + 2)[2 * number..].to_vec());
        assert_eq!(request.text(), "{\"instances\":[1]}");
        assert_eq!(response.field("ce-statuscode"), Some(status.to_string()));
        assert_eq!((response.text(), response.field("content-type")), (got.text(), got.field("content-type")));
    }
    drop(server);
    let body_at = POST.len() - "{\"instances\":[1]}".len();
    let mut client = agent.connect();
    for (number, cut) in [POST.len(), body_at, body_at + 1, body_at, body_at + 1].into_iter().enumerate() {
        client.send(&POST[..cut]);
        // So that the agent reads the two apart.
        holds_within(Duration::from_millis(1), || false);
        client.send(&POST[cut..]);
        let got = client.response();
        let (request, response) = pair(sink.await_events(2 * number + 8)[2 * number + 6..].to_vec());
        assert_eq!((got.status(), response.text()), (502, got.text()));
        assert_eq!(request.text(), "{\"instances\":[1]}");
    }
}

#[test]
fn probes_are_no_events() {
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &["--log-all-responses"]);
    let mut client = agent.connect();
    for (fields, status) in [
        ("User-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n", 200),
        ("User-Agent: kube-probe/1.31\r\n", 400),
        ("User-Agent: Knative-Activator-Probe\r\nK-Network-Probe: queue\r\n", 200),
        ("K-Network-Probe: probe\r\nK-Network-Hash: a\r\n", 200),
        ("K-Network-Probe: probe\r\n", 400),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCe-Id: a\r\n{fields}\r\n"));
        assert_eq!(client.response().status(), status, "{fields}");
    }
    assert_eq!(Books::settled(&agent), Books::default());
    // On the same connection a request is one.
    client.send(POST);
    client.response();
    sink.await_pair();
}

#[test]
fn what_is_no_request_is_no_event() {
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &["--log-all-responses"]);
    for refused in
        ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"]
    {
        assert_eq!(agent.ask(refused).status(), 400);
    }
    let mut broken = agent.connect();
    broken.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nx\r\n");
    assert_eq!(broken.response().status(), 400);
    assert_eq!(Books::settled(&agent), Books::default());
}

#[test]
fn what_passes_through_a_tunnel_is_no_event() {
    const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let server = Server::start(|mut peer: Peer| {
        match peer.request_head() {
            Some(head) if head.line().starts_with("GET") => peer.wire.send(SWITCHED),
            _ => peer.wire.expect("SM\r\n\r\n"),
        }
        peer.wire.send("hello");
        peer.wire.expect("bye");
        peer.wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &["--log-all-responses"]);
    let mut h2 = agent.connect();
    h2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    talk(&mut h2);
    assert_eq!(Books::settled(&agent), Books::default());
    let mut upgraded = agent.connect();
    upgraded.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(upgraded.response_head().status(), 101);
    talk(&mut upgraded);
    // The request that asked for it is a request like any other.
    let events = sink.await_events(1);
    assert!(events[0].is_request() && events[0].payload().is_empty());
    assert_eq!(Books::settled(&agent), Books::all_sent(1));
}

fn talk(client: &mut Wire) {
    client.expect("hello");
    client.send("bye");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
}

#[test]
fn a_sample_has_both_events_of_a_request_or_none() {
    const ASKED: usize = 2000;
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &["--log-sample=0.25"]);
    let ids: Vec<String> = (0..ASKED).map(|number| format!("id-{number}")).collect();
    ask_with_ids(&agent, &ids);
    let books = Books::settled(&agent);
    let mut events = BTreeMap::<String, Vec<bool>>::new();
    for event in sink.await_events(usize::try_from(books.accepted).unwrap()) {
        assert_eq!(event.field("ce-sampledrate").as_deref(), Some("4"));
        events.entry(event.id()).or_default().push(event.is_request());
    }
    for (id, mut of) in events.clone() {
        of.sort_unstable();
        assert_eq!(of, [false, true], "{id}");
    }
    // 500 expected, with a standard deviation of 19.
    assert!((400..=600).contains(&events.len()), "{}", events.len());

    // An id has the same fate in every agent that it passes.
    let (other_sink, taken): (Sink, Vec<String>) = (Sink::good(), events.into_keys().collect());
    let other = logging(&server, &other_sink, &["--log-sample=0.25"]);
    ask_with_ids(&other, &taken);
    other_sink.await_events(2 * taken.len());
}

/// Pipelined, so that it takes no round trip for each.
fn ask_with_ids(agent: &Agent, ids: &[String]) {
    for some in ids.chunks(100) {
        let mut client = agent.connect();
        let requests: String =
            some.iter().map(|id| POST.replace("Content-Type", &format!("Ce-Id: {id}\r\nContent-Type"))).collect();
        client.send(requests);
        some.iter().for_each(|_| assert_eq!(client.response().status(), 200));
    }
}

#[test]
fn a_sample_of_made_up_ids_has_about_the_share() {
    const ASKED: usize = 2000;
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &["--log-sample=0.1", "--log-mode=request"]);
    for _ in 0..ASKED / 100 {
        let mut client = agent.connect();
        client.send(POST.repeat(100));
        (0..100).for_each(|_| assert_eq!(client.response().status(), 200));
    }
    // 200 expected, with a standard deviation of 13.
    let taken = Books::settled(&agent).accepted;
    assert!((130..=270).contains(&taken), "{taken}");
}

#[test]
fn without_a_sink_nothing_of_the_log_is_there() {
    let server = Server::good();
    let agent = Agent::watched(server.port, &[]);
    assert_eq!(agent.ask(POST).status(), 200);
    let metrics = format!("{:?}", agent.metrics());
    assert!(!metrics.contains("kserve_logger"), "{metrics}");
    let threads = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let names: Vec<String> =
        threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok()).collect();
    assert!(!names.iter().any(|name| name.starts_with("log-")), "{names:?}");
}
