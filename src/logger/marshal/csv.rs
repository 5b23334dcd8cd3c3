//! The csv file (RFC 4180): a header row and a row per record. Lines end in LF, as the Go agent's do and every reader
//! takes. By hand, as a library would want each payload's base64 as a text of its own.
//!
//! A text that a client chose may begin with `=`, which a spreadsheet takes for a formula. It is left as it is: these are
//! records of what was sent, and programs read them.

use std::iter::once;

use super::Piece;
use super::columns::{COLUMNS, Text, Values};
use crate::logger::record::Record;

pub(super) fn pieces<'r>(records: impl Iterator<Item = Record<'r>> + 'r) -> impl Iterator<Item = Piece<'r>> {
    let mut header = COLUMNS.map(|column| column.name).join(",").into_bytes();
    header.push(b'\n');
    once(Piece::from(header)).chain(records.flat_map(row))
}

/// What is before the payload, the payload, and what is behind it.
fn row(record: Record<'_>) -> [Piece<'_>; 3] {
    let mut out = Vec::new();
    let mut before = Vec::new();
    for (index, column) in COLUMNS.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match column.values {
            Values::Text(text) => match text(record) {
                Text::Plain(text) => write(text, &mut out),
                // No character of base64 needs quotes.
                Text::Base64(_) => before = std::mem::take(&mut out),
            },
            Values::Flag(flag) => out.extend_from_slice(if flag(record) { b"true" } else { b"false" }),
        }
    }
    out.push(b'\n');
    [Piece::from(before), Piece::Base64(record.bytes), Piece::from(out)]
}

fn write(text: &str, out: &mut Vec<u8>) {
    if text.contains([',', '"', '\r', '\n']) {
        out.push(b'"');
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}
