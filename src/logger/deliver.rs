//! A delivery thread: one event at a time to the sink, and those that the sink could not take yet again later (SPEC L5,
//! L6).
//!
//! ```text
//!   queue ─▶ attempt ─▶ delivered, rejected
//!              ▲  └─ later ─▶ heap of retries, by when they are due ─┐
//!              └────────────────────────────────────────────────────┘
//! ```
//!
//! A retry does not hold up the events behind it. When the sink can't be reached at all there is nothing to hold up: then
//! the thread takes nothing from the queue until the event that found out gets through, so a dead sink costs one attempt
//! per thread and wait, not one per event.
//!
//! When the agent ends the retries are due at once, and what is left at the deadline is given up and counted.
//!
//! Not here: what an answer means and how long to wait ([`super::retry`]), HTTP ([`super::sink`]).

use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};

use super::event::Event;
use super::metrics::{CourierMetrics, Failed};
use super::retry::{Attempts, Verdict};
use super::room::Room;
use super::sink::{Sink, Tried};
use crate::config::LOG_RETRY_FIRST;
use crate::ops::random;

/// A delivery thread that is ready to run.
pub(crate) struct Courier {
    /// Bounded by the room that events have.
    events: Receiver<Event>,
    /// Closed when the agent begins to end.
    ending: Receiver<Infallible>,
    ends_at: Arc<OnceLock<Instant>>,
    sink: Sink,
    retries: BinaryHeap<Retry>,
    /// The last attempt did not reach the sink.
    is_down: bool,
    room: Arc<Room>,
    metrics: Arc<CourierMetrics>,
}

/// What couriers share with the main thread.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(super) ending: Receiver<Infallible>,
    pub(super) ends_at: Arc<OnceLock<Instant>>,
}

/// An event on its way.
struct Parcel {
    event: Event,
    attempts: Option<Attempts>,
}

/// An event that is sent again.
struct Retry {
    due: Instant,
    parcel: Parcel,
}

/// What a courier does next.
enum Step {
    Send(Parcel),
    /// Something has changed: look again.
    Look,
    /// Nothing is left, or the time is over.
    End,
}

impl Courier {
    pub(super) fn new(
        events: Receiver<Event>,
        Ending { ending, ends_at }: Ending,
        sink: Sink,
        room: Arc<Room>,
        metrics: Arc<CourierMetrics>,
    ) -> Self {
        Self { events, ending, ends_at, sink, retries: BinaryHeap::new(), is_down: false, room, metrics }
    }

    /// Delivers until the workers are gone and nothing is left.
    pub(crate) fn run(mut self) {
        loop {
            match self.next() {
                Step::Send(parcel) => self.deliver(parcel),
                Step::Look => {}
                Step::End => break,
            }
        }
        self.give_up();
    }

    fn next(&mut self) -> Step {
        // The clock is asked only where there is something to be late for.
        if let Some(due) = self.next_due() {
            let now = Instant::now();
            if self.ends_at.get().is_some_and(|end| *end <= now) {
                return Step::End;
            }
            if due <= now {
                return self.retries.pop().map_or(Step::Look, |retry| Step::Send(retry.parcel));
            }
        }
        if !self.waits_for_sink()
            && let Ok(event) = self.events.try_recv()
        {
            return if self.is_over() { self.abandon(event) } else { Step::Send(Parcel { event, attempts: None }) };
        }
        self.wait()
    }

    /// An event was taken, but there is no time left for it.
    fn abandon(&mut self, event: Event) -> Step {
        self.fail(event, Failed::Shutdown);
        Step::End
    }

    fn is_over(&self) -> bool {
        self.ends_at.get().is_some_and(|end| *end <= Instant::now())
    }

    fn next_due(&self) -> Option<Instant> {
        self.retries.peek().map(|retry| retry.due)
    }

    /// The events in the queue would fail as well.
    fn waits_for_sink(&self) -> bool {
        self.is_down && !self.retries.is_empty()
    }

    /// Waits for an event, a retry that is due, or the beginning of the end.
    fn wait(&mut self) -> Step {
        let silent = never();
        let events = if self.waits_for_sink() { &silent } else { &self.events };
        let due = self.next_due();
        let end = self.ends_at.get().copied();
        let until = due.into_iter().chain(end).min();
        let patience = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = patience.map_or_else(never, crossbeam_channel::after);
        select! {
            recv(events) -> event => match event {
                Ok(event) => Step::Send(Parcel { event, attempts: None }),
                // The workers are gone, and the queue is empty.
                Err(_) if self.retries.is_empty() => Step::End,
                Err(_) => {
                    self.events = never();
                    Step::Look
                }
            },
            recv(self.ending) -> _ => {
                self.hurry();
                Step::Look
            },
            recv(timeout) -> _ => Step::Look,
        }
    }

    /// The agent ends: what waits for its time is due now.
    fn hurry(&mut self) {
        self.ending = never();
        let now = Instant::now();
        let retries = std::mem::take(&mut self.retries).into_iter();
        self.retries = retries.map(|retry| Retry { due: now, ..retry }).collect();
    }

    fn deliver(&mut self, Parcel { event, attempts }: Parcel) {
        let began = Instant::now();
        let mut attempts = attempts.unwrap_or_else(|| Attempts::begin(began));
        let limit = self.ends_at.get().map(|end| end.saturating_duration_since(began).max(Duration::from_millis(1)));
        // A panic in there must not cost more than the event.
        let tried = catch_unwind(AssertUnwindSafe(|| self.sink.post(&event, limit)));
        let Tried { verdict, is_reached } = tried.unwrap_or(Tried { verdict: Verdict::Rejected, is_reached: true });
        let now = Instant::now();
        self.metrics.duration.observe_duration(now.saturating_duration_since(began));
        self.is_down = !is_reached;
        match verdict {
            Verdict::Delivered => {
                self.metrics.sent.count(event.of);
                self.done(event);
            }
            Verdict::Rejected => self.fail(event, Failed::Rejected),
            Verdict::Later { after } => match self.next_attempt(&mut attempts, now, after) {
                Some(due) => {
                    self.metrics.retries.count();
                    self.retries.push(Retry { due, parcel: Parcel { event, attempts: Some(attempts) } });
                }
                None => self.fail(event, Failed::Expired),
            },
        }
    }

    fn next_attempt(&self, attempts: &mut Attempts, now: Instant, after: Option<Duration>) -> Option<Instant> {
        let due = attempts.next(now, after, random::share());
        // In the end there is no time for long waits.
        if self.ends_at.get().is_some() { Some(now + LOG_RETRY_FIRST) } else { due }
    }

    fn fail(&mut self, event: Event, why: Failed) {
        self.metrics.fails(event.of, why);
        self.done(event);
    }

    /// The event's room is free.
    fn done(&mut self, event: Event) {
        drop(event);
        self.room.was_made();
    }

    /// What is left has no time any more.
    fn give_up(mut self) {
        for Retry { parcel, .. } in std::mem::take(&mut self.retries) {
            self.fail(parcel.event, Failed::Shutdown);
        }
        while let Ok(event) = self.events.try_recv() {
            self.fail(event, Failed::Shutdown);
        }
    }
}

// The one that is due first is on top.
impl Ord for Retry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Retry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Retry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Retry {}
