//! The payloads of events, byte for byte: whatever the framing, however it is cut, batched or not (SPEC L3).

use std::sync::Mutex;
use std::sync::mpsc;

use crate::batcher_support::{NEVER, echo, infer, posts, predict, together};
use crate::support::sink::{Event, logging, pair};
use crate::support::wire::Ending;
use crate::support::{Agent, Books, Message, OK, Peer, Server, Sink, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";
/// A chunked body with all that it may have, and its data.
const CHUNKS: &str = "5;ext=\"a;b\"\r\nhello\r\n1\r\n,\r\n06\r\n world\r\n0;last\r\nX-Trailer: t\r\n\r\n";
const DATA: &str = "hello, world";

fn chunked_post() -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{CHUNKED}{CHUNKS}")
}

#[test]
fn a_chunked_request_is_logged_without_its_framing_wherever_it_is_cut() {
    let (server, sink) = (Server::good(), Sink::good());
    let agent = logging(&server, &sink, &["--log-mode=request"]);
    let whole = chunked_post();
    let mut client = agent.connect();
    for cut in 1..whole.len() {
        client.send(&whole[..cut]);
        // The agent has read this much when it answers another connection: one worker takes events in order.
        assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\n\r\n").status(), 400);
        client.send(&whole[cut..]);
        assert_eq!(client.response().status(), 200);
    }
    for event in sink.await_events(whole.len() - 1) {
        assert_eq!(event.text(), DATA);
    }
    for request in server.seen() {
        assert_eq!(request.text(), DATA);
    }
}

#[test]
fn a_chunked_response_is_logged_without_its_framing_wherever_it_is_cut() {
    let whole = format!("HTTP/1.1 200 OK\r\n{CHUNKED}{CHUNKS}");
    let length = whole.len();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            let cut: usize = request.target()[1..].parse().unwrap();
            if peer.wire.try_send(&whole[..cut]).is_err() || released.lock().unwrap().recv().is_err() {
                return;
            }
            if peer.wire.try_send(&whole[cut..]).is_err() {
                return;
            }
        }
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &["--log-mode=response"]);
    let mut client = agent.connect();
    for cut in 1..length {
        client.send(format!("GET /{cut} HTTP/1.1\r\nHost: a\r\n\r\n"));
        until("the server has it", || server.seen().len() == cut);
        assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\n\r\n").status(), 400);
        release.send(()).unwrap();
        assert_eq!(client.response().text(), DATA, "{cut}");
    }
    for event in sink.await_events(length - 1) {
        assert_eq!(event.text(), DATA);
    }
}

#[test]
fn a_response_that_ends_with_the_connection_is_logged_whole() {
    let server = Server::start(|mut peer: Peer| {
        if peer.request().is_some() {
            peer.wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n\r\nfirst ");
            peer.wire.send("second");
        }
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &["--log-mode=response"]);
    let clients = [("1.1", "Connection: close\r\n"), ("1.1", ""), ("1.0", ""), ("1.0", "Connection: keep-alive\r\n")];
    for (number, (version, fields)) in clients.into_iter().enumerate() {
        let got = agent.ask(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(got.text(), "first second");
        let events = sink.await_events(number + 1);
        let event = events.last().unwrap();
        assert_eq!((event.text().as_str(), event.field("content-type").as_deref()), ("first second", Some("text/x")));
    }
    assert_eq!(Books::settled(&agent), Books::all_sent(4));
}

#[test]
fn an_old_client_gets_a_chunked_response_bare_and_the_log_the_same() {
    let server = Server::answering(format!("HTTP/1.1 200 OK\r\n{CHUNKED}{CHUNKS}"));
    let sink = Sink::good();
    let agent = logging(&server, &sink, &[]);
    assert_eq!(agent.ask("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi").text(), DATA);
    let (request, response) = sink.await_pair();
    assert_eq!((request.text().as_str(), response.text().as_str()), ("hi", DATA));
}

#[test]
fn the_answer_to_head_is_an_empty_event() {
    let (server, sink) = (Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"), Sink::good());
    let agent = logging(&server, &sink, &[]);
    let mut client = agent.connect();
    for number in 1..=2 {
        client.send(GET.replace("GET", "HEAD"));
        assert_eq!(client.response_head().status(), 200);
        let (request, response) = pair(sink.await_events(2 * number)[2 * number - 2..].to_vec());
        assert_eq!((request.payload(), response.payload()), (&b""[..], &b""[..]));
    }
}

#[test]
fn interim_responses_are_no_part_of_the_log() {
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let server = Server::start(|mut peer: Peer| {
        while let Some(head) = peer.request_head() {
            if head.field("expect").is_some() {
                peer.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            peer.wire.expect("hello");
            peer.wire.send(INTERIM.repeat(2));
            peer.wire.send(format!("{INTERIM}HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"));
        }
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &[]);
    for (number, expect) in ["Expect: 100-continue\r\n", ""].into_iter().enumerate() {
        let mut client = agent.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 5\r\n\r\n"));
        if !expect.is_empty() {
            assert_eq!(client.response().status(), 100);
        }
        client.send("hello");
        (0..3).for_each(|_| assert_eq!(client.response().status(), 103));
        assert_eq!(client.response().text(), "yes");
        let (request, response) = pair(sink.await_events(2 * number + 2)[2 * number..].to_vec());
        assert_eq!((request.text().as_str(), response.text().as_str()), ("hello", "yes"));
    }
}

#[test]
fn pipelined_requests_are_logged_each_with_its_own() {
    let server = Server::with(|request: &Message| {
        let body = format!("re:{}", request.text());
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &[]);
    let mut client = agent.connect();
    let one = |number: usize| {
        let body = "x".repeat(number) + &number.to_string();
        format!("POST / HTTP/1.1\r\nHost: a\r\nCe-Id: {number}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    client.send((0..50).map(one).collect::<String>());
    (0..50).for_each(|_| assert_eq!(client.response().status(), 200));
    let events = sink.await_events(100);
    for number in 0..50 {
        let of_this = events.iter().filter(|event| event.id() == number.to_string()).cloned().collect();
        let (request, response) = pair(of_this);
        let body = "x".repeat(number) + &number.to_string();
        assert_eq!((request.text(), response.text()), (body.clone(), format!("re:{body}")));
    }
}

#[test]
fn a_client_that_leaves_half_way_is_half_an_event_and_so_none() {
    let (begun, begins) = mpsc::channel::<()>();
    let begun = Mutex::new(begun);
    let server = Server::start(move |mut peer: Peer| {
        if peer.request_head().is_some() {
            let _ = begun.lock().unwrap().send(());
            let _ = peer.wire.try_send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            let _ = peer.wire.fill(std::time::Instant::now() + crate::support::PATIENCE);
        }
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &["--log-all-responses"]);
    let in_flight = || agent.metrics().count("requests_in_flight");

    let mut in_request = agent.connect();
    in_request.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
    begins.recv().unwrap();
    in_request.response_head();
    in_request.reset();
    until("the first is gone", || in_flight() == 0);
    assert_eq!(Books::settled(&agent), Books::default());

    let mut in_response = agent.connect();
    in_response.send(GET);
    begins.recv().unwrap();
    in_response.response_head();
    in_response.reset();
    until("the second is gone", || in_flight() == 0);
    assert!(sink.await_events(1)[0].is_request());
    assert_eq!(Books::settled(&agent), Books::all_sent(1));
}

#[test]
fn a_server_that_dies_inside_its_body_has_given_no_response() {
    let bodies = ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n9\r\nhalf"];
    let server = Server::start(move |mut peer: Peer| {
        if let Some(request) = peer.request() {
            let which: usize = request.target()[1..].parse().unwrap();
            peer.wire.send(format!("HTTP/1.1 200 OK\r\n{}", bodies[which]));
        }
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &["--log-all-responses"]);
    for (which, version) in [(0, "1.1"), (1, "1.1"), (1, "1.0")] {
        let mut client = agent.connect();
        client.send(format!("GET /{which} HTTP/{version}\r\nHost: a\r\n\r\n"));
        client.rest();
    }
    assert!(sink.await_events(3).iter().all(Event::is_request));
    assert_eq!(Books::settled(&agent), Books::all_sent(3));
}

#[test]
fn a_head_as_long_as_the_agent_takes_is_no_obstacle() {
    // With what the agent adds for the client it has more fields than the agent takes from a server.
    let fields: String = (0..127).map(|number| format!("X-{number}: a\r\n")).collect();
    let server = Server::start(move |mut peer: Peer| {
        if peer.request().is_some() {
            peer.wire.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/x\r\n{fields}\r\nhello"));
        }
    });
    let sink = Sink::good();
    let agent = logging(&server, &sink, &[]);
    let got = agent.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!((got.status(), got.text().as_str()), (200, "hello"));
    assert_eq!(got.fields().len(), 130, "{got:?}");
    let (_, response) = sink.await_pair();
    assert_eq!((response.text().as_str(), response.field("content-type").as_deref()), ("hello", Some("text/x")));
}

#[test]
fn batched_clients_are_logged_each_with_its_own() {
    let (server, sink) = (Server::with(echo), Sink::good());
    let agent = logging(&server, &sink, &["--enable-batcher", "--max-batchsize=6", NEVER]);
    let v1: Vec<String> =
        ["[1.0]", "[1e400,\"\\u00fc\"]", "{\"a\" : 1}"].iter().map(|instance| predict(&[instance, "2"])).collect();
    assert_logged(&agent, &server, &sink, &v1, 1);
}

#[test]
fn batched_v2_clients_are_logged_each_with_its_own() {
    let (server, sink) = (Server::with(echo), Sink::good());
    let agent = logging(&server, &sink, &["--enable-batcher", "--max-batchsize=3", NEVER]);
    let body = |id: &str, data: &str| {
        infer(&format!(
            "{{\"id\":\"{id}\", \"inputs\":[{{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":{data}}}]}}"
        ))
    };
    let v2 = [body("a", "[1.0,2]"), body("b", "[3,4e0]"), body("c", "[5, 6]")];
    assert_logged(&agent, &server, &sink, &v2, 1);
}

/// Asks together, and expects so many calls of the server and for each client an event of what it sent and one of what
/// it got.
#[track_caller]
fn assert_logged(agent: &Agent, server: &Server, sink: &Sink, requests: &[String], calls: usize) {
    let requests: Vec<String> = (0..)
        .zip(requests)
        .map(|(number, request): (usize, &String)| request.replace("Host: a", &format!("Host: a\r\nCe-Id: {number}")))
        .collect();
    let answers = together(agent, &requests);
    assert_eq!(posts(server).len(), calls);
    let events = sink.await_events(2 * requests.len());
    for (number, (asked, got)) in requests.iter().zip(answers).enumerate() {
        assert_eq!(got.status(), 200, "{}", got.text());
        let (request, response) =
            pair(events.iter().filter(|event| event.id() == number.to_string()).cloned().collect());
        assert_eq!(request.text(), asked.split_once("\r\n\r\n").unwrap().1);
        assert_eq!(response.text(), got.text());
        assert_eq!(response.field("content-type"), got.field("content-type"));
    }
    assert_eq!(Books::settled(agent), Books::all_sent(2 * requests.len() as u64));
}

#[test]
fn what_the_batcher_turns_away_or_passes_is_logged_too() {
    let (server, sink) = (Server::with(echo_or_ok), Sink::good());
    let agent = logging(&server, &sink, &["--enable-batcher", "--max-batchsize=1", "--log-all-responses"]);
    let raw = "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[\"a\"],\"parameters\":{}}],\"raw\":1}";
    let chunked = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n{CHUNKED}{:x};ext\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        10,
        &raw[..10],
        raw.len() - 10,
        &raw[10..]
    );
    let cases = [
        (predict(&["1"]), predict(&["1"]).split_once("\r\n\r\n").unwrap().1.to_owned(), 200),
        (crate::batcher_support::post("/v1/models/m:predict", "", "no json"), "no json".to_owned(), 400),
        (infer("[1, 2]"), "[1, 2]".to_owned(), 200),
        (chunked, raw.to_owned(), 200),
        (chunked_post().replace("POST /", "POST /v1/models/m:predict"), DATA.to_owned(), 400),
    ];
    let mut client = agent.connect();
    for (number, (request, payload, status)) in cases.iter().enumerate() {
        client.send(request);
        let got = client.response();
        assert_eq!(got.status(), *status, "{request}");
        let (request, response) = pair(sink.await_events(2 * number + 2)[2 * number..].to_vec());
        assert_eq!((request.text().as_str(), response.text()), (payload.as_str(), got.text()));
        assert_eq!(response.field("ce-statuscode"), Some(status.to_string()));
    }
}

fn echo_or_ok(request: &Message) -> Vec<u8> {
    let is_batch = request.text().contains("\"instances\"") || request.text().contains("\"shape\"");
    if is_batch { echo(request) } else { OK.to_vec() }
}

#[test]
fn a_client_that_leaves_its_batch_has_sent_a_request_and_got_nothing() {
    let (server, sink) = (Server::with(echo), Sink::good());
    let agent = logging(&server, &sink, &["--enable-batcher", "--max-batchsize=2", NEVER]);
    let mut client = agent.connect();
    client.send(predict(&["1"]));
    assert!(sink.await_events(1)[0].is_request());
    client.reset();
    until("it is gone", || agent.metrics().count("requests_in_flight") == 0);
    assert_eq!(Books::settled(&agent), Books::all_sent(1));
}

#[test]
fn a_truncated_response_is_cut_for_the_client_as_it_is_without_a_log() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let sink = Sink::good();
    let agent = logging(&server, &sink, &["--upstream-timeout=1s"]);
    let mut client = agent.connect();
    client.send(GET);
    client.response_head();
    client.expect("half");
    drop(server);
    assert_eq!(client.rest(), (Vec::new(), Ending::Closed));
}
