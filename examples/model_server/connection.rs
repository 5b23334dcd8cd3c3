//! One client's connection: the answers it gets, whole or as a stream of events, and how it ends.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::request::{Refusal, Request, Stop, read_request};

/// Longest wait for the next bytes of a peer, in either direction.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a refusal this much of the unread body is taken in and dropped, so that the kernel does
/// not reset the connection before the peer has read the answer (RFC 9112 §9.6).
const LINGER_BYTES: u64 = 4 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// One client, from accept to close.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let writer = stream.try_clone()?;
        Ok(Self { reader: BufReader::new(stream), writer })
    }

    /// The next request; none when the peer has closed or was refused.
    pub(crate) fn request(&mut self) -> io::Result<Option<Request>> {
        let go_on = || self.writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        match read_request(&mut self.reader, go_on) {
            Ok(request) => Ok(Some(request)),
            Err(Stop::Closed) => Ok(None),
            Err(Stop::Io(error)) => Err(error),
            Err(Stop::Refusal(refusal)) => {
                self.send(&Err(refusal), false, false)?;
                self.close().map(|()| None)
            }
        }
    }

    pub(crate) fn answer(&mut self, request: &Request, answer: &Result<Value, Refusal>) -> io::Result<()> {
        self.send(answer, request.keep_alive, request.method == "HEAD")
    }

    /// Server-sent events, each on its way before the next is asked for.
    pub(crate) fn stream(&mut self, request: &Request, events: impl Iterator<Item = Value>) -> io::Result<()> {
        let chunked = request.minor == 1;
        let framing = match (chunked, request.keep_alive) {
            (true, true) => "Transfer-Encoding: chunked\r\n",
            (true, false) => "Transfer-Encoding: chunked\r\nConnection: close\r\n",
            (false, _) => "Connection: close\r\n",
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
             Cache-Control: no-cache\r\n{framing}\r\n"
        );
        self.writer.write_all(head.as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        for event in events {
            let event = format!("data: {event}\n\n");
            let message = if chunked { format!("{:x}\r\n{event}\r\n", event.len()) } else { event };
            self.writer.write_all(message.as_bytes())?;
        }
        if chunked { self.writer.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    /// Closes so that the peer gets all that was sent to it.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.writer.shutdown(Shutdown::Write)?;
        self.writer.set_read_timeout(Some(LINGER))?;
        io::copy(&mut self.reader.by_ref().take(LINGER_BYTES), &mut io::sink()).map(drop)
    }

    /// Head and body in one write.
    fn send(&mut self, answer: &Result<Value, Refusal>, keep_alive: bool, head_only: bool) -> io::Result<()> {
        let (status, body, allow) = match answer {
            Ok(value) => (200, value.to_string(), None),
            Err(refusal) => (refusal.status, json!({"error": refusal.reason}).to_string(), refusal.allow),
        };
        let phrase = phrase(status);
        let length = body.len();
        let allow = allow.map(|method| format!("Allow: {method}\r\n")).unwrap_or_default();
        let close = if keep_alive { "" } else { "Connection: close\r\n" };
        let body = if head_only { "" } else { &body };
        let message = format!(
            "HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{allow}{close}\r\n{body}"
        );
        self.writer.write_all(message.as_bytes())
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
