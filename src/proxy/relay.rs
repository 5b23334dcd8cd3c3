//! An exchange under way: bodies both ways with back-pressure, the response head, the end.
//!
//! A direction is read only when what was read before has been taken by the other side, so at most one read waits per
//! direction. Whatever the client sends beyond its request stays in the socket.
//!
//! Not here: what the bytes mean ([`super::exchange`]).

use std::io::ErrorKind;
use std::ops::Range;

use super::buffer::{Buffers, READ_AT, READ_END, restore};
use super::connection::{Closing, Phase, Tunnel};
use super::exchange::{Exchange, HeadStep, Outcome};
use super::plane::{Flow, Plane, SendFrom};
use super::resend::Resent;
use super::socket::Received;
use crate::config::REPLAY_UNSEEN_BYTES;
use crate::fault::Fault;
use crate::http1::head::HeadError;
use crate::http1::repair;

/// Whether a direction has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Yes,
    No,
    /// The client is gone.
    ClientGone,
    /// The exchange has become a tunnel.
    Switched,
}

impl Plane {
    /// Moves both directions until both wait or the exchange is over.
    pub(super) fn relay(&mut self, key: usize) -> Flow {
        while self.may_move(1) {
            let moved = match self.request_on(key).and_then(|up| Ok((up, self.response_on(key)?))) {
                Ok(moved) => moved,
                Err(fault) => return self.fail(key, fault),
            };
            match moved {
                (Moved::ClientGone, _) | (_, Moved::ClientGone) => return Flow::Close,
                (_, Moved::Switched) => return Flow::Next,
                _ => {}
            }
            let Phase::Exchange(exchange) = &self.connections[key].phase else { return Flow::Next };
            if exchange.has_response() {
                let outcome = exchange.finish();
                return self.finish(key, outcome);
            }
            if moved == (Moved::No, Moved::No) {
                return Flow::Wait;
            }
        }
        Flow::Yield
    }

    /// Client to server: one read.
    fn request_on(&mut self, key: usize) -> Result<Moved, Fault> {
        let connection = &mut self.connections[key];
        let Phase::Exchange(exchange) = &connection.phase else { return Ok(Moved::No) };
        let Some(upstream_key) = connection.upstream else { return self.gather(key) };
        let upstream = &mut self.upstreams[upstream_key];
        let pool = &mut self.buffers.pool;
        if !upstream.unsent.is_empty() {
            if !upstream.socket.is_writable() {
                return Ok(Moved::No);
            }
            match upstream.socket.send(upstream.unsent.rest()) {
                Ok(0) => return Ok(Moved::No),
                Ok(sent) => {
                    upstream.connected = true;
                    upstream.unsent.advance(sent, pool);
                    // The wait for a response starts anew with every byte that the server takes.
                    self.upstream_deadlines.cancel(upstream_key);
                }
                Err(kind) if !upstream.connected => return Err(Fault::Connect(kind)),
                Err(kind) => {
                    upstream.unsent.clear(pool);
                    upstream.broken = Some(kind);
                }
            }
            return Ok(Moved::Yes);
        }
        if exchange.has_request() || upstream.broken.is_some() || !connection.socket.is_readable() {
            return Ok(Moved::No);
        }
        if upstream.is_ending && upstream.replay.len() > REPLAY_UNSEEN_BYTES {
            return Ok(Moved::No);
        }
        if !upstream.replay.is_empty() && !upstream.is_checked {
            // A second write to a connection that was closed before the first would hide that it was (`resend`).
            upstream.is_checked = true;
            upstream.socket.try_to_read();
            return Ok(Moved::Yes);
        }
        let Some(body) = self.read_request(key)? else { return Ok(Moved::ClientGone) };
        let upstream = &mut self.upstreams[upstream_key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        let bytes = &read[body.clone()];
        if upstream.is_ending {
            // Kept for the other connection, if there is to be one.
            pool.keep(&mut upstream.replay, bytes);
        } else if !bytes.is_empty() {
            match upstream.socket.send(bytes) {
                Ok(sent) => {
                    upstream.unsent.keep(&bytes[sent..], pool);
                    pool.put(&mut upstream.replay);
                }
                Err(kind) => {
                    upstream.broken = Some(kind);
                    if !upstream.replay.is_empty() {
                        pool.keep(&mut upstream.replay, bytes);
                    }
                }
            }
        }
        self.tap_request(key, body);
        Ok(Moved::Yes)
    }

    /// Client to server, before the server has got anything: one read, and the request when it is whole.
    fn gather(&mut self, key: usize) -> Result<Moved, Fault> {
        if !self.connections[key].socket.is_readable() {
            return Ok(Moved::No);
        }
        let Some(body) = self.read_request(key)? else { return Ok(Moved::ClientGone) };
        let connection = &mut self.connections[key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        pool.keep(&mut connection.ahead, &read[body.clone()]);
        let is_whole = matches!(&connection.phase, Phase::Exchange(exchange) if exchange.has_request());
        let sent = if is_whole { self.send_gathered(key) } else { Ok(()) };
        // It is logged also when the server is not there.
        self.tap_request(key, body);
        sent.map(|()| Moved::Yes)
    }

    /// Sends what has come of a short request: all of it, or what there is when the rest did not follow at once.
    pub(super) fn send_gathered(&mut self, key: usize) -> Result<(), Fault> {
        let Buffers { out, pool, .. } = &mut self.buffers;
        out.clear();
        let ahead = &mut self.connections[key].ahead;
        out.extend_from_slice(ahead);
        pool.put(ahead);
        self.dispatch(key)
    }

    /// Reads once from the client. Returns where in `read` what goes on is; `None`: the client is gone.
    fn read_request(&mut self, key: usize) -> Result<Option<Range<usize>>, Fault> {
        let (end, received) = self.read_client(key);
        let connection = &mut self.connections[key];
        let Phase::Exchange(exchange) = &mut connection.phase else { return Ok(None) };
        match received {
            Received::Bytes(_) | Received::Nothing => {}
            Received::End => return exchange.request_ended().map(|()| None),
            Received::Broken(_) => return Ok(None),
        }
        let Buffers { read, pool, .. } = &mut self.buffers;
        let step = exchange.request(&mut read[READ_AT..end])?;
        pool.keep(&mut connection.input, &read[READ_AT + step.consumed..end]);
        Ok(Some(READ_AT..READ_AT + step.kept))
    }

    /// Reads once from the client, behind what is kept of it: where that ends, and what the read came back with.
    pub(super) fn read_client(&mut self, key: usize) -> (usize, Received) {
        let connection = &mut self.connections[key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        let start = restore(read, pool, &mut connection.input);
        let received = connection.socket.receive(&mut read[start..READ_END]);
        let Received::Bytes(count) = received else { return (start, received) };
        connection.moved += count as u64;
        self.setup.metrics.received.add(count as u64);
        (start + count, received)
    }

    /// Server to client: one read.
    fn response_on(&mut self, key: usize) -> Result<Moved, Fault> {
        match self.flush_client(key) {
            Ok(true) => {}
            Ok(false) => return Ok(Moved::No),
            Err(_) => return Ok(Moved::ClientGone),
        }
        let connection = &mut self.connections[key];
        let Some(upstream_key) = connection.upstream else { return Ok(Moved::No) };
        let upstream = &mut self.upstreams[upstream_key];
        if !upstream.socket.is_readable() {
            return Ok(Moved::No);
        }
        let start = READ_AT + upstream.input.len();
        match upstream.socket.receive(&mut self.buffers.read[start..READ_END]) {
            Received::Bytes(count) => {
                upstream.connected = true;
                let Buffers { read, pool, .. } = &mut self.buffers;
                restore(read, pool, &mut upstream.input);
                pool.put(&mut upstream.replay);
                self.respond(key, upstream_key, start + count)
            }
            Received::Nothing => Ok(Moved::No),
            Received::End => self.server_ended(key, upstream_key, None),
            Received::Broken(kind) => self.server_ended(key, upstream_key, Some(kind)),
        }
    }

    /// Turns the server's bytes, up to `end`, into the client's and sends them.
    fn respond(&mut self, key: usize, upstream_key: usize, mut end: usize) -> Result<Moved, Fault> {
        let closing = self.is_finishing();
        let connection = &mut self.connections[key];
        let Phase::Exchange(exchange) = &mut connection.phase else { return Ok(Moved::No) };
        let Buffers { read, out, pool } = &mut self.buffers;
        out.clear();
        let had_head = !exchange.awaits_head();
        let (at, switched) = read_heads(exchange, read, &mut end, closing, out)?;
        let has_come = !had_head && !exchange.awaits_head();
        let relayed = match exchange.response_body(read, at..end) {
            Ok(relayed) => relayed,
            Err(fault) => {
                if !had_head {
                    exchange.take_back_head();
                }
                return Err(fault);
            }
        };
        let rest = at + relayed.consumed..end;
        let upstream = &mut self.upstreams[upstream_key];
        pool.keep(&mut upstream.input, &read[rest]);
        if has_come {
            self.note_response(upstream_key);
        }
        let connection = &mut self.connections[key];
        let Buffers { read, out, .. } = &mut self.buffers;
        let from = if out.is_empty() {
            SendFrom::Read { start: relayed.out.start, end: relayed.out.end }
        } else {
            out.extend_from_slice(&read[relayed.out]);
            SendFrom::Out
        };
        if Self::send_to_client(connection, &mut self.buffers, &self.setup, from).is_err() {
            return Ok(Moved::ClientGone);
        }
        if switched {
            return Ok(self.switch(key, upstream_key));
        }
        Ok(Moved::Yes)
    }

    /// Makes the exchange a tunnel; what both sides have sent already goes first.
    fn switch(&mut self, key: usize, upstream_key: usize) -> Moved {
        self.cut_request(key);
        self.become_tunnel(key, Tunnel { is_served: true, ..Tunnel::default() });
        let connection = &mut self.connections[key];
        let upstream = &mut self.upstreams[upstream_key];
        let pool = &mut self.buffers.pool;
        upstream.unsent.keep(&connection.input, pool);
        pool.put(&mut connection.input);
        connection.unsent.keep(&upstream.input, pool);
        pool.put(&mut upstream.input);
        self.deadlines.cancel(key);
        self.upstream_deadlines.cancel(upstream_key);
        Moved::Switched
    }

    /// The server closed or broke its connection: the end of a response, a reason to send the request again, or a
    /// fault.
    fn server_ended(&mut self, key: usize, upstream_key: usize, error: Option<ErrorKind>) -> Result<Moved, Fault> {
        match self.resend(key, upstream_key, error)? {
            Resent::Yes => return Ok(Moved::Yes),
            Resent::Undecided => return Ok(Moved::No),
            Resent::No => {}
        }
        let connection = &mut self.connections[key];
        let Phase::Exchange(exchange) = &mut connection.phase else { return Ok(Moved::No) };
        let out = &mut self.buffers.out;
        out.clear();
        let partial = !self.upstreams[upstream_key].input.is_empty();
        match error {
            Some(kind) if !self.upstreams[upstream_key].connected => return Err(Fault::Connect(kind)),
            // A reset is no end, even where the end is the frame.
            Some(_) if !exchange.awaits_head() => {
                return Err(Fault::ResponseBody(crate::http1::body::BodyError::Truncated));
            }
            _ => exchange.response_ended(partial, out)?,
        }
        match Self::send_to_client(connection, &mut self.buffers, &self.setup, SendFrom::Out) {
            Ok(()) => Ok(Moved::Yes),
            Err(_) => Ok(Moved::ClientGone),
        }
    }

    /// Both messages are through: the connections are kept or closed.
    fn finish(&mut self, key: usize, outcome: Outcome) -> Flow {
        let connection = &mut self.connections[key];
        if let Some(upstream_key) = connection.upstream.take() {
            let upstream = &self.upstreams[upstream_key];
            // Anything there to read now is not an answer to the next request.
            let surplus = !upstream.input.is_empty() || upstream.socket.is_readable();
            if outcome.server_closes.is_some() || surplus || upstream.broken.is_some() || !upstream.unsent.is_empty() {
                self.drop_upstream(upstream_key);
            } else {
                self.release_upstream(upstream_key);
            }
        }
        self.end_tap(key);
        self.cut_request(key);
        let connection = &mut self.connections[key];
        let Phase::Exchange(exchange) = &connection.phase else { return Flow::Close };
        match outcome.client_closes {
            None => {
                connection.phase = Phase::Idle;
                Flow::Next
            }
            Some(_) => {
                let sends_more =
                    !exchange.has_request() || !connection.input.is_empty() || connection.socket.is_readable();
                connection.phase = Phase::Closing(if sends_more { Closing::Linger } else { Closing::Clean });
                Flow::Next
            }
        }
    }

    /// Ends an exchange that failed: with an answer if the client has had nothing yet, else with a cut.
    pub(super) fn fail(&mut self, key: usize, fault: Fault) -> Flow {
        self.note_fault(fault);
        let closing = self.is_finishing();
        if let Some(upstream) = self.connections[key].upstream.take() {
            self.drop_upstream(upstream);
        }
        let connection = &mut self.connections[key];
        self.buffers.pool.put(&mut connection.ahead);
        let Phase::Exchange(exchange) = &mut connection.phase else { return Flow::Close };
        if !exchange.awaits_head() {
            if exchange.ends_with_connection() {
                connection.socket.reset_on_close();
                return Flow::Close;
            }
            self.cut_request(key);
            self.connections[key].phase = Phase::Closing(Closing::Linger);
            return Flow::Next;
        }
        self.buffers.out.clear();
        exchange.answer(fault, closing, &mut self.buffers.out);
        let outcome = exchange.finish();
        if Self::send_to_client(connection, &mut self.buffers, &self.setup, SendFrom::Out).is_err() {
            return Flow::Close;
        }
        self.finish(key, outcome)
    }
}

/// Reads response heads from the start of what was read, up to `end`, until the final one; returns where what follows starts
/// and whether protocols were switched.
fn read_heads(
    exchange: &mut Exchange,
    read: &mut [u8],
    end: &mut usize,
    closing: bool,
    out: &mut Vec<u8>,
) -> Result<(usize, bool), Fault> {
    let mut at = READ_AT;
    while exchange.awaits_head() {
        match exchange.response_head(&read[at..*end], closing, out) {
            Ok(HeadStep::Partial) => break,
            Ok(HeadStep::Interim(length) | HeadStep::Final(length)) => at += length,
            Ok(HeadStep::Switched(length)) => return Ok((at + length, true)),
            Err(Fault::ResponseHead(HeadError::Blanks)) => *end = at + repair::blanks(&mut read[at..*end]),
            Err(fault) => return Err(fault),
        }
    }
    Ok((at, false))
}
