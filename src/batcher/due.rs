//! When a lane is due, by policy (SPEC B6): pure, the time comes in.
//!
//! Not here: who waits, and the order of lanes ([`super::queue`]); what `adaptive` learns ([`super::pace`]).

use std::time::Instant;

use super::pace::Waiting;
use super::queue::Queue;
use crate::config::{BATCH_GATHER_MAX, BatchPolicy};

impl<R: Clone> Queue<R> {
    /// When a lane may leave whose oldest request came then.
    pub(super) fn due_of(&self, number: usize, oldest: Instant) -> Instant {
        let lane = &self.lanes[number];
        // "Full" also when the next request does not fit: no request is split for another's sake (SPEC B5).
        if lane.instances >= self.rules.cap || self.again.goes_singly(lane.hash) {
            return oldest;
        }
        let latest = oldest + self.rules.max_latency;
        match (self.rules.policy, &lane.pace) {
            (BatchPolicy::Window, _) => latest,
            _ if self.held.contains(&number) => latest,
            (BatchPolicy::Adaptive, Some(pace)) => {
                let is_last_place = self.running.len() + 1 >= self.rules.concurrency;
                let waiting = Waiting { requests: lane.requests.len(), room: self.rules.cap - lane.instances };
                let hold = pace.hold_until(waiting, &self.server, is_last_place, self.own_return(lane.hash));
                hold.map_or(oldest, |until| until.min(latest))
            }
            (BatchPolicy::Eager, _) => {
                self.gathers_until(lane.hash).map_or(oldest, |until| until.clamp(oldest, latest))
            }
            (BatchPolicy::Adaptive, _) => oldest,
        }
    }

    /// Whether a lane that is due gains by waiting for a running batch ([`super::pace`]).
    pub(super) fn waits_for_return(&self, number: usize, now: Instant) -> bool {
        let lane = &self.lanes[number];
        let own = self.running.iter().find(|running| running.lane == lane.hash);
        let (Some(pace), Some(running)) = (&lane.pace, own) else { return false };
        let oldest = lane.requests.front().and_then(|first| self.waiting.get(first));
        let is_late = oldest.is_none_or(|oldest| now >= oldest.arrived + self.rules.max_latency);
        if self.leaves_at_once() || is_late || lane.instances >= self.rules.cap {
            return false;
        }
        let so_far = (running.instances, now.saturating_duration_since(running.left));
        // What is not done is not learnt of: now and then the opposite is tried.
        pace.waits_for_return(lane.requests.len(), so_far, &self.server) != self.batches.is_multiple_of(TRIED_EVERY)
    }

    /// Until when `eager` lets those come back that a return has just answered, while the server has another batch to work
    /// on: a quarter of a call's time, at most [`BATCH_GATHER_MAX`]. Without it a closed loop of clients falls into three
    /// parts, of which one always waits: 8 clients of the KServe SDK's server got 2.7 instances a call.
    fn gathers_until(&self, lane: u64) -> Option<Instant> {
        let last_return = self.own_return(lane).filter(|_| !self.running.is_empty())?;
        Some(last_return.at + (self.call_time / 4).min(BATCH_GATHER_MAX))
    }

    /// The server has nothing to do any more.
    pub(super) fn stop_gathering(&mut self, now: Instant) {
        if self.rules.policy == BatchPolicy::Eager {
            let gathering: Vec<usize> = self.due.range((now, 0, 0)..).map(|due| due.2).collect();
            gathering.into_iter().for_each(|lane| self.schedule(lane));
        }
    }
}

/// Of so many batches one leaves the other way than what was learnt says.
const TRIED_EVERY: u64 = 32;
