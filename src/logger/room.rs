//! The room that events have, and who waits for it (SPEC L4).
//!
//! With `--log-when-full=block` a request waits before its body is read while events have more than half of the room: the
//! other half is for those that were let in before. Who waits is woken by the thread that makes room, and only then.
//!
//! Not here: how a request waits (the proxy's).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::WhenFull;
use crate::ops::budget::{Budget, Held};

/// How much events hold, and what happens when that is too much.
pub(crate) struct Room {
    budget: Arc<Budget>,
    when_full: WhenFull,
    /// A worker has requests that wait.
    is_awaited: AtomicBool,
    /// Tells all workers that there is room.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Room {
    pub(super) fn new(most: usize, when_full: WhenFull, wake: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self { budget: Budget::new(most), when_full, is_awaited: AtomicBool::new(false), wake })
    }

    pub(super) fn hold(&self) -> Held {
        self.budget.hold()
    }

    /// Bytes that events hold.
    pub(super) fn bytes(&self) -> usize {
        self.budget.bytes()
    }

    /// Bytes that they may hold.
    pub(super) fn most(&self) -> usize {
        self.budget.most()
    }

    pub(super) fn makes_wait(&self) -> bool {
        self.when_full == WhenFull::Block && self.is_half_full()
    }

    fn is_half_full(&self) -> bool {
        self.bytes() > self.most() / 2
    }

    /// Says that somebody waits; `false`: there is room, so nobody must.
    pub(super) fn wait(&self) -> bool {
        self.is_awaited.store(true, Ordering::SeqCst);
        // Room that was made before the mark was seen wakes nobody.
        self.is_half_full()
    }

    /// An event has given its room back.
    pub(super) fn was_made(&self) {
        if self.is_awaited.load(Ordering::SeqCst)
            && !self.is_half_full()
            && self.is_awaited.swap(false, Ordering::SeqCst)
        {
            (self.wake)();
        }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("budget", &self.budget).field("when_full", &self.when_full).finish_non_exhaustive()
    }
}
