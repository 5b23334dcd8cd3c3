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

use super::batch_heads;
use super::buffer::{Buffers, READ_AT};
use super::collect::{Collected, Collecting, Uncollected};
use super::connection::{Batched, Closing, Phase};
use super::exchange::Exchange;
use super::fault::Fault;
use super::headers::{Connection as Field, Parked};
use super::metrics::{Blame, Reason, UpstreamError};
use super::plane::{Flow, Plane, SendFrom};
use super::relay::TURN_READS;
use super::socket::Received;
use crate::batcher::answer::{Answer, Failure};
use crate::batcher::batch::Ticket;
use crate::batcher::request::{Arrival, Unfit};
use crate::batcher::v1::BadRequest;
use crate::config::POOL_BYTES;
use crate::http1::body::BodyError;
use crate::http1::head::{self, Parsed, Slots};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Plane {
    /// Begins to collect a request whose head has come.
    pub(super) fn collect(&mut self, key: usize, mut collecting: Box<Collecting>, body_at: usize, end: usize) -> Flow {
        self.begin_request(key);
        self.buffers.out.clear();
        // Also when the body is there already, as the Go agent does.
        if collecting.expects_continue {
            self.buffers.out.extend_from_slice(CONTINUE);
        }
        if Self::send_to_client(&mut self.connections[key], &mut self.buffers, &self.setup, SendFrom::Out).is_err() {
            return Flow::Close;
        }
        let Buffers { read, pool, .. } = &mut self.buffers;
        match collecting.take(&mut read[body_at..end]) {
            Ok(consumed) => pool.keep(&mut self.connections[key].input, &read[body_at + consumed..end]),
            Err(why) => return self.refuse_body(key, why, collecting.parked),
        }
        if collecting.is_whole() {
            return self.submit(key, *collecting);
        }
        self.connections[key].phase = Phase::Collecting(collecting);
        Flow::Next
    }

    /// Collects more of the body.
    pub(super) fn collect_more(&mut self, key: usize) -> Flow {
        if self.flush_client(key).is_err() {
            return Flow::Close;
        }
        for _ in 0..TURN_READS {
            if !self.connections[key].socket.is_readable() {
                return Flow::Wait;
            }
            let (end, received) = self.read_client(key);
            let connection = &mut self.connections[key];
            let Phase::Collecting(collecting) = &mut connection.phase else { return Flow::Next };
            let parked = collecting.parked;
            match received {
                Received::Bytes(_) | Received::Nothing => {}
                Received::End => return self.refuse_body(key, Uncollected::Body(BodyError::Truncated), parked),
                Received::Broken(_) => return Flow::Close,
            }
            let Buffers { read, pool, .. } = &mut self.buffers;
            match collecting.take(&mut read[READ_AT..end]) {
                Ok(consumed) => pool.keep(&mut connection.input, &read[READ_AT + consumed..end]),
                Err(why) => return self.refuse_body(key, why, parked),
            }
            if collecting.is_whole() {
                let Phase::Collecting(collecting) = std::mem::replace(&mut connection.phase, Phase::Idle) else {
                    return Flow::Close;
                };
                return self.submit(key, *collecting);
            }
        }
        Flow::Yield
    }

    /// Hands a whole request over.
    fn submit(&mut self, key: usize, collecting: Collecting) -> Flow {
        let parked = collecting.parked;
        let Collected { head, key: of_batch, body, held, fit, raw } = match collecting.finish() {
            Ok(collected) => collected,
            Err(why) => return self.refuse_body(key, why, parked),
        };
        if let Some(tap) = &mut self.connections[key].tap
            && fit != Err(Unfit::Passes)
        {
            tap.whole_request(&body, self.setup.logger.as_ref());
        }
        let payload = match fit {
            Ok(payload) => payload,
            Err(Unfit::Bad(why)) => return self.answer_batched(key, parked, &Answer::Failed(Failure::Bad(why))),
            Err(Unfit::Passes) => {
                self.connections[key].held = Some(Box::new(held));
                return self.pass_collected(key, &raw.0, raw.1);
            }
        };
        self.serial += 1;
        let ticket = Ticket { worker: self.setup.worker, key, serial: self.serial };
        let Some(batcher) = &self.setup.batcher else { return Flow::Close };
        let arrival = Arrival { key: of_batch, head, body, payload, held, came: self.now };
        match batcher.submit(ticket, arrival) {
            Ok(request) => {
                self.connections[key].phase = Phase::Batched(Batched { parked, request });
                Flow::Next
            }
            Err(failure) => self.answer_batched(key, parked, &Answer::Failed(failure)),
        }
    }

    /// The request's client has left if it has closed its side: it waits for nothing else (SPEC B10).
    pub(super) fn await_batch(&self, key: usize) -> Flow {
        if self.connections[key].socket.peer_closed() { Flow::Close } else { Flow::Wait }
    }

    /// An answer has come, if the request that it is for still waits.
    pub(super) fn on_answer(&mut self, key: usize, serial: u64, answer: &Answer) {
        let Some(Phase::Batched(batched)) = self.connections.get(key).map(|connection| &connection.phase) else {
            return;
        };
        if batched.request.ticket.serial == serial {
            let parked = batched.parked;
            let flow = self.answer_batched(key, parked, answer);
            self.follow(key, flow);
        }
    }

    fn answer_batched(&mut self, key: usize, parked: Parked, answer: &Answer) -> Flow {
        match answer {
            Answer::Failed(failure) => self.note_failure(blame(failure), failure),
            _ => self.note_recovery(),
        }
        self.end_request(key, answer.status());
        let keeps = parked.keeps && !self.is_finishing();
        let out = &mut self.buffers.out;
        out.clear();
        batch_heads::write_answer(out, answer, parked.version, Field::of_client(keeps, parked.version));
        self.send_answer(key, keeps)
    }

    fn send_answer(&mut self, key: usize, keeps: bool) -> Flow {
        let flow = if keeps { self.answered(key) } else { self.send_and_close(key, Closing::Linger) };
        self.end_tap(key);
        self.shrink_out();
        let (Some(connection), Some(batcher)) = (self.connections.get_mut(key), &self.setup.batcher) else {
            return flow;
        };
        let mut held = batcher.hold();
        if !held.grow(connection.unsent.rest().len()) {
            // There is no room for what it does not take, and what it has taken must not look complete.
            connection.socket.reset_on_close();
            return Flow::Close;
        }
        connection.held = (!connection.unsent.is_empty()).then(|| Box::new(held));
        flow
    }

    /// Answers a request whose body is not read on; what follows can't be told apart.
    fn refuse_body(&mut self, key: usize, why: Uncollected, parked: Parked) -> Flow {
        let failure = match why {
            Uncollected::Body(error @ BodyError::TooLarge(_)) => return self.refuse(key, Fault::RequestBody(error)),
            Uncollected::Body(_) => Failure::Bad(BadRequest::Unreadable),
            Uncollected::NoRoom => Failure::BodiesFull,
        };
        self.answer_batched(key, Parked { keeps: false, ..parked }, &Answer::Failed(failure))
    }

    /// Sends a request on that was collected and is not to be batched.
    fn pass_collected(&mut self, key: usize, raw_head: &[u8], mut body: Vec<u8>) -> Flow {
        let mut slots = Slots::new();
        // It was parsed when it came, so this can't fail.
        let Ok(Parsed::Complete(head)) = head::request(raw_head, &mut slots) else { return Flow::Close };
        let connection = &mut self.connections[key];
        let out = &mut self.buffers.out;
        out.clear();
        let mut exchange = Exchange::open(&head, &connection.peer, self.setup.authority.as_bytes(), out);
        match exchange.request(&mut body) {
            Ok(step) => body.truncate(step.kept),
            Err(fault) => return self.refuse(key, fault),
        }
        out.extend_from_slice(&body);
        let has_request = exchange.has_request();
        connection.phase = Phase::Exchange(exchange);
        let sent = self.dispatch(key);
        if let Some(tap) = &mut self.connections[key].tap {
            tap.request(&body, has_request, self.setup.logger.as_ref());
        }
        self.shrink_out();
        match sent {
            Ok(()) => Flow::Next,
            Err(fault) => self.fail(key, fault),
        }
    }

    /// A large body must not stay behind.
    fn shrink_out(&mut self) {
        if self.buffers.out.capacity() > POOL_BYTES {
            self.buffers.out = Vec::new();
        }
    }
}

/// Whose fault it is that a batched request has no answer of the server's.
fn blame(failure: &Failure) -> Blame {
    match failure {
        Failure::Bad(_) => Blame::Rejected(Reason::BadRequest),
        Failure::TooManyInstances { .. } => Blame::Rejected(Reason::TooLarge),
        Failure::QueueFull => Blame::Rejected(Reason::BatchQueueFull),
        Failure::BodiesFull => Blame::Rejected(Reason::BatchBytesFull),
        Failure::Late => Blame::Rejected(Reason::BatchLate),
        Failure::NoThread => Blame::Rejected(Reason::OutOfThreads),
        Failure::Exhausted => Blame::Rejected(Reason::OutOfDescriptors),
        Failure::Connect(_) => Blame::Upstream(UpstreamError::Connect),
        Failure::ConnectTimeout => Blame::Upstream(UpstreamError::ConnectTimeout),
        Failure::Timeout => Blame::Upstream(UpstreamError::Timeout),
        Failure::Broken(_) => Blame::Upstream(UpstreamError::Closed),
        Failure::Truncated => Blame::Upstream(UpstreamError::Truncated),
        Failure::Garbage(_) | Failure::Coded | Failure::Lengths { .. } => Blame::Upstream(UpstreamError::BadResponse),
        Failure::Internal => Blame::Agent,
    }
}
