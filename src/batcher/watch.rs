//! What a forwarder's connection carries, watched from below ureq: the head of a response by the agent's own grammar, and
//! where its body stands.
//!
//! It is here for three reasons. A response is judged as a worker judges one, as strictly and as leniently (SPEC P10, P13), and
//! keeps its fields as they were written: ureq is given a head of status and framing alone. A connection can be handed over
//! in the middle of a response. And a request that met the end of an idle connection can be sent again.
//!
//! Not here: the connection ([`super::transport`]).

use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::streamed::Rest;
use crate::config::INTERIM_RESPONSES;
use crate::http1::Framing;
use crate::http1::body::{Body, BodyError, Keep};
use crate::http1::head::{self, HeadError, Parsed, ResponseHead, Slots};
use crate::http1::repair;

/// Shared by a forwarder's client and its connection; only one of them is at work at a time.
#[derive(Debug, Default, Clone)]
pub(super) struct Watch(Arc<Mutex<Watched>>);

/// The response under way.
#[derive(Debug, Default)]
pub(super) struct Watched {
    seen: Seen,
    /// Bytes of the head that ureq was given and has not used.
    head_left: usize,
    /// Bytes of the body that ureq has used, as far as they are not judged.
    pending: Vec<u8>,
    interims: u8,
    status: u16,
    /// Field lines of the response.
    fields: Vec<u8>,
    length: Option<u64>,
    keeps: bool,
    /// The request has met the end of an idle connection, and the server has not read it.
    pub(super) is_unread: bool,
    /// What is left of the connection is to be handed over.
    hands_over: bool,
    rest: Option<(Arc<TcpStream>, Vec<u8>)>,
}

#[derive(Debug, Default)]
enum Seen {
    #[default]
    Nothing,
    /// INVARIANT: the bytes left of a body with a length.
    Length(u64),
    Body(Body),
    Refused(HeadError),
    Broken,
}

impl Watch {
    /// Another request is sent: its response is the next one.
    pub(super) fn begin(&self) {
        *self.watched() = Watched::default();
    }

    pub(super) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the connection is not closed when ureq gives it up, but kept for [`Self::rest`].
    pub(super) fn hand_over(&self) {
        self.watched().hands_over = true;
    }

    /// What is left of the connection that ureq has given up, and the data that it had not used.
    pub(super) fn rest(&self) -> Option<(Rest, Vec<u8>)> {
        let mut watched = self.watched();
        watched.hands_over = false;
        let (stream, mut input) = watched.rest.take()?;
        let mut body = match std::mem::take(&mut watched.seen) {
            Seen::Length(left) => Body::of_server(Framing::Length(left), Keep::Data),
            Seen::Body(body) => body,
            Seen::Nothing | Seen::Refused(_) | Seen::Broken => return None,
        };
        input.splice(0..0, watched.pending.drain(..));
        let step = body.advance(&mut input).ok()?;
        let data = input[..step.kept].to_vec();
        input.drain(..step.consumed);
        // What comes behind the end of a response is no answer to anything.
        if body.has_ended() && !input.is_empty() {
            input.clear();
            watched.keeps = false;
        }
        let stream = Arc::into_inner(stream)?;
        Some((Rest { stream, input, body, length: watched.length, keeps: watched.keeps }, data))
    }
}

impl Watched {
    /// The status of the response, if its head has come and is right.
    ///
    /// # Errors
    /// When the agent takes no such head.
    pub(super) fn status(&self) -> Result<u16, HeadError> {
        if let Seen::Refused(error) = self.seen { Err(error) } else { Ok(self.status) }
    }

    /// Its field lines, each with its CRLF.
    pub(super) fn take_fields(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fields)
    }

    /// The length that the server has given the body.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the whole response has been used.
    pub(super) fn has_ended(&self) -> bool {
        match &self.seen {
            Seen::Length(left) => *left == 0,
            Seen::Body(body) => body.has_ended(),
            Seen::Nothing | Seen::Refused(_) | Seen::Broken => false,
        }
    }

    /// Takes the head from the front of what has come of a response, and puts one in its place that says no more than ureq needs:
    /// status and framing. `false`: it has not come whole.
    ///
    /// # Errors
    /// When the agent takes no such head.
    pub(super) fn take_head(&mut self, input: &mut Vec<u8>) -> Result<bool, HeadError> {
        let taken = self.read_head(input);
        if let Err(error) = taken {
            self.seen = Seen::Refused(error);
        }
        taken
    }

    fn read_head(&mut self, input: &mut Vec<u8>) -> Result<bool, HeadError> {
        loop {
            let mut slots = Slots::new();
            let length = match head::response(input, &mut slots) {
                Ok(Parsed::Partial) => return Ok(false),
                Ok(Parsed::Complete(head)) if head.status >= 200 => {
                    let (length, reduced) = (head.length, self.begin(&head));
                    self.head_left = reduced.len();
                    input.splice(..length, reduced);
                    return Ok(true);
                }
                // Nobody asked for another protocol.
                Ok(Parsed::Complete(head)) if head.status == 101 || self.interims == INTERIM_RESPONSES => {
                    return Err(HeadError::Malformed("an interim status is not the last"));
                }
                Ok(Parsed::Complete(head)) => head.length,
                Err(HeadError::Blanks) => {
                    let length = repair::blanks(input);
                    input.truncate(length);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.interims += 1;
            input.drain(..length);
        }
    }

    /// A response begins; returns its head for ureq.
    fn begin(&mut self, head: &ResponseHead<'_, '_>) -> Vec<u8> {
        self.status = head.status;
        self.keeps = head.options.keeps(head.version) && head.framing != Framing::Close;
        self.length = if let Framing::Length(length) = head.framing { Some(length) } else { None };
        for (_, name, value) in head.fields.iter() {
            [name.as_bytes(), b": ", value, b"\r\n"].iter().for_each(|part| self.fields.extend_from_slice(part));
        }
        self.seen = match head.framing {
            Framing::Length(length) => Seen::Length(length),
            framing => Seen::Body(Body::of_server(framing, Keep::Data)),
        };
        let framing = match head.framing {
            Framing::Length(length) => format!("Content-Length: {length}\r\n"),
            Framing::Empty => "Content-Length: 0\r\n".to_owned(),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::Close => String::new(),
        };
        let connection = if self.keeps { "" } else { "Connection: close\r\n" };
        format!("HTTP/1.1 {} \r\n{framing}{connection}\r\n", head.status).into_bytes()
    }

    /// ureq has used these bytes of the response.
    pub(super) fn used(&mut self, bytes: &[u8]) {
        let of_head = bytes.len().min(self.head_left);
        self.head_left -= of_head;
        let bytes = &bytes[of_head..];
        match &mut self.seen {
            Seen::Length(left) => *left = left.saturating_sub(bytes.len() as u64),
            Seen::Body(body) if body.ends_with_input() => {}
            Seen::Body(_) => {
                self.pending.extend_from_slice(bytes);
                if self.read_body().is_err() {
                    self.seen = Seen::Broken;
                }
            }
            Seen::Nothing | Seen::Refused(_) | Seen::Broken => {}
        }
    }

    fn read_body(&mut self) -> Result<(), BodyError> {
        if let Seen::Body(body) = &mut self.seen {
            let step = body.advance(&mut self.pending)?;
            self.pending.drain(..step.consumed);
        }
        Ok(())
    }

    /// The connection is given up; `input`: what was read and not used.
    pub(super) fn given_up(&mut self, stream: &Arc<TcpStream>, input: &[u8]) {
        if self.hands_over {
            self.rest = Some((Arc::clone(stream), input.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is handed over after so many bytes of a response were used, the next read and not used, the others not read.
    fn handed_over(raw: &[u8], used: usize, read: usize) -> (Rest, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let watch = Watch::default();
        let mut input = raw[..used].to_vec();
        assert_eq!(watch.watched().take_head(&mut input), Ok(true));
        for bytes in input.chunks(3) {
            watch.watched().used(bytes);
        }
        watch.hand_over();
        watch.watched().given_up(&stream, &raw[used..read]);
        drop(stream);
        watch.rest().unwrap()
    }

    #[test]
    fn a_response_goes_on_where_it_was_left() {
        let head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
        let raw = [&head[..], body].concat();
        for used in head.len()..raw.len() {
            for read in used..raw.len() {
                // ureq has given what it has used to its reader.
                let mut before = Body::new(Framing::Chunked, Keep::Data);
                let mut own = raw[head.len()..used].to_vec();
                let step = before.advance(&mut own).unwrap();
                let mut data = own[..step.kept].to_vec();
                let (mut rest, more) = handed_over(&raw, used, read);
                data.extend_from_slice(&more);
                let mut left = [&rest.input[..], &raw[read..]].concat();
                let step = rest.body.advance(&mut left).unwrap();
                data.extend_from_slice(&left[..step.kept]);
                assert_eq!((&data[..], rest.body.has_ended()), (&b"hello world"[..], true), "{used} {read}");
            }
        }
    }

    #[test]
    fn a_length_goes_on_where_it_was_left() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n";
        let raw = [&head[..], b"hello world"].concat();
        for used in head.len()..raw.len() {
            let (mut rest, data) = handed_over(&raw, used, used + 1);
            assert_eq!((rest.length, &data[..], rest.keeps), (Some(11), &raw[used..=used], true));
            let mut left = raw[used + 1..].to_vec();
            assert!(rest.body.advance(&mut left).is_ok() && rest.body.has_ended(), "{used}");
        }
    }

    /// The heads of a response as they come, cut at any place, and what ureq gets of them.
    fn reduced(raw: &[u8]) -> Result<(String, String), HeadError> {
        let mut found = None;
        for cut in 0..raw.len() {
            let (mut watched, mut input) = (Watched::default(), Vec::new());
            for piece in [&raw[..cut], &raw[cut..]] {
                input.extend_from_slice(piece);
                if watched.take_head(&mut input)? {
                    break;
                }
            }
            let text = |bytes| String::from_utf8(bytes).unwrap();
            let now = (text(watched.take_fields()), text(input));
            assert!(found.replace(now.clone()).is_none_or(|before| before == now), "{cut}");
        }
        Ok(found.unwrap())
    }

    #[test]
    fn ureq_gets_status_and_framing_and_the_fields_are_kept_as_they_are() {
        let raw = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-Model :  m\r\ncontent-LENGTH: 5\r\n\r\n";
        let reduced_head = "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n".to_owned();
        assert_eq!(reduced(raw), Ok(("X-Model: m\r\ncontent-LENGTH: 5\r\n".to_owned(), reduced_head)));
        let (_, old) = reduced(b"HTTP/1.0 201 \r\nA: b\r\n\r\n").unwrap();
        assert_eq!(old, "HTTP/1.1 201 \r\nConnection: close\r\n\r\n");
        let (_, empty) = reduced(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert_eq!(empty, "HTTP/1.1 302 \r\nContent-Length: 0\r\n\r\n");
        let many: String = (0..300).map(|number| format!("X-{number}: 1\r\n")).collect();
        assert_eq!(reduced(format!("HTTP/1.1 200 OK\r\n{many}\r\n").as_bytes()).map(|head| head.0), Ok(many));
    }

    #[test]
    fn a_head_that_is_ambiguous_and_interim_ones_without_end_are_refused() {
        let interims = "HTTP/1.1 102 P\r\n\r\n".repeat(usize::from(INTERIM_RESPONSES) + 1);
        for raw in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",
            &interims,
        ] {
            let watch = Watch::default();
            let taken = watch.watched().take_head(&mut raw.as_bytes().to_vec());
            assert!(taken.is_err() && watch.watched().status().is_err(), "{raw}");
        }
    }
}
