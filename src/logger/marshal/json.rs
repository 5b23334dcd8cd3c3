//! The json file: one object for one record, an array for several or none, and what a marshaller is asked with, always an
//! array (SPEC L9).
//!
//! A record's JSON form is that of the Go agent: empty members are left out, but for the time, and URLs are taken apart.
//! Written by hand, as a serializer would want the metadata, which is JSON already, read before.

use std::io::Write as _;
use std::iter::once;

use super::Piece;
use super::columns::filled;
use crate::logger::record::Record;

/// The one record as an object, or any number as an array.
pub(super) fn pieces<'r>(
    records: impl Iterator<Item = Record<'r>> + 'r,
    is_array: bool,
) -> impl Iterator<Item = Piece<'r>> {
    let [open, close] = if is_array { ["[", "]"] } else { [""; 2] };
    let objects = records.enumerate().flat_map(|(index, record)| object(record, if index > 0 { "," } else { "" }));
    once(Piece::of(open)).chain(objects).chain(once(Piece::of(close)))
}

/// What is before the payload, the payload, and what is behind it.
fn object<'r>(record: Record<'r>, before: &str) -> [Piece<'r>; 3] {
    let common = record.common;
    let mut object = Object::begin(before);
    object.json("url", common.url.json());
    let head = if record.bytes.is_empty() { Vec::new() } else { object.split("bytes") };
    object.text("contentType", record.content_type);
    object.text("reqType", record.req_type);
    object.text("id", record.id);
    object.json("sourceUri", common.source_uri.json());
    object.text("inferenceService", &common.inference_service);
    object.text("namespace", &common.namespace);
    object.text("component", &common.component);
    object.text("endpoint", &common.endpoint);
    object.json("metadata", filled(record.metadata));
    object.json("annotations", filled(&common.annotations));
    object.text("certName", &common.cert_name);
    object.json("tlsSkipVerify", if common.tls_skip_verify { "true" } else { "" });
    // Writing to a vector does not fail.
    let _ = write!(object.name("occurrenceTime"), "\"{}\"}}", record.occurred_at);
    [Piece::from(head), Piece::Base64(record.bytes), Piece::from(object.out)]
}

/// An object that is being written.
struct Object {
    out: Vec<u8>,
    is_empty: bool,
}

impl Object {
    fn begin(before: &str) -> Self {
        let mut out = Vec::with_capacity(ROOM);
        out.extend([before, "{"].concat().into_bytes());
        Self { out, is_empty: true }
    }

    /// Begins a member.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        let comma = if std::mem::take(&mut self.is_empty) { "" } else { "," };
        let _ = write!(self.out, "{comma}\"{name}\":");
        &mut self.out
    }

    /// A member that is JSON already, unless it is empty.
    fn json(&mut self, name: &str, json: &str) {
        if !json.is_empty() {
            self.name(name).extend_from_slice(json.as_bytes());
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            // A text always has a JSON form.
            let _ = serde_json::to_writer(self.name(name), text);
        }
    }

    /// Begins a text that comes from elsewhere; returns what is before it.
    fn split(&mut self, name: &str) -> Vec<u8> {
        self.name(name).push(b'"');
        let mut rest = Vec::with_capacity(ROOM);
        rest.push(b'"');
        std::mem::replace(&mut self.out, rest)
    }
}

/// Bytes that most records have on each side of their payload.
const ROOM: usize = 1024;
