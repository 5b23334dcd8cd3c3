//! The next event of a segment, whatever a crash or a disk has done to it.
//!
//! A damaged entry costs itself alone: its prefix says where the next one is, and if that can't be true the next mark of
//! the segment is looked for.
//!
//! Not here: what becomes of events and of damage ([`super`]).

use std::io;

use super::entry::{self, Entry, PREFIX, Prefix};
use super::segment::Segment;

/// What stands at a place.
#[derive(Debug)]
pub(super) enum Found {
    Event(Box<Entry>),
    /// One that was done before.
    Done,
    /// No event, and something follows it or its end is certain.
    Damaged,
    /// The beginning of an event: a crash has cut it, or the file.
    Torn,
    End,
}

/// Bytes that are searched for a mark at once.
const SEARCHED: usize = 64 * 1024;

/// Reads what stands there, and where the next begins.
///
/// # Errors
/// When the disk fails.
pub(super) fn next(segment: &Segment, at: u64) -> io::Result<(Found, u64)> {
    let end = segment.bytes();
    if at >= end {
        return Ok((Found::End, at));
    }
    let prefix = prefix_at(segment, at, end)?;
    if let Some(prefix) = prefix {
        let behind = at + (PREFIX + prefix.length) as u64;
        if prefix.is_done && prefix.mark == segment.mark {
            return Ok((Found::Done, behind));
        }
        let mut content = vec![0; prefix.length];
        segment.read_at(&mut content, at + PREFIX as u64)?;
        if let Some(entry) = entry::read(&content, prefix) {
            return Ok((Found::Event(Box::new(entry)), behind));
        }
        if behind == end || is_mark_at(segment, behind, end)? {
            return Ok((Found::Damaged, behind));
        }
    }
    let next = find_mark(segment, at + 1, end)?;
    let is_torn = next == end && prefix.is_none() && (end - at < PREFIX as u64 || is_begun(segment, at)?);
    Ok((if is_torn { Found::Torn } else { Found::Damaged }, next))
}

/// The prefix there, if what it says fits into the segment.
fn prefix_at(segment: &Segment, at: u64, end: u64) -> io::Result<Option<Prefix>> {
    if end - at < PREFIX as u64 {
        return Ok(None);
    }
    let mut bytes = [0; PREFIX];
    segment.read_at(&mut bytes, at)?;
    let room = end - at - PREFIX as u64;
    Ok(entry::prefix(&bytes).filter(|prefix| prefix.length as u64 <= room))
}

fn is_mark_at(segment: &Segment, at: u64, end: u64) -> io::Result<bool> {
    Ok(prefix_at(segment, at, end)?.is_some_and(|prefix| prefix.mark == segment.mark))
}

/// An entry begins there and goes on beyond the end.
fn is_begun(segment: &Segment, at: u64) -> io::Result<bool> {
    let mut mark = [0; 8];
    segment.read_at(&mut mark, at)?;
    Ok(mark == segment.mark.to_le_bytes() || mark == [0; 8])
}

/// The next entry's place from there on, or the end.
fn find_mark(segment: &Segment, mut at: u64, end: u64) -> io::Result<u64> {
    let mark = segment.mark.to_le_bytes();
    let mut buffer = vec![0; SEARCHED];
    while end.saturating_sub(at) >= PREFIX as u64 {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(SEARCHED);
        segment.read_at(&mut buffer[..length], at)?;
        match buffer[..length].windows(mark.len()).position(|window| window == mark) {
            Some(place) if is_mark_at(segment, at + place as u64, end)? => return Ok(at + place as u64),
            Some(place) => at += place as u64 + 1,
            // A mark may lie over the edge.
            None if length == SEARCHED => at += (SEARCHED - mark.len() + 1) as u64,
            None => break,
        }
    }
    Ok(end)
}
