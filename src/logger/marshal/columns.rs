//! The columns of csv and parquet: their names and order, and what is in them (SPEC L8).
//!
//! What is missing is an empty text, as with the Go agent; the time has no column.

use crate::logger::record::Record;

/// A column.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) values: Values,
}

/// How to get a record's value.
pub(super) enum Values {
    Text(for<'r> fn(Record<'r>) -> Text<'r>),
    Flag(fn(Record<'_>) -> bool),
}

/// A text.
pub(super) enum Text<'r> {
    Plain(&'r str),
    /// The bytes, whose base64 is the text.
    Base64(&'r [u8]),
}

pub(super) const COLUMNS: [Column; 14] = [
    text("url", |record| Text::Plain(record.common.url.as_str())),
    text("bytes", |record| Text::Base64(record.bytes)),
    text("contentType", |record| Text::Plain(record.content_type)),
    text("reqType", |record| Text::Plain(record.req_type)),
    text("id", |record| Text::Plain(record.id)),
    text("sourceUri", |record| Text::Plain(record.common.source_uri.as_str())),
    text("inferenceService", |record| Text::Plain(&record.common.inference_service)),
    text("namespace", |record| Text::Plain(&record.common.namespace)),
    text("component", |record| Text::Plain(&record.common.component)),
    text("endpoint", |record| Text::Plain(&record.common.endpoint)),
    text("metadata", |record| Text::Plain(filled(record.metadata))),
    text("annotations", |record| Text::Plain(filled(&record.common.annotations))),
    text("certName", |record| Text::Plain(&record.common.cert_name)),
    Column { name: "tlsSkipVerify", values: Values::Flag(|record| record.common.tls_skip_verify) },
];

const fn text(name: &'static str, text: for<'r> fn(Record<'r>) -> Text<'r>) -> Column {
    Column { name, values: Values::Text(text) }
}

/// A JSON object, or nothing if there is nothing in it.
pub(super) fn filled(object: &str) -> &str {
    if object == "{}" { "" } else { object }
}
