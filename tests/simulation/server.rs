//! One connection of the simulated model server: reads strictly, answers by the book.

use std::collections::BTreeMap;

use super::reader::{self, Message, Unread};
use super::request::{Cut, Request};
use super::response::Response;
use super::rng::Rng;

/// Every exchange of a run, by its nonce.
pub(crate) type Book = BTreeMap<u64, Entry>;

pub(crate) struct Entry {
    pub(crate) request: Request,
    pub(crate) response: Response,
    /// How often the server read it whole.
    pub(crate) reads: usize,
    /// The server closed its connection on it as if it were an idle one.
    pub(crate) was_stale: bool,
}

#[derive(Default)]
pub(crate) struct Server {
    inbox: Vec<u8>,
    /// Sent to the agent, and not read by it.
    pub(crate) down: Vec<u8>,
    /// It has sent its last byte; `Some(true)`: the connection is reset behind it.
    pub(crate) ended: Option<bool>,
    /// It ends when nothing else happens.
    pub(crate) is_silent: bool,
    /// It has not read a byte of the last request.
    pub(crate) unseen: bool,
    /// The request that it reads.
    current: Option<u64>,
    has_answered: bool,
    requests: usize,
    /// What it has sent so far allows for another request.
    keeps: bool,
}

impl Server {
    /// Whether another request may be sent over this connection.
    pub(crate) fn may_be_used_again(&self) -> bool {
        self.keeps && self.current.is_none() && self.inbox.is_empty() && self.down.is_empty() && self.ended.is_none()
    }

    /// Bytes from the agent.
    pub(crate) fn take(&mut self, bytes: &[u8], book: &mut Book, rng: &mut Rng) {
        assert!(self.ended.is_none());
        self.inbox.extend_from_slice(bytes);
        while self.ended.is_none() {
            let nonce = match self.current {
                Some(nonce) => nonce,
                None => match reader::request_head(&self.inbox) {
                    Ok((head, _)) => self.begin(&head, book, rng),
                    Err(Unread::More) => return,
                    Err(Unread::Bad(why)) => panic!("server can't read it: {why}: {}", self.inbox.escape_ascii()),
                },
            };
            if self.ended.is_some() {
                return;
            }
            let entry = book.get_mut(&nonce).unwrap();
            match reader::request(&self.inbox) {
                Ok((message, length)) => {
                    self.inbox.drain(..length);
                    check(&message, entry);
                    entry.reads += 1;
                    if !self.has_answered {
                        self.answer(entry);
                    }
                    (self.current, self.has_answered) = (None, false);
                    self.requests += 1;
                }
                Err(Unread::More) => return,
                Err(Unread::Bad(why)) => panic!("server can't read it: {why}: {}", self.inbox.escape_ascii()),
            }
        }
    }

    /// A request's head is there.
    fn begin(&mut self, head: &Message, book: &mut Book, rng: &mut Rng) -> u64 {
        assert!(self.requests == 0 || self.keeps, "a connection is used again that may not be");
        self.keeps = false;
        let nonce = nonce(head).unwrap();
        let entry = book.get_mut(&nonce).expect("a request that nobody sent");
        assert!(head.fields.iter().all(|(_, value)| value != b"secret"), "a field for one hop passed");
        self.current = Some(nonce);
        if self.requests > 0 && entry.response.stale == Some(false) {
            (self.ended, self.unseen) = (Some(true), true);
            (entry.response.stale, entry.was_stale) = (None, true);
            return nonce;
        }
        if entry.response.is_early {
            self.answer(entry);
        } else if head.value("expect").is_some() && rng.below(2) == 0 {
            self.down.extend_from_slice(format!("HTTP/1.1 100 Continue\r\nX-Nonce: {nonce:016x}\r\n\r\n").as_bytes());
        }
        nonce
    }

    fn answer(&mut self, entry: &mut Entry) {
        self.has_answered = true;
        let response = &mut entry.response;
        if self.requests > 0 && response.stale == Some(true) {
            (response.stale, entry.was_stale, self.ended) = (None, true, Some(false));
            return;
        }
        self.down.extend_from_slice(&response.bytes);
        self.keeps = response.keeps;
        match response.end {
            Some(Cut::End) => self.ended = Some(false),
            Some(Cut::Reset) => self.ended = Some(true),
            Some(Cut::Silence) => self.is_silent = true,
            None => {}
        }
    }
}

/// Whose message it is.
pub(crate) fn nonce(message: &Message) -> Option<u64> {
    let mut values = message.values("x-nonce");
    let value = std::str::from_utf8(values.next()?).unwrap();
    assert!(values.next().is_none());
    Some(u64::from_str_radix(value, 16).unwrap())
}

/// The server must read just what the client sent.
fn check(message: &Message, entry: &Entry) {
    let request = &entry.request;
    assert!(!request.is_wrong, "a request that is none reached the server: {}", request.bytes.escape_ascii());
    assert!(request.cut.is_none(), "a request that was cut off reached the server as a whole");
    assert_eq!(message.method, request.method.as_bytes());
    assert!(message.body == request.body, "the body of {:016x} has changed", request.nonce);
    assert_eq!(message.trailers, request.trailers);
    assert_eq!(message.value("host"), Some(&b"model"[..]));
    assert_eq!(message.minor_version, 1);
    let is_idempotent = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].contains(&request.method);
    assert!(entry.reads == 0 || is_idempotent, "{} was read twice", request.method);
}
