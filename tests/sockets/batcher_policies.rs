//! When a batch leaves, how many run at once, and that nobody else waits for it: SPEC B6, B7, B11.

use std::thread;
use std::time::{Duration, Instant};

use crate::batcher_support::{
    Gate, NEVER, PATH, assert_turned_away, batching, batching_watched, calls, echo, instances_body, post, predict,
    predictions, settle, sizes, submit, together,
};
use crate::support::{Agent, Server, Wire, alone, process, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_window_closes_when_its_oldest_request_has_waited_long_enough() {
    const LATENCY: Duration = Duration::from_secs(1);
    let _alone = alone();
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-latency=1000"]);
    for round in 0..2 {
        let began = Instant::now();
        let mut first = submit(&agent, predict(&["1"]));
        // Half of the time passes: it is the older one's clock that counts.
        thread::sleep(LATENCY / 2);
        let mut second = submit(&agent, predict(&["2", "3"]));
        let joined = Instant::now();
        assert_eq!(calls(&server).len(), round, "it left too early");
        assert_eq!(predictions(&second.response()), ["2", "3"]);
        assert!(joined.elapsed() < LATENCY, "{:?}", joined.elapsed());
        assert_eq!(predictions(&first.response()), ["1"]);
        let took = began.elapsed();
        assert!(took >= LATENCY && took < LATENCY * 3, "{took:?}");
        assert_eq!(sizes(&server), vec![3; round + 1]);
    }
}

#[test]
fn a_window_that_is_full_leaves_at_once() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER]);
    for requests in [vec![4], vec![1, 3], vec![2, 1, 1], vec![1, 1, 1, 1]] {
        let bodies: Vec<String> = requests.iter().map(|count| predict(&vec!["1"; *count])).collect();
        for (got, count) in together(&agent, &bodies).iter().zip(&requests) {
            assert_eq!(predictions(got), vec!["1"; *count]);
        }
    }
    assert_eq!(sizes(&server), [4; 4]);
}

#[test]
fn a_request_that_does_not_fit_makes_the_open_window_leave() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER]);
    let mut first = submit(&agent, predict(&["1", "2", "3"]));
    assert!(calls(&server).is_empty());
    let mut second = submit(&agent, predict(&["4", "5"]));
    assert_eq!(predictions(&first.response()), ["1", "2", "3"]);
    settle(&agent);
    assert_eq!(sizes(&server), [3], "the second waits for its own");
    assert_eq!(predictions(&agent.ask(predict(&["6", "7"]))), ["6", "7"]);
    assert_eq!(predictions(&second.response()), ["4", "5"]);
    assert_eq!(calls(&server)[1], ["4", "5", "6", "7"]);
}

#[test]
fn windows_of_different_keys_fill_side_by_side() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let with = |model: usize| post(&format!("/v1/models/{model}:predict"), "", &instances_body(&[&model.to_string()]));
    let mut waiting: Vec<Wire> = (0..20).map(|model| submit(&agent, with(model))).collect();
    assert!(calls(&server).is_empty());
    // In another order than they came.
    for model in (0..20).rev() {
        assert_eq!(predictions(&agent.ask(with(model))), [model.to_string()]);
        assert_eq!(predictions(&waiting.pop().unwrap().response()), [model.to_string()]);
        assert_eq!(calls(&server).pop().unwrap(), [model.to_string(), model.to_string()]);
    }
}

#[test]
fn so_many_windows_are_under_way_at_once_and_no_more() {
    for (flag, most) in [(None, 32), (Some("--batch-concurrency=3"), 3), (Some("--batch-concurrency=1"), 1)] {
        let gate = Gate::new();
        let mut flags = vec!["--max-batchsize=1"];
        flags.extend(flag);
        let agent = batching(&gate.server, &flags);
        let count = most + 5;
        let mut waiting: Vec<Wire> = (0..count).map(|n| submit(&agent, predict(&[&n.to_string()]))).collect();
        gate.reached(most);
        settle(&agent);
        gate.reached(most);
        gate.open(count);
        for (number, client) in waiting.iter_mut().enumerate() {
            assert_eq!(predictions(&client.response()), [number.to_string()]);
        }
        assert_eq!((gate.most(), calls(&gate.server).len()), (most, count));
    }
}

#[test]
fn an_eager_request_leaves_at_once_and_what_comes_meanwhile_leaves_together() {
    let gate = Gate::new();
    let flags = ["--batch-policy=eager", "--max-batchsize=4", "--batch-concurrency=1", NEVER];
    let agent = batching(&gate.server, &flags);
    let mut waiting = vec![submit(&agent, predict(&["0"]))];
    gate.reached(1);
    waiting.extend((1..6).map(|number| submit(&agent, predict(&[&number.to_string()]))));
    gate.reached(1);
    for count in 2..=3 {
        gate.open(1);
        gate.reached(count);
    }
    gate.open(1);
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(predictions(&client.response()), [number.to_string()]);
    }
    assert_eq!(calls(&gate.server), [&["0"][..], &["1", "2", "3", "4"], &["5"]]);
    assert_eq!(gate.most(), 1);
}

#[test]
fn eager_and_adaptive_have_two_calls_under_way_unless_told_otherwise() {
    for policy in ["--batch-policy=eager", "--batch-policy=adaptive"] {
        let gate = Gate::new();
        let agent = batching(&gate.server, &[policy, NEVER]);
        let mut waiting = Vec::new();
        for number in 0..2 {
            waiting.push(submit(&agent, predict(&[&number.to_string()])));
            gate.reached(number + 1);
        }
        waiting.extend((2..5).map(|number| submit(&agent, predict(&[&number.to_string()]))));
        gate.reached(2);
        gate.open(5);
        for (number, client) in waiting.iter_mut().enumerate() {
            assert_eq!(predictions(&client.response()), [number.to_string()], "{policy}");
        }
        assert_eq!(gate.most(), 2, "{policy}");
        assert_eq!(calls(&gate.server)[2..].iter().map(Vec::len).sum::<usize>(), 3, "{policy}");
    }
}

#[test]
fn an_eager_queue_does_not_split_a_request_to_fill_a_batch() {
    let gate = Gate::new();
    let flags = ["--batch-policy=eager", "--max-batchsize=4", "--batch-concurrency=1", NEVER];
    let agent = batching(&gate.server, &flags);
    let mut waiting = vec![submit(&agent, predict(&["0"]))];
    gate.reached(1);
    waiting.extend([["1", "2", "3"], ["4", "5", "6"]].map(|three| submit(&agent, predict(&three))));
    gate.open(3);
    let got: Vec<String> = waiting.iter_mut().flat_map(|client| predictions(&client.response())).collect();
    assert_eq!(got, ["0", "1", "2", "3", "4", "5", "6"]);
    assert_eq!(calls(&gate.server), [&["0"][..], &["1", "2", "3"], &["4", "5", "6"]]);
}

#[test]
fn an_eager_request_that_has_waited_too_long_is_turned_away() {
    let _alone = alone();
    for policy in ["--batch-policy=eager", "--batch-policy=adaptive"] {
        let gate = Gate::new();
        let agent = batching_watched(&gate.server, &[policy, "--batch-concurrency=1", "--max-latency=300"]);
        let mut first = submit(&agent, predict(&["0"]));
        gate.reached(1);
        let began = Instant::now();
        let mut late = [submit(&agent, predict(&["1"])), submit(&agent, predict(&["2"]))];
        for client in &mut late {
            assert_turned_away(&client.response());
        }
        let took = began.elapsed() + Duration::from_millis(20);
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
        // Its connection stays, and it may try again. The call under way has no such limit.
        gate.open(2);
        assert_eq!(predictions(&first.response()), ["0"]);
        late[0].send(predict(&["3"]));
        assert_eq!(predictions(&late[0].response()), ["3"]);
        assert_eq!(calls(&gate.server), [["0"], ["3"]], "{policy}");
        assert_eq!(agent.metrics().count("requests_rejected_total{reason=\"batch_late\"}"), 2);
    }
}

#[test]
fn a_lone_adaptive_request_leaves_long_before_the_longest_wait() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--batch-policy=adaptive", NEVER]);
    let mut client = agent.connect();
    for number in 0..200 {
        client.send(predict(&[&number.to_string()]));
        assert_eq!(predictions(&client.response()), [number.to_string()]);
    }
}

#[test]
fn under_load_an_adaptive_batcher_answers_everyone_and_keeps_the_cap() {
    let _alone = alone();
    let server = Server::with(|request| {
        // A server for which a batch is worth it: most of its time does not depend on the size.
        thread::sleep(Duration::from_millis(2));
        echo(request)
    });
    let agent = Agent::start(server.port, &["--enable-batcher", "--batch-policy=adaptive", "--max-batchsize=8", NEVER]);
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let mut client = agent.connect();
            thread::spawn(move || {
                for round in 0..50 {
                    let own = format!("\"{number}-{round}\"");
                    client.send(predict(&[&own]));
                    assert_eq!(predictions(&client.response()), [own]);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let sizes = sizes(&server);
    assert!(sizes.iter().all(|size| *size <= 8) && sizes.iter().any(|size| *size > 1), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 16 * 50);
}

#[test]
fn keys_do_not_wait_for_one_another() {
    for policy in ["--batch-policy=window", "--batch-policy=eager", "--batch-policy=adaptive"] {
        let gate = Gate::new();
        let agent = batching(&gate.server, &[policy, "--max-batchsize=1", "--batch-concurrency=2", NEVER]);
        let mut held = submit(&agent, post("/v1/models/slow:predict", "", &instances_body(&["0"])));
        gate.reached(1);
        let mut quick = submit(&agent, predict(&["1"]));
        gate.reached(2);
        gate.open(2);
        assert_eq!(predictions(&quick.response()), ["1"], "{policy}");
        assert_eq!(predictions(&held.response()), ["0"], "{policy}");
    }
}

#[test]
fn what_is_not_batched_does_not_wait_for_what_is() {
    let gate = Gate::new();
    let agent = batching(&gate.server, &["--max-batchsize=2", "--batch-concurrency=1", NEVER]);
    let with = |number: usize| {
        let body = instances_body(&[&number.to_string()]);
        submit(&agent, post(PATH, &format!("Cookie: {}\r\n", number / 2), &body))
    };
    // One call under way, others behind it, and one that is not full.
    let mut waiting: Vec<Wire> = (0..9).map(with).collect();
    gate.reached(1);
    let mut client = agent.connect();
    for _ in 0..100 {
        client.send(GET);
        assert_eq!(client.response().status(), 200);
    }
    gate.open(5);
    waiting.push(with(9));
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(predictions(&client.response()), [number.to_string()]);
    }
    assert_eq!(sizes(&gate.server), [2; 5]);
}

#[test]
fn a_batcher_that_waits_is_not_woken_once() {
    let _alone = alone();
    for policy in ["--batch-policy=window", "--batch-policy=eager", "--batch-policy=adaptive"] {
        let gate = Gate::new();
        let agent = batching(&gate.server, &[policy, "--batch-concurrency=1", NEVER]);
        for waiting in 0..3 {
            let _waiting: Vec<Wire> = (0..waiting).map(|_| submit(&agent, predict(&["1"]))).collect();
            if waiting > 0 && !policy.ends_with("window") {
                until("one is under way", || !calls(&gate.server).is_empty());
            }
            // Half a second in which no thread of the agent ran at all, once what came has been dealt with.
            let rests = || {
                let before = process::switches(agent.pid());
                thread::sleep(Duration::from_millis(500));
                process::switches(agent.pid()) == before
            };
            until(&format!("{policy} with {waiting} waiting rests"), rests);
            assert!(rests(), "{policy} with {waiting} waiting: woken with nothing to do");
        }
    }
}
