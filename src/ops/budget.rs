//! Bytes that a part may hold, counted by several threads without a lock.
//!
//! Not here: what happens to one who finds no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes are held, and how many may be.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    most: usize,
}

/// Bytes that are held, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// So many bytes may be held.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), most })
    }

    /// Bytes that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Begins to hold; nothing yet.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Holds so many bytes more; `false`: there is no room for them.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.budget.most;
        if fits {
            self.bytes += bytes;
        } else {
            self.budget.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Holds so many bytes more, whether there is room for them or not: they are there already.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    /// Bytes that this one holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins to hold more of the same budget; nothing yet.
    pub(crate) fn beside(&self) -> Self {
        self.budget.hold()
    }

    /// Gives back what is more than so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        self.budget.bytes.fetch_sub(more, Ordering::Relaxed);
        self.bytes -= more;
    }

    /// Holds nothing any more.
    pub(crate) fn give_back(&mut self) {
        self.budget.bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_bytes() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.hold(), budget.hold());
        assert!(one.grow(99) && other.grow(1) && !other.grow(1));
        one.give_back();
        assert_eq!((one.bytes(), budget.bytes()), (0, 1));
        assert!(other.grow(99) && !one.grow(1));
        drop(other);
        assert_eq!(budget.bytes(), 0);
        assert!(one.grow(10));
        one.shrink_to(11);
        one.shrink_to(4);
        assert_eq!((one.bytes(), budget.bytes()), (4, 4));
        one.give_back();
        one.take(101);
        assert!(budget.bytes() == 101 && !budget.hold().grow(1));
        drop(one);
        assert_eq!(budget.bytes(), 0);
    }
}
