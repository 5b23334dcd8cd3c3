//! One request and its response, as a state machine: bytes go in, what to send and what to keep comes out.
//!
//! ```text
//!   request   body ──────────────────────────▶ ended          (both directions run at the same time)
//!   response  Head ─▶ interim … ─▶ Head ─▶ Body ─▶ Ended
//!                └────────────────▶ Switched: the two connections become a tunnel
//! ```
//!
//! The request head is written when the exchange opens. From then on the owner moves bytes: what the client sends goes
//! through [`Exchange::request`], what the server sends through [`Exchange::response_head`] and
//! [`Exchange::response_body`]. At the end [`Exchange::finish`] says of each connection whether it is used again, and
//! if not, why.
//!
//! Architecture Invariant: no socket, no clock, no buffer of its own; a byte of one exchange can't reach another.
//!
//! Not here: deadlines, which need the sockets' state, and the connections' order of requests.

use std::ops::Range;

pub use super::ends::{ClientCloses, Outcome, ServerCloses};
use super::headers::{self, Connection, Length, Peer, ResponsePlan};
use crate::config::INTERIM_RESPONSES;
use crate::fault::Fault;
use crate::http1::body::{Body, Keep, Step};
use crate::http1::chunk::{LAST_CHUNK, frame_chunk};
use crate::http1::field::Kind;
use crate::http1::head::{self, Parsed, RequestHead, ResponseHead, Slots};
use crate::http1::{Framing, Version};
use crate::ops::server::closes_behind;

/// A request on its way to the model server, and the response on its way back.
#[derive(Debug, Clone)]
pub struct Exchange {
    request: Body,
    response: Response,
    client: Client,
    /// The client has been promised that its connection closes; `None`: it is kept.
    client_closes: Option<ClientCloses>,
    /// The server's connection can't be used again; `None`: it can.
    server_closes: Option<ServerCloses>,
    interims: u8,
    /// Of the final head, or of the answer that is given for the server; 0 before it.
    status: u16,
}

/// What the request said that the response depends on.
#[derive(Debug, Clone, Copy)]
struct Client {
    version: Version,
    is_head: bool,
    is_idempotent: bool,
    upgrade: bool,
    expects_continue: bool,
}

#[derive(Debug, Clone)]
enum Response {
    /// The final head has not come.
    Head,
    Body {
        body: Body,
        /// The server's body ends with its connection, and the client gets it chunked.
        chunk: bool,
    },
    Ended,
    Switched,
}

/// What [`Exchange::response_head`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadStep {
    /// More bytes are needed.
    Partial,
    /// An interim response of so many bytes; another head follows.
    Interim(usize),
    /// The final head, of so many bytes; the body follows.
    Final(usize),
    /// A 101 of so many bytes; from here on the connections are a tunnel.
    Switched(usize),
}

/// What became of bytes of a response body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes used up, from the start of the data.
    pub consumed: usize,
    /// Where in the buffer the bytes for the client lie.
    pub out: Range<usize>,
}

impl Exchange {
    /// Opens the exchange and appends the request head for the server to `out`.
    ///
    /// `authority` is the `Host` of an HTTP/1.0 request that has none.
    pub fn open(head: &RequestHead<'_, '_>, peer: &Peer, authority: &[u8], out: &mut Vec<u8>) -> Self {
        headers::write_request(out, head, peer, authority);
        let keeps = head.options.keeps(head.version);
        Self {
            request: Body::new(head.framing, Keep::Framing),
            response: Response::Head,
            client: Client {
                version: head.version,
                is_head: head.method == b"HEAD",
                is_idempotent: is_idempotent(head.method),
                upgrade: head.upgrade,
                expects_continue: head.expects_continue,
            },
            client_closes: if keeps { None } else { Some(ClientCloses::Asked) },
            server_closes: None,
            interims: 0,
            status: 0,
        }
    }

    /// A response that is streamed to its client, whose request the batcher has sent (SPEC B10). `body`: where it stands;
    /// `chunk`: it ends with its connection, and the client gets it chunked.
    pub fn streamed(version: Version, status: u16, body: Body, chunk: bool, ends: Outcome) -> Self {
        Self {
            request: Body::new(Framing::Empty, Keep::Framing),
            response: if body.has_ended() { Response::Ended } else { Response::Body { body, chunk } },
            client: Client { version, is_head: false, is_idempotent: false, upgrade: false, expects_continue: false },
            client_closes: ends.client_closes,
            server_closes: ends.server_closes,
            interims: 0,
            status,
        }
    }

    /// The client's body has come before the exchange was opened, as far as `body` says, with so many bytes of data. Appends
    /// what goes to the server before them to `out`, and returns what goes behind them.
    pub fn resume(&mut self, mut body: Body, data: usize, out: &mut Vec<u8>) -> &'static [u8] {
        self.client.expects_continue = false;
        let end = if self.request.is_chunked() { body.reframe_before(data, out) } else { b"" };
        self.request = body;
        end
    }

    /// Bytes from the client, which end up in front of `buf` as they go to the server.
    ///
    /// # Errors
    /// When they break the body's framing.
    pub fn request(&mut self, buf: &mut [u8]) -> Result<Step, Fault> {
        let step = self.request.advance(buf).map_err(Fault::RequestBody)?;
        self.client.expects_continue &= step.consumed == 0;
        Ok(step)
    }

    /// The client will send nothing more.
    ///
    /// # Errors
    /// When its request was not complete.
    pub fn request_ended(&mut self) -> Result<(), Fault> {
        self.request.end_of_input().map_err(Fault::RequestBody)
    }

    /// Whether the whole request went through.
    pub fn has_request(&self) -> bool {
        self.request.has_ended()
    }

    /// Bytes of the request still to come, if their number is known and the client sends them without being asked.
    pub fn rest_of_request(&self) -> Option<u64> {
        self.request.left().filter(|_| !self.client.expects_continue)
    }

    /// Whether the client holds its body back until it gets a 100.
    pub fn awaits_continue(&self) -> bool {
        self.client.expects_continue
    }

    /// The status that the client has been answered; 0: none yet.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the final response head has not come.
    pub fn awaits_head(&self) -> bool {
        matches!(self.response, Response::Head)
    }

    /// Whether the whole response went through.
    pub fn has_response(&self) -> bool {
        matches!(self.response, Response::Ended)
    }

    /// Whether a byte of a response, interim ones included, has come from the server.
    pub fn has_begun(&self) -> bool {
        !self.awaits_head() || self.interims > 0
    }

    /// Whether the request may be sent once more over another connection, if not a byte of a response has come
    /// (SPEC P9). `unseen`: it is certain that the server has not read a byte of it.
    pub fn may_resend(&self, unseen: bool) -> bool {
        !self.has_begun() && (unseen || self.client.is_idempotent)
    }

    /// Looks for a response head at the start of `buf` and appends the client's to `out`. `closing`: the client's
    /// connection is to close after this response because the agent stops.
    ///
    /// # Errors
    /// When the server does not speak HTTP/1, speaks ambiguously, or out of turn.
    pub fn response_head(&mut self, buf: &[u8], closing: bool, out: &mut Vec<u8>) -> Result<HeadStep, Fault> {
        let mut slots = Slots::new();
        let head = match head::response(buf, &mut slots).map_err(Fault::ResponseHead)? {
            Parsed::Partial => return Ok(HeadStep::Partial),
            Parsed::Complete(head) => head,
        };
        match head.status {
            101 => self.switch(&head, out),
            100..=199 => self.interim(&head, out),
            _ => Ok(self.final_head(&head, closing, out)),
        }
    }

    fn switch(&mut self, head: &ResponseHead<'_, '_>, out: &mut Vec<u8>) -> Result<HeadStep, Fault> {
        if !self.client.upgrade {
            return Err(Fault::UnaskedSwitch);
        }
        self.status = head.status;
        self.write_head(head, Connection::Upgrade, Length::Nothing, out);
        self.response = Response::Switched;
        Ok(HeadStep::Switched(head.length))
    }

    /// Interim responses go to every client that knows them (RFC 9110 §15.2).
    fn interim(&mut self, head: &ResponseHead<'_, '_>, out: &mut Vec<u8>) -> Result<HeadStep, Fault> {
        self.interims += 1;
        if self.interims > INTERIM_RESPONSES {
            return Err(Fault::TooManyInterims);
        }
        self.client.expects_continue &= head.status != 100;
        if self.client.version == Version::Http11 {
            self.write_head(head, Connection::Implied, Length::Nothing, out);
        }
        Ok(HeadStep::Interim(head.length))
    }

    fn final_head(&mut self, head: &ResponseHead<'_, '_>, closing: bool, out: &mut Vec<u8>) -> HeadStep {
        let framing = if self.client.is_head { Framing::Empty } else { head.framing };
        self.status = head.status;
        self.server_closes = self.judge_server(head, framing);
        if closing {
            self.client_closes.get_or_insert(ClientCloses::Draining);
        }
        if !self.has_request() {
            self.client_closes = Some(ClientCloses::RequestUnfinished);
        }
        let (body, length, chunk) = self.frame_for_client(head, framing);
        self.write_head(head, self.connection(), length, out);
        self.response = if body.has_ended() { Response::Ended } else { Response::Body { body, chunk } };
        HeadStep::Final(head.length)
    }

    fn judge_server(&self, head: &ResponseHead<'_, '_>, framing: Framing) -> Option<ServerCloses> {
        let keeps = head.options.keeps(head.version);
        let coded = head.fields.has(Kind::TransferEncoding);
        let sized = || head.fields.content_length().is_ok_and(|length| length.is_some_and(|length| length > 0));
        let contradicts = matches!(head.status, 204 | 304) && (coded || (head.status == 204 && sized()));
        if framing == Framing::Close {
            Some(ServerCloses::EndsBody)
        } else if !self.has_request() {
            Some(ServerCloses::RequestUnfinished)
        } else if closes_behind(head.status) {
            Some(ServerCloses::Failed)
        } else if contradicts {
            Some(ServerCloses::Contradiction)
        } else if keeps {
            None
        } else {
            Some(ServerCloses::Said)
        }
    }

    /// How the client gets the body: as it came where it can read it, chunked where it ends with the server's
    /// connection (RFC 9112 §6.3), bare until the close for HTTP/1.0.
    fn frame_for_client(&mut self, head: &ResponseHead<'_, '_>, framing: Framing) -> (Body, Length, bool) {
        let is_http10 = self.client.version == Version::Http10;
        if is_http10 && matches!(framing, Framing::Chunked | Framing::Close) {
            self.client_closes.get_or_insert(ClientCloses::EndsBody);
        }
        match framing {
            Framing::Chunked | Framing::Close if is_http10 => {
                (Body::of_server(framing, Keep::Data), Length::Nothing, false)
            }
            Framing::Chunked => (Body::of_server(framing, Keep::Framing), Length::Chunked, false),
            Framing::Close => (Body::of_server(framing, Keep::Framing), Length::Chunked, true),
            // A 204 must not carry a length (RFC 9110 §8.6).
            Framing::Empty if head.status == 204 => (Body::of_server(framing, Keep::Framing), Length::Nothing, false),
            Framing::Empty | Framing::Length(_) => (Body::of_server(framing, Keep::Framing), Length::AsSent, false),
        }
    }

    fn connection(&self) -> Connection {
        Connection::of_client(self.client_closes.is_none(), self.client.version)
    }

    fn write_head(&self, head: &ResponseHead<'_, '_>, connection: Connection, length: Length, out: &mut Vec<u8>) {
        headers::write_response(out, head, ResponsePlan { version: self.client.version, connection, length });
    }

    /// Bytes of the response body, at `data` in `buf`, with room around them for a chunk's size and end
    /// ([`crate::http1::chunk`]).
    ///
    /// # Errors
    /// When they break the body's framing.
    pub fn response_body(&mut self, buf: &mut [u8], data: Range<usize>) -> Result<Relayed, Fault> {
        let Response::Body { body, chunk } = &mut self.response else {
            return Ok(Relayed { consumed: 0, out: data.start..data.start });
        };
        let step = body.advance(&mut buf[data.clone()]).map_err(Fault::ResponseBody)?;
        let kept = data.start..data.start + step.kept;
        let out = if *chunk && step.kept > 0 { frame_chunk(buf, kept) } else { kept };
        if body.has_ended() {
            self.response = Response::Ended;
        }
        Ok(Relayed { consumed: step.consumed, out })
    }

    /// The final head was not sent, as what came with it broke the body's framing: the client can still be answered.
    pub fn take_back_head(&mut self) {
        self.response = Response::Head;
        self.status = 0;
    }

    /// The server will send nothing more; appends what the client needs to see the end to `out`. `partial`: a part
    /// of a response head was there.
    ///
    /// # Errors
    /// When the response was not complete.
    pub fn response_ended(&mut self, partial: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        match &mut self.response {
            Response::Head if partial || self.interims > 0 => Err(Fault::ResponseHeadTruncated),
            Response::Head => Err(Fault::NoResponse),
            Response::Body { body, chunk } => {
                body.end_of_input().map_err(Fault::ResponseBody)?;
                if *chunk {
                    out.extend_from_slice(LAST_CHUNK);
                }
                self.response = Response::Ended;
                Ok(())
            }
            Response::Ended | Response::Switched => Ok(()),
        }
    }

    /// Answers for the server, which failed before its final head; appends the answer to `out`.
    pub fn answer(&mut self, fault: Fault, closing: bool, out: &mut Vec<u8>) {
        if closing {
            self.client_closes.get_or_insert(ClientCloses::Draining);
        }
        if !fault.keeps_client() {
            self.client_closes = Some(ClientCloses::Fault);
        }
        if !self.has_request() {
            self.client_closes = Some(ClientCloses::RequestUnfinished);
        }
        self.status = fault.status();
        headers::write_fault(out, fault, self.client.version, self.connection(), self.client.is_head);
        self.response = Response::Ended;
    }

    /// Whether a fault after the response began can be seen by the client only if its connection is reset: the end of
    /// the connection would look like the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        self.client.version == Version::Http10 && matches!(&self.response, Response::Body { .. })
    }

    /// What becomes of the connections.
    pub fn finish(&self) -> Outcome {
        let server_closes = if self.has_request() { self.server_closes } else { Some(ServerCloses::RequestUnfinished) };
        Outcome { client_closes: self.client_closes, server_closes }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    [&b"GET"[..], b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"].contains(&method)
}
