//! The queue on disk: every event is written before it is accepted, and what a crash left is delivered after the restart
//! (SPEC L6, `--log-spool-dir`).
//!
//! ```text
//!   workers ─ events ─▶ keeper: appended to a segment ─▶ couriers ─ done ─▶ segment deleted with its last event
//!   start: segments of an earlier run ─ read, as far as there is room ─▶ ┘
//! ```
//!
//! Events are in memory as well, so the folder holds no more of them than the queue does; what was delivered beside one
//! that was not stays with it in its segment, so the folder has a limit of its own. An event that finds no place on the
//! disk is delivered all the same, and counted: what it loses is the restart.
//!
//! Not here: the format ([`entry`]), files ([`segment`]).

mod entry;
pub(super) mod segment;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError, never, select};
use log::Level;

use self::entry::Entry;
use self::segment::{Folder, Found, Reader, Segment, Writer};
use super::event::{Event, Receipt};
use super::metrics::{SpoolMetrics, TapMetrics, Unspooled};
use super::room::{Place, Room};
use super::sink::notice;
use crate::config::{LOG_FLIGHT_BYTES, LOG_SEGMENT_BYTES, log_spool_bytes};
use crate::ops::notice::Notices;

/// The thread that writes.
pub(crate) struct Keeper {
    events: Receiver<Vec<Event>>,
    couriers: Sender<Vec<Event>>,
    /// Rings when there is room again.
    room_made: Receiver<()>,
    room: Arc<Room>,
    /// Closed when the agent begins to end.
    ending: Receiver<Infallible>,
    folder: Folder,
    /// Bytes in the folder at most.
    most: u64,
    writer: Option<Writer>,
    /// Segments of an earlier run.
    old: VecDeque<Arc<Segment>>,
    reader: Option<Reader>,
    /// There is more of an earlier run.
    unread: Arc<AtomicBool>,
    /// An event that was read and waits for room.
    read: Option<Box<Entry>>,
    output: Vec<u8>,
    notices: Arc<Notices>,
    accepted: Arc<TapMetrics>,
    metrics: Arc<SpoolMetrics>,
}

/// What a keeper is made with.
pub(super) struct Parts {
    pub(super) events: Receiver<Vec<Event>>,
    pub(super) room_made: Receiver<()>,
    pub(super) room: Arc<Room>,
    pub(super) ending: Receiver<Infallible>,
    pub(super) notices: Arc<Notices>,
    pub(super) accepted: Arc<TapMetrics>,
}

impl Keeper {
    /// # Errors
    /// When the folder can't be used.
    pub(super) fn new(path: &Path, couriers: Sender<Vec<Event>>, parts: Parts) -> io::Result<Self> {
        let (folder, old) = Folder::open(path)?;
        if !old.is_empty() {
            let bytes = folder.total.load(Ordering::Relaxed);
            log::info!("--log-spool-dir: {} segments of an earlier run, {bytes} bytes, are delivered now", old.len());
        }
        let Parts { events, room_made, room, ending, notices, accepted } = parts;
        Ok(Self {
            most: log_spool_bytes(room.most()),
            metrics: Arc::new(SpoolMetrics::new(Arc::clone(&folder.total))),
            events,
            couriers,
            room_made,
            room,
            ending,
            folder,
            writer: None,
            unread: Arc::new(AtomicBool::new(!old.is_empty())),
            old: old.into(),
            reader: None,
            read: None,
            output: Vec::new(),
            notices,
            accepted,
        })
    }

    pub(super) fn metrics(&self) -> Arc<SpoolMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Whether there is more of an earlier run than was read.
    pub(super) fn unread(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unread)
    }

    /// Keeps events until the workers are gone. What was not read by then stays for the next start.
    pub(crate) fn run(mut self) {
        loop {
            let quiet = never();
            let room_made = if self.replay() { &self.room_made } else { &quiet };
            select! {
                recv(self.events) -> events => match events {
                    Ok(events) => self.keep(events),
                    Err(_) => {
                        // Before the couriers hear of the end, with whom the process ends: it goes if it is not needed.
                        self.writer = None;
                        return;
                    }
                },
                recv(room_made) -> _ => {}
            }
        }
    }

    /// Reads what an earlier run left as long as there is room and nothing new; whether there is more.
    fn replay(&mut self) -> bool {
        while self.events.is_empty() && !self.has_begun_to_end() {
            if self.read.is_none() {
                match self.next_old() {
                    Some(entry) => self.read = Some(entry),
                    None => {
                        self.unread.store(false, Ordering::Relaxed);
                        return false;
                    }
                }
            }
            // The one half of the room is for those that come now.
            if self.room.wait() {
                return true;
            }
            if let (Some(entry), Some(reader)) = (self.read.take(), &self.reader) {
                let mut place = self.room.place();
                let bytes = entry.payload.len() + Event::overhead(&entry.id, &entry.metadata, &entry.content_type);
                if !place.grow(bytes) {
                    if self.room.bytes() > 0 {
                        self.read = Some(entry);
                        return true;
                    }
                    // All of the room may be less than one event, which then goes alone.
                    place.take(bytes);
                }
                let event = entry.event(place, &reader.segment);
                self.metrics.replayed.count();
                self.accepted.accepted.count(event.receipt.of);
                self.hand_on(vec![event]);
            }
        }
        true
    }

    fn has_begun_to_end(&self) -> bool {
        self.ending.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn next_old(&mut self) -> Option<Box<Entry>> {
        loop {
            if self.reader.is_none() {
                let segment = self.old.pop_front()?;
                match segment.read() {
                    Ok(reader) => self.reader = Some(reader),
                    Err(error) => self.note_error(&format!("{}: {error}", segment.name())),
                }
                continue;
            }
            let reader = self.reader.as_mut()?;
            match reader.next() {
                Ok(Found::Event(entry)) => return Some(entry),
                Ok(Found::End) => reader.segment.may_go(),
                Ok(Found::Torn(bytes)) => {
                    log::warn!("{}: the last {bytes} bytes are no events", reader.segment.name());
                    reader.segment.may_go();
                }
                Err(error) => {
                    let what = format!("{}: {error}", reader.segment.name());
                    self.note_error(&what);
                }
            }
            self.reader = None;
        }
    }

    /// Writes events and hands them on.
    fn keep(&mut self, mut events: Vec<Event>) {
        let mut rest = &mut events[..];
        while !rest.is_empty() {
            let (written, behind) = rest.split_at_mut(self.serialize(rest));
            // One that is long lies there once, and follows from there.
            let payload = written.first().filter(|event| is_long(event)).map_or(&[][..], |event| &event.payload[..]);
            match self.append(payload) {
                Ok(segment) => written.iter_mut().for_each(|event| event.receipt.segment = Some(Arc::clone(&segment))),
                Err(why) => written.iter().for_each(|_| self.metrics.unspooled.count(why)),
            }
            rest = behind;
        }
        events.iter().for_each(|event| self.accepted.accepted.count(event.receipt.of));
        self.hand_on(events);
        if self.output.capacity() > 2 * LOG_SEGMENT_BYTES {
            self.output = Vec::new();
        }
    }

    /// Makes the entries that are written together, no more than a segment's worth; how many. Of one that is long, the
    /// head.
    fn serialize(&mut self, events: &[Event]) -> usize {
        self.output.clear();
        if let Some(first) = events.first().filter(|event| is_long(event)) {
            entry::write_head(&mut self.output, first);
            return 1;
        }
        let short = events.iter().take_while(|event| !is_long(event));
        let mut count = 0;
        for event in short {
            if self.output.len() >= LOG_SEGMENT_BYTES {
                break;
            }
            entry::write(&mut self.output, event);
            count += 1;
        }
        count
    }

    fn hand_on(&self, events: Vec<Event>) {
        // If nobody delivers any more the time is over, and what is on disk stays for the next start.
        let _ = self.couriers.send(events);
    }

    /// Writes the entries, and behind them this payload.
    fn append(&mut self, payload: &[u8]) -> Result<Arc<Segment>, Unspooled> {
        if !self.has_place(payload) {
            // The segment that is written goes with its events now, or a small folder would be full of it for ever.
            self.writer = None;
        }
        if !self.has_place(payload) {
            self.note_error("it is full, so events would be lost by a crash");
            return Err(Unspooled::Full);
        }
        match self.write(payload) {
            Ok(segment) => Ok(segment),
            Err(error) => {
                // What was written of it ends the segment.
                self.writer = None;
                self.note_error(&format!("{error}; events would be lost by a crash"));
                Err(Unspooled::Error)
            }
        }
    }

    fn has_place(&self, payload: &[u8]) -> bool {
        self.folder.total.load(Ordering::Relaxed) + (self.output.len() + payload.len()) as u64 <= self.most
    }

    fn write(&mut self, payload: &[u8]) -> io::Result<Arc<Segment>> {
        if self.writer.as_ref().is_some_and(|writer| writer.bytes() >= LOG_SEGMENT_BYTES as u64) {
            self.writer = None;
        }
        let writer = match self.writer.take() {
            Some(writer) => self.writer.insert(writer),
            None => self.writer.insert(self.folder.begin()?),
        };
        writer.append(&self.output)?;
        writer.append(payload)?;
        Ok(Arc::clone(&writer.segment))
    }

    fn note_error(&self, what: &str) {
        self.notices.write(notice::SPOOL, Level::Warn, Instant::now(), format_args!("--log-spool-dir: {what}"));
    }
}

/// Too long to be copied on its way to the disk.
fn is_long(event: &Event) -> bool {
    event.payload.len() > LOG_FLIGHT_BYTES
}

impl Entry {
    fn event(self, place: Place, segment: &Arc<Segment>) -> Event {
        Event {
            receipt: Receipt { of: self.of, place, segment: Some(Arc::clone(segment)) },
            id: self.id.into(),
            time: self.time,
            content_type: self.content_type.into(),
            metadata: self.metadata.into(),
            status: self.status,
            payload: self.payload,
        }
    }
}
