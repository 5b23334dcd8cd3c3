//! The tap on one request: its bytes and its response's are captured as they pass, and become events when they are whole
//! (SPEC L1 to L4).
//!
//! ```text
//!   client's bytes ─▶ request: Capture ─ whole ─▶ event ─┐
//!   bytes sent to it ─▶ head ─▶ response: Capture ─ whole ─▶ event ─▶ queue
//! ```
//!
//! What is captured is what the client sent and what it gets, with the framing taken off. Room is asked for before a byte
//! is kept; a payload that finds none, or is too long, is let go at once and counted when it would have been an event.
//! Nothing here waits.
//!
//! Not here: which requests have a tap (the proxy), and what becomes of events ([`super::deliver`]).

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use log::Level;
use serde_json::{Map, Value as Json};

use super::event::{Context, Event, Receipt, Type};
use super::metrics::{Dropped, TapMetrics};
use super::outgoing::Outgoing;
use super::room::{Place, Room};
use super::sent::SentHead;
use super::sink::notice;
use crate::config::{LOG_PAYLOAD_BYTES, LogMode, LoggerConfig};
use crate::http1::Framing;
use crate::http1::body::{Body, Keep};
use crate::http1::head::RequestHead;
use crate::logger::record::fnv1a;
use crate::ops::notice::Notices;
use crate::ops::random;

/// Length of a payload whose head does not say it.
const UNKNOWN: usize = usize::MAX;

/// A worker's end of the logger.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(super) outgoing: RefCell<Outgoing>,
    pub(super) wanted: Arc<Wanted>,
    pub(super) room: Arc<Room>,
    pub(super) notices: Arc<Notices>,
    /// Events are accepted when they are on disk.
    pub(super) is_spooled: bool,
    pub(super) metrics: Arc<TapMetrics>,
}

/// Which payloads are logged, and what is said about them.
#[derive(Debug)]
pub(super) struct Wanted {
    requests: bool,
    responses: bool,
    all_responses: bool,
    sample: f64,
    metadata_headers: Vec<String>,
}

/// One request that is logged.
#[derive(Debug)]
pub(crate) struct Tap {
    shared: Shared,
    request: Option<Message>,
    response: Response,
    is_head: bool,
}

/// What the two events of a request share.
#[derive(Debug)]
struct Shared {
    id: Arc<str>,
    metadata: Arc<str>,
    context: Option<Arc<Context>>,
}

/// A message that is being captured.
#[derive(Debug)]
struct Message {
    content_type: Box<str>,
    content_encoding: Box<str>,
    status: Option<u16>,
    capture: Capture,
}

#[derive(Debug)]
enum Response {
    /// Nobody wants it.
    Unwanted,
    /// Its head has not been sent.
    Head,
    Body(Message),
}

/// A payload on its way.
#[derive(Debug)]
struct Capture {
    body: Body,
    /// What the head says of its length.
    length: usize,
    payload: Vec<u8>,
    place: Place,
    lost: Option<Dropped>,
}

impl Wanted {
    pub(super) fn of(config: &LoggerConfig) -> Self {
        Self {
            requests: config.mode != LogMode::Response,
            responses: config.mode != LogMode::Request,
            all_responses: config.all_responses,
            sample: config.sample,
            metadata_headers: config.metadata_headers.clone(),
        }
    }

    /// Both events of a request are logged or none, and an id has the same fate in every agent that it passes.
    fn takes(&self, id: &str) -> bool {
        if self.sample >= 1.0 {
            return true;
        }
        share_of(id) < self.sample
    }

    /// The fields that were asked for, by the names that they were asked for by.
    fn metadata(&self, head: &RequestHead<'_, '_>) -> String {
        let mut metadata = Map::new();
        for wanted in &self.metadata_headers {
            let fields = head.fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(wanted));
            let values: Vec<Json> = fields.map(|(_, _, value)| Json::from(String::from_utf8_lossy(value))).collect();
            if !values.is_empty() {
                metadata.insert(wanted.clone(), Json::from(values));
            }
        }
        Json::from(metadata).to_string()
    }
}

impl Handle {
    /// A tap for the request with this head, if it is one to log.
    pub(crate) fn tap(&self, head: &RequestHead<'_, '_>) -> Option<Box<Tap>> {
        let wanted = &self.wanted;
        let id: Arc<str> = match field(head, "ce-id") {
            id if id.is_empty() => Arc::from(random::uuid().to_string()),
            id => Arc::from(id),
        };
        if !wanted.takes(&id) {
            return None;
        }
        let request = wanted.requests.then(|| Message {
            content_type: field(head, "content-type"),
            content_encoding: fields(head, "content-encoding"),
            status: None,
            capture: Capture::new(head.framing, self.room.place()),
        });
        let metadata = Arc::from(wanted.metadata(head));
        let (request_id, parent) = (field(head, "x-request-id"), field(head, "traceparent"));
        let context = Context::new(request_id, parent, fields(head, "tracestate"));
        Some(Box::new(Tap {
            shared: Shared { id, metadata, context },
            request,
            response: if wanted.responses { Response::Head } else { Response::Unwanted },
            is_head: head.method == b"HEAD",
        }))
    }

    /// Whether a request must wait until there is room for its payload (`--log-when-full=block`).
    pub(crate) fn makes_wait(&self) -> bool {
        self.room.makes_wait()
    }

    /// A request is made to wait; `false`: there is room again. `has_waited`: it is one that has waited before.
    pub(crate) fn wait(&self, has_waited: bool) -> bool {
        let waits = self.room.wait();
        if waits && !has_waited {
            self.metrics.delayed.count();
        }
        waits
    }

    fn offer(&self, of: Type, Shared { id, metadata, context }: &Shared, message: Message) {
        let Message { content_type, content_encoding, status, capture } = message;
        let Capture { payload, mut place, lost, .. } = capture;
        let texts = [&**id, metadata, &content_type, &content_encoding];
        let mut fits = || place.grow(Event::overhead(texts, context.as_deref()));
        if let Some(why) = lost.or_else(|| (!fits()).then_some(Dropped::Full)) {
            return self.drops(of, why);
        }
        let event = Event {
            receipt: Receipt { of, place, entry: None, attempts: None },
            id: Arc::clone(id),
            time: SystemTime::now(),
            content_type,
            content_encoding,
            context: context.clone(),
            metadata: Arc::clone(metadata),
            status,
            payload,
        };
        if !self.is_spooled {
            self.metrics.accepted.count(of);
        }
        self.outgoing.borrow_mut().add(event);
    }

    /// A wake-up of the worker ends. `is_last`: events must not wait for others any more.
    pub(crate) fn flush(&self, now: Instant, is_last: bool) {
        self.outgoing.borrow_mut().flush(now, is_last);
    }

    /// When events have waited for others long enough.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.outgoing.borrow().next_due()
    }
}

impl Handle {
    fn drops(&self, of: Type, why: Dropped) {
        self.metrics.drops(of, why);
        let (kind, what) = match why {
            Dropped::Full => {
                (notice::FULL, "events have all the room of --log-queue-bytes, so a payload is not logged")
            }
            Dropped::TooLarge => (notice::TOO_LARGE, "a payload is longer than 32 MiB, so it is not logged"),
        };
        self.notices.write(kind, Level::Warn, Instant::now(), format_args!("{what}"));
    }
}

impl Tap {
    /// Bytes of the request's body as they go on, framed as its head says. `is_whole`: these are the last.
    pub(crate) fn request(&mut self, framed: &[u8], is_whole: bool, to: Option<&Handle>) {
        if let Some(request) = &mut self.request {
            request.capture.framed(framed);
        }
        if is_whole {
            self.request_ended(to);
        }
    }

    /// The whole body of the request, without framing.
    pub(crate) fn whole_request(&mut self, data: &[u8], to: Option<&Handle>) {
        if let Some(request) = &mut self.request {
            request.capture.data(data);
        }
        self.request_ended(to);
    }

    fn request_ended(&mut self, to: Option<&Handle>) {
        if let (Some(request), Some(to)) = (self.request.take(), to) {
            to.offer(Type::Request, &self.shared, request);
        }
    }

    /// Bytes that are sent to the client: heads come whole.
    pub(crate) fn sent(&mut self, mut bytes: &[u8], to: Option<&Handle>) {
        while let (Response::Head, Some(to)) = (&self.response, to) {
            let Some(head) = SentHead::read(bytes) else { return };
            if !(100..200).contains(&head.status) {
                self.response = to.response(&head, self.is_head);
            }
            bytes = &bytes[head.length..];
        }
        if let Response::Body(response) = &mut self.response {
            response.capture.framed(bytes);
        }
    }

    /// The response has ended.
    pub(crate) fn ends(self, to: &Handle) {
        if let Response::Body(response) = self.response {
            to.offer(Type::Response, &self.shared, response);
        }
    }
}

impl Handle {
    fn response(&self, head: &SentHead<'_>, is_head: bool) -> Response {
        if head.status != 200 && !self.wanted.all_responses {
            return Response::Unwanted;
        }
        let framing = if is_head { Framing::Empty } else { head.framing };
        Response::Body(Message {
            content_type: text(head.content_type),
            content_encoding: text(head.content_encoding),
            status: Some(head.status),
            capture: Capture::new(framing, self.room.place()),
        })
    }
}

/// Where an id lies between 0 and 1. FNV-1a spreads short ids over the low bits, which the multiplication of a Fibonacci
/// hash brings to the top.
fn share_of(id: &str) -> f64 {
    let hash = fnv1a(id.as_bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are enough to decide by")]
    let place = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / u64::MAX as f64;
    place
}

/// All fields of this name as one (RFC 9110 §5.3); empty if there is none.
fn fields(head: &RequestHead<'_, '_>, name: &str) -> Box<str> {
    let mut found = head.fields.iter().filter(|field| field.1.eq_ignore_ascii_case(name)).map(|field| field.2);
    let first = found.next().unwrap_or_default();
    match found.next() {
        None => text(first),
        Some(second) => text(&[first, second].into_iter().chain(found).collect::<Vec<_>>().join(&b", "[..])),
    }
}

/// The first field of this name; empty if there is none.
fn field(head: &RequestHead<'_, '_>, name: &str) -> Box<str> {
    let found = head.fields.iter().find(|field| field.1.eq_ignore_ascii_case(name));
    text(found.map(|field| field.2).unwrap_or_default())
}

fn text(value: &[u8]) -> Box<str> {
    String::from_utf8_lossy(value).into()
}

impl Capture {
    fn new(framing: Framing, place: Place) -> Self {
        let length = match framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::Empty => 0,
            Framing::Chunked | Framing::Close => UNKNOWN,
        };
        let lost = (length != UNKNOWN && length > LOG_PAYLOAD_BYTES).then_some(Dropped::TooLarge);
        Self { body: Body::new(framing, Keep::Data), length, payload: Vec::new(), place, lost }
    }

    /// Takes bytes with their framing. They come in whole lines and sections, so none is left over.
    fn framed(&mut self, bytes: &[u8]) {
        let at = self.payload.len();
        self.keep(bytes);
        if self.lost.is_none() {
            // The owner of the bytes has walked over them before, so this can't fail.
            let kept = self.body.advance(&mut self.payload[at..]).map_or(0, |step| step.kept);
            self.payload.truncate(at + kept);
            self.limit(self.payload.len());
        }
    }

    /// Takes bytes that are the payload's.
    fn data(&mut self, bytes: &[u8]) {
        self.limit(self.payload.len() + bytes.len());
        self.keep(bytes);
    }

    fn limit(&mut self, length: usize) {
        if length > LOG_PAYLOAD_BYTES {
            self.lose(Dropped::TooLarge);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let needed = self.payload.len() + bytes.len();
        if self.lost.is_some() {
            return;
        }
        if needed > self.payload.capacity() && !self.make_room(needed) {
            return self.lose(Dropped::Full);
        }
        self.payload.extend_from_slice(bytes);
    }

    /// The first bytes get what they need: most payloads come in one piece. Later the room is doubled, as far as the
    /// message can be long.
    fn make_room(&mut self, needed: usize) -> bool {
        let doubled = self.payload.capacity().saturating_mul(2).min(self.length.min(LOG_PAYLOAD_BYTES));
        let wanted = needed.max(doubled);
        let has_room = self.place.grow(wanted - self.place.bytes());
        if has_room {
            self.payload.reserve_exact(wanted - self.payload.len());
        }
        has_room
    }

    fn lose(&mut self, why: Dropped) {
        self.lost = Some(why);
        self.payload = Vec::new();
        self.place.give_up();
    }
}
