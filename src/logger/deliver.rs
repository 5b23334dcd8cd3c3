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
//! per wait, not one per event. One that is reached and fails whatever it is given is tried as seldom
//! ([`super::breaker`]), with events that have not failed yet: those that have may be what it fails of.
//!
//! When the agent ends the retries are due at once, and what is left at the deadline is given up and counted.
//!
//! Not here: what an answer means and how long to wait ([`super::retry`]), and the way to the destination
//! ([`super::carrier`]).

mod parking;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use crossbeam_channel::{Receiver, Sender, never, select};
use log::Level;

use super::breaker::{Breaker, Permit, Tried};
use super::carrier::{Cargo, Carrier, Cut, Landing};
use super::ending::Ending;
use super::event::{Receipt, header_safe};
use super::metrics::{CourierMetrics, Failed};
use super::retries::{Parcel, Retries};
use super::retry::{Attempts, Verdict};
use super::sink::notice;
use super::spool::Parked;
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
    retries: Retries<C::Cargo>,
    /// The last flight did not reach the sink.
    is_down: bool,
    /// How many of the retries the breaker knows of, and how often it had closed when it was asked last.
    told: (usize, u64),
    shared: Shared,
}

/// What the delivery threads have in common, and the counters of this one.
pub(super) struct Shared {
    pub(super) breaker: Arc<Breaker>,
    /// How long an event is sent again; `None`: for ever.
    pub(super) retry_for: Option<Duration>,
    pub(super) metrics: Arc<CourierMetrics>,
    pub(super) notices: Arc<Notices>,
    /// Takes events that have failed and have a copy on disk.
    pub(super) parking: Option<Sender<Parked>>,
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
    pub(super) fn new(queue: Receiver<Vec<C::Cargo>>, ending: Ending, carrier: C, shared: Shared) -> Self {
        let taken = Vec::new().into_iter();
        Self {
            queue,
            is_fed: true,
            taken,
            ending,
            carrier,
            retries: Retries::new(),
            is_down: false,
            told: (0, 0),
            shared,
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
        let now = Instant::now();
        let permit = self.permit(now);
        match permit {
            Permit::Closed => {}
            Permit::Trial => self.expire(now),
            Permit::Wait(until) => {
                self.expire(now);
                self.shed(now);
                return self.wait(Some(until));
            }
        }
        match self.take(permit == Permit::Trial) {
            Some(parcel) => Step::Send(parcel),
            None => {
                if permit == Permit::Trial {
                    self.shared.breaker.health().no_trial();
                }
                self.wait(None)
            }
        }
    }

    /// Asks the breaker.
    fn permit(&mut self, now: Instant) -> Permit {
        let mut health = self.shared.breaker.health();
        let permit = health.permit(now, self.carrier.limit());
        let recoveries = std::mem::replace(&mut self.told.1, health.recoveries);
        if recoveries != health.recoveries && std::mem::take(&mut self.is_down) {
            drop(health);
            // What has failed has failed because of that.
            self.retries.hurry(now);
        }
        permit
    }

    /// An event that can be sent now. A trial is made with one that has not failed yet, if there is one: those that have
    /// may be what the sink fails of.
    fn take(&mut self, is_trial: bool) -> Option<Parcel<C::Cargo>> {
        if is_trial { self.fresh().or_else(|| self.due()) } else { self.due().or_else(|| self.fresh()) }
    }

    /// One that has failed, and whose time has come again.
    fn due(&mut self) -> Option<Parcel<C::Cargo>> {
        self.retries.due(Instant::now)
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
        while let Some(parcel) = self.retries.expired(|attempts| attempts.are_over(now)) {
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
        let due = match rests_until {
            // What waits for a sink that rests is given up in time.
            Some(until) => self.retries.first_over().into_iter().chain([until]).min(),
            None => self.retries.next_due(),
        };
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
        self.shared.breaker.health().rests_no_longer_than(now);
        self.retries.hurry(now);
    }

    /// Adds what may fly with the first event.
    fn load(&mut self, flight: &mut Vec<Parcel<C::Cargo>>, first: Parcel<C::Cargo>) {
        let mut bytes = first.cargo.bytes();
        flight.push(first);
        let window = if self.shared.breaker.health().is_open() { 1 } else { self.carrier.window() };
        while flight.len() < window && bytes <= LOG_FLIGHT_BYTES {
            let Some(parcel) = self.take(false) else { return };
            bytes += parcel.cargo.bytes();
            flight.push(parcel);
        }
    }

    fn deliver(&mut self, flight: &mut Vec<Parcel<C::Cargo>>) {
        let began = Instant::now();
        flight
            .iter_mut()
            .for_each(|parcel| _ = parcel.attempts.get_or_insert(Attempts::begin(began, self.shared.retry_for)));
        let left = self.ending.ends_at.get().map(|end| end.saturating_duration_since(began));
        let limit = left.unwrap_or(Duration::MAX).min(self.carrier.limit());
        let mut landings: Vec<Landing> = Vec::with_capacity(flight.len());
        let (carrier, metrics) = (&mut self.carrier, &self.shared.metrics);
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
            self.retries.hurry(now);
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
        let tried = match cut {
            _ if is_of_use => Tried::Well,
            Some(Cut::Destination { .. }) => Tried::Unreached,
            _ => Tried::Failed,
        };
        let mut health = self.shared.breaker.health();
        let waiting = self.retries.len() + flying;
        health.waiting = health.waiting.saturating_sub(self.told.0) + waiting;
        self.told.0 = waiting;
        health.tried(tried, now, after, random::share());
        if self.ending.ends_at.get().is_some() {
            health.rests_no_longer_than(now + LOG_RETRY_FIRST);
        }
    }

    /// Nothing was said of these.
    fn put_off(
        &mut self,
        parcels: impl Iterator<Item = Parcel<C::Cargo>>,
        (began, now): (Instant, Instant),
        (why, after): (&str, Option<Duration>),
    ) {
        self.shared.metrics.duration.observe_duration(now.saturating_duration_since(began));
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
            Some(due) => self.park(now, due, parcel),
            None => self.fail(parcel.cargo, Failed::Expired),
        }
    }

    fn again(&mut self, due: Instant, parcel: Parcel<C::Cargo>) {
        self.shared.metrics.retries.count();
        self.retries.push(due, parcel);
    }

    fn fail(&mut self, cargo: C::Cargo, why: Failed) {
        for receipt in cargo.receipts() {
            self.shared.metrics.fails(receipt.of, why);
            receipt.settle();
        }
    }

    fn note(&self, kind: usize, now: Instant, what: std::fmt::Arguments<'_>) {
        self.shared.notices.write(kind, Level::Warn, now, format_args!("log sink {}: {what}", self.carrier.name()));
    }

    /// What is left has no time any more.
    fn give_up(mut self) {
        let queued = std::mem::take(&mut self.taken).chain(self.queue.try_iter().flatten());
        for receipt in self.retries.drain().chain(queued).flat_map(Cargo::receipts) {
            // What is on disk waits for the next start.
            if !receipt.is_kept() {
                self.shared.metrics.fails(receipt.of, Failed::Shutdown);
            }
        }
    }
}
