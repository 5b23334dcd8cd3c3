//! The heads of batched requests: what of a request's head goes to the batcher, what of an answer's to its client.
//!
//! Not here: which fields a batch of several keeps ([`crate::batcher`]).

use std::ops::Range;

use super::buffer::{LargeBody, Source};
use super::headers::{
    self, Connection, Peer, reason, target_authority, write_connection, write_field, write_forwarded,
    write_forwarded_for, write_number, write_status, write_target,
};
use crate::batcher::answer::{Answer, Response, V1_BEFORE_ID, V1_BEFORE_PREDICTIONS, V1_END};
use crate::batcher::request::Head;
use crate::config::BATCH_COPY_BYTES;
use crate::http1::Version;
use crate::http1::field::Kind;
use crate::http1::head::RequestHead;

const JSON: &[u8] = b"Content-Type: application/json\r\n";

/// What of a request's head goes on. Framing is the batch's own; nobody could pass trailers on or split a compressed
/// response, so they are not asked for; the agent has answered `Expect` itself.
pub(super) fn of_request(head: &RequestHead<'_, '_>, peer: &Peer, authority: &[u8]) -> Head {
    let mut text = Vec::with_capacity(head.length);
    write_target(&mut text, head);
    let fields_at = text.len();
    let fields = &head.fields;
    if !fields.has(Kind::Host) {
        write_field(&mut text, "Host", &[target_authority(head).unwrap_or(authority)]);
    }
    let forwards_for = !peer.is_unnamed();
    fields.copy_lines(&mut text, |kind, _| match kind {
        Kind::Connection
        | Kind::Hop
        | Kind::Nominated
        | Kind::Te
        | Kind::TransferEncoding
        | Kind::ContentLength
        | Kind::Upgrade
        | Kind::Expect
        | Kind::AcceptEncoding => false,
        Kind::ForwardedFor => !forwards_for,
        _ => true,
    });
    if forwards_for {
        write_forwarded_for(&mut text, fields, peer);
    }
    write_forwarded(&mut text, fields);
    Head { text, fields_at }
}

/// Appends a client's answer, head and body, to `out`; a large body is returned instead, to be sent from where it lies.
pub(super) fn write_answer(
    out: &mut Vec<u8>,
    answer: Answer,
    version: Version,
    connection: Connection,
) -> Option<LargeBody> {
    match answer {
        Answer::Predictions { response, range } => {
            let start = [V1_BEFORE_ID, &response.batch_id, V1_BEFORE_PREDICTIONS];
            let length = start.iter().map(|part| part.len()).sum::<usize>() + range.len() + V1_END.len();
            write_head(out, &response, JSON, Some(length), version, connection);
            start.iter().for_each(|part| out.extend_from_slice(part));
            write_part(out, Source::Shared(response), range, V1_END)
        }
        Answer::Whole(response) => {
            // Neither has a body, and so no length of one (RFC 9110 §8.6).
            let range = 0..if matches!(response.status, 204 | 304) { 0 } else { response.body.len() };
            let length = (!matches!(response.status, 204 | 304)).then_some(range.len());
            write_head(out, &response, &response.fields_of_body, length, version, connection);
            write_part(out, Source::Shared(response), range, b"")
        }
        Answer::Rebuilt { response, body, held } => {
            let media = media_of(&response.fields_of_body).unwrap_or(JSON);
            write_head(out, &response, media, Some(body.len()), version, connection);
            write_body(out, Source::Own { bytes: body, held }, b"")
        }
        // It is relayed, not written.
        Answer::Streamed(_) => None,
        Answer::Failed(fault) => {
            headers::write_fault(out, fault, version, connection, false);
            None
        }
    }
}

/// Appends the head of a response that is streamed: its framing is written by the caller.
pub(super) fn write_streamed(
    out: &mut Vec<u8>,
    response: &Response,
    framing: StreamedFraming,
    version: Version,
    connection: Connection,
) {
    write_lines(out, response, &response.fields_of_body, version);
    match framing {
        StreamedFraming::Length(length) => write_number(out, "Content-Length", length),
        StreamedFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        StreamedFraming::Close => {}
    }
    write_connection(out, connection);
    out.extend_from_slice(b"\r\n");
}

/// How a client sees the end of a body that is streamed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamedFraming {
    /// By its length.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// The line of the content type among those that describe a body; it holds for a share of the body too (SPEC B12).
fn media_of(fields_of_body: &[u8]) -> Option<&[u8]> {
    let mut lines = fields_of_body.split_inclusive(|byte| *byte == b'\n');
    lines.find(|line| line.get(..13).is_some_and(|name| name.eq_ignore_ascii_case(b"content-type:")))
}

fn write_head(
    out: &mut Vec<u8>,
    response: &Response,
    fields_of_body: &[u8],
    length: Option<usize>,
    version: Version,
    connection: Connection,
) {
    write_lines(out, response, fields_of_body, version);
    if let Some(length) = length {
        write_number(out, "Content-Length", length as u64);
    }
    write_connection(out, connection);
    out.extend_from_slice(b"\r\n");
}

fn write_lines(out: &mut Vec<u8>, response: &Response, fields_of_body: &[u8], version: Version) {
    write_status(out, version, response.status);
    out.extend_from_slice(reason(response.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(fields_of_body);
    out.extend_from_slice(&response.fields);
}

/// Appends a body and what ends it to `out`; a large one is returned instead, to be sent from where it lies.
pub(super) fn write_body(out: &mut Vec<u8>, source: Source, end: &'static [u8]) -> Option<LargeBody> {
    let range = 0..source.bytes().len();
    write_part(out, source, range, end)
}

fn write_part(out: &mut Vec<u8>, source: Source, range: Range<usize>, end: &'static [u8]) -> Option<LargeBody> {
    let body = LargeBody::new(source, range, end);
    if body.len() > BATCH_COPY_BYTES {
        return Some(body);
    }
    out.extend_from_slice(body.rest());
    out.extend_from_slice(body.end());
    None
}
