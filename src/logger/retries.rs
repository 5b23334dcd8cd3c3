//! Events that are sent again, by when they are due. Pure.
//!
//! Not here: how long an event waits ([`super::retry`]).

use std::collections::BinaryHeap;
use std::time::Instant;

use super::carrier::Cargo;
use super::retry::Attempts;

/// An event, or a batch of them, on its way.
pub(super) struct Parcel<C> {
    pub(super) cargo: C,
    /// `None`: it was not tried yet.
    pub(super) attempts: Option<Attempts>,
}

/// Those that are sent again.
pub(super) struct Retries<C>(BinaryHeap<Retry<C>>);

struct Retry<C> {
    due: Instant,
    parcel: Parcel<C>,
}

impl<C: Cargo> Parcel<C> {
    pub(super) fn new(cargo: C) -> Self {
        Self { attempts: cargo.attempts(), cargo }
    }
}

impl<C> Retries<C> {
    pub(super) fn new() -> Self {
        Self(BinaryHeap::new())
    }

    pub(super) fn push(&mut self, due: Instant, parcel: Parcel<C>) {
        self.0.push(Retry { due, parcel });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns when the first is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.peek().map(|retry| retry.due)
    }

    /// Returns when the time of the first is over.
    pub(super) fn first_over(&self) -> Option<Instant> {
        self.0.peek().and_then(|retry| retry.parcel.attempts.as_ref()?.over_at())
    }

    /// Takes the first if it is due.
    pub(super) fn due(&mut self, now: impl FnOnce() -> Instant) -> Option<Parcel<C>> {
        // The clock is asked only where there is something to be late for.
        self.take_if(|retry| retry.due <= now())
    }

    /// Takes the first if its time is over.
    pub(super) fn expired(&mut self, is_over: impl Fn(&Attempts) -> bool) -> Option<Parcel<C>> {
        self.take_if(|retry| retry.parcel.attempts.as_ref().is_some_and(is_over))
    }

    fn take_if(&mut self, wanted: impl FnOnce(&Retry<C>) -> bool) -> Option<Parcel<C>> {
        if self.0.peek().is_some_and(wanted) { self.0.pop().map(|retry| retry.parcel) } else { None }
    }

    /// All are due now.
    pub(super) fn hurry(&mut self, now: Instant) {
        let retries = std::mem::take(&mut self.0).into_iter();
        self.0 = retries.map(|retry| Retry { due: now, ..retry }).collect();
    }

    /// Takes all of them with when they are due, in no order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Instant, Parcel<C>)> + use<C> {
        std::mem::take(&mut self.0).into_iter().map(|retry| (retry.due, retry.parcel))
    }

    /// Takes all of them, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = C> {
        std::mem::take(&mut self.0).into_iter().map(|retry| retry.parcel.cargo)
    }
}

// The one that is due first is on top.
impl<C> Ord for Retry<C> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

impl<C> PartialOrd for Retry<C> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<C> PartialEq for Retry<C> {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl<C> Eq for Retry<C> {}
