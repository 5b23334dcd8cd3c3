//! The columns of csv and parquet: their names and order, and what is in them (SPEC L8).
//!
//! What is missing is an empty text, as with the Go agent; the time has no column.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::logger::record::Record;

/// A column.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) values: Values,
}

/// How to get a record's value.
pub(super) enum Values {
    Text(fn(&Record) -> Text<'_>),
    Flag(fn(&Record) -> bool),
}

/// A text.
pub(super) enum Text<'r> {
    Plain(Cow<'r, str>),
    /// The bytes, whose base64 is the text.
    Base64(&'r [u8]),
}

pub(super) const COLUMNS: [Column; 14] = [
    text("url", |record| plain(record.url.as_str())),
    text("bytes", |record| Text::Base64(&record.bytes)),
    text("contentType", |record| plain(&record.content_type)),
    text("reqType", |record| plain(&record.req_type)),
    text("id", |record| plain(&record.id)),
    text("sourceUri", |record| plain(record.source_uri.as_str())),
    text("inferenceService", |record| plain(&record.inference_service)),
    text("namespace", |record| plain(&record.namespace)),
    text("component", |record| plain(&record.component)),
    text("endpoint", |record| plain(&record.endpoint)),
    text("metadata", |record| json(&record.metadata)),
    text("annotations", |record| json(&record.annotations)),
    text("certName", |record| plain(&record.cert_name)),
    Column { name: "tlsSkipVerify", values: Values::Flag(|record| record.tls_skip_verify) },
];

const fn text(name: &'static str, text: fn(&Record) -> Text<'_>) -> Column {
    Column { name, values: Values::Text(text) }
}

fn plain(text: &str) -> Text<'_> {
    Text::Plain(Cow::Borrowed(text))
}

/// Nothing if there is nothing in it.
fn json<T: Serialize>(map: &BTreeMap<String, T>) -> Text<'_> {
    // A map of text always has a JSON form.
    let text = if map.is_empty() { String::new() } else { serde_json::to_string(map).unwrap_or_default() };
    Text::Plain(Cow::Owned(text))
}

impl Text<'_> {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Base64(bytes) => bytes.len().div_ceil(3) * 4,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Self::Base64(bytes) => {
                // Writing to a vector does not fail.
                let _ = write!(out, "{}", Base64Display::new(bytes, &STANDARD));
            }
        }
    }
}
