//! The room that events have, and who waits for it (SPEC L4).
//!
//! With `--log-when-full=block` a request waits before its body is read while events have more than half of the room: the
//! other half is for those that were let in before. Who waits is woken by the thread that makes room, and only then. Room is
//! made whenever something gives its place up, be it an event that is done or a payload that will be none.
//!
//! Not here: how a request waits (the proxy's).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::Sender;

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
    /// The spool has events on disk that wait.
    spool_waits: AtomicBool,
    /// Tells the spool.
    wake_spool: Sender<()>,
}

/// What one payload has of the room, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    held: Held,
    room: Arc<Room>,
}

impl Room {
    /// `wake`: tells all workers that there is room again; `wake_spool`: the same for the spool, for which a message that
    /// was not read yet is enough.
    pub(super) fn new(
        most: usize,
        when_full: WhenFull,
        wake: Box<dyn Fn() + Send + Sync>,
        wake_spool: Sender<()>,
    ) -> Arc<Self> {
        Arc::new(Self {
            budget: Budget::new(most),
            when_full,
            is_awaited: AtomicBool::new(false),
            wake,
            spool_waits: AtomicBool::new(false),
            wake_spool,
        })
    }

    /// A place for one payload; of no size yet.
    pub(super) fn place(self: &Arc<Self>) -> Place {
        Place { held: self.budget.hold(), room: Arc::clone(self) }
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
        self.is_awaited.store(true, Ordering::Relaxed);
        // Here and below, so that one of the two sees what the other has written before: room that was made before the mark
        // was seen wakes nobody.
        fence(Ordering::SeqCst);
        self.is_half_full()
    }

    /// Events from disk have a quarter: what comes from clients must find room whatever the sink does, and a request never
    /// waits for it.
    pub(super) fn is_full_for_spool(&self) -> bool {
        self.bytes() > self.most() / 4
    }

    /// Says that the spool waits; `false`: there is room.
    pub(super) fn spool_waits(&self) -> bool {
        self.spool_waits.store(true, Ordering::Relaxed);
        // As in `wait`.
        fence(Ordering::SeqCst);
        self.is_full_for_spool()
    }

    /// A place was given up.
    fn was_made(&self) {
        fence(Ordering::SeqCst);
        if self.is_awaited.load(Ordering::Relaxed)
            && !self.is_half_full()
            && self.is_awaited.swap(false, Ordering::Relaxed)
        {
            (self.wake)();
        }
        if self.spool_waits.load(Ordering::Relaxed)
            && !self.is_full_for_spool()
            && self.spool_waits.swap(false, Ordering::Relaxed)
        {
            // A message that is there already does.
            let _ = self.wake_spool.try_send(());
        }
    }
}

impl Place {
    /// Takes so many bytes more; `false`: there is no room for them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.held.grow(bytes)
    }

    /// Takes so many bytes more, room or not.
    pub(super) fn take(&mut self, bytes: usize) {
        self.held.take(bytes);
    }

    /// Bytes that it has.
    pub(super) fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Gives back what is more than so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if self.held.bytes() > bytes {
            self.held.shrink_to(bytes);
            self.room.was_made();
        }
    }

    /// Has nothing any more.
    pub(super) fn give_up(&mut self) {
        self.shrink_to(0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("budget", &self.budget).field("when_full", &self.when_full).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// A place of a room of its own.
    pub(in crate::logger) fn place() -> Place {
        Room::new(1, WhenFull::Drop, Box::new(|| {}), crossbeam_channel::bounded(1).0).place()
    }

    #[test]
    fn who_waits_is_woken_once_however_room_is_made() {
        let calls = Arc::new(AtomicUsize::new(0));
        let of_room = Arc::clone(&calls);
        let wake = Box::new(move || _ = of_room.fetch_add(1, Ordering::Relaxed));
        let (wake_spool, woken) = crossbeam_channel::bounded(1);
        let room = Room::new(100, WhenFull::Block, wake, wake_spool);
        let (mut one, mut other) = (room.place(), room.place());
        assert!(one.grow(40) && other.grow(40) && room.makes_wait() && room.wait());
        other.give_up();
        drop(other);
        assert_eq!((calls.load(Ordering::Relaxed), room.wait()), (1, false));
        let other = room.place();
        drop(other);
        assert_eq!(calls.load(Ordering::Relaxed), 1, "nothing was made");
        drop(one);
        assert_eq!((calls.load(Ordering::Relaxed), room.bytes()), (2, 0));
        assert!(woken.is_empty(), "the spool does not wait");
    }

    #[test]
    fn the_spool_has_a_quarter_and_is_told_when_it_has_it_again() {
        let (wake_spool, woken) = crossbeam_channel::bounded(1);
        let room = Room::new(100, WhenFull::Drop, Box::new(|| {}), wake_spool);
        let (mut one, mut other) = (room.place(), room.place());
        assert!(one.grow(25) && !room.is_full_for_spool() && other.grow(1) && room.spool_waits());
        drop(other);
        assert_eq!(woken.try_iter().count(), 1);
        drop(one);
        assert_eq!(woken.try_iter().count(), 0, "nobody waits any more");
    }
}
