//! What leaves the queue: batches and parts of requests, and why.
//!
//! Not here: when ([`super::queue`]).

use std::time::{Duration, Instant};

use crate::config::BatchPolicy;
use crate::ops::metrics::label;

/// What the queue was told once.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// When a batch leaves.
    pub policy: BatchPolicy,
    /// Instances in a batch at most.
    pub cap: usize,
    /// Longest wait.
    pub max_latency: Duration,
    /// Batches that run at once at most.
    pub concurrency: usize,
}

/// Names a request: the worker it came from, its connection's slot there, and a serial that the worker gives no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The worker's number.
    pub worker: usize,
    /// The connection's slot.
    pub key: usize,
    /// The request's serial.
    pub serial: u64,
}

/// Requests that leave together.
#[derive(Debug)]
pub struct Batch<R> {
    /// In order of arrival.
    pub members: Vec<R>,
    /// Of all members together; of the part, if it is one.
    pub instances: usize,
    /// Why it leaves now.
    pub trigger: Trigger,
    /// The one member has more instances than a batch may have, and these are the ones that leave now.
    pub part: Option<Part>,
    /// To be given back when the batch returns.
    pub receipt: Receipt,
}

/// A part of a request that is too large for one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Which one.
    pub number: usize,
    /// How many there are.
    pub of: usize,
    /// Instances of every part but the last, which has the rest.
    pub size: usize,
}

label! {
    /// Why a batch leaves.
    pub Trigger as "trigger" {
        /// It has as many instances as it may have, or no room for the next request.
        Full = "full",
        /// Its oldest request has waited long enough.
        Latency = "latency",
        /// There is a place for it, and waiting does not pay.
        Eager = "eager",
        /// The agent is about to stop.
        Drain = "drain",
    }
}

/// What the queue remembers of a batch that runs.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    /// Which batch.
    pub(super) number: u64,
    /// Tells its lane from others, be they in the same slot later.
    pub(super) lane: u64,
    pub(super) requests: usize,
    pub(super) instances: usize,
    pub(super) left: Instant,
    /// Another one ran when it left.
    pub(super) is_beside: bool,
    /// Its members are asked again, as one of these is tried.
    pub(super) trial: Option<usize>,
}

/// What has become of a batch.
#[derive(Debug)]
pub enum Outcome<R> {
    /// Its members are answered; whether the server has done what it was asked.
    Answered {
        /// It has.
        is_success: bool,
        /// The answer has a part for each instance. Only of one that is asked alone for a trial can it be otherwise.
        is_divisible: bool,
    },
    /// What the server has answered can't be divided among the members with certainty (SPEC B0). Each with its instances.
    Undivided {
        /// The members.
        members: Vec<(R, usize)>,
        /// Why it can't.
        why: Undivided,
    },
}

/// Why the answer to several requests can't be divided among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undivided {
    /// It is a refusal, for which one of them may be to blame, or their number: that is found by halving (SPEC B8).
    Refused,
    /// It has no part for each, or it is a refusal that may be of whatever one request and not the other has. They are asked
    /// one by one: the answer to a smaller batch might seem to fit by accident.
    Indivisible,
    /// There is no room for it.
    NoRoom,
}

impl Part {
    /// Instances of this part of a request that has so many.
    pub fn instances(self, all: usize) -> usize {
        self.size.min(all.saturating_sub(self.number * self.size))
    }
}
