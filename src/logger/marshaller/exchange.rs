//! One request to the marshaller service and its answer (SPEC L9), pure.
//!
//! ```text
//!   head ─▶ body ─ whole ─▶ 200 with the file
//!     │       ├─ over a limit ─▶ 413
//!     │       └─ no array of records ─▶ 400
//!     └─ not POST ─▶ 405
//! ```
//!
//! Every request has a connection of its own. Whoever is on the loopback may send anything: bytes are kept only as they
//! come, whatever the head says, and so many small values are refused that they would take much more memory than bytes.
//!
//! Not here: the socket, and how long it may take ([`super::service`]).

use super::EXTENSION;
use crate::config::{MARSHAL_BODY_BYTES, MARSHAL_VALUES, StoreFormat};
use crate::http1::Framing;
use crate::http1::body::{Body, Keep};
use crate::http1::head::{self, Parsed, RequestHead, Slots};
use crate::logger::marshal::{extension, marshal, media};
use crate::logger::record::Record;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    format: StoreFormat,
    /// What has come of the head, or the body so far with what of it can't be used yet.
    input: Vec<u8>,
    /// `None` until the head is complete.
    body: Option<Collected>,
    /// The answer has no body.
    is_head: bool,
}

#[derive(Debug)]
struct Collected {
    framing: Body,
    /// Bytes at the start of the input that are the body's.
    length: usize,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for more bytes.
    Wait,
    /// Tell the client to send its body, and wait.
    Continue,
    /// Send this and close.
    Answer(Answer),
}

/// An answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// The client may still be sending its request.
    pub(super) is_early: bool,
}

impl Exchange {
    /// Files have this format.
    pub(super) fn new(format: StoreFormat) -> Self {
        Self { format, input: Vec::new(), body: None, is_head: false }
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.input.len()
    }

    /// Takes bytes from the client. `has_room`: all requests together hold no more than they may.
    pub(super) fn receive(&mut self, bytes: &[u8], has_room: bool) -> Next {
        self.input.extend_from_slice(bytes);
        let is_first = self.body.is_none();
        let expects_continue = if is_first {
            match self.head() {
                Ok(Parsed::Partial) => return Next::Wait,
                Ok(Parsed::Complete(expects_continue)) => expects_continue,
                Err(answer) => return Next::Answer(answer),
            }
        } else {
            false
        };
        match self.collect(has_room) {
            None if expects_continue && self.input.is_empty() => Next::Continue,
            None => Next::Wait,
            Some(answer) => Next::Answer(answer),
        }
    }

    /// Reads the head, if it is complete, and takes it off the input. Says whether the client waits to send its body.
    fn head(&mut self) -> Result<Parsed<bool>, Answer> {
        let mut slots = Slots::new();
        let head = match head::request(&self.input, &mut slots) {
            Ok(Parsed::Partial) => return Ok(Parsed::Partial),
            Ok(Parsed::Complete(head)) => head,
            Err(error) => return Err(early(error.status(), &format!("bad request: {error}"), "")),
        };
        self.is_head = head.method == b"HEAD";
        let expects_continue = head.expects_continue;
        let length = head.length;
        if let Some(answer) = refusal(&head) {
            return Err(if self.is_head { Answer { body: Vec::new(), ..answer } } else { answer });
        }
        self.body = Some(Collected { framing: Body::new(head.framing, Keep::Data), length: 0 });
        self.input.drain(..length);
        Ok(Parsed::Complete(expects_continue))
    }

    /// Uses what has come of the body. Returns the answer once there is one.
    fn collect(&mut self, has_room: bool) -> Option<Answer> {
        let body = self.body.as_mut()?;
        let step = match body.framing.advance(&mut self.input[body.length..]) {
            Ok(step) => step,
            Err(error) => return Some(early(400, &format!("bad request body: {error}"), "")),
        };
        self.input.drain(body.length + step.kept..body.length + step.consumed);
        body.length += step.kept;
        if body.length > MARSHAL_BODY_BYTES {
            return Some(too_large());
        }
        if body.framing.has_ended() {
            self.input.truncate(body.length);
            return Some(self.answer());
        }
        (!has_room).then(|| early(503, "too much to do at once", "Retry-After: 1\r\n"))
    }

    /// The answer to a body that is whole.
    fn answer(&mut self) -> Answer {
        let json = std::mem::take(&mut self.input);
        if json.iter().filter(|byte| matches!(byte, b',' | b'{' | b'[')).nth(MARSHAL_VALUES).is_some() {
            return refused(413, &format!("over {MARSHAL_VALUES} values"), "");
        }
        let records = match Record::list(&json) {
            Ok(records) => records,
            Err(error) => return refused(400, &format!("bad JSON: {:.200}", error.to_string()), ""),
        };
        drop(json);
        let file = marshal(self.format, &records);
        let fields = format!("{EXTENSION}: {}\r\n", extension(self.format));
        Answer { head: head_of(200, media(extension(self.format)), file.len(), &fields), body: file, is_early: false }
    }
}

/// Why a request is refused for its head alone.
fn refusal(head: &RequestHead<'_, '_>) -> Option<Answer> {
    if head.method != b"POST" {
        return Some(early(405, "only POST is allowed", "Allow: POST\r\n"));
    }
    let is_long = |length: u64| usize::try_from(length).map_or(true, |length| length > MARSHAL_BODY_BYTES);
    matches!(head.framing, Framing::Length(length) if is_long(length)).then(too_large)
}

fn too_large() -> Answer {
    early(413, &format!("over {MARSHAL_BODY_BYTES} bytes"), "")
}

fn early(status: u16, why: &str, fields: &str) -> Answer {
    Answer { is_early: true, ..refused(status, why, fields) }
}

fn refused(status: u16, why: &str, fields: &str) -> Answer {
    let body = format!("{why}\n").into_bytes();
    Answer { head: head_of(status, "text/plain; charset=utf-8", body.len(), fields), body, is_early: false }
}

/// RFC 9112 §4: a reason may be empty, and no client reads it.
fn head_of(status: u16, media: &str, length: usize, fields: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} \r\nContent-Type: {media}\r\nContent-Length: {length}\r\n{fields}Connection: close\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: &str = r#"[{"id":"a"},{"id":"b"}]"#;

    fn exchange() -> Exchange {
        Exchange::new(StoreFormat::Csv)
    }

    fn post(body: &str) -> String {
        format!("POST /marshal HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    /// Status, head and body of the answer.
    fn answer(next: Next) -> (u16, String, String) {
        let Next::Answer(answer) = next else { panic!("no answer: {next:?}") };
        let head = String::from_utf8(answer.head).unwrap();
        (head[9..12].parse().unwrap(), head, String::from_utf8(answer.body).unwrap())
    }

    fn answer_to(request: &str) -> (u16, String, String) {
        answer(exchange().receive(request.as_bytes(), true))
    }

    #[test]
    fn records_are_answered_with_their_file() {
        let (status, head, body) = answer_to(&post(RECORDS));
        assert_eq!(status, 200);
        assert!(
            head.contains("\r\nX-Log-Marshal-Extension: csv\r\n") && head.contains("\r\nContent-Type: text/csv\r\n")
        );
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert_eq!(body.lines().count(), 3);
    }

    #[test]
    fn a_request_may_come_in_any_pieces() {
        let chunked = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9;x=y\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
            &RECORDS[..9],
            RECORDS.len() - 9,
            &RECORDS[9..]
        );
        let whole = answer_to(&post(RECORDS));
        for request in [post(RECORDS), chunked] {
            for split in 1..request.len() {
                let mut exchange = exchange();
                assert_eq!(exchange.receive(&request.as_bytes()[..split], true), Next::Wait, "{split}");
                assert_eq!(answer(exchange.receive(&request.as_bytes()[split..], true)), whole, "{split}");
            }
        }
    }

    #[test]
    fn what_is_not_post_is_not_allowed() {
        for method in ["GET", "PUT", "OPTIONS", "DELETE"] {
            let (status, head, body) = answer_to(&format!("{method} /marshal HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!((status, body.as_str()), (405, "only POST is allowed\n"));
            assert!(head.contains("\r\nAllow: POST\r\n"));
        }
        let (status, _, body) = answer_to("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((status, body.as_str()), (405, ""));
    }

    #[test]
    fn bad_json_is_answered_with_the_reason() {
        for (json, reason) in [
            ("", "bad JSON: EOF while parsing a value at line 1 column 0\n"),
            ("{}", "expected a sequence at line 1 column"),
            ("[{\"bytes\":\"*\"}]", "bytes are not base64"),
            ("[{}", "EOF while parsing a list"),
        ] {
            let (status, _, body) = answer_to(&post(json));
            assert!(status == 400 && body.contains(reason), "{json}: {status} {body}");
        }
        let long = format!("[{{\"metadata\":\"{}\"}}]", "x".repeat(100_000));
        assert!(answer_to(&post(&long)).2.len() < 300);
    }

    #[test]
    fn a_length_is_believed_no_more_than_the_bytes_that_come() {
        for length in [MARSHAL_BODY_BYTES + 1, 99_999_999_999_999, usize::MAX >> 1] {
            let mut exchange = exchange();
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let Next::Answer(answer) = exchange.receive(head.as_bytes(), true) else { panic!("no answer") };
            assert!(answer.head.starts_with(b"HTTP/1.1 413 ") && answer.is_early);
        }
        let mut exchange = exchange();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MARSHAL_BODY_BYTES}\r\n\r\n");
        assert_eq!(exchange.receive(head.as_bytes(), true), Next::Wait);
        assert!(exchange.held() == 0 && exchange.input.capacity() < 1024);
    }

    #[test]
    fn a_chunked_body_has_the_same_limit() {
        let mut exchange = exchange();
        exchange.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", true);
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
        for _ in 0..MARSHAL_BODY_BYTES >> 20 {
            assert_eq!(exchange.receive(chunk.as_bytes(), true), Next::Wait);
        }
        assert_eq!(answer(exchange.receive(b"1\r\n \r\n", true)).0, 413);
    }

    #[test]
    fn many_small_values_are_refused() {
        for (record, marks) in [("{}", 2), (r#"{"metadata":{"a":[""]}}"#, 4), (r#"{"metadata":{"a":["",""]}}"#, 5)] {
            let list = |count| post(&format!("[{record}{}]", format!(",{record}").repeat(count - 1)));
            // The list's own bracket stands for the comma that its first record has not.
            assert_eq!(answer_to(&list(MARSHAL_VALUES / marks)).0, 200, "{record}");
            assert_eq!(answer_to(&list(MARSHAL_VALUES / marks + 1)).0, 413, "{record}");
        }
    }

    #[test]
    fn without_room_it_is_for_later() {
        let mut exchange = exchange();
        assert_eq!(exchange.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", true), Next::Wait);
        let (status, head, _) = answer(exchange.receive(b"[", false));
        assert!(status == 503 && head.contains("\r\nRetry-After: 1\r\n"));
    }

    #[test]
    fn a_client_that_asks_before_it_sends_is_told_to() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let mut exchange = exchange();
        assert_eq!(exchange.receive(head.as_bytes(), true), Next::Continue);
        assert_eq!(answer(exchange.receive(b"[]", true)).0, 200);
        assert_eq!(answer_to(&format!("{head}[]")).0, 200);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for (request, status) in [
            ("hello\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            ("POST / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ] {
            assert_eq!(answer_to(request).0, status, "{request}");
        }
        let long = format!("POST / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(70_000));
        assert_eq!(answer_to(&long).0, 431);
    }
}
