//! The heads that the agent writes: a request for the model server, a response for the client, an answer of its own.
//!
//! Field lines that pass are copied as they were sent, name, case, spacing and order included (SPEC P1); only what
//! belongs to one hop is taken out and made anew (P3), and the peer's address is added (P4).
//!
//! Not here: who decides about framing and keep-alive ([`super::exchange`]).

use std::io::Write as _;
use std::net::IpAddr;

use crate::config::FORWARDED_BYTES;
use crate::fault::Fault;
use crate::http1::Version;
use crate::http1::field::{Kind, list, list_has};
use crate::http1::fields::Fields;
use crate::http1::head::{RequestHead, ResponseHead};
use crate::http1::{Framing, trim};

/// A client's address as text, made once per connection; empty for a client on the abstract socket, as Go leaves it out.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    text: [u8; 39],
    length: u8,
}

/// How a response goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResponsePlan {
    /// The version in the status line.
    pub(crate) version: Version,
    /// What `Connection` says to the client.
    pub(crate) connection: Connection,
    /// What tells the client where the body ends.
    pub(crate) length: Length,
}

/// What `Connection` says to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Nothing: the version's own rule holds.
    Implied,
    /// `keep-alive`, for HTTP/1.0.
    KeepAlive,
    /// `close`
    Close,
    /// `Upgrade`, and the `Upgrade` field passes.
    Upgrade,
}

/// What tells the client where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// The server's `Content-Length`, if there is one.
    AsSent,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Nothing: there is no body or it ends with the connection.
    Nothing,
}

/// A request that the agent will answer: a probe that waits for its result, or a batched one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parked {
    pub(crate) version: Version,
    pub(crate) keeps: bool,
    pub(crate) is_head: bool,
}

/// An answer that the agent gives itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// The status.
    pub(crate) status: u16,
    /// More fields.
    pub(crate) fields: &'a [(&'static str, &'a [u8])],
    /// What the body is.
    pub(crate) media: &'static str,
    /// The body.
    pub(crate) body: &'a [u8],
}

/// What a client is told for whom there is no room now.
pub(super) const COME_AGAIN: &[(&str, &[u8])] = &[("Retry-After", b"1")];
/// The agent's own texts.
pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

impl Parked {
    /// A request to which the body does not matter; with one its connection is closed rather than read on.
    pub(crate) fn of(head: &RequestHead<'_, '_>) -> Self {
        let keeps = head.options.keeps(head.version) && head.framing == Framing::Empty;
        Self { version: head.version, keeps, is_head: head.method == b"HEAD" }
    }
}

impl<'a> Answer<'a> {
    /// A text and nothing else.
    pub(crate) const fn plain(status: u16, body: &'a [u8]) -> Self {
        Self { status, fields: &[], media: PLAIN, body }
    }
}

impl Connection {
    /// What a client is told whose connection is kept or not.
    pub(crate) fn of_client(keeps: bool, version: Version) -> Self {
        match (keeps, version) {
            (false, _) => Self::Close,
            (true, Version::Http10) => Self::KeepAlive,
            (true, Version::Http11) => Self::Implied,
        }
    }
}

impl Peer {
    /// The text of `address`; an IPv4 address that came through an IPv6 socket is written as IPv4.
    pub fn new(address: Option<IpAddr>) -> Self {
        let mut peer = Self { text: [0; 39], length: 0 };
        if let Some(address) = address {
            let room = peer.text.len();
            let mut rest = &mut peer.text[..];
            // 39 bytes hold every address, so this can't fail.
            let written = write!(rest, "{}", address.to_canonical()).map(|()| room - rest.len());
            peer.length = u8::try_from(written.unwrap_or_default()).unwrap_or_default();
        }
        peer
    }

    /// Whether there is no address to forward.
    pub(super) fn is_unnamed(&self) -> bool {
        self.length == 0
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

/// Appends the request that goes to the model server. `authority` is the `Host` of a request without one.
pub(crate) fn write_request(out: &mut Vec<u8>, head: &RequestHead<'_, '_>, peer: &Peer, authority: &[u8]) {
    out.extend_from_slice(head.method);
    out.push(b' ');
    write_target(out, head);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let fields = &head.fields;
    if !fields.has(Kind::Host) {
        write_field(out, "Host", &[target_authority(head).unwrap_or(authority)]);
    }
    let forwards_for = !peer.is_unnamed();
    let plain_length = has_plain_length(fields);
    fields.copy_lines(out, |kind, value| match kind {
        Kind::Connection | Kind::Hop | Kind::Nominated | Kind::TransferEncoding => false,
        Kind::Te => value.eq_ignore_ascii_case(b"trailers"),
        Kind::Upgrade => head.upgrade,
        Kind::Expect => head.version == Version::Http11,
        Kind::ForwardedFor => !forwards_for,
        Kind::ContentLength => plain_length,
        _ => true,
    });
    if !plain_length {
        write_length(out, fields);
    }
    if fields.has(Kind::Te) {
        write_te(out, fields);
    }
    if head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if head.upgrade {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    }
    if forwards_for {
        write_forwarded_for(out, fields, peer);
    }
    write_forwarded(out, fields);
    out.extend_from_slice(b"\r\n");
}

/// The origin-form of the target (RFC 9112 §3.2.1).
pub(super) fn write_target(out: &mut Vec<u8>, head: &RequestHead<'_, '_>) {
    let target = &head.target[head.origin_at..];
    match target.first() {
        None if head.method == b"OPTIONS" => out.push(b'*'),
        None | Some(b'?') => out.push(b'/'),
        Some(_) => {}
    }
    out.extend_from_slice(target);
}

/// The authority of an absolute-form target, which stands for a `Host` (RFC 9112 §3.2.2).
pub(super) fn target_authority<'b>(head: &RequestHead<'_, 'b>) -> Option<&'b [u8]> {
    let start = head.target[..head.origin_at].iter().rposition(|byte| *byte == b'/')?;
    Some(&head.target[start + 1..head.origin_at])
}

/// Whether the `Content-Length` can pass as it is: one line, one number, no longer than any server takes.
fn has_plain_length(fields: &Fields<'_, '_>) -> bool {
    let mut values = fields.values(Kind::ContentLength);
    let plain = |value: &[u8]| value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
    values.next().is_some_and(plain) && values.next().is_none()
}

/// Writes the one number that a list or repetition of lengths agreed on.
fn write_length(out: &mut Vec<u8>, fields: &Fields<'_, '_>) {
    if let Ok(Some(length)) = fields.content_length() {
        write_number(out, "Content-Length", length);
    }
}

/// `TE` goes on only as `trailers` (SPEC P3); a line that says just that has passed already.
fn write_te(out: &mut Vec<u8>, fields: &Fields<'_, '_>) {
    let mut values = fields.values(Kind::Te);
    let passed = fields.values(Kind::Te).any(|value| value.eq_ignore_ascii_case(b"trailers"));
    if !passed && values.any(|value| list_has(value, "trailers")) {
        write_field(out, "TE", &[b"trailers"]);
    }
}

pub(super) fn write_forwarded_for(out: &mut Vec<u8>, fields: &Fields<'_, '_>, peer: &Peer) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    for value in fields.values(Kind::ForwardedFor).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(peer.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// `Forwarded` as Knative's shim makes it from `X-Forwarded-*`, without this hop (SPEC P4); values over
/// [`FORWARDED_BYTES`] are left out.
pub(super) fn write_forwarded(out: &mut Vec<u8>, fields: &Fields<'_, '_>) {
    let first = |kind| fields.first(kind).filter(|value| !value.is_empty() && value.len() <= FORWARDED_BYTES);
    let (nodes, host, proto) = (first(Kind::ForwardedFor), first(Kind::ForwardedHost), first(Kind::ForwardedProto));
    if fields.first(Kind::Forwarded).is_some_and(|value| !value.is_empty())
        || (nodes.is_none() && host.is_none() && proto.is_none())
    {
        return;
    }
    out.extend_from_slice(b"Forwarded: ");
    let mut nodes = nodes.into_iter().flat_map(list);
    let mut between: &[u8] = b"";
    if let Some(node) = nodes.next() {
        write_node(out, node);
        between = b";";
    }
    for (name, value) in [("host=", host), ("proto=", proto)] {
        let Some(value) = value else { continue };
        out.extend_from_slice(between);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
        between = b";";
    }
    for node in nodes {
        out.extend_from_slice(b", ");
        write_node(out, node);
    }
    out.extend_from_slice(b"\r\n");
}

/// An IPv6 address is bracketed and quoted (RFC 7239 §6).
fn write_node(out: &mut Vec<u8>, node: &[u8]) {
    let (before, after): (&[u8], &[u8]) = if node.contains(&b':') { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    out.extend_from_slice(before);
    out.extend_from_slice(trim(node));
    out.extend_from_slice(after);
}

/// Appends the response head that goes to the client.
pub(crate) fn write_response(out: &mut Vec<u8>, head: &ResponseHead<'_, '_>, plan: ResponsePlan) {
    write_status(out, plan.version, head.status);
    out.extend_from_slice(head.reason);
    out.extend_from_slice(b"\r\n");
    let plain_length = has_plain_length(&head.fields);
    head.fields.copy_lines(out, |kind, _| match kind {
        Kind::Connection | Kind::Hop | Kind::Nominated | Kind::TransferEncoding => false,
        Kind::Upgrade => plan.connection == Connection::Upgrade,
        Kind::ContentLength => plan.length == Length::AsSent && plain_length,
        _ => true,
    });
    match plan.length {
        Length::AsSent if plain_length => {}
        Length::AsSent => write_length(out, &head.fields),
        Length::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Length::Nothing => {}
    }
    write_connection(out, plan.connection);
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer that a fault gets: its status, and one line that says why.
pub(crate) fn write_fault(out: &mut Vec<u8>, fault: Fault, version: Version, connection: Connection, bodiless: bool) {
    let mut line = [0; 128];
    let room = line.len();
    let mut rest = &mut line[..];
    // A reason that does not fit is cut off.
    let _ = write!(rest, "{fault}");
    let length = room - rest.len();
    let end = length.min(room - 1);
    line[end] = b'\n';
    let fields = if fault.status() == 503 { COME_AGAIN } else { &[] };
    let answer = Answer { status: fault.status(), fields, media: PLAIN, body: &line[..=end] };
    write_answer(out, answer, version, connection, bodiless);
}

/// Appends an answer of the agent's own, in the form of Go's `http.Error`. `bodiless`: the request was `HEAD`.
pub(crate) fn write_answer(
    out: &mut Vec<u8>,
    answer: Answer<'_>,
    version: Version,
    connection: Connection,
    bodiless: bool,
) {
    write_status(out, version, answer.status);
    out.extend_from_slice(reason(answer.status).as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in answer.fields {
        write_field(out, name, &[value]);
    }
    if !answer.body.is_empty() {
        write_field(out, "Content-Type", &[answer.media.as_bytes()]);
        write_field(out, "X-Content-Type-Options", &[b"nosniff"]);
    }
    write_number(out, "Content-Length", answer.body.len() as u64);
    write_connection(out, connection);
    out.extend_from_slice(b"\r\n");
    if !bodiless {
        out.extend_from_slice(answer.body);
    }
}

pub(super) fn write_status(out: &mut Vec<u8>, version: Version, status: u16) {
    out.extend_from_slice(match version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    let digit = |place: u16| b"0123456789"[usize::from(status / place % 10)];
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
}

pub(super) fn write_connection(out: &mut Vec<u8>, connection: Connection) {
    out.extend_from_slice(match connection {
        Connection::Implied => b"",
        Connection::KeepAlive => b"Connection: keep-alive\r\n",
        Connection::Close => b"Connection: close\r\n",
        Connection::Upgrade => b"Connection: Upgrade\r\n",
    });
}

pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[&[u8]]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    value.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_number(out: &mut Vec<u8>, name: &str, number: u64) {
    // A Vec takes every byte, so this can't fail.
    let _ = write!(out, "{name}: {number}\r\n");
}

/// What a status is called (RFC 9110 §15).
pub(super) fn reason(status: u16) -> &'static str {
    ureq::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}
