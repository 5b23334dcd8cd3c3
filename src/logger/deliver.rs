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
//! per thread and wait, not one per event. One that is reached and fails whatever it is given is tried as seldom
//! ([`super::health`]), with events that have not failed yet: those that have may be what it fails of.
//!
//! When the agent ends the retries are due at once, and what is left at the deadline is given up and counted.
//!
//! Not here: what an answer means and how long to wait ([`super::retry`]), and the way to the destination
//! ([`super::carrier`]).

use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use crossbeam_channel::{Receiver, never, select};
use log::Level;

use super::carrier::{Cargo, Carrier, Cut, Landing};
use super::event::{Receipt, header_safe};
use super::health::{Health, Tried};
use super::metrics::{CourierMetrics, Failed};
use super::retry::{Attempts, Verdict};
use super::sink::notice;
use crate::config::{LOG_FLIGHT_BYTES, LOG_RETRY_FIRST};
use crate::ops::notice::Notices;
use crate::ops::random;

/// A delivery thread that is ready to run.
pub(crate) struct Courier<C: Carrier> {
    /// What each wake-up of a worker brought; bounded by the room that events have.
    queue: Receiver<Vec<C::Cargo>>,
    /// More may come from there.
    is_fed: bool,
    /// What was taken from there and was not sent yet.
    taken: IntoIter<C::Cargo>,
    ending: Ending,
    carrier: C,
    retries: BinaryHeap<Retry<C::Cargo>>,
    /// The last flight did not reach the sink.
    is_down: bool,
    health: Health,
    metrics: Arc<CourierMetrics>,
    notices: Arc<Notices>,
}

/// How couriers learn that the agent ends.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// Closed when that begins.
    pub(super) begins: Receiver<Infallible>,
    /// When it must be over; set before it begins.
    pub(super) ends_at: Arc<OnceLock<Instant>>,
}

/// An event, or a batch of them, on its way.
struct Parcel<C> {
    cargo: C,
    /// `None`: it was not tried yet.
    attempts: Option<Attempts>,
}

/// One that is sent again.
struct Retry<C> {
    due: Instant,
    parcel: Parcel<C>,
}

/// What a courier does next.
enum Step<C> {
    Send(Parcel<C>),
    /// Something has changed: look again.
    Look,
    /// Nothing is left, or the time is over.
    End,
}

impl<C: Carrier> Courier<C> {
    pub(super) fn new(
        queue: Receiver<Vec<C::Cargo>>,
        ending: Ending,
        carrier: C,
        (metrics, notices): (Arc<CourierMetrics>, Arc<Notices>),
    ) -> Self {
        let taken = Vec::new().into_iter();
        Self {
            queue,
            is_fed: true,
            taken,
            ending,
            carrier,
            retries: BinaryHeap::new(),
            is_down: false,
            health: Health::default(),
            metrics,
            notices,
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

    fn next(&mut self) -> Step<C::Cargo> {
        if self.ending.ends_at.get().is_some_and(|end| *end <= Instant::now()) {
            return Step::End;
        }
        if self.health.is_ill() {
            let now = Instant::now();
            self.expire(now);
            if let Some(until) = self.health.rests_until(now) {
                return self.wait(Some(until));
            }
        }
        match self.take() {
            Some(parcel) => Step::Send(parcel),
            None => self.wait(None),
        }
    }

    /// An event that can be sent now.
    fn take(&mut self) -> Option<Parcel<C::Cargo>> {
        if self.health.is_ill() { self.fresh().or_else(|| self.due()) } else { self.due().or_else(|| self.fresh()) }
    }

    /// One that has failed, and whose time has come again.
    fn due(&mut self) -> Option<Parcel<C::Cargo>> {
        // The clock is asked only where there is something to be late for.
        let is_due = self.retries.peek().is_some_and(|retry| retry.due <= Instant::now());
        if is_due { self.retries.pop().map(|retry| retry.parcel) } else { None }
    }

    /// One that was not tried yet.
    fn fresh(&mut self) -> Option<Parcel<C::Cargo>> {
        if self.waits_for_sink() {
            return None;
        }
        if self.taken.len() == 0 {
            self.taken = self.queue.try_recv().ok()?.into_iter();
        }
        self.taken.next().map(Parcel::new)
    }

    /// Gives up what has waited too long while the sink was tried with others.
    fn expire(&mut self, now: Instant) {
        while let Some(retry) = self.retries.peek()
            && retry.parcel.attempts.is_some_and(|attempts| attempts.are_over(now))
            && let Some(Retry { parcel, .. }) = self.retries.pop()
        {
            self.fail(parcel.cargo, Failed::Expired);
        }
    }

    /// The events in the queue would fail as well.
    fn waits_for_sink(&self) -> bool {
        self.is_down && !self.retries.is_empty()
    }

    /// Waits for an event, a retry that is due, or the beginning of the end; if the sink rests, until it does no longer.
    fn wait(&mut self, rests_until: Option<Instant>) -> Step<C::Cargo> {
        if !self.is_fed && self.retries.is_empty() && self.taken.len() == 0 {
            return Step::End;
        }
        let silent = never();
        // What was taken and not sent yet must not be replaced.
        let is_deaf = rests_until.is_some() || self.waits_for_sink() || !self.is_fed || self.taken.len() > 0;
        let queue = if is_deaf { &silent } else { &self.queue };
        let due = rests_until.or_else(|| self.retries.peek().map(|retry| retry.due));
        let until = due.into_iter().chain(self.ending.ends_at.get().copied()).min();
        let timeout = until.map_or_else(never, crossbeam_channel::at);
        select! {
            recv(queue) -> cargo => match cargo {
                Ok(cargo) => {
                    self.taken = cargo.into_iter();
                    Step::Look
                }
                // The workers are gone, and the queue is empty.
                Err(_) => {
                    self.is_fed = false;
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
        self.health.rests_no_longer_than(now);
        self.all_due(now);
    }

    fn all_due(&mut self, now: Instant) {
        let retries = std::mem::take(&mut self.retries).into_iter();
        self.retries = retries.map(|retry| Retry { due: now, ..retry }).collect();
    }

    /// Adds what may fly with the first event.
    fn load(&mut self, flight: &mut Vec<Parcel<C::Cargo>>, first: Parcel<C::Cargo>) {
        let mut bytes = first.cargo.bytes();
        flight.push(first);
        let window = if self.health.is_ill() { 1 } else { self.carrier.window() };
        while flight.len() < window && bytes <= LOG_FLIGHT_BYTES {
            let Some(parcel) = self.take() else { return };
            bytes += parcel.cargo.bytes();
            flight.push(parcel);
        }
    }

    fn deliver(&mut self, flight: &mut Vec<Parcel<C::Cargo>>) {
        let began = Instant::now();
        flight.iter_mut().for_each(|parcel| _ = parcel.attempts.get_or_insert(Attempts::begin(began)));
        let left = self.ending.ends_at.get().map(|end| end.saturating_duration_since(began));
        let limit = left.unwrap_or(Duration::MAX).min(self.carrier.limit());
        let mut landings: Vec<Landing> = Vec::with_capacity(flight.len());
        let (carrier, metrics) = (&mut self.carrier, &self.metrics);
        let counts: Vec<_> = flight.iter().map(|parcel| parcel.cargo.counts()).collect();
        let cargo = flight.iter_mut().map(|parcel| &mut parcel.cargo);
        // A panic in there must not cost more than the flight's time.
        let flown = catch_unwind(AssertUnwindSafe(|| {
            carrier.fly(cargo, limit, |landing| {
                metrics.duration.observe_duration(landing.at.saturating_duration_since(began));
                // At once: the rest of the flight may take longer than the agent has.
                if landing.verdict == Verdict::Delivered {
                    let counts = counts.get(landings.len()).into_iter().flatten();
                    counts.for_each(|(of, count)| metrics.sent.add(*of, *count));
                }
                landings.push(landing);
            })
        }));
        let cut = match flown {
            Ok(Ok(())) => None,
            Ok(Err(cut)) => Some(cut),
            Err(_) => Some(Cut::First { why: "a bug of the agent".to_owned() }),
        };
        let now = Instant::now();
        self.note_health(flight.len(), &landings, cut.as_ref(), now);
        let mut parcels = flight.drain(..);
        for (landing, parcel) in landings.iter().zip(parcels.by_ref()) {
            self.land(landing, parcel, now);
        }
        let was_down = std::mem::replace(&mut self.is_down, matches!(cut, Some(Cut::Destination { .. })));
        if was_down && !self.is_down {
            // What has failed has failed because of that.
            self.all_due(now);
        }
        match cut {
            None => {}
            Some(Cut::Line) => parcels.for_each(|parcel| self.again(now, parcel)),
            Some(Cut::First { why }) => self.put_off(parcels, (began, now), (&why, None)),
            Some(Cut::Destination { why, after }) => self.put_off(parcels, (began, now), (&why, after)),
        }
    }

    /// What a flight says of the sink.
    fn note_health(&mut self, flying: usize, landings: &[Landing], cut: Option<&Cut>, now: Instant) {
        // An old connection that has ended says nothing.
        if landings.is_empty() && matches!(cut, Some(Cut::Line)) {
            return;
        }
        let later = |landing: &Landing| match landing.verdict {
            Verdict::Later { after } => Some(after),
            Verdict::Delivered | Verdict::Rejected => None,
        };
        let is_of_use = landings.iter().any(|landing| later(landing).is_none());
        let of_cut = cut.and_then(|cut| if let Cut::Destination { after, .. } = cut { *after } else { None });
        let after = landings.iter().filter_map(later).flatten().chain(of_cut).max();
        let tried = if is_of_use { Tried::Well } else { Tried::Failed { waiting: self.retries.len() + flying } };
        self.health.tried(tried, now, after, random::share());
        if self.ending.ends_at.get().is_some() {
            self.health.rests_no_longer_than(now + LOG_RETRY_FIRST);
        }
    }

    /// Nothing was said of these.
    fn put_off(
        &mut self,
        parcels: impl Iterator<Item = Parcel<C::Cargo>>,
        (began, now): (Instant, Instant),
        (why, after): (&str, Option<Duration>),
    ) {
        self.metrics.duration.observe_duration(now.saturating_duration_since(began));
        let why = header_safe(why);
        self.note(notice::UNREACHED, now, format_args!("{why:.200}; events wait and are sent again"));
        parcels.for_each(|parcel| self.later(parcel, now, after));
    }

    /// The destination has answered.
    fn land(&mut self, Landing { verdict, said, .. }: &Landing, parcel: Parcel<C::Cargo>, now: Instant) {
        match *verdict {
            // It was counted when it landed.
            Verdict::Delivered => parcel.cargo.receipts().for_each(Receipt::settle),
            Verdict::Rejected => {
                self.note(notice::REJECTED, now, format_args!("{said:.200}; the event is given up"));
                self.fail(parcel.cargo, Failed::Rejected);
            }
            Verdict::Later { after } => {
                self.note(notice::REFUSED, now, format_args!("{said:.200}; the event is sent again"));
                self.later(parcel, now, after);
            }
        }
    }

    fn later(&mut self, mut parcel: Parcel<C::Cargo>, now: Instant, after: Option<Duration>) {
        let due = parcel.attempts.as_mut().and_then(|attempts| attempts.next(now, after, random::share()));
        match due {
            // In the end there is no time for long waits.
            _ if self.ending.ends_at.get().is_some() => self.again(now + LOG_RETRY_FIRST, parcel),
            Some(due) => self.again(due, parcel),
            None => self.fail(parcel.cargo, Failed::Expired),
        }
    }

    fn again(&mut self, due: Instant, parcel: Parcel<C::Cargo>) {
        self.metrics.retries.count();
        self.retries.push(Retry { due, parcel });
    }

    fn fail(&mut self, cargo: C::Cargo, why: Failed) {
        for receipt in cargo.receipts() {
            self.metrics.fails(receipt.of, why);
            receipt.settle();
        }
    }

    fn note(&self, kind: usize, now: Instant, what: std::fmt::Arguments<'_>) {
        self.notices.write(kind, Level::Warn, now, format_args!("log sink {}: {what}", self.carrier.name()));
    }

    /// What is left has no time any more.
    fn give_up(mut self) {
        let retries = std::mem::take(&mut self.retries).into_iter().map(|retry| retry.parcel.cargo);
        let queued = std::mem::take(&mut self.taken).chain(self.queue.try_iter().flatten());
        for receipt in retries.chain(queued).flat_map(Cargo::receipts) {
            // What is on disk waits for the next start.
            if !receipt.is_kept() {
                self.metrics.fails(receipt.of, Failed::Shutdown);
            }
        }
    }
}

impl<C> Parcel<C> {
    fn new(cargo: C) -> Self {
        Self { cargo, attempts: None }
    }
}

// The one that is due first is on top.
impl<C> Ord for Retry<C> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

impl<C> PartialOrd for Retry<C> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<C> PartialEq for Retry<C> {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl<C> Eq for Retry<C> {}
