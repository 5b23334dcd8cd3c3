//! How events get to disk, and which of them stay in memory.
//!
//! Not here: what is read from there ([`super`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::segment::{EntryRef, Segment, Writer};
use super::{Keeper, entry};
use crate::config::{LOG_FLIGHT_BYTES, log_segment_bytes};
use crate::logger::event::{Event, Type};
use crate::logger::metrics::Unspooled;

impl Keeper {
    /// Writes events, and hands on those that may stay in memory.
    pub(super) fn keep(&mut self, mut events: Vec<Event>) {
        let mut direct = Vec::with_capacity(events.len());
        while !events.is_empty() {
            let count = self.serialize(&events);
            let behind = events.split_off(count);
            let mut written = std::mem::replace(&mut events, behind);
            // One that is long lies there once, and follows from there.
            let accepted: Vec<Type> = written.iter().map(|event| event.receipt.of).collect();
            let payload = written.first().filter(|event| is_long(event)).map_or(&[][..], |event| &event.payload[..]);
            match self.append(payload) {
                Ok((segment, at)) if self.must_wait() => self.backlog.add(&segment, at),
                Ok((segment, at)) => {
                    for (event, start) in written.iter_mut().zip(&self.starts) {
                        let segment = Arc::clone(&segment);
                        event.receipt.entry = Some(EntryRef { segment, at: at + start });
                    }
                    direct.append(&mut written);
                }
                Err(Unspooled::Full) if self.makes_place(payload.len()) => {
                    written.append(&mut events);
                    events = written;
                    continue;
                }
                Err(why) => {
                    self.note_unspooled(why);
                    self.counts.spool.unspooled.add(why, count as u64);
                    direct.append(&mut written);
                }
            }
            accepted.into_iter().for_each(|of| self.counts.accepted.accepted.count(of));
        }
        self.hand_on(direct);
        if self.output.capacity() > 4 * LOG_FLIGHT_BYTES {
            // Long heads were in it once.
            self.output = Vec::new();
        }
    }

    /// Others are before them, or memory has as many as it may.
    fn must_wait(&self) -> bool {
        !self.backlog.is_empty() || self.read.as_ref().is_some() || self.room.is_full_for_spool()
    }

    /// Makes the entries that are written together, no more than a flight's worth; how many. Of one that is long, the head.
    fn serialize(&mut self, events: &[Event]) -> usize {
        self.output.clear();
        self.starts.clear();
        let mark = self.mark();
        if let Some(first) = events.first().filter(|event| is_long(event)) {
            self.starts.push(0);
            entry::write_head(&mut self.output, first, mark);
            return 1;
        }
        for event in events.iter().take_while(|event| !is_long(event)) {
            if self.output.len() >= LOG_FLIGHT_BYTES {
                break;
            }
            self.starts.push(self.output.len() as u64);
            entry::write(&mut self.output, event, mark);
        }
        self.starts.len()
    }

    /// The mark of the segment that is written next, which is begun if need be. Without one nothing will be written.
    fn mark(&mut self) -> u64 {
        let is_full = |writer: &Writer| writer.segment.bytes() >= log_segment_bytes(self.most);
        if self.writer.as_ref().is_some_and(is_full) {
            self.writer = None;
        }
        if self.writer.is_none() && self.segments.total.load(Ordering::Relaxed) < self.most {
            match self.segments.begin() {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => self.note_error(&format!("{error}; events would be lost by a crash")),
            }
        }
        self.writer.as_ref().map_or(0, |writer| writer.segment.mark)
    }

    /// Writes the entries, and behind them this payload. Returns where.
    fn append(&mut self, payload: &[u8]) -> Result<(Arc<Segment>, u64), Unspooled> {
        if !self.has_place(payload.len()) {
            return Err(Unspooled::Full);
        }
        let Some(writer) = &mut self.writer else { return Err(Unspooled::Error) };
        match writer.append(&self.output, payload, self.starts.len()) {
            Ok(at) => Ok((Arc::clone(&writer.segment), at)),
            Err(error) => {
                self.writer = None;
                self.note_error(&format!("{error}; events would be lost by a crash"));
                Err(Unspooled::Error)
            }
        }
    }

    fn has_place(&self, payload: usize) -> bool {
        self.segments.total.load(Ordering::Relaxed) + (self.output.len() + payload) as u64 <= self.most
    }

    /// The segment that is written goes now if all its events are done, or a small folder would be full of it for ever.
    fn makes_place(&mut self, payload: usize) -> bool {
        self.writer.take().is_some() && self.has_place(payload)
    }

    fn note_unspooled(&self, why: Unspooled) {
        if why == Unspooled::Full {
            self.note_error("it has --log-spool-bytes, so events would be lost by a crash");
        }
    }
}

/// Too long to be copied on its way to the disk.
fn is_long(event: &Event) -> bool {
    event.payload.len() > LOG_FLIGHT_BYTES
}
