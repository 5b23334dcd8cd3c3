//! An event as it lies in a segment: prefix and content. Pure.
//!
//! ```text
//!   mark u64 | state u32 | length u32 | CRC-32 of the content u32 | content
//!   content: version u8 | type u8 | status u16 | seconds u64 | nanoseconds u32 | eight texts, the last of them the payload
//! ```
//!
//! Numbers are little-endian; a text is its length as u32 and its bytes. The mark is the segment's own, drawn at random, so
//! that no payload can hold what looks like an entry to a reader that looks for the next one behind a damaged place. The
//! state is written again when the event is done, and is not part of the checksum.
//!
//! Not here: files ([`super::segment`]), and how a reader goes on behind damage ([`super::reader`]).

use std::time::{Duration, SystemTime};

use crate::config::LOG_RECORD_BYTES;
use crate::logger::event::{Context, Event, Type};

/// What an event is written as, without the room that it takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) of: Type,
    pub(super) id: String,
    pub(super) time: SystemTime,
    pub(super) content_type: String,
    pub(super) content_encoding: String,
    pub(super) context: Context,
    pub(super) metadata: String,
    pub(super) status: Option<u16>,
    pub(super) payload: Vec<u8>,
}

/// What stands before a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) mark: u64,
    /// The event was delivered or given up.
    pub(super) is_done: bool,
    pub(super) length: usize,
    sum: u32,
}

/// Bytes before the content.
pub(super) const PREFIX: usize = 20;
/// Where the state stands.
pub(super) const STATE_AT: u64 = 8;
/// The state of an event that is done. Whatever else stands there, the event waits: damage must not make it one that is done.
pub(super) const DONE: [u8; 4] = *b"done";
const VERSION: u8 = 2;

/// Appends an event.
pub(super) fn write(out: &mut Vec<u8>, event: &Event, mark: u64) {
    write_head(out, event, mark);
    out.extend_from_slice(&event.payload);
}

/// Appends an event but for its payload, which is to follow.
pub(super) fn write_head(out: &mut Vec<u8>, event: &Event, mark: u64) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let since = event.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(&[VERSION, u8::from(event.receipt.of == Type::Response)]);
    out.extend_from_slice(&event.status.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&since.as_secs().to_le_bytes());
    out.extend_from_slice(&since.subsec_nanos().to_le_bytes());
    // Payloads and heads have limits far below.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let (request_id, parent, state) = event
        .context
        .as_ref()
        .map_or(("", "", ""), |context| (&*context.request_id, &*context.traceparent, &*context.tracestate));
    let texts = [&*event.id, &event.content_type, &event.content_encoding, request_id, parent, state, &event.metadata];
    for text in texts {
        out.extend_from_slice(&length(text.len()).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&length(event.payload.len()).to_le_bytes());
    let head = &out[start + PREFIX..];
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(&event.payload);
    let (length, sum) = (length(head.len() + event.payload.len()), hasher.finalize());
    out[start..start + 8].copy_from_slice(&mark.to_le_bytes());
    out[start + 12..start + 16].copy_from_slice(&length.to_le_bytes());
    out[start + 16..start + PREFIX].copy_from_slice(&sum.to_le_bytes());
}

/// What stands before a content; `None`: no entry can be so long.
pub(super) fn prefix(bytes: &[u8; PREFIX]) -> Option<Prefix> {
    let mut rest = &bytes[..];
    let mark = u64::from_le_bytes(take(&mut rest)?);
    let is_done = take(&mut rest)? == DONE;
    let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
    let sum = u32::from_le_bytes(take(&mut rest)?);
    (length <= LOG_RECORD_BYTES).then_some(Prefix { mark, is_done, length, sum })
}

/// The event with this content; `None`: it is damaged.
pub(super) fn read(content: &[u8], prefix: Prefix) -> Option<Entry> {
    if crc32fast::hash(content) != prefix.sum {
        return None;
    }
    let mut rest = content;
    let [version, of] = take(&mut rest)?;
    let status = u16::from_le_bytes(take(&mut rest)?);
    let seconds = u64::from_le_bytes(take(&mut rest)?);
    let nanos = u32::from_le_bytes(take(&mut rest)?);
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos.min(999_999_999)))?;
    let mut bytes = || {
        let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
        let (text, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(text.to_vec())
    };
    let mut text = || String::from_utf8(bytes()?).ok();
    let (id, content_type, content_encoding) = (text()?, text()?, text()?);
    let context = Context { request_id: text()?.into(), traceparent: text()?.into(), tracestate: text()?.into() };
    let entry = Entry {
        of: if of == 1 { Type::Response } else { Type::Request },
        id,
        time,
        content_type,
        content_encoding,
        context,
        metadata: text()?,
        status: (status > 0).then_some(status),
        payload: bytes()?,
    };
    (version == VERSION && of <= 1 && rest.is_empty()).then_some(entry)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::logger::event::tests::event;

    pub(in crate::logger::spool) fn with_payload(of: Type, payload: &[u8]) -> Event {
        let context = Context::new("r".into(), "00-1-2-3".into(), "".into());
        Event {
            id: Arc::from("ü"),
            content_encoding: Box::from("gzip"),
            context,
            metadata: Arc::from(r#"{"A":["b"]}"#),
            payload: payload.to_vec(),
            ..event(of)
        }
    }

    fn split(bytes: &[u8]) -> (Prefix, &[u8]) {
        let (first, content) = bytes.split_first_chunk().unwrap();
        (prefix(first).unwrap(), content)
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        for of in [Type::Request, Type::Response] {
            let event = with_payload(of, &[0, 255, 10]);
            let mut bytes = Vec::new();
            write(&mut bytes, &event, 7);
            let (prefix, content) = split(&bytes);
            assert_eq!((prefix.length, prefix.mark, prefix.is_done), (content.len(), 7, false));
            let entry = read(content, prefix).unwrap();
            assert_eq!((entry.of, &*entry.id, entry.time), (event.receipt.of, &*event.id, event.time));
            assert_eq!((&*entry.content_type, &*entry.metadata), (&*event.content_type, &*event.metadata));
            assert_eq!((&*entry.content_encoding, Some(entry.context)), ("gzip", event.context.as_deref().cloned()));
            assert_eq!((entry.status, entry.payload), (event.status, event.payload));
        }
    }

    #[test]
    fn a_changed_byte_or_a_missing_one_makes_it_none() {
        let mut bytes = Vec::new();
        write(&mut bytes, &with_payload(Type::Request, b"payload"), 7);
        let (prefix, content) = split(&bytes);
        for at in 0..prefix.length {
            assert_eq!(read(&content[..at], prefix), None);
            let mut changed = content.to_vec();
            changed[at] ^= 1;
            assert_eq!(read(&changed, prefix), None);
            // Nor is it one that the checksum does not show.
            let _ = read(&changed, Prefix { sum: crc32fast::hash(&changed), ..prefix });
            let short = Prefix { sum: crc32fast::hash(&content[..at]), ..prefix };
            assert_eq!(read(&content[..at], short), None);
        }
    }

    #[test]
    fn a_length_that_no_record_has_is_none() {
        assert_eq!(prefix(&[255; PREFIX]), None);
        assert!(prefix(&[0; PREFIX]).is_some_and(|prefix| prefix.length == 0 && !prefix.is_done));
    }

    #[test]
    fn only_the_whole_word_makes_an_event_done() {
        let mut bytes = [0; PREFIX];
        bytes[8..12].copy_from_slice(&DONE);
        assert!(prefix(&bytes).unwrap().is_done);
        (8..12).for_each(|at| {
            let mut changed = bytes;
            changed[at] ^= 4;
            assert!(!prefix(&changed).unwrap().is_done);
        });
    }
}
