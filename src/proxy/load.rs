//! How the workers are loaded: what each lets the others see, and who gets a new connection.
//!
//! A worker writes its [`Load`] once per wake-up; nobody waits for anybody to read it, so the one that accepts sees a moment
//! ago. What it decides on that is only where to ask first.
//!
//! Not here: who closes what.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// All workers' loads.
#[derive(Debug)]
pub(crate) struct Loads {
    workers: Box<[Load]>,
    max_connections: usize,
}

/// What one worker lets others see, alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Load {
    /// Client connections, those on their way to the worker included.
    connections: AtomicUsize,
    /// When the connection that has been idle longest became so, in ms since the agent's start; `u64::MAX`: none is.
    oldest_idle: AtomicU64,
    /// When the last request came, in ms since the agent's start.
    last_request: AtomicU64,
}

/// How a new connection comes to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is room.
    Free,
    /// There are as many connections as are allowed: an idle one has to go, or else a silent one. So many workers had none:
    /// they are asked for an idle one first, then for a silent one.
    OfIdle { asked: usize },
}

impl Loads {
    pub(crate) fn new(workers: usize, max_connections: usize) -> Self {
        Self { workers: (0..workers).map(|_| Load::new()).collect(), max_connections }
    }

    /// Chooses the worker that gets the `turn`-th connection, which counts from now on.
    pub(crate) fn assign(&self, turn: usize) -> (usize, Place) {
        let workers = (0..self.workers.len()).map(|step| (turn + step) % self.workers.len());
        let is_full = self.connections() >= self.max_connections;
        let place = if is_full { Place::OfIdle { asked: 0 } } else { Place::Free };
        let rank = |worker: &usize| match (is_full, &self.workers[*worker]) {
            (true, load) => load.oldest_idle.load(Ordering::Relaxed),
            (false, load) => load.connections.load(Ordering::Relaxed) as u64,
        };
        let worker = workers.min_by_key(rank).unwrap_or_default();
        self.workers[worker].gets_one();
        (worker, place)
    }

    /// Client connections of all workers.
    pub(crate) fn connections(&self) -> usize {
        self.workers.iter().map(|load| load.connections.load(Ordering::Relaxed)).sum()
    }

    /// Client connections at most.
    pub(crate) fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Whether there are more connections than are allowed.
    pub(crate) fn is_over(&self) -> bool {
        self.connections() > self.max_connections
    }

    /// One worker's.
    pub(crate) fn of(&self, worker: usize) -> &Load {
        &self.workers[worker]
    }

    /// When the last request came to any worker, in ms since the agent's start.
    pub(crate) fn last_request(&self) -> u64 {
        self.workers.iter().map(|load| load.last_request.load(Ordering::Relaxed)).max().unwrap_or_default()
    }
}

impl Load {
    fn new() -> Self {
        Self {
            connections: AtomicUsize::new(0),
            oldest_idle: AtomicU64::new(u64::MAX),
            last_request: AtomicU64::new(0),
        }
    }

    /// A connection is gone.
    pub(crate) fn has_lost_one(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection is on its way to the worker.
    pub(crate) fn gets_one(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Since when the connection that has been idle longest is so.
    pub(crate) fn set_oldest_idle(&self, at: u64) {
        self.oldest_idle.store(at, Ordering::Relaxed);
    }

    /// A request has come.
    pub(crate) fn set_last_request(&self, at: u64) {
        self.last_request.store(at, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_fewest() {
        let loads = Loads::new(3, 100);
        let first: Vec<usize> = (0..6).map(|turn| loads.assign(turn).0).collect();
        assert_eq!(first, [0, 1, 2, 0, 1, 2]);
        loads.of(1).has_lost_one();
        assert_eq!(loads.assign(0), (1, Place::Free));
    }

    #[test]
    fn at_the_cap_the_worker_with_the_longest_idle_is_asked_first() {
        let loads = Loads::new(2, 2);
        let _ = (loads.assign(0), loads.assign(1));
        loads.of(0).set_oldest_idle(20);
        loads.of(1).set_oldest_idle(10);
        assert!(!loads.is_over());
        assert_eq!(loads.assign(0), (1, Place::OfIdle { asked: 0 }));
        assert!(loads.is_over());
    }
}
