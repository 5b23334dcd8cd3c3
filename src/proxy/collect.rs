//! A request that is to be batched, while its body comes: pure, bytes go in (SPEC B1, B13).
//!
//! Not here: the connection it comes over ([`super::batch`]), and what its body must look like ([`crate::batcher`]).

use super::batch_heads;
use super::headers::{Parked, Peer, target_authority};
use crate::batcher::key::Parts;
use crate::batcher::request::{Head, Payload, Protocol, Scan, Unfit};
use crate::config::{BATCH_PARTS_BYTES, BATCH_PARTS_MAX, BATCH_REQUEST_BYTES};
use crate::fault::BadPredict;
use crate::http1::Framing;
use crate::http1::body::{Body, BodyError, Keep};
use crate::http1::field::Kind;
use crate::http1::head::{RequestHead, path_of};
use crate::ops::budget::Held;
use crate::ops::memory;

/// A request and what has come of its body.
#[derive(Debug)]
pub(crate) struct Collecting {
    head: Head,
    /// What must be equal in all members of a batch, as far as the head says.
    key: Parts,
    /// The head as it came, for a request that may turn out to be none to batch.
    raw_head: Vec<u8>,
    framing: Framing,
    body: Body,
    /// The data that have come.
    bytes: Vec<u8>,
    /// Where its instances are; or why it is not batched.
    scan: Result<Scan, Unfit>,
    held: Held,
    /// Bytes beside the data that `held` counts.
    beside: usize,
    pub(super) parked: Parked,
    /// The client is to get a 100.
    pub(super) expects_continue: bool,
}

/// A request that is handed to the batcher.
pub(super) struct Collected {
    pub(super) head: Head,
    pub(super) key: Parts,
    pub(super) body: Vec<u8>,
    pub(super) payload: Payload,
    pub(super) held: Held,
}

/// A request that goes to the server like any other, whole or with more to come.
pub(super) struct Passing {
    /// The head as it came.
    pub(super) raw_head: Vec<u8>,
    /// Where the body stands.
    pub(super) body: Body,
    /// The data that have come.
    pub(super) bytes: Vec<u8>,
    pub(super) held: Held,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More of the body is to come.
    More,
    /// The body is whole.
    Whole,
    /// It is not to be batched.
    Passes,
    /// There is no room for what has come; it is kept all the same.
    NoRoom,
}

impl Collecting {
    /// A request whose head is one of those that are batched.
    pub(super) fn new(
        protocol: Protocol,
        head: &RequestHead<'_, '_>,
        (peer, authority): (&Peer, &[u8]),
        key_headers: &[String],
        held: Held,
    ) -> Self {
        let parked = Parked { version: head.version, keeps: head.options.keeps(head.version), is_head: false };
        let going_on = batch_heads::of_request(head, peer, authority);
        let key = key(head, &going_on, key_headers);
        Self {
            key,
            head: going_on,
            raw_head: head.fields.head().to_vec(),
            framing: head.framing,
            body: Body::new(head.framing, Keep::Data),
            bytes: Vec::new(),
            scan: Ok(Scan::new(protocol)),
            held,
            beside: 0,
            parked,
            expects_continue: head.expects_continue,
        }
    }

    /// Bytes that have come of the body.
    pub(super) fn received(&self) -> usize {
        self.bytes.len()
    }

    /// The client has its 100, so the server need not be asked for one.
    pub(super) fn continued(&mut self) {
        let is_expectation = |line: &&[u8]| line.get(..7).is_some_and(|name| name.eq_ignore_ascii_case(b"expect:"));
        let lines = self.raw_head.split_inclusive(|byte| *byte == b'\n');
        self.raw_head = lines.filter(|line| !is_expectation(line)).flatten().copied().collect();
    }

    /// Takes what belongs to the body from the front of `buf`; returns how much that was.
    ///
    /// # Errors
    /// When the framing is broken.
    pub(super) fn take(&mut self, buf: &mut [u8]) -> Result<usize, BodyError> {
        let step = self.body.advance(buf)?;
        self.reserve(step.kept);
        self.bytes.extend_from_slice(&buf[..step.kept]);
        if let Ok(scan) = &mut self.scan
            && let Err(unfit) = scan.advance(&self.bytes)
        {
            self.scan = Err(unfit);
        }
        Ok(step.consumed)
    }

    /// How far the request has come, with what it has counted.
    pub(super) fn progress(&mut self) -> Progress {
        let beside = self.head.text.len() + self.raw_head.len() + self.key.len();
        self.beside = self.beside.max(beside + self.scan.as_ref().map_or(0, Scan::held));
        let more = (self.bytes.len() + self.beside).saturating_sub(self.held.bytes());
        if matches!(self.scan, Err(Unfit::Passes)) || self.bytes.len() > BATCH_REQUEST_BYTES {
            Progress::Passes
        } else if !self.held.grow(more) {
            Progress::NoRoom
        } else if self.body.has_ended() {
            Progress::Whole
        } else {
            Progress::More
        }
    }

    /// Doubles the room for the body, but not beyond its length. Most bodies come in one piece, and then that is their size.
    fn reserve(&mut self, more: usize) {
        let length = self.bytes.len() + more;
        let most = match self.framing {
            Framing::Length(all) => usize::try_from(all).unwrap_or(usize::MAX),
            _ if self.bytes.is_empty() => length,
            _ => usize::MAX,
        };
        if length > self.bytes.capacity() {
            memory::reserve(&mut self.bytes, (2 * length).min(most));
        }
    }

    /// What the whole body has come to; `cap`: instances in one call at most.
    ///
    /// # Errors
    /// When it is no request, or is none to batch.
    pub(super) fn finish(mut self: Box<Self>, cap: usize) -> Result<Collected, (Unfit, Box<Self>)> {
        debug_assert!(self.body.has_ended(), "the body is whole");
        let scan = std::mem::replace(&mut self.scan, Err(Unfit::Passes));
        let payload = scan.and_then(|scan| scan.finish(&self.bytes, &mut self.key));
        match payload {
            Ok(payload) if payload.instances() > cap && !self.may_be_split(&payload, cap) => Err((Unfit::Passes, self)),
            Ok(payload) => {
                let Self { head, key, bytes: body, held, .. } = *self;
                Ok(Collected { head, key, body, payload, held })
            }
            // Go's decoder takes a text that is not UTF-8 for another one, so it is the server's to judge.
            Err(Unfit::Bad(BadPredict::Malformed)) if str::from_utf8(&self.bytes).is_err() => {
                Err((Unfit::Passes, self))
            }
            Err(unfit) => Err((unfit, self)),
        }
    }

    /// Whether it may be sent in parts: each has a copy of all that stands outside its instances.
    fn may_be_split(&self, payload: &Payload, cap: usize) -> bool {
        let parts = payload.instances().div_ceil(cap);
        let copies = payload.outside(self.bytes.len()).saturating_mul(parts);
        payload.can_be_split() && parts <= BATCH_PARTS_MAX && copies <= BATCH_PARTS_BYTES
    }

    /// The body as far as it has come.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// It is not batched, but goes on from here.
    pub(super) fn into_passing(self: Box<Self>) -> Passing {
        let Self { raw_head, body, bytes, held, .. } = *self;
        Passing { raw_head, body, bytes, held }
    }
}

/// Path and query, content type and the headers that must be equal (SPEC B4).
fn key(head: &RequestHead<'_, '_>, going_on: &Head, key_headers: &[String]) -> Parts {
    let mut key = Parts::default();
    key.add(going_on.target());
    // What a proxy behind the agent may go by (SPEC P3).
    let hosts = head.fields.iter().filter(|(kind, _, _)| *kind == Kind::Host);
    key.add_all(hosts.map(|field| field.2));
    key.add(target_authority(head).unwrap_or_default());
    for wanted in key_headers.iter().map(String::as_str).chain(["content-type"]) {
        key.add(wanted.as_bytes());
        let fields = head.fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(wanted));
        key.add_all(fields.map(|field| field.2));
    }
    // Who takes JSON, or anything, gets it.
    key.add_all(head.fields.iter().filter_map(|(_, name, value)| {
        (name.eq_ignore_ascii_case("accept") && !matches!(value, b"*/*" | b"application/json")).then_some(value)
    }));
    key
}

/// The protocol of a request that is batched, if its body is right; `None`: it passes.
pub(super) fn protocol(head: &RequestHead<'_, '_>) -> Option<Protocol> {
    if head.method != b"POST" || head.upgrade {
        return None;
    }
    let target = &head.target[head.origin_at..];
    let protocol = protocol_of(path_of(target))?;
    // It could not be kept beside the others, and gains nothing from a batch (SPEC B10).
    let is_large = matches!(head.framing, Framing::Length(length) if length > BATCH_REQUEST_BYTES as u64);
    let passes =
        is_large || head.fields.iter().any(|(kind, name, value)| kind == Kind::Other && asks_for_passing(name, value));
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
