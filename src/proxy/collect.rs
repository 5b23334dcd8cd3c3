//! A request that is to be batched, while its body comes: pure, bytes go in (SPEC B1).
//!
//! Not here: the connection it comes over ([`super::batch`]), and the instances in it ([`crate::batcher`]).

use super::batch_heads;
use super::headers::{Parked, Peer};
use crate::batcher::key::{Key, Parts};
use crate::batcher::request::{Head, Payload, Protocol, Unfit};
use crate::config::BATCH_BODY_BYTES;
use crate::http1::Framing;
use crate::http1::body::{Body, BodyError, Keep};
use crate::http1::field::Kind;
use crate::http1::head::{RequestHead, path_of};
use crate::ops::budget::Held;

/// A request and what has come of its body.
#[derive(Debug)]
pub(crate) struct Collecting {
    protocol: Protocol,
    head: Head,
    /// What must be equal in all members of a batch, as far as the head says.
    key: Parts,
    /// The head as it came, for a request that may turn out to be none to batch.
    raw_head: Vec<u8>,
    framing: Framing,
    body: Body,
    /// What has come of it; in V2 with its framing, as it may pass.
    bytes: Vec<u8>,
    held: Held,
    /// There was room for the head.
    fits: bool,
    pub(super) parked: Parked,
    /// The client is to get a 100.
    pub(super) expects_continue: bool,
}

/// A request whose body is whole.
pub(super) struct Collected {
    pub(super) head: Head,
    pub(super) key: Key,
    pub(super) body: Vec<u8>,
    pub(super) held: Held,
    pub(super) fit: Result<Payload, Unfit>,
    /// Head and framed body as they came, if it passes.
    pub(super) raw: (Vec<u8>, Vec<u8>),
}

/// Why a body can't be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uncollected {
    /// Its framing is broken.
    Body(BodyError),
    /// There is no room for it.
    NoRoom,
}

impl Collecting {
    /// A request whose head is one of those that are batched.
    pub(super) fn new(
        protocol: Protocol,
        head: &RequestHead<'_, '_>,
        (peer, authority): (&Peer, &[u8]),
        key_headers: &[String],
        mut held: Held,
    ) -> Self {
        let parked = Parked { version: head.version, keeps: head.options.keeps(head.version), is_head: false };
        let going_on = batch_heads::of_request(head, peer, authority);
        let raw_head = if protocol == Protocol::V2 { head.fields.head().to_vec() } else { Vec::new() };
        let key = key(head, &going_on, key_headers);
        let fits = held.grow(going_on.text.len() + raw_head.len() + key.len());
        Self {
            protocol,
            key,
            head: going_on,
            raw_head,
            framing: head.framing,
            body: Body::new(head.framing, if protocol == Protocol::V2 { Keep::Framing } else { Keep::Data }),
            bytes: Vec::new(),
            held,
            fits,
            parked,
            expects_continue: head.expects_continue,
        }
    }

    /// Takes what belongs to the body from the front of `buf`; returns how much that was.
    pub(super) fn take(&mut self, buf: &mut [u8]) -> Result<usize, Uncollected> {
        let step = self.body.advance(buf).map_err(Uncollected::Body)?;
        let is_too_large = matches!(self.framing, Framing::Length(length) if length > BATCH_BODY_BYTES as u64);
        if !self.fits || is_too_large || !self.held.grow(step.kept) {
            return Err(Uncollected::NoRoom);
        }
        if self.bytes.is_empty() {
            // Most bodies come in one piece, and then this is their size.
            self.bytes.reserve_exact(step.kept);
        }
        self.bytes.extend_from_slice(&buf[..step.kept]);
        Ok(step.consumed)
    }

    /// Whether the whole body has come.
    pub(super) fn is_whole(&self) -> bool {
        self.body.has_ended()
    }

    /// Finds the instances in the body.
    ///
    /// # Errors
    /// When there is no room for what it has beside them.
    pub(super) fn finish(self) -> Result<Collected, Uncollected> {
        let Self { protocol, head, mut key, raw_head, framing, bytes, mut held, .. } = self;
        let of_head = key.len();
        let is_framed = protocol == Protocol::V2 && framing == Framing::Chunked;
        let (body, framed) = if is_framed { (data_of(bytes.clone()), bytes) } else { (bytes, Vec::new()) };
        let fit = Payload::of(protocol, &body, &mut key);
        if !held.grow(key.len() - of_head) {
            return Err(Uncollected::NoRoom);
        }
        let key = key.finish();
        if fit == Err(Unfit::Passes) {
            let raw = (raw_head, if is_framed { framed } else { body });
            return Ok(Collected { head, key, body: Vec::new(), held, fit, raw });
        }
        Ok(Collected { head, key, body, held, fit, raw: (Vec::new(), Vec::new()) })
    }
}

/// The data of a chunked body.
fn data_of(mut framed: Vec<u8>) -> Vec<u8> {
    // It was walked over when it came, so this can't fail.
    let kept = Body::new(Framing::Chunked, Keep::Data).advance(&mut framed).map_or(0, |step| step.kept);
    framed.truncate(kept);
    framed
}

/// Path and query, content type and the headers that must be equal (SPEC B4).
fn key(head: &RequestHead<'_, '_>, going_on: &Head, key_headers: &[String]) -> Parts {
    let mut key = Parts::default();
    key.add(going_on.target());
    for wanted in key_headers.iter().map(String::as_str).chain(["content-type"]) {
        key.add(wanted.as_bytes());
        let fields: Vec<&[u8]> =
            head.fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(wanted)).map(|field| field.2).collect();
        key.add_all(fields.iter().copied());
    }
    key
}

/// The protocol of a request that is batched, if its body is right; `None`: it passes.
pub(super) fn protocol(head: &RequestHead<'_, '_>) -> Option<Protocol> {
    if head.method != b"POST" || head.upgrade {
        return None;
    }
    let target = &head.target[head.origin_at..];
    let protocol = protocol_of(path_of(target))?;
    let passes = head.fields.iter().any(|(kind, name, value)| kind == Kind::Other && asks_for_passing(name, value));
    // The HTTP client of the forwarders takes no others (RFC 3986 §3.3, §3.4).
    let is_plain = target.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte));
    (!passes && is_plain).then_some(protocol)
}

/// Bodies that can't be read as JSON, and CloudEvents, whose every field belongs to one event.
fn asks_for_passing(name: &str, value: &[u8]) -> bool {
    const CLOUD_EVENTS: &[u8] = b"application/cloudevents";
    match name.len() {
        16 if name.eq_ignore_ascii_case("content-encoding") => !value.eq_ignore_ascii_case(b"identity"),
        14 if name.eq_ignore_ascii_case("ce-specversion") => true,
        31 if name.eq_ignore_ascii_case("inference-header-content-length") => true,
        12 if name.eq_ignore_ascii_case("content-type") => {
            value.get(..CLOUD_EVENTS.len()).is_some_and(|start| start.eq_ignore_ascii_case(CLOUD_EVENTS))
        }
        _ => false,
    }
}

fn protocol_of(path: &[u8]) -> Option<Protocol> {
    if path.ends_with(b":predict") || path.ends_with(b"%3Apredict") || path.ends_with(b"%3apredict") {
        return Some(Protocol::V1);
    }
    // From behind: infer [ V versions ] M models v2
    let mut segments = path.rsplit(|byte| *byte == b'/');
    let is_infer = segments.next() == Some(b"infer");
    let named = segments.next().filter(|name| is_infer && !name.is_empty());
    let collection = match (named, segments.next()) {
        (Some(_), Some(b"versions")) => segments.next().filter(|model| !model.is_empty()).and(segments.next()),
        (Some(_), collection) => collection,
        (None, _) => None,
    };
    (collection == Some(b"models") && segments.next() == Some(b"v2")).then_some(Protocol::V2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_the_protocol() {
        for path in ["/v1/models/m:predict", "/x:predict", "/v1/models/m%3Apredict"] {
            assert_eq!(protocol_of(path.as_bytes()), Some(Protocol::V1), "{path}");
        }
        for path in ["/v2/models/m/infer", "/v2/models/m/versions/1/infer", "/a/v2/models/m/infer"] {
            assert_eq!(protocol_of(path.as_bytes()), Some(Protocol::V2), "{path}");
        }
        for path in [
            "/v1/models/m:explain",
            "/v2/models/m/infer/",
            "/v2/models//infer",
            "/v2/models/infer",
            "/infer",
            "infer",
            "/",
            "/v2/models/m/versions//infer",
            "/v1/models/m/infer",
            "/v2/models/m/versions/infer",
            "/v2/models/m/generate",
        ] {
            assert_ne!(protocol_of(path.as_bytes()), Some(Protocol::V1), "{path}");
        }
        assert_eq!(protocol_of(b"/v2/models//infer"), None);
        assert_eq!(protocol_of(b"/v2/models/m/versions//infer"), None);
    }
}
