//! What every test of the running program needs: the agent as a child process, a model server that does as it is
//! told, a raw client, and waits that end.
//!
//! Not here: anything of the agent's own code. What it sends is read by a parser of its own, so that a mistake in the
//! codec can't hide itself.

pub(crate) mod agent;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod server;
pub(crate) mod sink;
pub(crate) mod tls;
pub(crate) mod wire;

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub(crate) use agent::Agent;
pub(crate) use metrics::Metrics;
pub(crate) use server::{Peer, Server};
pub(crate) use sink::{Books, Sink};
pub(crate) use wire::{Message, Wire};

/// How long anything that should happen soon may take before a test gives up on it. Far longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An answer that fits any request.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// Waits until a condition holds.
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, holds), "not within {PATIENCE:?}: {what}");
}

/// Whether a condition comes to hold in time.
pub(crate) fn holds_within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Held by a test that keeps every processor busy, or that measures a time a busy one would spoil.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed while it held it has not left anything half done.
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Connections that this process can hold, with as many again on the server's side; the soft limit is raised first.
pub(crate) fn possible_connections(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If it can't be raised, the number below says how many there are.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(limit / 4).unwrap_or(usize::MAX))
}
