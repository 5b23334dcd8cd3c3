//! An event as it lies in a segment: length, checksum, content. Pure.
//!
//! ```text
//!   length u32 | CRC-32 of the content u32 | content
//!   content: version u8 | type u8 | status u16 | seconds u64 | nanoseconds u32 | id | content type | metadata | payload
//! ```
//!
//! Numbers are little-endian; each of the last four is its length as u32 and its bytes. An entry that a crash cut, or a
//! disk has changed, is none: whoever reads stops there.
//!
//! Not here: files ([`super::segment`]).

use std::time::{Duration, SystemTime};

use crate::config::LOG_RECORD_BYTES;
use crate::logger::event::{Event, Type};

/// What an event is written as, without the room that it takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) of: Type,
    pub(super) id: String,
    pub(super) time: SystemTime,
    pub(super) content_type: String,
    pub(super) metadata: String,
    pub(super) status: Option<u16>,
    pub(super) payload: Vec<u8>,
}

/// Bytes before the content.
pub(super) const PREFIX: usize = 8;
const VERSION: u8 = 1;

/// Appends an event.
pub(super) fn write(out: &mut Vec<u8>, event: &Event) {
    write_head(out, event);
    out.extend_from_slice(&event.payload);
}

/// Appends an event but for its payload, which is to follow.
pub(super) fn write_head(out: &mut Vec<u8>, event: &Event) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    let since = event.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    out.extend_from_slice(&[VERSION, u8::from(event.receipt.of == Type::Response)]);
    out.extend_from_slice(&event.status.unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&since.as_secs().to_le_bytes());
    out.extend_from_slice(&since.subsec_nanos().to_le_bytes());
    // Payloads and heads have limits far below.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    for text in [&*event.id, &*event.content_type, &*event.metadata] {
        out.extend_from_slice(&length(text.len()).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&length(event.payload.len()).to_le_bytes());
    let head = &out[start + PREFIX..];
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(&event.payload);
    let (length, sum) = (length(head.len() + event.payload.len()), hasher.finalize());
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + PREFIX].copy_from_slice(&sum.to_le_bytes());
}

/// Length and checksum of the content that follows; `None`: no entry can be so long.
pub(super) fn prefix(bytes: [u8; PREFIX]) -> Option<(usize, u32)> {
    let [l0, l1, l2, l3, s0, s1, s2, s3] = bytes;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok()?;
    (length <= LOG_RECORD_BYTES).then_some((length, u32::from_le_bytes([s0, s1, s2, s3])))
}

/// The event with this content; `None`: it is damaged.
pub(super) fn read(content: &[u8], sum: u32) -> Option<Entry> {
    if crc32fast::hash(content) != sum {
        return None;
    }
    let mut rest = content;
    let [version, of] = take(&mut rest)?;
    let status = u16::from_le_bytes(take(&mut rest)?);
    let seconds = u64::from_le_bytes(take(&mut rest)?);
    let nanos = u32::from_le_bytes(take(&mut rest)?);
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos.min(999_999_999)))?;
    let mut text = || {
        let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
        let (text, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(text.to_vec())
    };
    let entry = Entry {
        of: if of == 1 { Type::Response } else { Type::Request },
        id: String::from_utf8(text()?).ok()?,
        time,
        content_type: String::from_utf8(text()?).ok()?,
        metadata: String::from_utf8(text()?).ok()?,
        status: (status > 0).then_some(status),
        payload: text()?,
    };
    (version == VERSION && of <= 1 && rest.is_empty()).then_some(entry)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::logger::event::Receipt;
    use crate::logger::room::tests::place;

    fn event(of: Type, payload: &[u8]) -> Event {
        Event {
            receipt: Receipt { of, place: place(), segment: None },
            id: Arc::from("ü"),
            time: SystemTime::UNIX_EPOCH + Duration::new(1_800_000_000, 5),
            content_type: Box::from("text/plain"),
            metadata: Arc::from(r#"{"A":["b"]}"#),
            status: (of == Type::Response).then_some(503),
            payload: payload.to_vec(),
        }
    }

    fn split(bytes: &[u8]) -> (usize, u32, &[u8]) {
        let (first, content) = bytes.split_first_chunk().unwrap();
        let (length, sum) = prefix(*first).unwrap();
        (length, sum, content)
    }

    #[test]
    fn an_event_comes_back_as_it_was() {
        for of in [Type::Request, Type::Response] {
            let event = event(of, &[0, 255, 10]);
            let mut bytes = Vec::new();
            write(&mut bytes, &event);
            let (length, sum, content) = split(&bytes);
            assert_eq!(length, content.len());
            let entry = read(content, sum).unwrap();
            assert_eq!((entry.of, &*entry.id, entry.time), (event.receipt.of, &*event.id, event.time));
            assert_eq!((&*entry.content_type, &*entry.metadata), (&*event.content_type, &*event.metadata));
            assert_eq!((entry.status, entry.payload), (event.status, event.payload));
        }
    }

    #[test]
    fn a_changed_byte_or_a_missing_one_makes_it_none() {
        let mut bytes = Vec::new();
        write(&mut bytes, &event(Type::Request, b"payload"));
        let (length, sum, content) = split(&bytes);
        for at in 0..length {
            assert_eq!(read(&content[..at], sum), None);
            let mut changed = content.to_vec();
            changed[at] ^= 1;
            assert_eq!(read(&changed, sum), None);
            // Nor is it one that the checksum does not show.
            let _ = read(&changed, crc32fast::hash(&changed));
            assert_eq!(read(&content[..at], crc32fast::hash(&content[..at])), None);
        }
    }

    #[test]
    fn a_length_that_no_record_has_is_none() {
        assert_eq!(prefix([255; PREFIX]), None);
        assert_eq!(prefix([0; PREFIX]), Some((0, 0)));
    }
}
