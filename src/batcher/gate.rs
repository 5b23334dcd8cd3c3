//! How much may wait: requests and bytes, counted by workers and batcher without a lock (SPEC B10).
//!
//! Not here: what a request that finds no room is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::BATCH_BODY_BYTES;

/// Counts what is held for the batcher.
#[derive(Debug)]
pub(super) struct Gate {
    requests: AtomicUsize,
    max_requests: usize,
    bytes: AtomicUsize,
}

/// Bytes that are held, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    gate: Arc<Gate>,
    bytes: usize,
}

impl Gate {
    pub(super) fn new(max_requests: usize) -> Arc<Self> {
        Arc::new(Self { requests: AtomicUsize::new(0), max_requests, bytes: AtomicUsize::new(0) })
    }

    /// Counts a request that is to wait; `false`: as many wait as may.
    pub(super) fn enter(&self) -> bool {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        if before >= self.max_requests {
            self.leave(1);
        }
        before < self.max_requests
    }

    /// Requests that wait.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests that may wait.
    pub(super) fn max_requests(&self) -> usize {
        self.max_requests
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// So many requests wait no longer.
    pub(super) fn leave(&self, requests: usize) {
        self.requests.fetch_sub(requests, Ordering::Relaxed);
    }
}

impl Held {
    pub(super) fn new(gate: &Arc<Gate>) -> Self {
        Self { gate: Arc::clone(gate), bytes: 0 }
    }

    /// Holds so many bytes more; `false`: there is no room for them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let before = self.gate.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= BATCH_BODY_BYTES;
        if fits {
            self.bytes += bytes;
        } else {
            self.gate.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gate.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_requests_and_bytes() {
        let gate = Gate::new(2);
        assert_eq!([gate.enter(), gate.enter(), gate.enter()], [true, true, false]);
        gate.leave(1);
        assert!(gate.enter());
        let (mut one, mut other) = (Held::new(&gate), Held::new(&gate));
        assert!(one.grow(BATCH_BODY_BYTES - 1) && other.grow(1) && !other.grow(1));
        drop(one);
        assert!(other.grow(BATCH_BODY_BYTES - 1));
        drop(other);
        assert_eq!(gate.bytes.load(Ordering::Relaxed), 0);
    }
}
