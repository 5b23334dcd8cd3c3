//! Who waits for what, and which batch leaves when (SPEC B4–B6): pure, the time comes in.
//!
//! ```text
//!   push ─▶ lane of its key ─ due ─▶ take (while fewer than the allowed number run) ─▶ batch ─▶ returned
//!              └─ remove: its client left          └─ expired: waited too long (eager, adaptive)
//! ```
//!
//! A [lane](Lane) holds the requests of one key in order of arrival. A policy is nothing but the time at which a lane is
//! due: when it is full, at once; else `window` after the oldest request's latency, `eager` at once, `adaptive` when
//! waiting no longer pays ([`super::pace`]). Lanes are kept in the order of their due times, requests in the order of
//! their arrival, so every step is logarithmic in what waits.
//!
//! Architecture Invariant: no clock, thread, channel or log; the requests are opaque.
//!
//! Not here: bodies ([`super::v1`], [`super::v2`]), and the thread that owns the queue ([`super`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use slab::Slab;

use super::key::Key;
use super::pace::Pace;
use crate::config::{BATCH_LANES_KEPT, BatchPolicy};

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

/// Names a request: the worker it came from, its connection's slot there, and the connection's serial. A connection has
/// one request waiting at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The worker's number.
    pub worker: usize,
    /// The connection's slot.
    pub key: usize,
    /// The connection's serial.
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

/// Why a batch leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// It has as many instances as it may have, or no room for the next request.
    Full,
    /// Its oldest request has waited long enough.
    Latency,
    /// There is a place for it, and waiting does not pay.
    Eager,
    /// The agent is about to stop.
    Drain,
}

/// What the queue remembers of a batch that runs.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    lane: usize,
    serial: u64,
    instances: usize,
    left: Instant,
}

/// The waiting requests, and the number of running batches.
#[derive(Debug)]
pub struct Queue<R> {
    rules: Rules,
    waiting: BTreeMap<u64, Entry<R>>,
    numbers: HashMap<Ticket, u64>,
    lanes: Slab<Lane>,
    by_key: HashMap<Key, usize>,
    /// The lanes that have requests. INVARIANT: each once, at its `due`.
    due: BTreeSet<(Instant, usize)>,
    /// Lanes without requests whose pace is kept, the longest empty first.
    kept: VecDeque<usize>,
    arrivals: u64,
    serial: u64,
    running: usize,
    last_return: Option<Instant>,
    is_draining: bool,
}

#[derive(Debug)]
struct Entry<R> {
    request: R,
    ticket: Ticket,
    instances: usize,
    arrived: Instant,
    lane: usize,
    /// Parts of it that have left.
    parts_left: usize,
}

/// The requests of one key.
#[derive(Debug)]
struct Lane {
    key: Key,
    serial: u64,
    /// By number, so in order of arrival.
    requests: VecDeque<u64>,
    instances: usize,
    due: Option<Instant>,
    /// What `adaptive` has learnt.
    pace: Option<Box<Pace>>,
}

impl<R: Clone> Queue<R> {
    /// An empty queue.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            waiting: BTreeMap::new(),
            numbers: HashMap::new(),
            lanes: Slab::new(),
            by_key: HashMap::new(),
            due: BTreeSet::new(),
            kept: VecDeque::new(),
            arrivals: 0,
            serial: 0,
            running: 0,
            last_return: None,
            is_draining: false,
        }
    }

    /// Takes a request in. `now` never goes back from one call to the next.
    pub fn push(&mut self, request: R, ticket: Ticket, key: &Key, instances: usize, now: Instant) {
        let lane = self.lane_of(key);
        self.arrivals += 1;
        let number = self.arrivals;
        self.waiting.insert(number, Entry { request, ticket, instances, arrived: now, lane, parts_left: 0 });
        self.numbers.insert(ticket, number);
        let of_key = &mut self.lanes[lane];
        of_key.requests.push_back(number);
        of_key.instances += instances;
        if let Some(pace) = &mut of_key.pace {
            pace.arrived(instances, now);
        }
        self.schedule(lane);
    }

    /// Takes out a request whose client has left; `None`: it is not waiting.
    pub fn remove(&mut self, ticket: Ticket) -> Option<R> {
        let number = *self.numbers.get(&ticket)?;
        Some(self.take_out(number)?.request)
    }

    /// A batch that may leave now.
    pub fn take(&mut self, now: Instant) -> Option<Batch<R>> {
        let &(due, lane) = self.due.first()?;
        if self.running >= self.rules.concurrency || (due > now && !self.is_draining) {
            return None;
        }
        let trigger = self.trigger(lane);
        let batch = self.batch_of(lane, trigger, now)?;
        self.running += 1;
        self.schedule(lane);
        Some(batch)
    }

    /// A batch has come back, be it with an error.
    pub fn returned(&mut self, receipt: Receipt, now: Instant) {
        self.running = self.running.saturating_sub(1);
        // What the server needed for it: while it is busy with another, ours has not begun.
        let began = self.last_return.map_or(receipt.left, |last| last.max(receipt.left));
        self.last_return = Some(now);
        let lane = self.lanes.get_mut(receipt.lane).filter(|lane| lane.serial == receipt.serial);
        if let Some(pace) = lane.and_then(|lane| lane.pace.as_mut()) {
            pace.served(receipt.instances, now.saturating_duration_since(began));
        }
    }

    /// Takes out a request that has waited longer than it may, where the policy has such a limit.
    pub fn expired(&mut self, now: Instant) -> Option<R> {
        let (number, expiry) = self.first_expiry()?;
        if expiry > now {
            return None;
        }
        Some(self.take_out(number)?.request)
    }

    /// When there may be something to take or to expire without another call.
    pub fn next_due(&self) -> Option<Instant> {
        let has_place = self.running < self.rules.concurrency;
        let due = self.due.first().filter(|_| has_place).map(|(due, _)| *due);
        due.into_iter().chain(self.first_expiry().map(|first| first.1)).min()
    }

    /// From now on everything leaves at once.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Batches that have left and not returned.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn first_expiry(&self) -> Option<(u64, Instant)> {
        if self.rules.policy == BatchPolicy::Window {
            return None;
        }
        // One that has left in part has not waited too long.
        let (number, entry) = self.waiting.iter().find(|(_, entry)| entry.parts_left == 0)?;
        Some((*number, entry.arrived + self.rules.max_latency))
    }

    fn lane_of(&mut self, key: &Key) -> usize {
        if let Some(lane) = self.by_key.get(key) {
            return *lane;
        }
        self.serial += 1;
        let lane = self.lanes.insert(Lane {
            key: key.clone(),
            serial: self.serial,
            requests: VecDeque::new(),
            instances: 0,
            due: None,
            pace: (self.rules.policy == BatchPolicy::Adaptive).then(Box::default),
        });
        self.by_key.insert(key.clone(), lane);
        lane
    }

    /// Makes the lane's place in the order of due times fit what it holds.
    fn schedule(&mut self, number: usize) {
        let lane = &self.lanes[number];
        let oldest = lane.requests.front().and_then(|first| self.waiting.get(first)).map(|entry| entry.arrived);
        let due = oldest.map(|oldest| self.rules.due(lane, oldest));
        let before = std::mem::replace(&mut self.lanes[number].due, due);
        if before != due {
            before.map(|before| self.due.remove(&(before, number)));
            due.map(|due| self.due.insert((due, number)));
        }
        match (before, due) {
            (None, Some(_)) => self.kept.retain(|kept| *kept != number),
            (Some(_), None) => self.retire(number),
            _ => {}
        }
    }

    /// A lane has become empty: what it has learnt is kept for a while, if anything is learnt.
    fn retire(&mut self, number: usize) {
        self.kept.push_back(number);
        let limit = if self.rules.policy == BatchPolicy::Adaptive { BATCH_LANES_KEPT } else { 0 };
        if self.kept.len() > limit
            && let Some(oldest) = self.kept.pop_front()
        {
            let lane = self.lanes.remove(oldest);
            self.by_key.remove(&lane.key);
        }
    }

    fn trigger(&self, lane: usize) -> Trigger {
        match self.rules.policy {
            _ if self.lanes[lane].instances >= self.rules.cap => Trigger::Full,
            _ if self.is_draining => Trigger::Drain,
            BatchPolicy::Window => Trigger::Latency,
            BatchPolicy::Eager | BatchPolicy::Adaptive => Trigger::Eager,
        }
    }

    /// The requests at the front of the lane that fit in one batch, or the next part of the first.
    fn batch_of(&mut self, lane: usize, trigger: Trigger, now: Instant) -> Option<Batch<R>> {
        let first = *self.lanes[lane].requests.front()?;
        if self.waiting.get(&first)?.instances > self.rules.cap {
            return self.part_of(first, lane, trigger, now);
        }
        let (mut members, mut instances) = (Vec::new(), 0);
        while let Some(next) = self.lanes[lane].requests.front().copied()
            && instances + self.waiting.get(&next)?.instances <= self.rules.cap
        {
            let entry = self.pop(next, lane)?;
            instances += entry.instances;
            members.push(entry.request);
        }
        Some(Batch { members, instances, trigger, part: None, receipt: self.receipt(lane, instances, now) })
    }

    fn part_of(&mut self, number: u64, lane: usize, trigger: Trigger, now: Instant) -> Option<Batch<R>> {
        let cap = self.rules.cap;
        let entry = self.waiting.get_mut(&number)?;
        let (part, of, all) = (entry.parts_left, entry.instances.div_ceil(cap), entry.instances);
        entry.parts_left += 1;
        let member = if part + 1 == of { self.pop(number, lane)?.request } else { entry.request.clone() };
        let part = Part { number: part, of, size: cap };
        let instances = part.instances(all);
        let receipt = self.receipt(lane, instances, now);
        Some(Batch { members: vec![member], instances, trigger, part: Some(part), receipt })
    }

    fn receipt(&self, lane: usize, instances: usize, left: Instant) -> Receipt {
        Receipt { lane, serial: self.lanes[lane].serial, instances, left }
    }

    /// Takes the first request of a lane out.
    fn pop(&mut self, number: u64, lane: usize) -> Option<Entry<R>> {
        let entry = self.waiting.remove(&number)?;
        self.numbers.remove(&entry.ticket);
        self.lanes[lane].requests.pop_front();
        self.lanes[lane].instances -= entry.instances;
        Some(entry)
    }

    fn take_out(&mut self, number: u64) -> Option<Entry<R>> {
        let entry = self.waiting.remove(&number)?;
        self.numbers.remove(&entry.ticket);
        let lane = &mut self.lanes[entry.lane];
        if let Ok(place) = lane.requests.binary_search(&number) {
            lane.requests.remove(place);
        }
        lane.instances -= entry.instances;
        self.schedule(entry.lane);
        Some(entry)
    }
}

impl Part {
    /// Instances of this part of a request that has so many.
    pub fn instances(self, all: usize) -> usize {
        self.size.min(all.saturating_sub(self.number * self.size))
    }
}

impl Rules {
    /// When a lane may leave whose oldest request came then.
    fn due(&self, lane: &Lane, oldest: Instant) -> Instant {
        // "Full" also when the next request does not fit: no request is split for another's sake (SPEC B5).
        if lane.instances >= self.cap {
            return oldest;
        }
        match self.policy {
            BatchPolicy::Window => oldest + self.max_latency,
            BatchPolicy::Eager => oldest,
            BatchPolicy::Adaptive => {
                let hold = lane.pace.as_ref().and_then(|pace| pace.hold_until(lane.requests.len()));
                hold.map_or(oldest, |until| until.min(oldest + self.max_latency))
            }
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
