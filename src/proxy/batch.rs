//! A connection whose request is batched: its body is collected, it is handed over, its answer is written.
//!
//! ```text
//!   head ─▶ Collecting ─▶ Batched ─▶ answer ─▶ Idle
//!              │            └─ the client leaves: taken out of its batch
//!              ├─ no room, bad body: answered here
//!              └─ not to be batched after all: Exchange
//! ```
//!
//! Not here: what of a request is kept ([`super::collect`]), and everything between hand-over and answer
//! ([`crate::batcher`]).

use super::batch_heads::{self, StreamedFraming};
use super::buffer::{Buffers, LargeBody, READ_AT, Source};
use super::collect::{Collected, Collecting, Passing, Progress};
use super::connection::{Batched, Closing, Phase};
use super::exchange::{ClientCloses, Exchange, Outcome, ServerCloses};
use super::headers::{Connection as Field, Parked};
use super::plane::{Flow, Plane, SendFrom};
use super::socket::Received;
use crate::batcher::answer::{Answer, Response};
use crate::batcher::batch::Ticket;
use crate::batcher::request::{Arrival, Unfit};
use crate::batcher::streamed::{Rest, Streamed};
use crate::fault::{BadPredict, Fault};
use crate::http1::Version;
use crate::http1::body::BodyError;
use crate::http1::chunk::write_size;
use crate::http1::head::{self, Parsed, Slots};
use crate::ops::server::closes_behind;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Plane {
    /// Begins to collect a request whose head has come.
    pub(super) fn collect(&mut self, key: usize, mut collecting: Box<Collecting>, body_at: usize, end: usize) -> Flow {
        self.begin_request(key);
        // Also when the body is there already, as the Go agent does.
        if collecting.expects_continue {
            self.buffers.out.clear();
            self.buffers.out.extend_from_slice(CONTINUE);
            collecting.continued();
            if Self::send_to_client(&mut self.connections[key], &mut self.buffers, &self.setup, SendFrom::Out).is_err()
            {
                return Flow::Close;
            }
        }
        self.take_in(key, collecting, body_at, end)
    }

    /// Collects more of the body.
    pub(super) fn collect_more(&mut self, key: usize) -> Flow {
        if self.flush_client(key).is_err() {
            return Flow::Close;
        }
        while self.may_move(COLLECT_COST) {
            if !self.connections[key].socket.is_readable() {
                return Flow::Wait;
            }
            let (end, received) = self.read_client(key);
            let phase = std::mem::replace(&mut self.connections[key].phase, Phase::Idle);
            let Phase::Collecting(collecting) = phase else { return Flow::Close };
            match received {
                Received::Bytes(_) | Received::Nothing => {}
                Received::End => return self.refuse_body(key, BodyError::Truncated, collecting.parked),
                Received::Broken(_) => return Flow::Close,
            }
            match self.take_in(key, collecting, READ_AT, end) {
                Flow::Next if matches!(self.connections[key].phase, Phase::Collecting(_)) => {}
                flow => return flow,
            }
        }
        Flow::Yield
    }

    /// Takes the bytes at `at..end` of what was read.
    fn take_in(&mut self, key: usize, mut collecting: Box<Collecting>, at: usize, end: usize) -> Flow {
        let parked = collecting.parked;
        let Buffers { read, pool, .. } = &mut self.buffers;
        match collecting.take(&mut read[at..end]) {
            Ok(consumed) => pool.keep(&mut self.connections[key].input, &read[at + consumed..end]),
            Err(error) => return self.refuse_body(key, error, parked),
        }
        let mut progress = collecting.progress();
        if progress == Progress::NoRoom {
            if self.relieve() {
                progress = collecting.progress();
            }
            self.wants_relief |= progress == Progress::NoRoom;
        }
        match progress {
            Progress::More => {
                self.connections[key].phase = Phase::Collecting(collecting);
                Flow::Next
            }
            Progress::Whole => self.submit(key, collecting),
            Progress::Passes => self.pass_collected(key, collecting),
            Progress::NoRoom => {
                let parked = Parked { keeps: false, ..parked };
                self.answer_batched(key, parked, Answer::Failed(Fault::BatchBytesFull))
            }
        }
    }

    /// Hands a whole request over.
    fn submit(&mut self, key: usize, collecting: Box<Collecting>) -> Flow {
        let parked = collecting.parked;
        let Some(batcher) = &self.setup.batcher else { return Flow::Close };
        let logger = self.setup.logger.as_ref();
        let tap = &mut self.connections[key].tap;
        let Collected { head, key: mut of_batch, body, payload, held } = match collecting.finish(batcher.cap()) {
            Ok(collected) => collected,
            Err((Unfit::Passes, collecting)) => return self.pass_collected(key, collecting),
            Err((Unfit::Bad(why), collecting)) => {
                tap.iter_mut().for_each(|tap| tap.whole_request(collecting.bytes(), logger));
                return self.answer_batched(key, parked, Answer::Failed(Fault::BadPredict(why)));
            }
        };
        tap.iter_mut().for_each(|tap| tap.whole_request(&body, logger));
        self.serial += 1;
        let ticket = Ticket { worker: self.setup.worker, key, serial: self.serial };
        if payload.is_alone() {
            of_batch.add_all([ticket.worker, ticket.key].iter().map(|part| part.to_le_bytes()));
            of_batch.add(&ticket.serial.to_le_bytes());
        }
        let arrival = Arrival { key: of_batch.finish(), head, body, payload, held, came: self.now };
        match batcher.submit(ticket, arrival) {
            Ok(request) => {
                self.connections[key].phase = Phase::Batched(Batched { parked, request });
                self.has_submitted = true;
                Flow::Next
            }
            Err(fault) => self.answer_batched(key, parked, Answer::Failed(fault)),
        }
    }

    /// An answer has come, if the request that it is for still waits.
    pub(super) fn on_answer(&mut self, key: usize, serial: u64, answer: Answer) {
        let Some(Phase::Batched(batched)) = self.connections.get(key).map(|connection| &connection.phase) else {
            return;
        };
        if batched.request.ticket.serial == serial {
            let parked = batched.parked;
            let flow = match answer {
                Answer::Streamed(streamed) => self.stream_answer(key, parked, *streamed),
                answer => self.answer_batched(key, parked, answer),
            };
            self.follow(key, flow);
        }
    }

    fn answer_batched(&mut self, key: usize, parked: Parked, answer: Answer) -> Flow {
        match &answer {
            Answer::Failed(fault) => self.note_fault(*fault),
            _ => self.note_recovery(),
        }
        let status = answer.status();
        let keeps = parked.keeps && !self.is_finishing();
        let out = &mut self.buffers.out;
        out.clear();
        let body = batch_heads::write_answer(out, answer, parked.version, Field::of_client(keeps, parked.version));
        self.connections[key].owes = Some(status);
        let flow = if keeps { self.answered(key) } else { self.send_and_close(key, Closing::Linger) };
        if let (Some(body), true) = (body, flow != Flow::Close) {
            self.keep_body(key, body);
        }
        match flow {
            Flow::Close => flow,
            _ if self.flush_client(key).is_err() => Flow::Close,
            flow => flow,
        }
    }

    /// Sends a large body behind its head.
    fn keep_body(&mut self, key: usize, body: LargeBody) {
        let connection = &mut self.connections[key];
        if let Some(tap) = &mut connection.tap {
            tap.sent(body.rest(), self.setup.logger.as_ref());
            tap.sent(body.end(), self.setup.logger.as_ref());
        }
        connection.unsent.keep_body(body);
    }

    /// An answer that is too large to be held goes on as the server sends it (SPEC B10, P2).
    fn stream_answer(&mut self, key: usize, parked: Parked, streamed: Streamed) -> Flow {
        self.note_recovery();
        let Streamed { response, connection: rest } = streamed;
        let Rest { stream, input, mut body, length, keeps: server_keeps } = rest;
        let upstream = match self.adopt_upstream(stream, input) {
            Ok(upstream) => upstream,
            Err(fault) => {
                self.note_fault(fault);
                return self.answer_batched(key, Parked { keeps: false, ..parked }, Answer::Failed(Fault::Exhausted));
            }
        };
        let is_chunked = length.is_none() && !body.ends_with_input();
        let (framing, chunks) = match (length, parked.version) {
            (Some(length), _) => (StreamedFraming::Length(length), false),
            (None, Version::Http10) => (StreamedFraming::Close, false),
            (None, Version::Http11) => (StreamedFraming::Chunked, !is_chunked),
        };
        let keeps = parked.keeps && !self.is_finishing() && framing != StreamedFraming::Close;
        let out = &mut self.buffers.out;
        out.clear();
        batch_heads::write_streamed(out, &response, framing, parked.version, Field::of_client(keeps, parked.version));
        let Response { body: data, status, held, .. } = response;
        // What came so far is one chunk, and the server's framing goes on behind it.
        let end: &[u8] = match framing {
            StreamedFraming::Chunked if is_chunked => body.reframe_before(data.len(), out),
            StreamedFraming::Chunked if !data.is_empty() => {
                write_size(out, data.len() as u64);
                b"\r\n"
            }
            _ => b"",
        };
        let ends = Outcome {
            client_closes: (!keeps).then_some(ClientCloses::Asked),
            server_closes: if closes_behind(status) {
                Some(ServerCloses::Failed)
            } else {
                (!server_keeps).then_some(ServerCloses::Said)
            },
        };
        let exchange = Exchange::streamed(parked.version, status, body, chunks, ends);
        self.upstreams[upstream].owner = Some(key);
        let connection = &mut self.connections[key];
        connection.upstream = Some(upstream);
        connection.phase = Phase::Exchange(exchange);
        if Self::send_to_client(connection, &mut self.buffers, &self.setup, SendFrom::Out).is_err() {
            return Flow::Close;
        }
        if !data.is_empty() {
            let range = 0..data.len();
            self.keep_body(key, LargeBody::new(Source::Own { bytes: data, held }, range, end));
        }
        Flow::Next
    }

    /// Answers a request whose body is not read on; what follows can't be told apart.
    fn refuse_body(&mut self, key: usize, error: BodyError, parked: Parked) -> Flow {
        if let BodyError::TooLarge(_) = error {
            return self.refuse(key, Fault::RequestBody(error));
        }
        let parked = Parked { keeps: false, ..parked };
        self.answer_batched(key, parked, Answer::Failed(Fault::BadPredict(BadPredict::Unreadable)))
    }

    /// Sends a request on that is not to be batched, as far as it has come.
    pub(super) fn pass_collected(&mut self, key: usize, collecting: Box<Collecting>) -> Flow {
        let Passing { raw_head, body, bytes, held } = collecting.into_passing();
        let mut slots = Slots::new();
        // It was parsed when it came, so this can't fail.
        let Ok(Parsed::Complete(head)) = head::request(&raw_head, &mut slots) else { return Flow::Close };
        let connection = &mut self.connections[key];
        let out = &mut self.buffers.out;
        out.clear();
        let mut exchange = Exchange::open(&head, &connection.peer, self.setup.authority.as_bytes(), out);
        let body_at = out.len();
        let end = exchange.resume(body, bytes.len(), out);
        if let Some(tap) = &mut connection.tap {
            let logger = self.setup.logger.as_ref();
            [&out[body_at..], &bytes].iter().for_each(|framed| tap.request(framed, false, logger));
            tap.request(end, exchange.has_request(), logger);
        }
        connection.phase = Phase::Exchange(exchange);
        let body = batch_heads::write_body(out, Source::Own { bytes, held }, end);
        if let Err(fault) = self.dispatch(key) {
            return self.fail(key, fault);
        }
        if let (Some(body), Some(upstream)) = (body, self.connections[key].upstream) {
            let upstream = &mut self.upstreams[upstream];
            // It is no more in one piece, to be sent again.
            self.buffers.pool.put(&mut upstream.replay);
            upstream.unsent.keep_body(body);
        }
        Flow::Next
    }

    /// Makes room in the batcher's budget: of the clients that have been sending for a while the slowest makes way, whose
    /// request goes on as it comes (SPEC B10). Once in a wake-up, as it looks at every connection.
    pub(super) fn relieve(&mut self) -> bool {
        if self.relieved == Some(self.now) {
            return false;
        }
        self.relieved = Some(self.now);
        let paces =
            self.connections.iter().filter_map(|(key, connection)| Some((connection.upload_pace(self.now)?, key)));
        let Some((_, slowest)) = paces.min() else { return false };
        let phase = std::mem::replace(&mut self.connections[slowest].phase, Phase::Idle);
        let Phase::Collecting(collecting) = phase else { return false };
        match self.pass_collected(slowest, collecting) {
            Flow::Close => self.close(slowest),
            flow => {
                self.push_body(slowest);
                // Not at once: its turn comes, this one is another's.
                debug_assert!(flow != Flow::Wait, "it has more to do");
                self.queue(slowest);
            }
        }
        true
    }

    /// Gives the server as much of a collected body as it takes at once, so that those bytes count no longer.
    fn push_body(&mut self, key: usize) {
        let Some(upstream) = self.connections.get(key).and_then(|connection| connection.upstream) else { return };
        let upstream = &mut self.upstreams[upstream];
        while upstream.unsent.large() > 0 && upstream.socket.is_writable() {
            match upstream.socket.send(upstream.unsent.rest()) {
                Ok(sent) if sent > 0 => upstream.unsent.advance(sent, &mut self.buffers.pool),
                // What it can't take, or why, is for its own turn to see.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// What one read costs of a turn while its bytes are scanned, in reads of bytes that only pass.
const COLLECT_COST: usize = 4;
