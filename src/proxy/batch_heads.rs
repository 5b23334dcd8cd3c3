//! The heads of batched requests: what of a request's head goes to the batcher, what of an answer's to its client.
//!
//! Not here: which fields a batch of several keeps ([`crate::batcher`]).

use super::headers::{
    self, Connection, Peer, reason, target_authority, write_connection, write_field, write_forwarded,
    write_forwarded_for, write_number, write_status, write_target,
};
use crate::batcher::answer::{Answer, Response, V1_BEFORE_ID, V1_BEFORE_PREDICTIONS, V1_END};
use crate::batcher::request::Head;
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

/// Appends a client's answer, head and body.
pub(super) fn write_answer(out: &mut Vec<u8>, answer: &Answer, version: Version, connection: Connection) {
    match answer {
        Answer::Predictions { response, range } => {
            let parts =
                [V1_BEFORE_ID, &response.batch_id, V1_BEFORE_PREDICTIONS, &response.body[range.clone()], V1_END];
            write_response(out, response, JSON, &parts, version, connection);
        }
        Answer::Whole(response) => {
            write_response(out, response, &response.fields_of_body, &[&response.body], version, connection);
        }
        Answer::Rebuilt { response, body } => write_response(out, response, JSON, &[body], version, connection),
        Answer::Failed(failure) if failure.is_json() => {
            // The text has no character that JSON escapes.
            let text = format!("{{\"error\":\"{failure}\"}}");
            let message = Message { status: failure.status(), fields: [JSON, b""], body: &[text.as_bytes()] };
            write(out, &message, version, connection);
        }
        Answer::Failed(failure) => {
            let fields = if failure.status() == 503 { headers::COME_AGAIN } else { &[] };
            let text = format!("{failure}\n");
            let answer = headers::Answer { fields, ..headers::Answer::plain(failure.status(), text.as_bytes()) };
            headers::write_answer(out, answer, version, connection, false);
        }
    }
}

/// An answer in its parts.
struct Message<'m> {
    status: u16,
    fields: [&'m [u8]; 2],
    body: &'m [&'m [u8]],
}

fn write_response(
    out: &mut Vec<u8>,
    response: &Response,
    fields_of_body: &[u8],
    body: &[&[u8]],
    version: Version,
    connection: Connection,
) {
    let message = Message { status: response.status, fields: [fields_of_body, &response.fields], body };
    write(out, &message, version, connection);
}

fn write(out: &mut Vec<u8>, message: &Message<'_>, version: Version, connection: Connection) {
    write_status(out, version, message.status);
    out.extend_from_slice(reason(message.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    message.fields.iter().for_each(|lines| out.extend_from_slice(lines));
    // Neither has a body, and so no length of one (RFC 9110 §8.6).
    let has_body = !matches!(message.status, 204 | 304);
    if has_body {
        write_number(out, "Content-Length", message.body.iter().map(|part| part.len() as u64).sum());
    }
    write_connection(out, connection);
    out.extend_from_slice(b"\r\n");
    if has_body {
        message.body.iter().for_each(|part| out.extend_from_slice(part));
    }
}
