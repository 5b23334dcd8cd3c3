//! What a delivery thread needs of the way to a destination: two there are, single events to a sink ([`super::flight`]) and
//! batches to an object store ([`super::depot`]).
//!
//! Not here: what is done about failures ([`super::deliver`]).

use std::fmt;
use std::time::{Duration, Instant};

use super::event::{Receipt, Type};
use super::retry::{Attempts, Verdict};
use super::spool::segment::EntryRef;

/// A way to a destination.
pub(super) trait Carrier {
    /// What goes there at once.
    type Cargo: Cargo;

    /// The destination, without what is secret in its name.
    fn name(&self) -> &str;

    /// Longest time of an attempt.
    fn limit(&self) -> Duration;

    /// How many may fly together.
    fn window(&mut self) -> usize;

    /// Sends them and says what became of each, in order. `limit`: the time that each has.
    ///
    /// # Errors
    /// When not all have an answer.
    fn fly<'c>(
        &mut self,
        cargo: impl ExactSizeIterator<Item = &'c mut Self::Cargo>,
        limit: Duration,
        land: impl FnMut(Landing),
    ) -> Result<(), Cut>
    where
        Self::Cargo: 'c;
}

/// One or more events that have one fate.
pub(super) trait Cargo {
    /// Bytes of payload.
    fn bytes(&self) -> usize;

    /// How many events it has of each type.
    fn counts(&self) -> [(Type, u64); 2];

    /// What came of it before it was read from disk.
    fn attempts(&self) -> Option<Attempts> {
        None
    }

    /// Lets the payload go that has a copy on disk, and says where; or itself, if it has none.
    fn into_entry(self) -> Result<EntryRef, Self>
    where
        Self: Sized,
    {
        Err(self)
    }

    /// What is left of its events.
    fn receipts(self) -> impl Iterator<Item = Receipt>;
}

/// The destination has answered.
#[derive(Debug)]
pub(super) struct Landing {
    pub(super) verdict: Verdict,
    pub(super) said: Said,
    pub(super) at: Instant,
}

/// What it said.
#[derive(Debug)]
pub(super) enum Said {
    Status(u16),
    Text(String),
}

/// Why some have no answer.
#[derive(Debug)]
pub(super) enum Cut {
    /// The connection had been used before, or has brought others' answers: they may go again at once.
    Line,
    /// The destination was reached and did not answer the first as it should: that one may be to blame.
    First { why: String },
    /// The destination can't be reached, or does not answer; `after`: it asked for so much time.
    Destination { why: String, after: Option<Duration> },
}

/// How many there are of each type.
pub(super) fn counts<'r>(receipts: impl IntoIterator<Item = &'r Receipt>) -> [(Type, u64); 2] {
    let (mut requests, mut responses) = (0, 0);
    for receipt in receipts {
        match receipt.of {
            Type::Request => requests += 1,
            Type::Response => responses += 1,
        }
    }
    [(Type::Request, requests), (Type::Response, responses)]
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}
