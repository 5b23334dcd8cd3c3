//! What the batcher counts (SPEC O1).
//!
//! The batcher thread writes its own counters, each forwarder its own; they are added up when somebody asks.

use std::sync::Arc;
use std::time::Instant;

use super::batch::{Batch, Trigger};
use super::gate::Gate;
use super::request::Request;
use crate::ops::budget::Budget;
use crate::ops::metrics::family::{Family, Reading, Source};
use crate::ops::metrics::{Counter, DURATION, Histogram, Label, Labelled, SIZE};
use crate::ops::notice::KINDS;

/// The kind of the line that says that requests of a key are sent one by one. Behind those of the workers.
pub(crate) const GOES_SINGLY: usize = KINDS - 2;
/// The kind of the line that says that there is no thread for a batch.
pub(crate) const NO_THREAD: usize = KINDS - 1;

/// The whole batcher's counters.
#[derive(Debug)]
pub(crate) struct BatcherMetrics {
    triggers: Labelled<Trigger>,
    size: Histogram,
    wait: Histogram,
    left: Counter,
    put_back: Counter,
    singly: Counter,
    calls: Box<[Arc<CallMetrics>]>,
    gate: Arc<Gate>,
}

/// One forwarder's counters.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct CallMetrics {
    /// Of a call, to the end of its response.
    pub(super) duration: Histogram,
    /// Batches that are done.
    pub(super) returned: Counter,
    /// Batches whose members were asked again, fewer at a time.
    pub(super) retries: Counter,
}

impl BatcherMetrics {
    /// For so many forwarders.
    pub(super) fn new(forwarders: usize, gate: Arc<Gate>) -> Self {
        let calls = (0..forwarders).map(|_| Arc::default()).collect();
        Self {
            triggers: Labelled::default(),
            size: Histogram::new(&SIZE),
            wait: Histogram::new(&DURATION),
            left: Counter::default(),
            put_back: Counter::default(),
            singly: Counter::default(),
            calls,
            gate,
        }
    }

    /// A batch leaves. For the batcher's thread.
    pub(super) fn leaves(&self, batch: &Batch<Arc<Request>>, now: Instant) {
        self.left.count();
        // What is asked again has been counted when it left together.
        if batch.receipt.trial.is_some() {
            return;
        }
        self.triggers.count(batch.trigger);
        self.size.observe(batch.instances as u64);
        // A request in parts has waited for the first of them.
        if batch.part.is_none_or(|part| part.number == 0) {
            for member in &batch.members {
                self.wait.observe_duration(now.saturating_duration_since(member.came));
            }
        }
    }

    /// A batch that was to leave could not. For the batcher's thread.
    pub(super) fn put_back(&self) {
        self.put_back.count();
    }

    /// The requests of a key go one by one from now on. For the batcher's thread.
    pub(super) fn goes_singly(&self) {
        self.singly.count();
    }

    /// What answers may hold.
    pub(super) fn answers(&self) -> &Arc<Budget> {
        self.gate.answers()
    }

    fn sum(&self, counter: impl Fn(&CallMetrics) -> &Counter) -> u64 {
        self.calls.iter().map(|forwarder| counter(forwarder).read()).sum()
    }

    /// One forwarder's.
    pub(super) fn of_forwarder(&self, number: usize) -> Arc<CallMetrics> {
        Arc::clone(&self.calls[number])
    }
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self { duration: Histogram::new(&DURATION), returned: Counter::default(), retries: Counter::default() }
    }
}

impl Source for BatcherMetrics {
    fn families(&self) -> Vec<Family> {
        // What returned is read first, so that it is not more than what left.
        let returned = self.put_back.read() + self.sum(|forwarder| &forwarder.returned);
        let calls = Reading::all(self.calls.iter().map(|forwarder| forwarder.duration.read()));
        vec![
            Family::counters(
                "kserve_agent_batches_total",
                "Batches by why they left.",
                Trigger::NAME,
                self.triggers.read(),
            ),
            Family::histogram("kserve_agent_batch_size", "Instances in a batch.", self.size.read()),
            Family::histogram(
                "kserve_agent_batch_wait_seconds",
                "A request's wait for its batch to leave.",
                self.wait.read(),
            ),
            Family::histogram(
                "kserve_agent_batch_call_duration_seconds",
                "A call of the model server for a batch, to the end of its response.",
                calls,
            ),
            Family::counter(
                "kserve_agent_batch_retries_total",
                "Batches whose answer could not be divided, so that their members were asked again, fewer at a time.",
                self.sum(|forwarder| &forwarder.retries),
            ),
            Family::counter(
                "kserve_agent_batch_singles_total",
                "Times that the requests of a key were sent one by one for a minute, as their answers could not be divided.",
                self.singly.read(),
            ),
            Family::gauge(
                "kserve_agent_batches_in_flight",
                "Batches that the model server works on.",
                self.left.read().saturating_sub(returned),
            ),
            Family::gauge(
                "kserve_agent_batch_queue_requests",
                "Requests that wait for a batch.",
                self.gate.requests() as u64,
            ),
            Family::gauge(
                "kserve_agent_batch_queue_limit",
                "Requests that may wait for a batch.",
                self.gate.max_requests() as u64,
            ),
            Family::gauge(
                "kserve_agent_batch_held_bytes",
                "Bytes of requests held for the batcher, at most 64 MiB.",
                self.gate.bytes() as u64,
            ),
            Family::gauge(
                "kserve_agent_batch_answers_bytes",
                "Bytes of answers to batched requests that clients have not taken, at most 32 MiB.",
                self.gate.answers().bytes() as u64,
            ),
        ]
    }
}
