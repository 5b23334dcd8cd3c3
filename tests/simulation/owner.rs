//! The owner of one client's connection, without a socket: it does with an [`Exchange`] what the agent's worker does.
//!
//! What the worker reads comes in as a piece, what it sends lies in a queue until it is taken out. The rules of
//! `src/proxy/receive.rs` and `relay.rs` hold: a direction is read only when what was read before has been taken.

use kserve_agent::config::{HEAD_BYTES, READ_BYTES, REPLAY_BYTES, REQUEST_LINE_BYTES};
use kserve_agent::fault::Fault;
use kserve_agent::http1::body::BodyError;
use kserve_agent::http1::chunk::{CHUNK_HEADROOM, CHUNK_TAILROOM};
use kserve_agent::http1::head::{self, Parsed, Slots};
use kserve_agent::proxy::exchange::{Exchange, HeadStep, Outcome};
use kserve_agent::proxy::headers::Peer;

/// Bytes that may wait for one connection (SPEC P2).
pub(crate) const HELD_BYTES: usize = 256 * 1024;
/// Room for what the agent adds to a message: forwarding fields, a chunk's frame.
const GROWTH: usize = 1024;

/// How the client sees its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    Open,
    /// It ends cleanly behind what is queued.
    Closing,
    /// It is reset: what is queued is lost, and the end is not a clean one.
    Reset,
}

/// The connections to the server; the last one that became idle is used first.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(crate) idle: Vec<usize>,
    /// Connections opened so far; each is called by its number.
    pub(crate) opened: usize,
    /// Connections that were closed.
    pub(crate) dropped: Vec<usize>,
}

pub(crate) struct Owner {
    peer: Peer,
    exchange: Option<Exchange>,
    /// Read from the client, and not used yet.
    input: Vec<u8>,
    /// How much of `input` the head parser has seen in vain.
    seen: usize,
    /// Read from the server, and not used yet.
    server_input: Vec<u8>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) to_server: Vec<u8>,
    pub(crate) server: Option<usize>,
    is_reused: bool,
    replay: Vec<u8>,
    is_broken: bool,
    client_ended: bool,
    /// The final head came before the request had ended.
    was_early: bool,
    pub(crate) client: Client,
    read: Vec<u8>,
    pub(crate) opened: usize,
    pub(crate) last_fault: Option<Fault>,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self {
            peer: Peer::new(Some([10, 0, 0, 7].into())),
            exchange: None,
            input: Vec::new(),
            seen: 0,
            server_input: Vec::new(),
            to_client: Vec::new(),
            to_server: Vec::new(),
            server: None,
            is_reused: false,
            replay: Vec::new(),
            is_broken: false,
            client_ended: false,
            was_early: false,
            client: Client::Open,
            read: Vec::new(),
            opened: 0,
            last_fault: None,
        }
    }

    /// How much it would read from the client now; 0: nothing.
    pub(crate) fn room_for_client(&self) -> usize {
        let wants = match &self.exchange {
            None => self.to_client.is_empty(),
            Some(exchange) => self.to_server.is_empty() && !exchange.has_request() && !self.is_broken,
        };
        if wants && self.client == Client::Open { READ_BYTES - self.input.len() } else { 0 }
    }

    /// How much it would read from the server now; 0: nothing.
    pub(crate) fn room_for_server(&self) -> usize {
        let wants = self.exchange.is_some() && self.to_client.is_empty();
        if wants { READ_BYTES - self.server_input.len() } else { 0 }
    }

    pub(crate) fn has_exchange(&self) -> bool {
        self.exchange.is_some()
    }

    /// Whether it is the server's turn: the request is through and no head has come.
    pub(crate) fn awaits_server(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.has_request() && exchange.awaits_head())
    }

    /// Whether a part of a request's head has come.
    pub(crate) fn has_part_of_head(&self) -> bool {
        self.exchange.is_none() && self.client == Client::Open && !self.input.is_empty()
    }

    /// Whether the request is not through.
    pub(crate) fn owes_request(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| !exchange.has_request())
    }

    /// The limits that hold at any time.
    pub(crate) fn check(&self) {
        let up = self.input.len() + self.to_server.len();
        let down = self.server_input.len() + self.to_client.len();
        assert!(up <= READ_BYTES + GROWTH, "{up} bytes wait on their way up");
        assert!(down <= READ_BYTES + GROWTH, "{down} bytes wait on their way down");
        assert!(self.replay.len() <= REPLAY_BYTES);
    }

    /// Bytes from the client, at most what there is room for.
    pub(crate) fn client_sent(&mut self, bytes: &[u8], pool: &mut Pool) {
        self.input.extend_from_slice(bytes);
        if let Some(exchange) = &mut self.exchange {
            match exchange.request(&mut self.input) {
                Ok(step) => {
                    assert!(step.kept <= step.consumed && step.consumed <= self.input.len());
                    assert!(step.consumed == 0 || !exchange.awaits_continue(), "it has not held its body back");
                    self.to_server.extend_from_slice(&self.input[..step.kept]);
                    self.input.drain(..step.consumed);
                }
                Err(fault) => self.fail(fault, pool),
            }
        }
        self.go_on(pool);
    }

    /// The client has sent its last byte, and all were read.
    pub(crate) fn client_ended(&mut self, pool: &mut Pool) {
        self.client_ended = true;
        match &mut self.exchange {
            None => self.close(pool),
            Some(exchange) if exchange.has_request() && self.input.is_empty() => self.close(pool),
            Some(exchange) => {
                if let Err(fault) = exchange.request_ended() {
                    self.fail(fault, pool);
                }
            }
        }
    }

    /// The client is gone.
    pub(crate) fn client_reset(&mut self, pool: &mut Pool) {
        self.client = Client::Reset;
        self.to_client.clear();
        self.close(pool);
    }

    /// Everything queued for the client was taken.
    pub(crate) fn client_flushed(&mut self, pool: &mut Pool) {
        self.go_on(pool);
    }

    /// Bytes from the server, at most what there is room for. `more`: there are more to be read.
    pub(crate) fn server_sent(&mut self, bytes: &[u8], more: bool, pool: &mut Pool) {
        self.replay.clear();
        let read = &mut self.read;
        read.clear();
        read.resize(CHUNK_HEADROOM, 0);
        read.append(&mut self.server_input);
        read.extend_from_slice(bytes);
        let end = read.len();
        read.resize(end + CHUNK_TAILROOM, 0);
        if let Err(fault) = self.respond(end) {
            return self.fail(fault, pool);
        }
        self.finish_if_done(more, pool);
    }

    fn respond(&mut self, end: usize) -> Result<(), Fault> {
        let exchange = self.exchange.as_mut().unwrap();
        let mut at = CHUNK_HEADROOM;
        while exchange.awaits_head() {
            match exchange.response_head(&self.read[at..end], false, &mut self.to_client)? {
                HeadStep::Partial => break,
                HeadStep::Interim(length) => at += length,
                HeadStep::Final(length) => {
                    at += length;
                    self.was_early = !exchange.has_request();
                }
                HeadStep::Switched(_) => panic!("no tunnel was asked for"),
            }
            assert!(at <= end);
        }
        let relayed = exchange.response_body(&mut self.read, at..end)?;
        assert!(at + relayed.consumed <= end);
        self.to_client.extend_from_slice(&self.read[relayed.out]);
        self.server_input.extend_from_slice(&self.read[at + relayed.consumed..end]);
        Ok(())
    }

    /// The server has closed its connection or broken it off, and everything it sent was read. `unseen`: it is certain
    /// that it has read no byte of the request.
    pub(crate) fn server_ended(&mut self, reset: bool, unseen: bool, pool: &mut Pool) {
        let exchange = self.exchange.as_mut().unwrap();
        if self.is_reused && !self.replay.is_empty() && !exchange.has_begun() && exchange.may_resend(unseen) {
            self.drop_server(pool);
            self.to_server = std::mem::take(&mut self.replay);
            self.server = Some(pool.open());
            self.is_reused = false;
            return;
        }
        if reset && !exchange.awaits_head() {
            return self.fail(Fault::ResponseBody(BodyError::Truncated), pool);
        }
        match exchange.response_ended(!self.server_input.is_empty(), &mut self.to_client) {
            Ok(()) => {
                assert!(exchange.finish().server_closes.is_some(), "a connection that has ended is no use");
                self.finish_if_done(true, pool);
            }
            Err(fault) => self.fail(fault, pool),
        }
    }

    /// What is sent to the server gets lost.
    pub(crate) fn server_broken(&mut self) {
        self.to_server.clear();
        self.is_broken = true;
    }

    /// Whoever is waited for does not come.
    pub(crate) fn timed_out(&mut self, fault: Fault, pool: &mut Pool) {
        if self.exchange.is_some() { self.fail(fault, pool) } else { self.refuse(fault) }
    }

    fn finish_if_done(&mut self, more: bool, pool: &mut Pool) {
        let exchange = self.exchange.as_ref().unwrap();
        if exchange.has_response() {
            let outcome = exchange.finish();
            self.finish(outcome, more, pool);
        }
    }

    fn finish(&mut self, outcome: Outcome, more: bool, pool: &mut Pool) {
        if self.owes_request() || std::mem::take(&mut self.was_early) {
            assert!(outcome.server_closes.is_some() && outcome.client_closes.is_some(), "the request has not ended");
        }
        let is_clean = self.server_input.is_empty() && self.to_server.is_empty() && !more && !self.is_broken;
        match self.server {
            Some(server) if outcome.server_closes.is_none() && is_clean => {
                self.server = None;
                pool.idle.push(server);
            }
            _ => self.drop_server(pool),
        }
        self.server_input.clear();
        self.replay.clear();
        self.exchange = None;
        self.seen = 0;
        if outcome.client_closes.is_some() {
            self.client = Client::Closing;
        }
        self.go_on(pool);
    }

    fn fail(&mut self, fault: Fault, pool: &mut Pool) {
        self.last_fault = Some(fault);
        self.drop_server(pool);
        let exchange = self.exchange.as_mut().unwrap();
        if exchange.awaits_head() {
            exchange.answer(fault, false, &mut self.to_client);
            let outcome = exchange.finish();
            return self.finish(outcome, true, pool);
        }
        if exchange.ends_with_connection() {
            self.to_client.clear();
            self.client = Client::Reset;
        } else {
            self.client = Client::Closing;
        }
        self.exchange = None;
    }

    fn refuse(&mut self, fault: Fault) {
        self.last_fault = Some(fault);
        let answer = format!("HTTP/1.1 {} \r\nContent-Length: 0\r\nConnection: close\r\n\r\n", fault.status());
        self.to_client.extend_from_slice(answer.as_bytes());
        self.exchange = None;
        self.client = Client::Closing;
    }

    fn close(&mut self, pool: &mut Pool) {
        self.drop_server(pool);
        self.exchange = None;
        if self.client == Client::Open {
            self.client = Client::Closing;
        }
    }

    fn drop_server(&mut self, pool: &mut Pool) {
        self.to_server.clear();
        self.is_broken = false;
        pool.dropped.extend(self.server.take());
    }

    /// Looks for the next request as long as nothing stands in its way.
    fn go_on(&mut self, pool: &mut Pool) {
        if self.client != Client::Open || self.exchange.is_some() || !self.to_client.is_empty() {
            return;
        }
        if !self.input.is_empty() && self.is_worth_parsing() {
            self.receive(pool);
        }
        if self.client_ended && self.exchange.is_none() {
            self.close(pool);
        }
    }

    /// A long head that comes byte by byte is not parsed for each.
    fn is_worth_parsing(&self) -> bool {
        let crosses = |limit: usize| self.seen <= limit && self.input.len() > limit;
        self.seen == 0
            || self.input[self.seen..].contains(&b'\n')
            || crosses(REQUEST_LINE_BYTES)
            || (self.seen..self.input.len()).contains(&HEAD_BYTES)
            || self.input.len() > HEAD_BYTES
    }

    fn receive(&mut self, pool: &mut Pool) {
        let mut slots = Slots::new();
        let mut out = Vec::new();
        let (mut exchange, length) = match head::request(&self.input, &mut slots) {
            Err(error) => return self.refuse(Fault::RequestHead(error)),
            Ok(Parsed::Partial) => {
                self.seen = self.input.len();
                return;
            }
            Ok(Parsed::Complete(head)) => (Exchange::open(&head, &self.peer, b"127.0.0.1:8080", &mut out), head.length),
        };
        self.opened += 1;
        let step = match exchange.request(&mut self.input[length..]) {
            Ok(step) => step,
            Err(fault) => return self.refuse(fault),
        };
        out.extend_from_slice(&self.input[length..length + step.kept]);
        self.input.drain(..length + step.consumed);
        let idle = pool.idle.pop();
        self.is_reused = idle.is_some();
        self.server = Some(idle.unwrap_or_else(|| pool.open()));
        if self.is_reused && exchange.has_request() && out.len() <= REPLAY_BYTES {
            self.replay.extend_from_slice(&out);
        }
        self.exchange = Some(exchange);
        self.to_server = out;
    }
}

impl Pool {
    fn open(&mut self) -> usize {
        self.opened += 1;
        self.opened - 1
    }
}
