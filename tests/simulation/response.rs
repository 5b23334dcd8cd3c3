//! Responses that the simulated server gives: whole ones, and some that are cut off, garbage or too long.

use super::request::{Cut, Request, body_length, chunked, pattern, trailers};
use super::rng::Rng;

/// What a client must make of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It gets all of it.
    Whole,
    /// It gets an answer of the agent's own: the final head never came whole.
    Replaced,
    /// It gets the head or not, and never what looks like a whole response.
    Broken,
}

/// A response, and what must come of it.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) bytes: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// Those that pass.
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    pub(crate) fate: Fate,
    /// The server sends it when it has the request's head.
    pub(crate) is_early: bool,
    /// The connection may carry another request afterwards.
    pub(crate) keeps: bool,
    /// How the server's connection ends behind these bytes, if it does.
    pub(crate) end: Option<Cut>,
    /// Bytes at the end that belong to no response.
    pub(crate) surplus: usize,
    /// If it comes over a connection that was used before: the server closes that one instead, and has read the
    /// request or not.
    pub(crate) stale: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Empty,
    Length,
    Chunked,
    Close,
}

impl Response {
    pub(crate) fn random(rng: &mut Rng, request: &Request) -> Self {
        let statuses = [200, 200, 200, 200, 201, 299, 404, 500, 204, 304];
        let status = statuses[rng.below(statuses.len())];
        let may_have_body = request.method != "HEAD" && status != 204 && status != 304;
        let framing = match rng.below(10) {
            0 => Framing::Close,
            1..4 => Framing::Chunked,
            4..8 => Framing::Length,
            _ if may_have_body => Framing::Length,
            _ => Framing::Empty,
        };
        let is_http10 = framing != Framing::Chunked && rng.once_in_thousand(80);
        let mut response = Self {
            bytes: Vec::new(),
            status,
            body: Vec::new(),
            trailers: Vec::new(),
            fate: Fate::Whole,
            is_early: request.has_body && rng.once_in_thousand(160),
            keeps: true,
            end: None,
            surplus: 0,
            stale: if rng.once_in_thousand(40) { Some(rng.below(2) == 0) } else { None },
        };
        response.interims(rng, request.nonce);
        let head = response.write_head(rng, request.nonce, is_http10);
        if may_have_body {
            response.write_body(rng, request.nonce, framing);
        } else {
            response.write_no_body(rng, framing);
        }
        if may_have_body && framing == Framing::Close {
            response.keeps = false;
            response.end = Some(Cut::End);
        }
        let is_framed = may_have_body && framing != Framing::Close;
        match rng.below(1000) {
            0..80 => response.be_cut(rng, head, is_framed),
            80..110 => response.be_garbage(rng, request.nonce, head, may_have_body),
            110..150 if may_have_body && framing == Framing::Close => {}
            110..150 => response.go_on(rng),
            _ => {}
        }
        response
    }

    fn interims(&mut self, rng: &mut Rng, nonce: u64) {
        let count = match rng.below(1000) {
            0..8 => 33 + rng.below(3),
            8..110 => 1 + rng.below(3),
            _ => 0,
        };
        for _ in 0..count {
            let line = rng.pick(&["100 Continue", "102 Processing", "103 Early Hints", "199"]);
            self.bytes.extend_from_slice(format!("HTTP/1.1 {line}\r\nX-Nonce: {nonce:016x}\r\n\r\n").as_bytes());
        }
        if count > 32 {
            (self.fate, self.keeps) = (Fate::Replaced, false);
        }
    }

    /// Returns where the head starts.
    fn write_head(&mut self, rng: &mut Rng, nonce: u64, is_http10: bool) -> usize {
        let start = self.bytes.len();
        let reason = rng.pick(&[" OK", " ", "", " \u{e9}t\u{e9}"]);
        let minor = u8::from(!is_http10);
        self.bytes.extend_from_slice(format!("HTTP/1.{minor} {}{reason}\r\n", self.status).as_bytes());
        self.bytes.extend_from_slice(format!("X-Nonce: {nonce:016x}\r\n").as_bytes());
        match (is_http10, rng.below(20)) {
            (true, 0..10) => self.bytes.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, _) => self.keeps = false,
            (false, 0) => {
                self.bytes.extend_from_slice(b"Connection: close\r\n");
                self.keeps = false;
                self.end = if rng.below(2) == 0 { Some(Cut::End) } else { None };
            }
            (false, 1) => self.bytes.extend_from_slice(b"connection: x-hop\r\nX-Hop: secret\r\nKeep-Alive: max=9\r\n"),
            (false, _) => {}
        }
        start
    }

    fn write_body(&mut self, rng: &mut Rng, nonce: u64, framing: Framing) {
        let body = pattern(nonce, 's', body_length(rng));
        match framing {
            Framing::Length => {
                self.bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                self.bytes.extend_from_slice(&body);
            }
            Framing::Chunked => {
                let [sent, passed] = trailers(rng, nonce);
                self.bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                chunked(rng, &body, &sent, &mut self.bytes);
                self.trailers = passed;
            }
            Framing::Close | Framing::Empty => {
                self.bytes.extend_from_slice(b"\r\n");
                self.bytes.extend_from_slice(&body);
            }
        }
        self.body = body;
    }

    /// What a response without a body may say about the one that it would have.
    fn write_no_body(&mut self, rng: &mut Rng, framing: Framing) {
        let promise = match framing {
            Framing::Length => "Content-Length: 7\r\n",
            Framing::Chunked => "Transfer-Encoding: chunked\r\n",
            Framing::Empty if rng.below(3) == 0 => "Content-Length: 0\r\n",
            Framing::Close | Framing::Empty => "",
        };
        self.bytes.extend_from_slice(promise.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        if self.status == 204 && matches!(framing, Framing::Length | Framing::Chunked) {
            // Nobody knows whether such a server sends what it promises.
            self.keeps = false;
        }
    }

    /// Ends before it is whole.
    fn be_cut(&mut self, rng: &mut Rng, start: usize, is_framed: bool) {
        let at = rng.below(self.bytes.len());
        let head = find_end(&self.bytes, start);
        let how = [Cut::End, Cut::Reset, Cut::Silence][rng.below(3)];
        (self.keeps, self.end) = (false, Some(how));
        self.bytes.truncate(at);
        self.fate = match how {
            _ if at < head || self.fate == Fate::Replaced => Fate::Replaced,
            // Silence ends in an orderly way at last, which makes it the end of the body.
            Cut::End | Cut::Silence if !is_framed => Fate::Whole,
            _ => Fate::Broken,
        };
        if self.fate == Fate::Whole {
            self.body.truncate(at - head);
        }
    }

    fn be_garbage(&mut self, rng: &mut Rng, nonce: u64, start: usize, may_have_body: bool) {
        self.keeps = false;
        self.end = [None, Some(Cut::End), Some(Cut::Reset)][rng.below(3)];
        if may_have_body && self.fate == Fate::Whole && rng.below(2) == 0 {
            let wrong = rng.pick(&[
                "ZZ\r\n",
                "+1\r\nx\r\n0\r\n\r\n",
                "1\nx\r\n0\r\n\r\n",
                "2\r\nxxx\r\n",
                "1\r\nx\r\n0\r\nX : y\r\n\r\n",
                "\r\n",
            ]);
            self.bytes.truncate(start);
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Nonce: {nonce:016x}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{wrong}"
            );
            self.bytes.extend_from_slice(head.as_bytes());
            self.fate = Fate::Broken;
            return;
        }
        let wrong = rng.pick(&[
            "\0\u{1}junk\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        ]);
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(wrong.as_bytes());
        // A server that stops inside a head that is wrong only further on is silent for the rest.
        self.fate = Fate::Replaced;
    }

    /// Sends more than its response.
    fn go_on(&mut self, rng: &mut Rng) {
        let more =
            rng.pick(&["x", "\r\n", "HTTP/1.1 200 OK\r\nX-Nonce: ffffffffffffffff\r\nContent-Length: 4\r\n\r\nevil"]);
        self.bytes.extend_from_slice(more.as_bytes());
        (self.surplus, self.keeps) = (more.len(), false);
    }
}

/// Where the head that starts at `start` ends.
fn find_end(bytes: &[u8], start: usize) -> usize {
    start + bytes[start..].windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4)
}
