//! The cap, requests over it, and what may wait: SPEC B5, B10.

use crate::batcher_support::{
    Gate, NEVER, PATH, answer, ask_over, assert_turned_away, batch_of, batching, batching_watched, calls, echo,
    instances_body, instances_of, leave, post, posts, predict, predictions, settle, sizes, submit, submit_whole,
    together,
};
use crate::support::{Message, Server, Wire, alone, until};

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// A request with the instances `0`, `1`, … and so on.
fn counted(count: usize) -> String {
    let numbers = numbers(count);
    predict(&numbers.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn no_call_has_more_instances_than_the_cap() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=5", "--max-latency=30"]);
    let counts = [1, 4, 2, 3, 5, 1, 1, 6, 2, 4, 4, 11, 3, 3, 1];
    for (got, count) in together(&agent, &counts.map(counted)).iter().zip(counts) {
        assert_eq!(predictions(got), numbers(count));
    }
    let sizes = sizes(&server);
    assert!(sizes.iter().all(|size| (1..=5).contains(size)), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), counts.iter().sum::<usize>());
}

#[test]
fn a_request_over_the_cap_is_split_and_its_answer_joined_in_order() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", "--max-latency=50"]);
    for count in [5, 6, 8, 9, 41] {
        let before = calls(&server).len();
        let got = agent.ask(counted(count));
        assert_eq!(predictions(&got), numbers(count));
        let sizes = sizes(&server).split_off(before);
        assert!(sizes.iter().all(|size| (1..=4).contains(size)), "{sizes:?}");
        assert_eq!((sizes.iter().sum::<usize>(), sizes.len()), (count, count.div_ceil(4)), "{sizes:?}");
    }
}

#[test]
fn a_request_over_the_cap_has_its_other_members_in_every_call() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", "--max-latency=50"]);
    let got = agent.ask(post("/v1/models/m:predict?a=1", "X-A: 1\r\n", "{\"n\":1.0,\"instances\":[1,2,3],\"m\":[]}"));
    assert_eq!(predictions(&got), ["1", "2", "3"]);
    let seen = posts(&server);
    assert_eq!(seen.len(), 2);
    for call in seen {
        let body = call.text();
        assert!(body.contains("\"n\":1.0") && body.contains("\"m\":[]"), "{body}");
        assert_eq!((call.target().as_str(), call.field("x-a").as_deref()), ("/v1/models/m:predict?a=1", Some("1")));
        assert_eq!(call.field("content-length"), Some(body.len().to_string()));
    }
}

#[test]
fn a_request_that_fills_a_batch_by_itself_is_not_split() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER]);
    let mut waiting = submit(&agent, predict(&["\"a\"", "\"b\""]));
    assert_eq!(predictions(&agent.ask(counted(4))), numbers(4));
    assert_eq!(predictions(&waiting.response()), ["\"a\"", "\"b\""], "it has made room for the other");
    let mut sizes = sizes(&server);
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 4]);
}

#[test]
fn a_part_that_fails_fails_its_request_with_its_status() {
    let server = Server::with(|request: &Message| {
        if instances_of(request).iter().any(|instance| instance == "5") {
            return answer("429 Slow", "Content-Type: text/x\r\nX-A: 1\r\n", "no five");
        }
        echo(request)
    });
    let agent = batching(&server, &["--max-batchsize=2", "--max-latency=50"]);
    let mut client = agent.connect();
    client.send(counted(9));
    let got = client.response();
    assert_eq!((got.status(), got.text().as_str()), (429, "no five"));
    assert_eq!(got.field("content-type").as_deref(), Some("text/x"));
    client.send(counted(5));
    assert_eq!(predictions(&client.response()), numbers(5));
}

#[test]
fn a_request_whose_parts_make_no_answer_is_asked_whole_and_its_answer_passed_on() {
    let json = "Content-Type: application/json\r\n";
    let coded = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let large = format!("{{\"predictions\":[\"{}\",2]}}", "x".repeat(9 << 20));
    // What the server says to two instances, and to all three.
    let cases = [
        ("too few", json, "{\"predictions\":[1]}", "{\"predictions\":[1]}"),
        ("no list", json, "{\"x\":1}", "{\"x\":3}"),
        ("no JSON", json, "1,2", "1,2,3"),
        ("compressed", coded, "{\"predictions\":[1,2]}", "{\"predictions\":[1,2,3]}"),
        ("large", json, &large, "{\"x\":3}"),
        ("all large", json, &large, &large),
    ];
    for (what, fields, of_two, of_all) in cases {
        let answers = [answer("200 OK", fields, of_two), answer("200 OK", fields, of_all)];
        let server =
            Server::with(move |request: &Message| answers[usize::from(instances_of(request).len() > 2)].clone());
        let agent = batching(&server, &["--max-batchsize=2", "--max-latency=50"]);
        let got = agent.ask(counted(3));
        assert!(got.status() == 200 && got.text() == of_all, "{what}");
        // A part that is not needed any more may come behind it.
        assert_eq!(sizes(&server).iter().filter(|size| **size == 3).count(), 1, "{what}");
    }
}

#[test]
fn beyond_the_queue_a_request_is_turned_away_until_there_is_room() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER, "--batch-queue=2"]);
    let first = submit(&agent, predict(&["1"]));
    let mut second = submit(&agent, predict(&["2"]));
    let mut third = agent.connect();
    for _ in 0..3 {
        third.send(predict(&["3"]));
        assert_turned_away(&third.response());
    }
    assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200, "what is not batched passes");
    leave(&agent, vec![first], Wire::close);
    // The place is free when the batcher has heard of it, which is a moment after the connection is closed.
    let mut got = ask_over(&mut third, predict(&["3", "4", "5"]));
    until("there is room", || {
        if got.status() != 200 {
            assert_turned_away(&got);
            got = ask_over(&mut third, predict(&["3", "4", "5"]));
        }
        got.status() == 200
    });
    assert_eq!(predictions(&got), ["3", "4", "5"]);
    assert_eq!(predictions(&second.response()), ["2"]);
    assert_eq!(sizes(&server), [4]);
}

#[test]
fn bodies_over_64_mib_in_all_are_turned_away() {
    let _alone = alone();
    let gate = Gate::new();
    let agent = batching_watched(&gate.server, &["--max-batchsize=100", NEVER]);
    let long = predict(&[&format!("\"{}\"", "x".repeat((8 << 20) - 4096))]);
    let waiting: Vec<Wire> = (0..8).map(|_| submit_whole(&agent, &long)).collect();
    assert!(calls(&gate.server).is_empty());
    let mut client = agent.connect();
    // It may be turned away before all of it is sent.
    let _ = client.try_send(&long);
    assert_turned_away(&client.response());
    assert_eq!(agent.metrics().count("requests_rejected_total{reason=\"batch_bytes_full\"}"), 1);
    // Those that have the room wait for nobody else now; as long as the server has them they keep it.
    gate.reached(1);
    let mut client = agent.connect();
    let _ = client.try_send(&long);
    assert_turned_away(&client.response());
    // The answer to all of them is larger than what is held, so they are asked again.
    gate.open(100);
    for mut client in waiting {
        client.patience *= 6;
        let got = client.response();
        assert!(got.status() == 200 && got.body.len() > 8_000_000, "{}", got.status());
    }
    assert_eq!(sizes(&gate.server)[0], 8);

    let mut small = submit(&agent, predict(&["1"]));
    let mut large = submit_whole(&agent, &long);
    assert!(sizes(&gate.server).iter().all(|size| *size < 10), "there is room, so they wait for a full batch");
    let mut rest = submit(&agent, counted(98));
    assert_eq!(predictions(&rest.response()), numbers(98));
    assert_eq!(predictions(&small.response()), ["1"]);
    assert_eq!(predictions(&large.response()).len(), 1);
    assert!(sizes(&gate.server).contains(&100));
}

#[test]
fn a_client_that_leaves_while_it_waits_is_taken_out() {
    for kind in ["closes", "resets", "ends its half"] {
        let close = |client: Wire| match kind {
            "closes" => client.close(),
            "resets" => client.reset(),
            _ => {
                client.end();
                // It stays open on this side.
                std::mem::forget(client);
            }
        };
        let server = Server::with(echo);
        let agent = batching(&server, &["--max-batchsize=4", NEVER]);
        let mut first = submit(&agent, predict(&["1"]));
        let leaver = submit(&agent, predict(&["\"gone\""]));
        let mut second = submit(&agent, predict(&["2"]));
        leave(&agent, vec![leaver], close);
        // With the one that left the batch would be full one instance too early.
        let got = agent.ask(predict(&["3", "4"]));
        assert_eq!(predictions(&got), ["3", "4"], "{kind}");
        assert_eq!(predictions(&first.response()), ["1"], "{kind}");
        assert_eq!(predictions(&second.response()), ["2"], "{kind}");
        assert_eq!(calls(&server), [["1", "2", "3", "4"]], "{kind}");
    }
}

#[test]
fn when_all_of_a_batch_leave_no_call_is_made() {
    let _alone = alone();
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=3", "--max-latency=3000"]);
    let leavers = vec![submit(&agent, predict(&["\"gone\""])), submit(&agent, predict(&["\"gone\""]))];
    leave(&agent, leavers, Wire::close);
    // The next batch is a new one: it is full with three of its own.
    let got: Vec<String> =
        together(&agent, &["1", "2", "3"].map(|one| predict(&[one]))).iter().flat_map(predictions).collect();
    assert_eq!(got, ["1", "2", "3"]);
    let mut calls = calls(&server);
    calls.iter_mut().for_each(|call| call.sort());
    assert_eq!(calls, [["1", "2", "3"]]);
}

#[test]
fn a_client_that_leaves_a_call_under_way_does_not_harm_its_neighbours() {
    let kinds: [fn(Wire); 2] = [Wire::close, Wire::reset];
    for close in kinds {
        let gate = Gate::new();
        let agent = batching(&gate.server, &["--max-batchsize=3", NEVER]);
        let mut first = submit(&agent, predict(&["1"]));
        let leaver = submit(&agent, predict(&["\"gone\""]));
        let mut last = submit(&agent, predict(&["2"]));
        gate.reached(1);
        leave(&agent, vec![leaver], close);
        gate.open(1);
        assert_eq!(predictions(&first.response()), ["1"]);
        assert_eq!(predictions(&last.response()), ["2"]);
        assert_eq!(calls(&gate.server), [["1", "\"gone\"", "2"]]);
        // Their connections are as good as before.
        gate.open(1);
        for (client, body) in [(&mut first, &["3"][..]), (&mut last, &["4", "5"])] {
            client.send(predict(body));
        }
        assert_eq!(batch_of(&first.response()).0, batch_of(&last.response()).0);
    }
}

#[test]
fn a_client_that_leaves_a_queue_behind_a_busy_server_is_taken_out() {
    for policy in ["--batch-policy=eager", "--batch-policy=adaptive"] {
        let gate = Gate::new();
        let agent = batching(&gate.server, &[policy, "--batch-concurrency=1", NEVER]);
        let mut first = submit(&agent, predict(&["1"]));
        gate.reached(1);
        let leaver = submit(&agent, predict(&["\"gone\""]));
        let mut second = submit(&agent, predict(&["2"]));
        leave(&agent, vec![leaver], Wire::close);
        gate.open(2);
        assert_eq!(predictions(&first.response()), ["1"], "{policy}");
        assert_eq!(predictions(&second.response()), ["2"], "{policy}");
        assert_eq!(calls(&gate.server), [["1"], ["2"]], "{policy}");
    }
}

#[test]
fn a_client_that_leaves_before_its_body_is_there_is_forgotten() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let whole = predict(&["\"gone\""]);
    let mut leaver = agent.connect();
    leaver.send(&whole[..whole.len() - 3]);
    settle(&agent);
    leave(&agent, vec![leaver], Wire::reset);
    let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
    assert_eq!(got.iter().flat_map(predictions).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(sizes(&server), [2]);
}

#[test]
fn a_request_of_a_thousand_instances_is_one_answer() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=32", "--max-latency=20"]);
    let got = agent.ask(post("/v1/models/m:predict", "", &instances_body(&["[1.0,2.0]"; 1000])));
    assert_eq!(predictions(&got), vec!["[1.0,2.0]"; 1000]);
    assert_eq!(sizes(&server).len(), 1000_usize.div_ceil(32));
}

#[test]
fn a_request_of_too_many_parts_passes_whole_and_one_with_long_parameters_leaves_nothing_behind() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1", "--batch-policy=adaptive"]);
    let many = format!("{{\"instances\":[{}1]}}", "1,".repeat(4096));
    let got = agent.ask(post(PATH, "", &many));
    assert_eq!((got.status(), got.text()), (200, many.replace("instances", "predictions")));
    assert_eq!(sizes(&server), [4097]);
    let before = agent.resident_kib();
    for number in 0..8 {
        let parameters = "x".repeat(6_000_000);
        let body = format!("{{\"parameters\":\"{number}{parameters}\",\"instances\":[1]}}");
        assert_eq!(agent.ask(post(PATH, "", &body)).status(), 200);
    }
    let grown = agent.resident_kib().saturating_sub(before);
    assert!(grown < 40 * 1024, "{grown} KiB");
}

#[test]
fn a_request_whose_parts_would_repeat_too_much_passes_whole() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1", "--max-latency=20"]);
    let body = format!("{{\"parameters\":\"{}\",\"instances\":[{}1]}}", "x".repeat(100_000), "1,".repeat(199));
    let got = agent.ask(post(PATH, "", &body));
    assert_eq!(got.text(), format!("{{\"predictions\":[{}1]}}", "1,".repeat(199)));
    assert_eq!(sizes(&server), [200]);
    // A tenth of it repeats a tenth as much.
    let body = body.replace(&"x".repeat(90_000), "");
    assert_eq!(predictions(&agent.ask(post(PATH, "", &body))).len(), 200);
    assert_eq!(sizes(&server).len(), 1 + 200);
}
