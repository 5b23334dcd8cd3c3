//! Connections whose requests wait in the batcher: what may and what may not become of them meanwhile. SPEC B10, B11;
//! H1, P2, P10, P11 where they meet B.

use crate::batcher_json::{items, member};
use crate::batcher_support::{
    Gate, NEVER, PATH, assert_turned_away, batching, calls, echo, instances_body, leave, post, predict, predictions,
    settle, sizes, submit,
};
use crate::support::{Agent, Server, Wire, alone, holds_within, possible_connections, until};

#[test]
fn a_connection_that_waits_for_its_batch_does_not_make_room_for_others() {
    let server = Server::with(echo);
    let flags = ["--enable-batcher", "--threads=1", "--max-connections=3", "--max-batchsize=2", NEVER];
    let agent = Agent::start(server.port, &flags);
    let mut waiting = submit(&agent, predict(&["1"]));
    let mut idle = Vec::new();
    // At the cap each takes the place of another, and all of them are newer than the one that waits.
    for _ in 0..10 {
        let mut client = agent.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status(), 200);
        idle.push(client);
    }
    assert_eq!(predictions(&agent.ask(predict(&["2"]))), ["2"]);
    assert_eq!(predictions(&waiting.response()), ["1"]);
    assert_eq!(sizes(&server), [2]);
}

#[test]
fn a_client_that_has_asked_for_more_and_leaves_is_taken_out() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let next = ["GET /next HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), predict(&["\"next\""]), "POST".to_owned()];
    for next in next {
        let before = calls(&server).len();
        let leaver = submit(&agent, predict(&["\"gone\""]) + &next);
        leave(&agent, vec![leaver], Wire::close);
        let mut first = submit(&agent, predict(&["1"]));
        assert_eq!(predictions(&agent.ask(predict(&["2"]))), ["2"]);
        assert_eq!(predictions(&first.response()), ["1"]);
        assert_eq!(calls(&server)[before..], [["1", "2"]]);
    }
    assert!(server.seen().iter().all(|seen| seen.target() != "/next"), "what was never its turn is not sent");
}

#[test]
fn a_client_that_leaves_behind_more_than_the_agent_buffers_is_taken_out() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let leaver = agent.connect();
    leaver.socket().set_nonblocking(true).unwrap();
    leaver.socket().send(predict(&["\"gone\""]).as_bytes()).unwrap();
    settle(&agent);
    let block = [b'x'; 64 * 1024];
    // Until nobody takes any more: the end of it all stands behind what the agent does not read.
    assert!(holds_within(std::time::Duration::from_secs(10), || leaver.socket().send(&block).is_err()));
    leave(&agent, vec![leaver], Wire::reset);
    let mut first = submit(&agent, predict(&["1"]));
    assert_eq!(predictions(&agent.ask(predict(&["2"]))), ["2"]);
    assert_eq!(predictions(&first.response()), ["1"]);
    assert_eq!(calls(&server), [["1", "2"]]);
}

#[test]
fn a_probe_is_a_probe_whatever_it_posts_to() {
    let server = Server::with(echo);
    let agent = batching(&server, &[NEVER]);
    let got =
        agent.ask(post(PATH, "User-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n", &instances_body(&["1"])));
    assert_eq!((got.status(), got.text().as_str()), (200, "queue"));
    assert!(server.seen().is_empty());
}

#[test]
fn an_ambiguous_predict_request_is_refused_like_any_other() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let fields = [
        "Content-Length: 17\r\nTransfer-Encoding: chunked",
        "Content-Length: 17\r\nContent-Length: 18",
        "Content-Length: +17",
        "Transfer-Encoding: chunked, chunked",
    ];
    for fields in fields {
        let mut client = agent.connect();
        client.send(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{{\"instances\":[1]}}"));
        let got = client.response();
        assert!(matches!(got.status(), 400 | 501), "{fields}: {got:?}");
        assert_eq!(client.rest().0, b"", "{fields}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_body_that_can_never_fit_is_not_collected_but_passes() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    for length in ["8388609", "67108865", "9223372036854775807"] {
        let mut client = agent.connect();
        client.send(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{{\"instances"));
        client.end();
        let got = client.response();
        assert_eq!((got.status(), got.text().as_str()), (400, "bad request body: it ended early\n"));
    }
    // Of a length that nobody knows as much is collected as of others, and then it goes on.
    let mut client = agent.connect();
    client.send(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let value = "x".repeat(1 << 20);
    let pieces: Vec<String> = (0..9).map(|_| format!("\"{value}\"")).collect();
    for (number, piece) in [&["{\"instances\":[".to_owned()], &pieces[..]].concat().iter().enumerate() {
        let comma = if number > 1 { "," } else { "" };
        client.send(format!("{:x}\r\n{comma}{piece}\r\n", piece.len() + comma.len()));
    }
    client.send("2\r\n]}\r\n0\r\n\r\n");
    let got = client.response().text();
    assert!(items(member(&got, "predictions").unwrap()) == pieces);
    let seen = server.seen().pop().unwrap();
    assert_eq!(seen.field("transfer-encoding").as_deref(), Some("chunked"));
    assert!(seen.text() == instances_body(&pieces.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(predictions(&agent.ask(predict(&["1"]))), ["1"]);
}

#[test]
fn bodies_that_are_still_coming_in_cost_bounded_memory() {
    const LIMIT_KIB: u64 = 64 * 1024;
    let _alone = alone();
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let before = agent.resident_kib();
    let part = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 7999999\r\n\r\n{}", " ".repeat(7_000_000));
    let clients: Vec<Wire> = (0..possible_connections(30))
        .map(|_| {
            let mut client = agent.connect();
            // It may be turned away meanwhile.
            let _ = client.try_send(&part);
            client
        })
        .collect();
    settle(&agent);
    let grown = agent.resident_kib().saturating_sub(before);
    // Buffers grow by doubling, and a few are being copied.
    assert!(grown < LIMIT_KIB * 2, "{grown} KiB");
    drop(clients);
    assert!(holds_within(crate::support::PATIENCE, || agent.ask(predict(&["1"])).status() == 200), "its room is back");
}

#[test]
fn ten_thousand_may_wait_unless_told_otherwise_and_the_next_may_not() {
    let _alone = alone();
    // As many as this machine lets wait; the limit itself is tried where it lets 10 000.
    const LIMIT: usize = 10_000;
    let gate = Gate::new();
    let agent = batching(&gate.server, &["--max-batchsize=20000", NEVER]);
    let count = possible_connections(LIMIT);
    let request = predict(&["1"]);
    let mut waiting: Vec<Wire> = (0..count)
        .map(|_| {
            let mut client = agent.connect();
            client.send(&request);
            client
        })
        .collect();
    settle(&agent);
    assert!(calls(&gate.server).is_empty());
    if count == LIMIT {
        assert_turned_away(&agent.ask(&request));
    } else {
        eprintln!("not tried with more than {count} connections");
    }
    gate.open(1);
    leave(&agent, waiting.split_off(count - 1), Wire::close);
    let filling = vec!["1"; 20_000 - (count - 1)];
    assert_eq!(predictions(&agent.ask(predict(&filling))).len(), filling.len());
    for client in &mut waiting {
        assert_eq!(predictions(&client.response()), ["1"]);
    }
    assert_eq!(sizes(&gate.server), [20_000]);
}

#[test]
fn a_call_whose_client_leaves_while_it_connects_is_not_made() {
    let _alone = alone();
    // A backlog that is full, so that the agent's connection waits for its turn.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let port = address.as_socket().unwrap().port();
    let agent = Agent::setup(port).flags(&["--enable-batcher", "--threads=1", "--max-batchsize=1"]).watched().start();
    let fill = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address);
        socket
    };
    let _filled: Vec<_> = (0..4).map(|_| fill()).collect();
    let mut client = agent.connect();
    client.send(predict(&["1"]));
    until("a batch is under way", || agent.metrics().count("batches_in_flight") == 1);
    client.close();
    until("it has left", || agent.metrics().count("requests_in_flight") == 0);
    // Its connection comes through when the others are taken; the kernel tries again after 1 s and 3 s.
    let accept = std::thread::spawn(move || {
        let listener = std::net::TcpListener::from(listener);
        listener.set_nonblocking(true).unwrap();
        let mut read = Vec::new();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(6);
        while std::time::Instant::now() < end {
            if let Ok((mut socket, _)) = listener.accept() {
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
                let mut bytes = [0; 100];
                read.push(std::io::Read::read(&mut socket, &mut bytes).unwrap_or(0));
            }
            std::thread::yield_now();
        }
        read
    });
    until("the batch is over", || agent.metrics().count("batches_in_flight") == 0);
    assert!(accept.join().unwrap().iter().all(|read| *read == 0), "the request has reached the server");
}

#[test]
fn pipelined_predict_requests_do_not_keep_others_from_their_turn() {
    let _alone = alone();
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-latency=1000", "--batch-policy=eager"]);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let port = agent.port;
    let floods: Vec<_> = (0..8)
        .map(|_| {
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut client = Wire::connect(port);
                let mut answered = 0;
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    client.send(predict(&["1"]).repeat(50));
                    (0..50).for_each(|_| assert_eq!(client.response().status(), 200));
                    answered += 50;
                }
                answered
            })
        })
        .collect();
    let probe = "GET / HTTP/1.1\r\nHost: a\r\nK-Network-Probe: probe\r\nK-Network-Hash: x\r\n\r\n";
    let mut client = agent.connect();
    let mut longest = std::time::Duration::ZERO;
    for _ in 0..300 {
        let began = std::time::Instant::now();
        client.send(probe);
        assert_eq!(client.response().status(), 200);
        longest = longest.max(began.elapsed());
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let answered: usize = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    // Before there was a bound it was as long as the flood.
    assert!(answered >= 400 && longest < std::time::Duration::from_secs(1), "{answered} {longest:?}");
}

#[test]
fn a_client_that_closes_only_its_sending_half_gets_an_answer_that_comes_soon() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--batch-policy=eager", NEVER]);
    for _ in 0..20 {
        let mut client = agent.connect();
        client.send(predict(&["1"]));
        client.end();
        assert_eq!(predictions(&client.response()), ["1"], "as it does without a batcher");
    }
}
