//! The csv file (RFC 4180): a header row and a row per record. Lines end in LF, as the Go agent's do and every reader
//! takes. By hand, as a library would want each payload's base64 as a text of its own.
//!
//! A text that a client chose may begin with `=`, which a spreadsheet takes for a formula. It is left as it is: these are
//! records of what was sent, and programs read them.

use super::columns::{COLUMNS, Text, Values};
use crate::logger::record::Record;

pub(super) fn marshal(records: &[Record]) -> Vec<u8> {
    let mut out = COLUMNS.map(|column| column.name).join(",").into_bytes();
    out.push(b'\n');
    for record in records {
        for (index, column) in COLUMNS.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match column.values {
                Values::Text(text) => write(&text(record), &mut out),
                Values::Flag(flag) => out.extend_from_slice(if flag(record) { b"true" } else { b"false" }),
            }
        }
        out.push(b'\n');
    }
    out
}

fn write(text: &Text<'_>, out: &mut Vec<u8>) {
    match text {
        Text::Plain(plain) if plain.contains([',', '"', '\r', '\n']) => {
            out.push(b'"');
            out.extend_from_slice(plain.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        }
        // No character of base64 needs quotes.
        text => text.write(out),
    }
}
