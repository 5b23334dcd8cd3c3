//! What the tests of the payload log's delivery share: requests whose events can be told apart, and sinks that are bad at
//! first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::sink::{Event, TAKEN, logging};
use crate::support::{Agent, Books, Peer, Server, Sink, until};

pub(crate) const ONE_COURIER: &str = "--workers=1";

pub(crate) const REQUESTS_ONLY: &str = "--log-mode=request";

/// A request whose event has this id, and its id as payload.
pub(crate) fn post(id: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nCe-Id: {id}\r\nContent-Length: {}\r\n\r\n{id}", id.len())
}

/// Sends so many requests, named `0` and so on, over one connection, each after the answer to the one before.
pub(crate) fn ask(agent: &Agent, count: usize) {
    let mut client = agent.connect();
    for number in 0..count {
        client.send(post(&number.to_string()));
        assert_eq!(client.response().status(), 200);
    }
}

/// How often each event was read, by its id.
pub(crate) fn times(events: &[Event]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    events.iter().for_each(|event| *times.entry(event.id()).or_default() += 1);
    times
}

/// Each of so many events, once.
#[track_caller]
pub(crate) fn assert_once_each(events: &[Event], count: usize) {
    let wanted: BTreeMap<String, usize> = (0..count).map(|number| (number.to_string(), 1)).collect();
    assert_eq!(times(events), wanted);
    events.iter().for_each(|event| assert_eq!(event.text(), event.id()));
}

pub(crate) fn retries(agent: &Agent) -> u64 {
    agent.metrics().count("kserve_logger_delivery_retries_total")
}

/// What a sink does to the first connections, before it does well.
pub(crate) fn bad_at_first(times: usize, bad: impl Fn(&mut Peer) + Send + Sync + 'static) -> Sink {
    let begun = AtomicUsize::new(0);
    Sink::start(move |mut peer: Peer| {
        if begun.fetch_add(1, Ordering::SeqCst) < times {
            return bad(&mut peer);
        }
        while peer.request().is_some() && peer.wire.try_send(TAKEN).is_ok() {}
    })
}

/// Delivers some events to a sink that is bad to its first connection; returns the agent for a look.
#[track_caller]
pub(crate) fn assert_all_arrive(sink: &Sink, flags: &[&str]) -> Agent {
    let server = Server::good();
    let agent = logging(&server, sink, &[flags, &[REQUESTS_ONLY, ONE_COURIER]].concat());
    ask(&agent, 20);
    until("all are sent", || Books::of(&agent).sent == 20);
    assert_eq!(Books::settled(&agent), Books::all_sent(20));
    assert_eq!(times(&sink.events()).len(), 20);
    agent
}
