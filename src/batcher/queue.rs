//! Who waits for what, and which batch leaves when (SPEC B4–B6): pure, the time comes in.
//!
//! ```text
//!   push ─▶ lane of its key ─ due ─▶ take (while fewer than the allowed number run) ─▶ batch ─▶ returned
//!              └─ remove: its client left          └─ expired: waited too long (eager, adaptive)
//! ```
//!
//! A lane holds the requests of one key in order of arrival. A policy is nothing but the time at which a lane is
//! due: when it is full, at once; else `window` after the oldest request's latency, `eager` at once, `adaptive` when
//! waiting no longer pays ([`super::pace`]). Lanes are kept in the order of their due times, requests in the order of
//! their arrival, so every step is logarithmic in what waits.
//!
//! Architecture Invariant: no clock, thread, channel or log; the requests are opaque.
//!
//! Not here: bodies ([`super::v1`], [`super::v2`]), and the thread that owns the queue ([`super`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use slab::Slab;

use super::again::Again;
use super::batch::{Batch, Outcome, Part, Receipt, Rules, Ticket, Trigger};
use super::key::Key;
use super::lane::{Entry, Lane};
use super::pace::{LastReturn, Server};
use crate::config::{BATCH_KEY_KEPT_BYTES, BATCH_LANES_KEPT, BatchPolicy};

/// The waiting requests, and the number of running batches.
#[derive(Debug)]
pub struct Queue<R> {
    pub(super) rules: Rules,
    pub(super) waiting: BTreeMap<u64, Entry<R>>,
    numbers: HashMap<Ticket, u64>,
    pub(super) lanes: Slab<Lane>,
    by_key: HashMap<Key, usize>,
    /// The lanes that have requests, by when they are due and then by their oldest. INVARIANT: each once, at its `due`.
    pub(super) due: BTreeSet<(Instant, u64, usize)>,
    /// Lanes without requests whose pace is kept, the longest empty first.
    kept: VecDeque<usize>,
    arrivals: u64,
    pub(super) batches: u64,
    /// The longest-running first.
    pub(super) running: VecDeque<Receipt>,
    pub(super) last_return: Option<LastReturn>,
    /// Of the last few batches, the mean time.
    pub(super) call_time: Duration,
    /// What `adaptive` has learnt of the server.
    pub(super) server: Server,
    /// Lanes that `adaptive` lets wait for a return.
    pub(super) held: Vec<usize>,
    /// What is asked again, and which keys are not merged.
    pub(super) again: Again<R>,
    pub(super) is_draining: bool,
    /// What waits leaves at once, to make room. Over when nothing waits.
    is_pressed: bool,
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
            batches: 0,
            running: VecDeque::new(),
            last_return: None,
            call_time: Duration::ZERO,
            server: Server::default(),
            held: Vec::new(),
            again: Again::default(),
            is_draining: false,
            is_pressed: false,
        }
    }

    /// Takes a request in. `now` never goes back from one call to the next.
    pub fn push(&mut self, request: R, ticket: Ticket, key: &Key, instances: usize, now: Instant) {
        let lane = self.lane_of(key);
        self.again.forgive(self.lanes[lane].hash, now);
        self.arrivals += 1;
        let number = self.arrivals;
        self.waiting.insert(number, Entry { request, ticket, instances, arrived: now, lane, parts_left: 0, turn: now });
        self.numbers.insert(ticket, number);
        let own_return = self.own_return(self.lanes[lane].hash);
        let of_key = &mut self.lanes[lane];
        of_key.requests.push_back(number);
        of_key.instances += instances;
        if let Some(pace) = &mut of_key.pace {
            pace.arrived(instances, now, own_return);
        }
        // One more that waits may tip the scales.
        self.held.retain(|held| *held != lane);
        self.schedule(lane);
    }

    /// Takes out a request whose client has left; `None`: it is not waiting.
    pub fn remove(&mut self, ticket: Ticket) -> Option<R> {
        let number = *self.numbers.get(&ticket)?;
        Some(self.take_out(number)?.request)
    }

    /// A batch that may leave now.
    pub fn take(&mut self, now: Instant) -> Option<Batch<R>> {
        if self.running.len() < self.rules.concurrency
            && let Some(batch) = self.again.next(self.batches, now)
        {
            self.running.push_back(batch.receipt);
            self.batches += 1;
            return Some(batch);
        }
        let lane = self.next_lane(now)?;
        let trigger = self.trigger(lane);
        let batch = self.batch_of(lane, trigger, now)?;
        self.is_pressed &= !self.waiting.is_empty();
        self.running.push_back(batch.receipt);
        self.batches += 1;
        self.schedule(lane);
        Some(batch)
    }

    /// The lane that is due first, if anything may leave.
    fn next_lane(&mut self, now: Instant) -> Option<usize> {
        loop {
            let &(due, _, lane) = self.due.first()?;
            if self.running.len() >= self.rules.concurrency || (due > now && !self.leaves_at_once()) {
                return None;
            }
            if self.waits_for_return(lane, now) {
                self.held.push(lane);
            }
            // What has happened since it was scheduled may have made it worth waiting.
            self.schedule(lane);
            if self.leaves_at_once() || self.lanes[lane].due.is_some_and(|due| due.0 <= now) {
                return Some(lane);
            }
        }
    }

    /// A batch has come back; only from one that the server has answered well is something learnt. `true`: that was one too
    /// many whose answer could not be divided, and the requests of its key go one by one from now on.
    pub fn returned(&mut self, receipt: Receipt, now: Instant, outcome: Outcome<R>) -> bool {
        self.running.retain(|running| running.number != receipt.number);
        if matches!(outcome, Outcome::Answered { is_success: true, .. }) && receipt.trial.is_none() {
            self.learn(receipt, now);
        }
        let has_given_up = self.again.returned(receipt, outcome, now);
        if has_given_up {
            // Those of its requests that wait for others wait no longer.
            let lanes = self.lanes.iter().filter(|(_, lane)| lane.hash == receipt.lane).map(|(number, _)| number);
            self.held.extend(lanes.collect::<Vec<_>>());
        }
        self.reschedule(receipt, now);
        has_given_up
    }

    /// A batch could not be sent: it is the next to leave.
    pub fn put_back(&mut self, batch: Batch<R>) {
        self.running.retain(|running| running.number != batch.receipt.number);
        self.again.put_back(batch);
    }

    fn reschedule(&mut self, receipt: Receipt, now: Instant) {
        self.last_return = Some(LastReturn { at: now, requests: receipt.requests, lane: receipt.lane });
        if self.running.is_empty() {
            self.stop_gathering(now);
        }
        for lane in std::mem::take(&mut self.held) {
            if self.lanes.contains(lane) {
                self.schedule(lane);
            }
        }
    }

    fn learn(&mut self, receipt: Receipt, now: Instant) {
        let time = now.saturating_duration_since(receipt.left);
        self.call_time = (self.call_time * 3 + time) / 4;
        if receipt.is_beside {
            let common =
                self.last_return.map_or(Duration::ZERO, |last| last.at.saturating_duration_since(receipt.left));
            self.server.served_beside(receipt.instances, time, common);
        } else {
            self.server.served_alone(receipt.instances, time);
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
        let has_place = self.running.len() < self.rules.concurrency;
        debug_assert!(!has_place || self.again.is_empty(), "what is asked again leaves as soon as there is a place");
        let due = self.due.first().filter(|_| has_place).map(|first| first.0);
        due.into_iter().chain(self.first_expiry().map(|first| first.1)).min()
    }

    /// From now on no more than so many batches run at once.
    pub fn limit_running(&mut self, most: usize) {
        self.rules.concurrency = most;
    }

    /// From now on everything leaves at once.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// What waits now leaves as soon as there is a place, as others find no room for what it holds.
    pub fn press(&mut self) {
        self.is_pressed = !self.waiting.is_empty();
    }

    /// Whether no request waits for others to come.
    pub(super) fn leaves_at_once(&self) -> bool {
        self.is_draining || self.is_pressed
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits, be it to be asked again.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.again.is_empty()
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
        let lane = self.lanes.insert(Lane {
            key: key.clone(),
            hash: self.by_key.hasher().hash_one(key),
            requests: VecDeque::new(),
            instances: 0,
            due: None,
            pace: (self.rules.policy == BatchPolicy::Adaptive).then(Box::default),
        });
        self.by_key.insert(key.clone(), lane);
        lane
    }

    /// Makes the lane's place in the order of due times fit what it holds.
    pub(super) fn schedule(&mut self, number: usize) {
        let due = self.first_of(number).map(|(_, first, turn)| (self.due_of(number, turn), first));
        let before = std::mem::replace(&mut self.lanes[number].due, due);
        if before != due {
            before.map(|(due, first)| self.due.remove(&(due, first, number)));
            due.map(|(due, first)| self.due.insert((due, first, number)));
        }
        match (before, due) {
            (None, Some(_)) => self.kept.retain(|kept| *kept != number),
            (Some(_), None) => self.retire(number),
            _ => {}
        }
    }

    /// A lane has become empty: what it has learnt is kept for a while, if anything is learnt.
    fn retire(&mut self, number: usize) {
        let is_kept =
            self.rules.policy == BatchPolicy::Adaptive && self.lanes[number].key.len() <= BATCH_KEY_KEPT_BYTES;
        if is_kept {
            self.kept.push_back(number);
        } else {
            self.forget(number);
        }
        if self.kept.len() > BATCH_LANES_KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, number: usize) {
        let lane = self.lanes.remove(number);
        self.by_key.remove(&lane.key);
    }

    /// Whose turn it is in a lane: its place, number, and since when it waits. One that leaves in parts lets those that have
    /// waited meanwhile go between them.
    fn first_of(&self, lane: usize) -> Option<(usize, u64, Instant)> {
        let mut first = None;
        for (place, number) in self.lanes[lane].requests.iter().enumerate() {
            let entry = self.waiting.get(number)?;
            if first.is_none_or(|(_, _, turn)| entry.turn < turn) {
                first = Some((place, *number, entry.turn));
            }
            if entry.parts_left == 0 {
                break;
            }
        }
        first
    }

    fn trigger(&self, lane: usize) -> Trigger {
        match self.rules.policy {
            _ if self.again.goes_singly(self.lanes[lane].hash) => Trigger::Eager,
            _ if self.lanes[lane].instances >= self.rules.cap => Trigger::Full,
            _ if self.is_draining => Trigger::Drain,
            _ if self.is_pressed => Trigger::Eager,
            BatchPolicy::Window => Trigger::Latency,
            BatchPolicy::Eager | BatchPolicy::Adaptive => Trigger::Eager,
        }
    }

    /// The requests of the lane whose turn it is and that fit in one batch, or the next part of the first.
    fn batch_of(&mut self, lane: usize, trigger: Trigger, now: Instant) -> Option<Batch<R>> {
        let (place, first, _) = self.first_of(lane)?;
        if self.waiting.get(&first)?.instances > self.rules.cap {
            return self.part_of(first, lane, trigger, now);
        }
        let (mut members, mut instances) = (Vec::new(), 0);
        let most = if self.again.goes_singly(self.lanes[lane].hash) { 1 } else { usize::MAX };
        while members.len() < most
            && let Some(next) = self.lanes[lane].requests.get(place).copied()
            && instances + self.waiting.get(&next)?.instances <= self.rules.cap
        {
            let entry = self.pop(next)?;
            instances += entry.instances;
            members.push(entry.request);
        }
        let requests = members.len();
        Some(Batch { members, instances, trigger, part: None, receipt: self.receipt(lane, requests, instances, now) })
    }

    fn part_of(&mut self, number: u64, lane: usize, trigger: Trigger, now: Instant) -> Option<Batch<R>> {
        let cap = self.rules.cap;
        let entry = self.waiting.get_mut(&number)?;
        let (part, of, all) = (entry.parts_left, entry.instances.div_ceil(cap), entry.instances);
        entry.parts_left += 1;
        entry.turn = now;
        let member = if part + 1 == of { self.pop(number)?.request } else { entry.request.clone() };
        let part = Part { number: part, of, size: cap };
        let instances = part.instances(all);
        let receipt = self.receipt(lane, 1, instances, now);
        Some(Batch { members: vec![member], instances, trigger, part: Some(part), receipt })
    }

    fn receipt(&self, lane: usize, requests: usize, instances: usize, left: Instant) -> Receipt {
        Receipt {
            number: self.batches,
            lane: self.lanes[lane].hash,
            requests,
            instances,
            left,
            is_beside: !self.running.is_empty(),
            trial: None,
        }
    }

    /// Takes a request out of what waits.
    fn pop(&mut self, number: u64) -> Option<Entry<R>> {
        let entry = self.waiting.remove(&number)?;
        self.numbers.remove(&entry.ticket);
        let lane = &mut self.lanes[entry.lane];
        if let Ok(place) = lane.requests.binary_search(&number) {
            lane.requests.remove(place);
        }
        lane.instances -= entry.instances;
        Some(entry)
    }

    fn take_out(&mut self, number: u64) -> Option<Entry<R>> {
        let entry = self.pop(number)?;
        self.schedule(entry.lane);
        Some(entry)
    }

    /// The last return, if it was of this lane.
    pub(super) fn own_return(&self, lane: u64) -> Option<LastReturn> {
        self.last_return.filter(|last_return| last_return.lane == lane)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
