//! From the first byte of a request to its head's departure: read, parse, classify, send on.
//!
//! ```text
//!   bytes ─▶ HTTP/2 preface? ─▶ tunnel
//!         ─▶ head ─▶ probe? ─▶ answer, or park until the prober's result
//!                 ├▶ to be batched? ─▶ collected
//!                 └▶ exchange: head rewritten into one buffer with what there is of the body, one write
//! ```
//!
//! Not here: the rest of the body and the response ([`super::relay`]), requests to be batched ([`super::batch`]), and those
//! that wait ([`super::parked`]).

use super::buffer::{Buffers, READ_AT, READ_END, restore};
use super::collect::{self, Collecting};
use super::connection::{Closing, Phase, Role};
use super::exchange::Exchange;
use super::headers::{self, Answer, Connection as Field, Parked, Peer};
use super::metrics::Code;
use super::plane::{Drain, Flow, Plane};
use super::socket::Received;
use super::waiting::upstream_deadline;
use crate::config::{
    HEAD_BYTES, LEADING_EMPTY_LINES, READ_BYTES, REPLAY_BYTES, REPLAY_UNSEEN_BYTES, REQUEST_LINE_BYTES,
};
use crate::fault::Fault;
use crate::http1::Version;
use crate::http1::field::Kind;
use crate::http1::head::{self, Parsed, RequestHead, Slots};
use crate::http1::repair;

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes read at once where a wake-up has moved as much as it may: most heads, and little of a body.
const HEAD_ALONE: usize = 4096;

/// What the bytes at the start of a connection or behind a request are.
enum Found {
    Partial,
    Http2,
    /// A request that goes to the server; its head, so many bytes long, has been written to `out`.
    Pass(Exchange, usize),
    /// A request that the agent answers; the answer has been written to `out`, the head is so many bytes long.
    Answered {
        length: usize,
        closes: bool,
    },
    /// A request that is to be batched; its head is so many bytes long.
    Batch(Box<Collecting>, usize),
    /// A probe that waits for the container's; its head is so many bytes long.
    Probe(Parked, usize),
    /// A request that waits until the payload log has room.
    Delayed,
    Refused(Fault),
}

impl Plane {
    /// Reads and parses until there is a whole request head.
    pub(super) fn receive(&mut self, key: usize) -> Flow {
        match self.flush_client(key) {
            Ok(true) => {}
            // The answer before goes first; until then the next request waits in the socket.
            Ok(false) => return Flow::Wait,
            Err(_) => return Flow::Close,
        }
        let connection = &mut self.connections[key];
        let mut seen = if matches!(connection.phase, Phase::Head) { connection.input.len() } else { 0 };
        let mut end = restore(&mut self.buffers.read, &mut self.buffers.pool, &mut connection.input);
        loop {
            let is_new = end - READ_AT > seen && is_worth_parsing(&self.buffers.read[READ_AT..end], seen);
            if is_new {
                match self.find(key, end) {
                    Found::Partial => {}
                    Found::Refused(fault) => {
                        match repair::target(&mut self.buffers.read[READ_AT..READ_END], end - READ_AT) {
                            Some(length) => {
                                end = READ_AT + length;
                                continue;
                            }
                            None => return self.start(key, Found::Refused(fault), end),
                        }
                    }
                    found => return self.start(key, found, end),
                }
            }
            seen = end - READ_AT;
            let connection = &mut self.connections[key];
            let most = if self.wake_up > 0 { READ_END } else { READ_END.min(end + HEAD_ALONE) };
            let received = if connection.socket.is_readable() {
                connection.socket.receive(&mut self.buffers.read[end..most])
            } else {
                Received::Nothing
            };
            match received {
                Received::Bytes(count) => {
                    self.setup.metrics.received.add(count as u64);
                    self.has_read(count);
                    end += count;
                }
                Received::Nothing => return self.wait_for_head(key, end),
                Received::End | Received::Broken(_) => return Flow::Close,
            }
        }
    }

    /// Keeps what there is of a head. Empty lines are none: old clients send one behind a body and then wait.
    fn wait_for_head(&mut self, key: usize, end: usize) -> Flow {
        let connection = &mut self.connections[key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        let lines = read[READ_AT..end].chunks(2).take_while(|pair| *pair == b"\r\n").count();
        let rest = &read[READ_AT + 2 * lines..end];
        match rest {
            [] | [b'\r'] => pool.keep(&mut connection.input, rest),
            _ => {
                pool.keep(&mut connection.input, &read[READ_AT..end]);
                connection.phase = Phase::Head;
            }
        }
        // A new connection may still bring its request.
        let is_over = connection.is_used && matches!(connection.phase, Phase::Idle);
        if is_over && self.is_finishing() { Flow::Close } else { Flow::Wait }
    }

    /// Says what the bytes are, and writes what they lead to into `out`.
    fn find(&mut self, key: usize, end: usize) -> Found {
        let connection = &self.connections[key];
        let Buffers { read, out, .. } = &mut self.buffers;
        let buf = &read[READ_AT..end];
        let is_traffic = connection.role == Role::Traffic;
        if is_traffic && !connection.is_used && buf[0] == HTTP2_PREFACE[0] {
            if buf.starts_with(HTTP2_PREFACE) {
                return Found::Http2;
            }
            if HTTP2_PREFACE.starts_with(buf) {
                return Found::Partial;
            }
        }
        let mut slots = Slots::new();
        out.clear();
        let parsed = head::request(buf, &mut slots);
        #[cfg(feature = "fault-injection")]
        super::injected::fault(&parsed);
        match parsed {
            Ok(Parsed::Partial) => Found::Partial,
            Ok(Parsed::Complete(head)) if !is_traffic => {
                let closes = self.setup.operate(connection.role, &head, self.drain, out);
                Found::Answered { closes, length: head.length }
            }
            Ok(Parsed::Complete(head)) => {
                if let Some(answered) = self.setup.answer(&head, self.drain, out) {
                    return answered;
                }
                if let Some(logger) = &self.setup.logger {
                    if logger.makes_wait() {
                        return Found::Delayed;
                    }
                    let connection = &mut self.connections[key];
                    connection.tap = logger.tap(&head);
                    connection.has_waited = false;
                }
                let peer = &self.connections[key].peer;
                self.setup.batch(&head, peer).unwrap_or_else(|| {
                    Found::Pass(Exchange::open(&head, peer, self.setup.authority.as_bytes(), out), head.length)
                })
            }
            Err(error) => Found::Refused(Fault::RequestHead(error)),
        }
    }

    fn start(&mut self, key: usize, found: Found, end: usize) -> Flow {
        self.deadlines.cancel(key);
        self.connections[key].is_used = true;
        match found {
            Found::Pass(exchange, length) => self.pass(key, exchange, READ_AT + length, end),
            Found::Batch(collecting, length) => self.collect(key, collecting, READ_AT + length, end),
            Found::Probe(parked, length) => self.park(key, parked, READ_AT + length, end),
            Found::Answered { length, closes } => self.answer(key, closes, READ_AT + length, end),
            Found::Http2 => self.open_tunnel(key, end),
            Found::Refused(fault) => self.refuse(key, fault),
            Found::Delayed => self.delay(key, end),
            Found::Partial => Flow::Wait,
        }
    }

    /// Sends the head in `out` on, with what there is of the body; if the rest is short, it is waited for a moment.
    fn pass(&mut self, key: usize, mut exchange: Exchange, body_at: usize, end: usize) -> Flow {
        self.begin_request(key);
        let Buffers { read, out, pool } = &mut self.buffers;
        let step = match exchange.request(&mut read[body_at..end]) {
            Ok(step) => step,
            Err(fault) => return self.refuse(key, fault),
        };
        let body = body_at..body_at + step.kept;
        out.extend_from_slice(&read[body.clone()]);
        let connection = &mut self.connections[key];
        pool.keep(&mut connection.input, &read[body_at + step.consumed..end]);
        let is_to_wait = exchange.rest_of_request().is_some_and(|rest| is_short(out.len(), rest));
        connection.phase = Phase::Exchange(exchange);
        let sent = if is_to_wait {
            pool.keep(&mut connection.ahead, out);
            Ok(())
        } else {
            self.dispatch(key)
        };
        self.tap_request(key, body);
        match sent {
            Ok(()) => Flow::Next,
            Err(fault) => self.fail(key, fault),
        }
    }

    /// Sends `out` over a connection that is there, or else over a new one.
    pub(super) fn dispatch(&mut self, key: usize) -> Result<(), Fault> {
        if let Some(upstream) = self.idle_upstream()
            && self.send_request(key, upstream).is_ok()
        {
            return Ok(());
        }
        // If that failed, not a byte was written, so the request may go over another connection whatever its method
        // (SPEC P9): a new one, as the others are likely to be stale as well.
        self.dispatch_new(key)
    }

    /// Sends `out` over a new connection.
    pub(super) fn dispatch_new(&mut self, key: usize) -> Result<(), Fault> {
        let upstream = match self.connect() {
            Err(Fault::Exhausted) => self.connect_instead()?,
            other => other?,
        };
        self.send_request(key, upstream)
    }

    /// Closes an idle connection to the server to have its descriptor.
    fn connect_instead(&mut self) -> Result<usize, Fault> {
        let idle = self.upstream_deadlines.oldest(upstream_deadline::IDLE).ok_or(Fault::Exhausted)?;
        self.drop_upstream(idle);
        self.connect()
    }

    /// Sends `out` over `upstream` and ties it to the connection; if it can't be used, it is closed.
    fn send_request(&mut self, key: usize, upstream_key: usize) -> Result<(), Fault> {
        let Buffers { out, pool, .. } = &mut self.buffers;
        let upstream = &mut self.upstreams[upstream_key];
        match upstream.socket.send(out) {
            Ok(sent) => {
                upstream.sent_at = self.now;
                upstream.owner = Some(key);
                upstream.connected |= sent > 0;
                upstream.unsent.keep(&out[sent..], pool);
                if upstream.reused && sent == out.len() && sent <= REPLAY_BYTES {
                    pool.keep(&mut upstream.replay, out);
                }
                self.connections[key].upstream = Some(upstream_key);
                Ok(())
            }
            Err(kind) => {
                self.drop_upstream(upstream_key);
                Err(Fault::Connect(kind))
            }
        }
    }

    /// Answers a request that is at fault, and closes: what follows can't be told apart.
    pub(super) fn refuse(&mut self, key: usize, fault: Fault) -> Flow {
        self.note_fault(fault);
        self.end_refused(key, fault.status());
        self.connections[key].tap = None;
        self.buffers.out.clear();
        headers::write_fault(&mut self.buffers.out, fault, Version::Http11, Field::Close, false);
        self.send_and_close(key, Closing::Linger)
    }

    /// A head that did not come in time.
    pub(super) fn refuse_slow_head(&mut self, key: usize) {
        let connection = &self.connections[key];
        let has_begun = !connection.input.is_empty();
        let flow = if has_begun { self.refuse(key, Fault::RequestHeadTimeout) } else { Flow::Close };
        self.follow(key, flow);
    }

    /// Sends an answer of the agent's own, which is in `out`.
    fn answer(&mut self, key: usize, closes: bool, rest_at: usize, end: usize) -> Flow {
        if closes {
            return self.send_and_close(key, Closing::Linger);
        }
        let connection = &mut self.connections[key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        pool.keep(&mut connection.input, &read[rest_at..end]);
        // What an operator gets is work: after each answer the others have their turn.
        match (connection.role, self.answered(key)) {
            (Role::Metrics | Role::Admin, Flow::Next) => Flow::Yield,
            (_, flow) => flow,
        }
    }

    /// Sends the answer in `out` and waits for the next request.
    pub(super) fn answered(&mut self, key: usize) -> Flow {
        let connection = &mut self.connections[key];
        connection.phase = Phase::Idle;
        match Self::send_to_client(connection, &mut self.buffers, &self.setup, super::plane::SendFrom::Out) {
            Ok(()) => Flow::Next,
            Err(_) => Flow::Close,
        }
    }

    /// Carries out what a step outside [`Plane::drive`] has led to.
    pub(super) fn follow(&mut self, key: usize, flow: Flow) {
        match flow {
            Flow::Close => self.close(key),
            Flow::Next | Flow::Wait | Flow::Yield => self.drive(key),
        }
    }
}

pub(super) const SHUTTING_DOWN: Answer<'static> = Answer::plain(503, b"shutting down\n");

impl super::plane::Setup {
    /// Answers what is not for the model server: probes (SPEC H1, H2).
    fn answer(&self, head: &RequestHead<'_, '_>, drain: Drain, out: &mut Vec<u8>) -> Option<Found> {
        let value = head.fields.first(Kind::NetworkProbe);
        let is_health_check = head.fields.first(Kind::UserAgent).is_some_and(is_prober);
        let mut text = Vec::new();
        let of_hash;
        let answer = match value {
            _ if is_health_check && drain != Drain::No => SHUTTING_DOWN,
            Some(b"queue") if is_health_check => return Some(Found::park(head)),
            _ if is_health_check => {
                text.extend_from_slice(b"unexpected probe header value: ");
                text.extend_from_slice(value.unwrap_or_default());
                text.push(b'\n');
                Answer::plain(400, &text)
            }
            Some(b"probe") => match head.fields.first(Kind::NetworkHash).filter(|hash| !hash.is_empty()) {
                Some(hash) => {
                    of_hash = [("K-Network-Hash", hash)];
                    Answer { fields: &of_hash, ..Answer::plain(200, b"") }
                }
                None => Answer::plain(400, b"a probe request must contain a non-empty \"K-Network-Hash\" header\n"),
            },
            _ => return None,
        };
        let parked = Parked::of(head);
        let keeps = parked.keeps && !drain.is_finishing();
        self.metrics.probes.count(Code::of(answer.status));
        headers::write_answer(out, answer, head.version, Field::of_client(keeps, head.version), parked.is_head);
        Some(Found::Answered { length: head.length, closes: !keeps })
    }
}

impl super::plane::Setup {
    /// Begins a request that is to be batched (SPEC B1).
    fn batch(&self, head: &RequestHead<'_, '_>, peer: &Peer) -> Option<Found> {
        let batcher = self.batcher.as_ref()?;
        let protocol = collect::protocol(head)?;
        let to_server = (peer, self.authority.as_bytes());
        let collecting = Collecting::new(protocol, head, to_server, batcher.key_headers(), batcher.hold());
        Some(Found::Batch(Box::new(collecting), head.length))
    }
}

impl Found {
    fn park(head: &RequestHead<'_, '_>) -> Self {
        Self::Probe(Parked::of(head), head.length)
    }
}

fn is_prober(user_agent: &[u8]) -> bool {
    user_agent.starts_with(b"kube-probe/") || user_agent.starts_with(b"Knative-Activator-Probe")
}

/// Whether parsing can find more than it did when there were `seen` bytes: a line has ended or a limit is passed.
/// Without this a client that sends a long head byte by byte has all of it parsed for each.
fn is_worth_parsing(buf: &[u8], seen: usize) -> bool {
    // Empty lines before the head do not count towards its limits.
    let crosses = |limit: usize| seen <= limit + 2 * LEADING_EMPTY_LINES && buf.len() >= limit;
    seen == 0 || buf[seen..].contains(&b'\n') || crosses(REQUEST_LINE_BYTES) || crosses(HEAD_BYTES)
}

/// Whether a request of which so much is there and so much is still to come had better go to the server in one write:
/// only then is it certain that a connection that the server was just closing can be told from one that it closed after
/// it had read a part ([`super::resend`]). It also saves both sides a call, as many clients send head and body one after
/// the other.
fn is_short(there: usize, rest: u64) -> bool {
    rest > 0 && there as u64 + rest <= REPLAY_UNSEEN_BYTES as u64
}

const _: () = assert!(READ_BYTES > HEAD_BYTES, "a head that is too large must be seen to be so");
