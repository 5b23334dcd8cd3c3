//! Events that have failed and wait on disk for their next attempt, so that they hold no memory: a sink that refuses some
//! events for days must not stop the others.
//!
//! Not here: which events wait here ([`crate::logger::deliver`]).

use std::collections::BinaryHeap;
use std::time::Instant;

use super::backlog::{Damage, Next, Waiting};
use super::reader::{Found, next};
use super::segment::EntryRef;
use crate::config::LOG_PARKED_EVENTS;
use crate::logger::retry::Attempts;

/// An event that waits on disk.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(in crate::logger) due: Instant,
    pub(in crate::logger) attempts: Attempts,
    pub(in crate::logger) entry: EntryRef,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Parking(BinaryHeap<Parked>);

impl Parking {
    /// Takes an event. When there are as many as may be, the first is due now.
    pub(super) fn add(&mut self, parked: Parked) {
        self.0.push(parked);
    }

    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.0.len() > LOG_PARKED_EVENTS { Some(now) } else { self.0.peek().map(|parked| parked.due) }
    }

    /// Reads one whose time has come; [`Next::Nothing`]: there is none.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.next_due(now).is_none_or(|due| due > now) {
            return Next::Nothing;
        }
        let Some(Parked { attempts, entry: EntryRef { segment, at }, .. }) = self.0.pop() else { return Next::Nothing };
        match next(&segment, at) {
            Ok((Found::Event(entry), _)) => {
                let place = EntryRef { segment, at };
                Next::Event(Waiting { entry, place, is_old: false, attempts: Some(attempts) })
            }
            Ok((_, to)) => Next::Damage(Damage { segment, from: at, to, is_torn: false }),
            Err(error) => Next::Error(format!("{}: {error}", segment.name())),
        }
    }
}

// The one that is due first is on top.
impl Ord for Parked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Parked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Parked {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Parked {}
