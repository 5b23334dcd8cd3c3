//! The queue on disk: every event is written before it is accepted, and what is not delivered when the agent ends, however
//! it ends, is delivered after the next start (SPEC L6, `--log-spool-dir`).
//!
//! ```text
//!   workers ─ events ─▶ keeper: appended to a segment ─ memory has room and none waits ─▶ delivery threads ─▶ acknowledged
//!                                   │                                                        ▲   │             in its entry
//!                                   └─▶ backlog on disk ─ read as memory has room ───────────┘   └─ failed ─▶ parked on disk
//!   start: segments of an earlier run ─▶ backlog
//! ```
//!
//! Memory bounds what is under way and the folder what waits, by `--log-spool-bytes`. Events go in the order they came, but
//! for those that have failed. An event that finds no place on the disk is delivered all the same, and counted: what it
//! loses is the restart.
//!
//! Not here: how events are written ([`mod@write`]), the format ([`entry`]), damage ([`reader`]), files ([`segment`], [`dir`]).

mod backlog;
mod dir;
mod entry;
mod opening;
mod parking;
mod reader;
pub(super) mod segment;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, never, select};
use log::Level;

use self::backlog::{Backlog, Damage, Next, Waiting};
use self::entry::Entry;
pub(super) use self::opening::Opening;
pub(super) use self::parking::Parked;
use self::parking::Parking;
use self::segment::{Segment, Segments, Writer};
use super::ending::Ending;
use super::event::{Context, Event, Receipt, Type};
use super::metrics::{Corrupt, CourierMetrics, Failed, SpoolMetrics, TapMetrics};
use super::room::{Place, Room};
use super::sink::notice;
use crate::config::LOG_FLIGHT_EVENTS;
use crate::ops::notice::Notices;

/// The thread that writes and reads.
struct Keeper {
    /// Closed when the workers are gone.
    events: Receiver<Vec<Event>>,
    couriers: Sender<Vec<Event>>,
    /// More may come from the workers.
    is_fed: bool,
    /// Has a message when there is room again.
    room_made: Receiver<()>,
    room: Arc<Room>,
    ending: Ending,
    segments: Segments,
    /// Bytes in the folder at most.
    most: u64,
    writer: Option<Writer>,
    backlog: Backlog,
    /// Events that have failed.
    failed: Receiver<Parked>,
    parking: Parking,
    /// An event that was read and waits for room.
    read: Option<Waiting>,
    /// There is more of an earlier run.
    unread: Arc<AtomicBool>,
    output: Vec<u8>,
    /// Where the entries in it begin.
    starts: Vec<u64>,
    notices: Arc<Notices>,
    counts: Counts,
}

/// What a keeper counts.
#[derive(Clone)]
pub(super) struct Counts {
    pub(super) accepted: Arc<TapMetrics>,
    pub(super) given_up: Arc<CourierMetrics>,
    pub(super) spool: Arc<SpoolMetrics>,
}

/// What a keeper is made with.
pub(super) struct Parts {
    pub(super) events: Receiver<Vec<Event>>,
    pub(super) failed: Receiver<Parked>,
    pub(super) room_made: Receiver<()>,
    pub(super) room: Arc<Room>,
    pub(super) ending: Ending,
    pub(super) notices: Arc<Notices>,
    pub(super) accepted: Arc<TapMetrics>,
    pub(super) given_up: Arc<CourierMetrics>,
}

impl Keeper {
    fn new(
        (segments, old): (Segments, Vec<Arc<Segment>>),
        most: u64,
        couriers: Sender<Vec<Event>>,
        parts: Parts,
        (unread, spool): (Arc<AtomicBool>, Arc<SpoolMetrics>),
    ) -> Self {
        if !old.is_empty() {
            let bytes = segments.total.load(Ordering::Relaxed);
            log::info!("--log-spool-dir: {} segments of an earlier run, {bytes} bytes, are delivered now", old.len());
        }
        let Parts { events, failed, room_made, room, ending, notices, accepted, given_up } = parts;
        unread.store(!old.is_empty(), Ordering::Relaxed);
        Self {
            events,
            couriers,
            is_fed: true,
            room_made,
            room,
            ending,
            segments,
            most,
            writer: None,
            unread,
            backlog: Backlog::new(old),
            failed,
            parking: Parking::default(),
            read: None,
            output: Vec::new(),
            starts: Vec::new(),
            notices,
            counts: Counts { accepted, given_up, spool },
        }
    }

    /// Keeps events until the workers are gone, and feeds the delivery threads until there is nothing left or no time.
    pub(crate) fn run(mut self) {
        loop {
            let waits = self.feed();
            let end = self.ending.ends_at.get().copied();
            let is_over = end.is_some_and(|end| end <= Instant::now());
            if is_over || !self.is_fed && self.backlog.is_empty() && self.read.is_none() {
                return;
            }
            self.wait(waits, end);
        }
    }

    /// Waits for events, for the time of one that has failed, and for room if something waits for it.
    fn wait(&mut self, waits: bool, end: Option<Instant>) {
        let (quiet, silent) = (never(), never());
        let room_made = if waits { &self.room_made } else { &quiet };
        let events = if self.is_fed { &self.events } else { &silent };
        let due = self.parking.next_due(Instant::now()).filter(|_| !waits);
        let until = due.into_iter().chain(end).min();
        let timeout = until.map_or_else(never, crossbeam_channel::at);
        select! {
            recv(events) -> events => match events {
                Ok(events) => self.keep(events),
                Err(_) => {
                    self.is_fed = false;
                    // It goes if it is not needed.
                    self.writer = None;
                }
            },
            recv(self.failed) -> parked => match parked {
                Ok(parked) => {
                    self.parking.add(parked);
                    self.failed.try_iter().for_each(|parked| self.parking.add(parked));
                }
                // The delivery threads have ended.
                Err(_) => self.failed = never(),
            },
            recv(self.ending.begins) -> _ => self.ending.begins = never(),
            recv(room_made) -> _ => {}
            recv(timeout) -> _ => {}
        }
    }

    /// Reads events from disk as long as there is room and nothing new. Returns whether one waits for room.
    fn feed(&mut self) -> bool {
        let mut events = Vec::new();
        let mut waits = false;
        while self.events.is_empty() || !self.is_fed {
            let Some(waiting) = self.next_on_disk() else { break };
            match self.admit(waiting) {
                Ok(event) => events.push(event),
                Err(waiting) => {
                    self.read = Some(waiting);
                    waits = true;
                    break;
                }
            }
            if events.len() >= LOG_FLIGHT_EVENTS {
                self.hand_on(std::mem::take(&mut events));
            }
        }
        self.unread
            .store(self.backlog.has_old() || self.read.as_ref().is_some_and(|read| read.is_old), Ordering::Relaxed);
        self.hand_on(events);
        waits
    }

    /// The next event that waits on disk.
    fn next_on_disk(&mut self) -> Option<Waiting> {
        if self.read.is_some() {
            return self.read.take();
        }
        loop {
            let next = match self.parking.next(Instant::now()) {
                Next::Nothing => self.backlog.next(),
                next => next,
            };
            match next {
                Next::Event(waiting) => return Some(waiting),
                Next::Damage(damage) => self.set_aside(&damage),
                Next::Error(what) => self.note_error(&what),
                Next::Nothing => return None,
            }
        }
    }

    /// Makes an event of what was read, if there is room for it.
    fn admit(&self, waiting: Waiting) -> Result<Event, Waiting> {
        if self.room.is_full_for_spool() && self.room.spool_waits() {
            return Err(waiting);
        }
        let mut place = self.room.place();
        let bytes = waiting.entry.bytes();
        if !place.grow(bytes) {
            // Who makes room from here on says so.
            self.room.spool_waits();
            if !place.grow(bytes) {
                if self.room.bytes() > 0 {
                    return Err(waiting);
                }
                // All of the room may be less than one event, which then goes alone.
                place.take(bytes);
            }
        }
        if waiting.is_old {
            self.counts.spool.replayed.count();
            self.counts.accepted.accepted.count(waiting.entry.of);
        }
        Ok(waiting.event(place))
    }

    /// Keeps and counts what can't be read. An event of which the rest is there was accepted once, by this run or by an
    /// earlier one.
    fn set_aside(&self, damage: &Damage) {
        let Damage { segment, from, to, is_torn } = damage;
        let name = segment.name();
        let kept = segment.set_aside(*from, *to).err().map(|error| format!(", and can't be set aside: {error}"));
        let kept = kept.unwrap_or_default();
        if *is_torn {
            self.counts.spool.corrupt.count(Corrupt::Torn);
            let what = format_args!("{name}: the last {} bytes are the beginning of an event{kept}", to - from);
            return self.notices.write(notice::CORRUPT, Level::Warn, Instant::now(), what);
        }
        self.counts.spool.corrupt.count(Corrupt::Damaged);
        let what = format_args!("{name}: {} bytes at {from} are no event and are given up{kept}", to - from);
        self.notices.write(notice::CORRUPT, Level::Error, Instant::now(), what);
        // Nobody can tell its type any more.
        self.counts.given_up.fails(Type::Request, Failed::Corrupt);
        if segment.is_old {
            self.counts.accepted.accepted.count(Type::Request);
        } else {
            segment.release();
        }
    }

    fn hand_on(&self, events: Vec<Event>) {
        if !events.is_empty() {
            // If nobody delivers any more the time is over, and what is on disk stays for the next start.
            let _ = self.couriers.send(events);
        }
    }

    fn note_error(&self, what: &str) {
        self.notices.write(notice::SPOOL, Level::Warn, Instant::now(), format_args!("--log-spool-dir: {what}"));
    }
}

impl Entry {
    /// What its event counts for in the queue.
    fn bytes(&self) -> usize {
        let texts = [&*self.id, &self.metadata, &self.content_type, &self.content_encoding];
        self.payload.len() + Event::overhead(texts, Some(&self.context))
    }
}

impl Waiting {
    fn event(self, place: Place) -> Event {
        let entry = *self.entry;
        let Context { request_id, traceparent, tracestate } = entry.context;
        Event {
            receipt: Receipt { of: entry.of, place, entry: Some(self.place), attempts: self.attempts },
            id: entry.id.into(),
            time: entry.time,
            content_type: entry.content_type.into(),
            content_encoding: entry.content_encoding.into(),
            context: Context::new(request_id, traceparent, tracestate),
            metadata: entry.metadata.into(),
            status: entry.status,
            payload: entry.payload,
        }
    }
}
