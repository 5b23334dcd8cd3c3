//! Events on disk that are not in memory, oldest first: what an earlier run has left, and what came when memory was full.
//!
//! Not here: the room that they need ([`super`]).

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::Entry;
use super::reader::{Found, next};
use super::segment::{EntryRef, Segment};
use crate::logger::retry::Attempts;

/// Segments with such events, and how far the first of them was read.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    segments: VecDeque<Arc<Segment>>,
    at: u64,
}

/// An event that was read.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) entry: Box<Entry>,
    pub(super) place: EntryRef,
    /// It was accepted by an earlier run.
    pub(super) is_old: bool,
    /// It was tried before.
    pub(super) attempts: Option<Attempts>,
}

/// A place where no event can be read.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) segment: Arc<Segment>,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) is_torn: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Event(Waiting),
    Damage(Damage),
    /// The rest of a segment can't be read now, and stays for the next start.
    Error(String),
    Nothing,
}

impl Backlog {
    /// What an earlier run has left.
    pub(super) fn new(left: Vec<Arc<Segment>>) -> Self {
        Self { segments: left.into(), at: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether an earlier run's events are among them.
    pub(super) fn has_old(&self) -> bool {
        self.segments.front().is_some_and(|segment| segment.is_old)
    }

    /// Takes an event that was written there and is not kept in memory; all that come after it must be added as well.
    pub(super) fn add(&mut self, segment: &Arc<Segment>, at: u64) {
        match self.segments.back() {
            Some(last) if Arc::ptr_eq(last, segment) => {}
            Some(_) => self.segments.push_back(Arc::clone(segment)),
            None => {
                self.segments.push_back(Arc::clone(segment));
                self.at = at;
            }
        }
    }

    /// Reads the next.
    pub(super) fn next(&mut self) -> Next {
        loop {
            let Some(segment) = self.segments.front().map(Arc::clone) else { return Next::Nothing };
            let from = self.at;
            let (found, behind) = match next(&segment, from) {
                Ok(found) => found,
                Err(error) => {
                    self.leave();
                    return Next::Error(format!("{}: {error}", segment.name()));
                }
            };
            self.at = behind;
            let is_torn = matches!(found, Found::Torn);
            match found {
                Found::Event(entry) => {
                    if segment.is_old {
                        segment.found();
                    }
                    let is_old = segment.is_old;
                    let place = EntryRef { segment, at: from };
                    return Next::Event(Waiting { entry, place, is_old, attempts: None });
                }
                Found::Damaged | Found::Torn => {
                    return Next::Damage(Damage { segment, from, to: behind, is_torn });
                }
                Found::Done => {}
                Found::End => {
                    self.leave();
                    if segment.is_old {
                        // All that is in it is known now.
                        segment.release();
                    }
                }
            }
        }
    }

    fn leave(&mut self) {
        self.segments.pop_front();
        self.at = 0;
    }
}
