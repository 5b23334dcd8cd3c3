//! How much may wait: requests, counted by workers and batcher without a lock, and their bytes (SPEC B10).
//!
//! Not here: what a request that finds no room is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{BATCH_ANSWERS_BYTES, BATCH_BODY_BYTES};
use crate::ops::budget::{Budget, Held};

/// Counts what is held for the batcher.
#[derive(Debug)]
pub(super) struct Gate {
    requests: AtomicUsize,
    max_requests: usize,
    bytes: Arc<Budget>,
    answers: Arc<Budget>,
}

impl Gate {
    pub(super) fn new(max_requests: usize) -> Arc<Self> {
        let (bytes, answers) = (Budget::new(BATCH_BODY_BYTES), Budget::new(BATCH_ANSWERS_BYTES));
        Arc::new(Self { requests: AtomicUsize::new(0), max_requests, bytes, answers })
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
        self.bytes.bytes()
    }

    /// What answers may hold, until their clients have taken them.
    pub(super) fn answers(&self) -> &Arc<Budget> {
        &self.answers
    }

    /// Begins to hold bytes.
    pub(super) fn hold(&self) -> Held {
        self.bytes.hold()
    }

    /// So many requests wait no longer.
    pub(super) fn leave(&self, requests: usize) {
        self.requests.fetch_sub(requests, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_requests() {
        let gate = Gate::new(2);
        assert_eq!([gate.enter(), gate.enter(), gate.enter()], [true, true, false]);
        gate.leave(1);
        assert!(gate.enter());
        assert_eq!(gate.requests(), 2);
    }
}
