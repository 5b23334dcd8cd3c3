//! The queue on disk through `kill -9` at any moment (SPEC L6): nothing that was accepted is lost, and what the sink had for more
//! than a second does not come again.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::spool_support::{Folder, Name, kill, request, spooling};
use crate::support::sink::TAKEN;
use crate::support::{Agent, Books, Server, Sink};

/// Kills in the whole suite; the release of a version asks for 1 000 (`SPOOL_KILLS=1000`).
const KILLS: usize = 60;
/// What may come again.
const REPEATED: Duration = Duration::from_secs(1);
/// Requests between two kills at most.
const REQUESTS: usize = 80;

/// When each event came to the sink.
type Arrivals = Arc<Mutex<Vec<(Name, Instant)>>>;

#[test]
fn kills_at_random_moments_lose_nothing_and_repeat_a_second_at_most() {
    let kills = std::env::var("SPOOL_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let (server, folder, arrivals) = (Server::good(), Folder::new(), Arrivals::default());
    let of_sink = Arc::clone(&arrivals);
    let sink = Sink::with(move |event| {
        of_sink.lock().unwrap().push(((event.id(), event.is_request()), Instant::now()));
        TAKEN.to_vec()
    });
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let (mut next, mut accepted, mut killed) = (0, Vec::new(), Vec::new());
    for _ in 0..kills {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let agent = spooling(&server, &sink.flag(), &folder, &["--threads=1"]);
        let fresh = load(&agent, next, usize::try_from(random % REQUESTS as u64).unwrap());
        accepted.extend(names(next).take(fresh));
        next += REQUESTS;
        kill(agent);
        killed.push(Instant::now());
    }
    let agent = spooling(&server, &sink.flag(), &folder, &["--threads=1"]);
    folder.await_empty(&agent);
    Books::settled(&agent);
    let arrivals = arrivals.lock().unwrap();
    let delivered: HashSet<&Name> = arrivals.iter().map(|(name, _)| name).collect();
    let lost: Vec<&Name> = accepted.iter().filter(|name| !delivered.contains(name)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), accepted.len());
    let repeated = repeated(&arrivals, &killed);
    assert!(repeated.iter().all(|(_, before)| *before <= REPEATED), "{repeated:?}");
    eprintln!("{kills} kills: {} accepted, 0 lost, {} twice", accepted.len(), repeated.len());
}

/// Asks so often with the ids from `first` on. Returns how many events were accepted, as the agent says.
fn load(agent: &Agent, first: usize, requests: usize) -> usize {
    let mut client = agent.connect();
    for number in first..first + requests {
        client.send(request(number, 700));
        assert_eq!(client.response().status(), 200);
    }
    // In this order: what is replayed in between is no fresh event.
    let accepted = Books::of(agent).accepted;
    let replayed = agent.metrics().count("kserve_logger_spool_replayed_total");
    usize::try_from(accepted.saturating_sub(replayed)).unwrap()
}

/// The names of events in the order in which they are accepted: one client asks one thing after the other.
fn names(first: usize) -> impl Iterator<Item = Name> {
    (first..).flat_map(|number| [true, false].map(|of| (number.to_string(), of)))
}

/// Events that came again behind a kill, and how long before it they had come last.
fn repeated(arrivals: &[(Name, Instant)], killed: &[Instant]) -> Vec<(Name, Duration)> {
    let mut seen: BTreeMap<&Name, Instant> = BTreeMap::new();
    let mut repeated = Vec::new();
    for (name, at) in arrivals {
        if let Some(before) = seen.insert(name, *at) {
            // What was on its way at the kill may be read behind it.
            let kill = killed.iter().rfind(|kill| *kill < at).expect("only a kill is a reason");
            repeated.push((name.clone(), kill.saturating_duration_since(before)));
        }
    }
    repeated
}
