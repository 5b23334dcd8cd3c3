//! What waits: requests, and the lanes that those of one key wait in.
//!
//! Not here: when they leave ([`super::queue`]).

use std::collections::VecDeque;
use std::time::Instant;

use super::batch::Ticket;
use super::key::Key;
use super::pace::Pace;

/// A request that waits.
#[derive(Debug)]
pub(super) struct Entry<R> {
    pub(super) request: R,
    pub(super) ticket: Ticket,
    pub(super) instances: usize,
    pub(super) arrived: Instant,
    pub(super) lane: usize,
    /// Parts of it that have left.
    pub(super) parts_left: usize,
    /// Since when it waits for its turn: its arrival, or when its last part left, so that others have theirs between.
    pub(super) turn: Instant,
}

/// The requests of one key.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) key: Key,
    /// Stands for the key where a mistake would do no harm.
    pub(super) hash: u64,
    /// By number, so in order of arrival.
    pub(super) requests: VecDeque<u64>,
    pub(super) instances: usize,
    pub(super) due: Option<(Instant, u64)>,
    /// What `adaptive` has learnt of its arrivals.
    pub(super) pace: Option<Box<Pace>>,
}
