//! The end of an agent that holds requests in batches: SPEC D1, D2.

use std::time::Duration;

use rustix::process::Signal;

use crate::batcher_support::{
    Gate, NEVER, batching, calls, echo, infer, predict, predictions, sizes, submit, together,
};
use crate::support::{Agent, PATIENCE, Server, Wire, until};

const PROBE: &str = "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n\r\n";

fn wait_for_the_drain(agent: &Agent) {
    until("the drain has begun", || agent.ask(PROBE).status() == 503);
}

/// The clients are answered, one prediction each, and told that their connections end.
#[track_caller]
fn assert_answered(waiting: &mut [Wire]) {
    for (number, client) in waiting.iter_mut().enumerate() {
        let got = client.response();
        assert_eq!(predictions(&got), [number.to_string()]);
        assert_eq!(got.field("connection").as_deref(), Some("close"));
        assert_eq!(client.rest().0, b"");
    }
}

fn waiting(agent: &Agent, count: usize) -> Vec<Wire> {
    (0..count).map(|number| submit(agent, predict(&[&number.to_string()]))).collect()
}

#[test]
fn held_batches_leave_when_the_quiet_time_is_over() {
    let server = Server::with(echo);
    let mut agent = batching(&server, &["--drain-period=200ms", NEVER]);
    let mut waiting = waiting(&agent, 3);
    let body = "{\"inputs\":[{\"name\":\"a\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[5]}]}";
    let mut other = submit(&agent, infer(body));
    assert!(calls(&server).is_empty());
    agent.signal(Signal::TERM);
    assert_answered(&mut waiting);
    assert_eq!(other.response().status(), 200);
    let mut sizes = sizes(&server);
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 3]);
    assert_eq!(agent.wait(PATIENCE).code(), Some(0));
}

#[test]
fn held_batches_leave_at_a_second_signal() {
    let server = Server::with(echo);
    let mut agent = batching(&server, &["--drain-period=60s", NEVER]);
    let mut waiting = waiting(&agent, 2);
    agent.signal(Signal::TERM);
    wait_for_the_drain(&agent);
    assert!(calls(&server).is_empty(), "the quiet time is for filling batches, too");
    agent.signal(Signal::TERM);
    assert_answered(&mut waiting);
    assert_eq!(sizes(&server), [2]);
    assert_eq!(agent.wait(PATIENCE).code(), Some(0));
}

#[test]
fn batches_are_made_as_before_until_the_quiet_time_is_over() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--drain-period=60s", "--max-batchsize=2", NEVER]);
    agent.signal(Signal::TERM);
    wait_for_the_drain(&agent);
    for _ in 0..3 {
        let got = together(&agent, &[predict(&["1"]), predict(&["2"])]);
        assert_eq!(got.iter().flat_map(predictions).collect::<Vec<_>>(), ["1", "2"]);
        assert!(got.iter().all(|got| got.field("connection").is_none()));
    }
    assert_eq!(sizes(&server), [2; 3]);
}

#[test]
fn what_is_queued_behind_a_busy_server_is_answered_before_the_end() {
    for policy in ["--batch-policy=window", "--batch-policy=eager", "--batch-policy=adaptive"] {
        let gate = Gate::new();
        let flags = [policy, "--batch-concurrency=1", "--max-batchsize=2", "--drain-period=60s", NEVER];
        let mut agent = batching(&gate.server, &flags);
        let mut waiting = waiting(&agent, 5);
        gate.reached(1);
        agent.signal(Signal::TERM);
        wait_for_the_drain(&agent);
        agent.signal(Signal::TERM);
        until("the port is closed", || Wire::try_connect(agent.port).is_err());
        gate.open(5);
        assert_answered(&mut waiting);
        assert_eq!(agent.wait(PATIENCE).code(), Some(0), "{policy}");
        assert!(sizes(&gate.server).iter().all(|size| *size <= 2), "{policy}");
    }
}

#[test]
fn without_anything_held_a_batching_agent_ends_at_once() {
    let mut agent = batching(&Server::with(echo), &["--drain-period=100ms"]);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_call_that_never_ends_does_not_keep_the_agent() {
    const FINISH: Duration = Duration::from_secs(8);
    let gate = Gate::new();
    let mut agent = batching(&gate.server, &["--max-batchsize=1", "--drain-period=50ms"]);
    let mut held = waiting(&agent, 1);
    gate.reached(1);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(FINISH + Duration::from_secs(5)).code(), Some(0));
    assert_eq!(held[0].rest().0, b"", "an end without an answer");
}
