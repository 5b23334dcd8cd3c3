//! A delivery thread: events to the sink, and those that the sink could not take yet again later (SPEC L5, L6).
//!
//! ```text
//!   queue ─▶ flight ─▶ delivered, rejected
//!              ▲  └─ later ─▶ heap of retries, by when they are due ─┐
//!              └────────────────────────────────────────────────────┘
//! ```
//!
//! A retry does not hold up the events behind it. When the sink can't be reached at all there is nothing to hold up: then
//! the thread takes nothing from the queue until an event that found out gets through, so a dead sink costs one attempt
//! per thread and wait, not one per event.
//!
//! When the agent ends the retries are due at once, and what is left at the deadline is given up and counted.
//!
//! Not here: what an answer means and how long to wait ([`super::retry`]), requests and connections ([`super::flight`],
//! [`super::line`]).

use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use crossbeam_channel::{Receiver, never, select};
use log::Level;

use super::event::{Event, header_safe};
use super::flight::{Cut, Pilot};
use super::line::Answer;
use super::metrics::{CourierMetrics, Failed};
use super::retry::{Attempts, Verdict};
use super::room::Room;
use super::sink::{Sink, notice};
use crate::config::{LOG_FLIGHT_BYTES, LOG_RETRY_FIRST};
use crate::ops::random;

/// A delivery thread that is ready to run.
pub(crate) struct Courier {
    /// What each wake-up of a worker brought; bounded by the room that events have.
    events: Receiver<Vec<Event>>,
    /// Those that were taken from there and were not sent yet.
    taken: IntoIter<Event>,
    ending: Ending,
    sink: Arc<Sink>,
    pilot: Pilot,
    retries: BinaryHeap<Retry>,
    /// The last flight did not reach the sink.
    is_down: bool,
    room: Arc<Room>,
    metrics: Arc<CourierMetrics>,
}

/// How couriers learn that the agent ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// Closed when that begins.
    pub(super) begins: Receiver<Infallible>,
    /// When it must be over; set before it begins.
    pub(super) ends_at: Arc<OnceLock<Instant>>,
}

/// An event on its way.
struct Parcel {
    event: Event,
    /// `None`: it was not tried yet.
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
        events: Receiver<Vec<Event>>,
        ending: Ending,
        sink: Arc<Sink>,
        room: Arc<Room>,
        metrics: Arc<CourierMetrics>,
    ) -> Self {
        let pilot = Pilot::new(Arc::clone(&sink));
        Self {
            events,
            taken: Vec::new().into_iter(),
            ending,
            sink,
            pilot,
            retries: BinaryHeap::new(),
            is_down: false,
            room,
            metrics,
        }
    }

    /// Delivers until the workers are gone and nothing is left.
    pub(crate) fn run(mut self) {
        let mut flight = Vec::new();
        loop {
            match self.next() {
                Step::Send(first) => {
                    self.load(&mut flight, first);
                    self.deliver(&mut flight);
                }
                Step::Look => {}
                Step::End => return self.give_up(),
            }
        }
    }

    fn next(&mut self) -> Step {
        if self.ending.ends_at.get().is_some_and(|end| *end <= Instant::now()) {
            return Step::End;
        }
        match self.take() {
            Some(parcel) => Step::Send(parcel),
            None => self.wait(),
        }
    }

    /// An event that can be sent now.
    fn take(&mut self) -> Option<Parcel> {
        // The clock is asked only where there is something to be late for.
        if let Some(retry) = self.retries.peek()
            && retry.due <= Instant::now()
        {
            return self.retries.pop().map(|retry| retry.parcel);
        }
        if self.waits_for_sink() {
            return None;
        }
        if self.taken.len() == 0 {
            self.taken = self.events.try_recv().ok()?.into_iter();
        }
        self.taken.next().map(Parcel::new)
    }

    /// The events in the queue would fail as well.
    fn waits_for_sink(&self) -> bool {
        self.is_down && !self.retries.is_empty()
    }

    /// Waits for an event, a retry that is due, or the beginning of the end.
    fn wait(&mut self) -> Step {
        let silent = never();
        let events = if self.waits_for_sink() { &silent } else { &self.events };
        let due = self.retries.peek().map(|retry| retry.due);
        let until = due.into_iter().chain(self.ending.ends_at.get().copied()).min();
        let timeout = until.map_or_else(never, crossbeam_channel::at);
        select! {
            recv(events) -> events => match events {
                Ok(events) => {
                    self.taken = events.into_iter();
                    Step::Look
                }
                // The workers are gone, and the queue is empty.
                Err(_) if self.retries.is_empty() => Step::End,
                Err(_) => {
                    self.events = never();
                    Step::Look
                }
            },
            recv(self.ending.begins) -> _ => {
                self.hurry();
                Step::Look
            },
            recv(timeout) -> _ => Step::Look,
        }
    }

    /// The agent ends: what waits for its time is due now.
    fn hurry(&mut self) {
        self.ending.begins = never();
        let now = Instant::now();
        let retries = std::mem::take(&mut self.retries).into_iter();
        self.retries = retries.map(|retry| Retry { due: now, ..retry }).collect();
    }

    /// Adds what may fly with the first event.
    fn load(&mut self, flight: &mut Vec<Parcel>, first: Parcel) {
        let mut bytes = first.event.payload.len();
        flight.push(first);
        while flight.len() < self.pilot.window() && bytes <= LOG_FLIGHT_BYTES {
            let Some(parcel) = self.take() else { return };
            bytes += parcel.event.payload.len();
            flight.push(parcel);
        }
    }

    fn deliver(&mut self, flight: &mut Vec<Parcel>) {
        let began = Instant::now();
        flight.iter_mut().for_each(|parcel| _ = parcel.attempts.get_or_insert(Attempts::begin(began)));
        let left = self.ending.ends_at.get().map(|end| end.saturating_duration_since(began));
        let limit = left.unwrap_or(self.sink.limit).min(self.sink.limit);
        let mut answers: Vec<Answer> = Vec::with_capacity(flight.len());
        let (pilot, metrics) = (&mut self.pilot, &self.metrics);
        let events = flight.iter().map(|parcel| &parcel.event);
        // A panic in there must not cost more than the flight's time.
        let flown = catch_unwind(AssertUnwindSafe(|| {
            pilot.fly(events, limit, |answer, now| {
                metrics.duration.observe_duration(now.saturating_duration_since(began));
                answers.push(answer);
            })
        }));
        let cut = match flown {
            Ok(Ok(())) => None,
            Ok(Err(cut)) => Some(cut),
            Err(_) => Some(Cut::Sink(std::io::Error::other("a bug of the agent"))),
        };
        let now = Instant::now();
        let mut parcels = flight.drain(..);
        for (answer, parcel) in answers.iter().zip(parcels.by_ref()) {
            self.land(*answer, parcel, now);
        }
        self.is_down = matches!(cut, Some(Cut::Sink(_)));
        match cut {
            None => {}
            Some(Cut::Line) => parcels.for_each(|parcel| self.again(now, parcel)),
            Some(Cut::Sink(why)) => {
                self.metrics.duration.observe_duration(now.saturating_duration_since(began));
                let why = why.to_string();
                let why = header_safe(&why);
                self.note(notice::UNREACHED, now, format_args!("{why:.200}; events wait and are sent again"));
                parcels.for_each(|parcel| self.later(parcel, now, None));
            }
        }
    }

    /// The sink has answered an event.
    fn land(&mut self, Answer { status, verdict, .. }: Answer, parcel: Parcel, now: Instant) {
        match verdict {
            Verdict::Delivered => {
                self.metrics.sent.count(parcel.event.of);
                self.done(parcel.event);
            }
            Verdict::Rejected => {
                self.note(notice::REJECTED, now, format_args!("status {status}; the event is given up"));
                self.fail(parcel.event, Failed::Rejected);
            }
            Verdict::Later { after } => {
                self.note(notice::REFUSED, now, format_args!("status {status}; the event is sent again"));
                self.later(parcel, now, after);
            }
        }
    }

    fn later(&mut self, mut parcel: Parcel, now: Instant, after: Option<Duration>) {
        let due = parcel.attempts.as_mut().and_then(|attempts| attempts.next(now, after, random::share()));
        match due {
            // In the end there is no time for long waits.
            _ if self.ending.ends_at.get().is_some() => self.again(now + LOG_RETRY_FIRST, parcel),
            Some(due) => self.again(due, parcel),
            None => self.fail(parcel.event, Failed::Expired),
        }
    }

    fn again(&mut self, due: Instant, parcel: Parcel) {
        self.metrics.retries.count();
        self.retries.push(Retry { due, parcel });
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

    fn note(&self, kind: usize, now: Instant, what: std::fmt::Arguments<'_>) {
        self.sink.notices.write(kind, Level::Warn, now, format_args!("log sink {}: {what}", self.sink.name));
    }

    /// What is left has no time any more.
    fn give_up(mut self) {
        let retries = std::mem::take(&mut self.retries).into_iter().map(|retry| retry.parcel.event);
        let queued = std::mem::take(&mut self.taken).chain(self.events.try_iter().flatten());
        let left: Vec<Event> = retries.chain(queued).collect();
        for event in left {
            // What is on disk waits for the next start.
            if !event.stay() {
                self.fail(event, Failed::Shutdown);
            }
        }
    }
}

impl Parcel {
    fn new(event: Event) -> Self {
        Self { event, attempts: None }
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
