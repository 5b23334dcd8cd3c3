//! Nobody gets what is another's: many clients, every failure a server has, and a nonce in every instance.
//!
//! `CROSSTALK_REQUESTS` gives another number of requests, for a long run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::batcher_json::{items, member};
use crate::batcher_support::{answer, echo, instances_body, instances_of, json, post, predictions};
use crate::support::{Agent, Message, Peer, Server, Wire, alone};

const CLIENTS: usize = 64;
const REQUESTS: usize = 20_000;
const KEYS: u64 = 3;
const CAP: usize = 16;
/// Requests that are answered in a second at the very least, on a machine that does other things as well.
const SLOWEST: usize = 100;

/// xorshift64*, Vigna 2016: the same numbers in every run.
struct Random(u64);

impl Random {
    fn of(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// What the server saw.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    batches: AtomicUsize,
    faults: AtomicUsize,
}

/// Answers right, or in one of the wrong ways.
fn serve(mut peer: Peer, seen: &Seen) {
    let mut random = Random::of(peer.number);
    // Not through the recorder: a long run would fill the memory.
    while let Some(request) = peer.wire.request() {
        check(&request, seen);
        let sent = match random.below(100) {
            0..5 => peer.wire.try_send(answer("500 Oops", "Content-Type: text/plain\r\n", "oops")),
            5..8 => peer.wire.try_send(answer("503 Busy", "Content-Type: text/plain\r\n", "busy")),
            8..10 => peer.wire.try_send(longer(&request)),
            10..12 => peer.wire.try_send(json("{\"predictions\":[]}")),
            12..14 => {
                // A stall is a part of the load here, not a wait for something.
                thread::sleep(Duration::from_millis(20));
                peer.wire.try_send(echo(&request))
            }
            14..16 => return peer.wire.close(),
            16 => {
                let reply = echo(&request);
                let _ = peer.wire.try_send(&reply[..reply.len() - 3]);
                return peer.wire.close();
            }
            _ => peer.wire.try_send(echo(&request)),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// One prediction too many.
fn longer(request: &Message) -> Vec<u8> {
    let mut all = instances_of(request);
    all.push(all[0].clone());
    json(&format!("{{\"predictions\":[{}]}}", all.join(",")))
}

/// The instances of a call are of one key, and no more than the cap.
fn check(request: &Message, seen: &Seen) {
    let instances = instances_of(request);
    let key = request.target().replace("/v1/models/", "\"").replace(":predict", "-");
    let lane = request.field("cookie").unwrap_or_default();
    let is_own = |instance: &String| instance.starts_with(&key) && instance.contains(&format!("-{lane}-"));
    if instances.is_empty() || instances.len() > CAP || !instances.iter().all(is_own) {
        eprintln!("a wrong call: {request:?} {}", request.text());
        seen.faults.fetch_add(1, Ordering::SeqCst);
    }
    seen.calls.fetch_add(1, Ordering::SeqCst);
    seen.batches.fetch_add(usize::from(instances.len() > 5), Ordering::SeqCst);
}

/// Asks so many times; returns how many of the answers were good.
fn ask(port: u16, client: usize, count: usize, end: Instant) -> usize {
    let mut random = Random::of(1000 + client);
    let mut wire = Wire::connect(port);
    let mut good = 0;
    for round in 0..count {
        assert!(Instant::now() < end, "client {client} is at {round} of {count} at the end of its time");
        let (model, lane) = (random.below(KEYS), random.below(2));
        let instances: Vec<String> =
            (0..=random.below(5)).map(|number| format!("\"{model}-{lane}-c{client}-r{round}-{number}\"")).collect();
        let instances: Vec<&str> = instances.iter().map(String::as_str).collect();
        let fields = format!("Cookie: {lane}\r\nX-Request-Id: {client}-{round}\r\n");
        wire.send(post(&format!("/v1/models/{model}:predict"), &fields, &instances_body(&instances)));
        let got = wire.response();
        match got.status() {
            // What the server says wrong to one alone is passed on, and is of that one alone.
            200 if member(&got.text(), "batchId").is_none() => {
                let text = got.text();
                let values = items(member(&text, "predictions").unwrap());
                assert!(values.iter().all(|value| instances.contains(value)), "client {client} round {round} {text}");
            }
            200 => {
                assert_eq!(predictions(&got), instances, "client {client} round {round}");
                good += 1;
            }
            500 => assert_eq!(got.text(), "oops"),
            503 => assert!(got.text() == "busy" || got.field("retry-after").is_some(), "{got:?}"),
            502 => assert!(!got.text().contains("-c"), "somebody's predictions: {}", got.text()),
            _ => panic!("{got:?} {}", got.text()),
        }
    }
    good
}

fn cross_talk(policy: &str) {
    let requests = std::env::var("CROSSTALK_REQUESTS").map_or(REQUESTS, |count| count.parse().unwrap());
    let seen = Arc::new(Seen::default());
    let of_server = Arc::clone(&seen);
    let server = Server::start(move |peer| serve(peer, &of_server));
    let flags = ["--enable-batcher", "--max-batchsize=16", policy, "--threads=2"];
    let latency = if policy.ends_with("window") { "--max-latency=3" } else { "--max-latency=5000" };
    let agent = Agent::setup(server.port).flags(&flags).flags(&[latency]).start();
    let (port, each) = (agent.port, requests.div_ceil(CLIENTS));
    let end = Instant::now() + Duration::from_secs(30 + (requests / SLOWEST) as u64);
    let clients: Vec<_> = (0..CLIENTS).map(|client| thread::spawn(move || ask(port, client, each, end))).collect();
    let results: Vec<_> = clients.into_iter().map(thread::JoinHandle::join).collect();
    let failed = results.iter().filter(|result| result.is_err()).count();
    assert_eq!(failed, 0, "clients failed; see above");
    let good: usize = results.into_iter().flatten().sum();
    let asked = each * CLIENTS;
    let [calls, batches, faults] = [&seen.calls, &seen.batches, &seen.faults].map(|n| n.load(Ordering::SeqCst));
    eprintln!("{policy}: {good} of {asked} answered well by {calls} calls, {batches} of them surely batches");
    assert_eq!(faults, 0);
    // A failing batch fails its members, so more than the server's share of failures fail.
    assert!(good * 2 > asked, "{good} of {asked}");
    assert!(batches > 0, "nothing was batched, so nothing was tested");
}

#[test]
fn no_answer_has_anything_of_another_request() {
    let _alone = alone();
    cross_talk("--batch-policy=window");
}

#[test]
fn no_answer_of_an_eager_batcher_has_anything_of_another_request() {
    let _alone = alone();
    cross_talk("--batch-policy=eager");
}

#[test]
fn no_answer_of_an_adaptive_batcher_has_anything_of_another_request() {
    let _alone = alone();
    cross_talk("--batch-policy=adaptive");
}
