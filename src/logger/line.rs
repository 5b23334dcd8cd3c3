//! A connection to the sink, plain or TLS, with deadlines that hold whatever the sink does.
//!
//! The socket does not block; the one who waits for it does, in `poll` and no longer than the deadline. `SO_RCVTIMEO`
//! would start anew with every byte, and a sink that sends one byte a second would never be late.
//!
//! Not here: what is sent ([`super::flight`]), and what an answer means ([`super::retry`]).

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{ClientConnection, StreamOwned};

use super::address::{Known, Resolver, connect};
use super::retry::Verdict;
use super::route::Route;
use crate::config::{HEAD_BYTES, INTERIM_RESPONSES, LOG_ANSWER_BYTES, LOG_CONNECTION_AGE};
use crate::http1::body::{Body, Keep};
use crate::http1::head::{self, Parsed, ResponseHead, Slots};
use crate::http1::{Framing, Version};
use crate::ops::random;
use crate::ops::trust::Trust;

/// A connection.
pub(super) struct Line {
    stream: Stream,
    pub(super) address: SocketAddr,
    /// How many answers it has brought.
    pub(super) answers: u32,
    /// All of them were HTTP/1.1.
    pub(super) is_current: bool,
    /// When another one takes its place.
    old_at: Instant,
    /// What was read; the bytes before `at` are used.
    input: Vec<u8>,
    at: usize,
}

/// An answer, as far as it matters.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) verdict: Verdict,
    /// Another request may follow.
    pub(super) keeps: bool,
    /// Where the request is to be sent instead (307, 308).
    pub(super) moved: Option<String>,
}

enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

/// A socket whose every wait ends with the deadline.
struct Timed {
    socket: TcpStream,
    deadline: Instant,
}

/// Bytes read at once.
const READ: usize = 16 * 1024;

impl Line {
    /// Connects to where this route leads.
    pub(super) fn open(
        route: &Route,
        trust: &Trust,
        (resolver, known): (&mut Resolver, &Known),
        deadline: Instant,
    ) -> io::Result<Self> {
        let name = route.server_name().map_err(io::Error::other)?;
        let config = name.as_ref().map(|_| trust.client()).transpose().map_err(io::Error::other)?;
        let proxy = route.proxy().map_err(io::Error::other)?;
        let place = proxy.map_or((&*route.host, route.port), |proxy| (proxy.host.trim_matches(['[', ']']), proxy.port));
        let socket = connect(resolver, known, place, deadline)?;
        let address = socket.peer_addr()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut timed = Timed { socket, deadline };
        if let Some(proxy) = proxy.filter(|_| config.is_some()) {
            timed.tunnel(&route.connect(proxy))?;
        }
        let stream = match config.zip(name) {
            None => Stream::Plain(timed),
            Some((config, name)) => {
                let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, timed);
                // Now and not with the first bytes: a sink that can't be trusted was not reached.
                stream.conn.complete_io(&mut stream.sock)?;
                Stream::Tls(Box::new(stream))
            }
        };
        let old_at = Instant::now() + age(random::share());
        Ok(Self { stream, address, answers: 0, is_current: true, old_at, input: Vec::new(), at: 0 })
    }

    /// Until when whatever follows must be done.
    pub(super) fn until(&mut self, deadline: Instant) {
        match &mut self.stream {
            Stream::Plain(timed) => timed.deadline = deadline,
            Stream::Tls(stream) => stream.sock.deadline = deadline,
        }
    }

    /// Returns the connection unless it is old, or the sink has closed it or said something unasked since the last answer.
    pub(super) fn if_usable(mut self, now: Instant) -> Option<Self> {
        let is_stale = match &mut self.stream {
            Stream::Plain(timed) => timed.has_input(),
            Stream::Tls(stream) => stream.sock.has_input() && has_news(stream),
        };
        (!is_stale && now < self.old_at && self.at == self.input.len()).then_some(self)
    }

    /// Returns whether no byte has come since the last answer.
    pub(super) fn is_silent(&self) -> bool {
        self.at == self.input.len()
    }

    /// Sends all of it.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes),
        }
    }

    /// What was sent is on its way.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }

    /// The next answer, whole. An error: there is none.
    pub(super) fn answer(&mut self) -> io::Result<Reply> {
        let mut interims = 0;
        loop {
            let mut slots = Slots::new();
            let parsed = head::response(&self.input[self.at..], &mut slots);
            let parsed = parsed.map_err(|error| io::Error::other(format!("no HTTP: {error}")))?;
            let Parsed::Complete(head) = parsed else {
                if self.input.len() - self.at > HEAD_BYTES {
                    return Err(io::Error::other("no HTTP: the head of the answer is too long"));
                }
                self.fill()?;
                continue;
            };
            let verdict = Verdict::of(head.status, field(&head, "retry-after").as_deref(), SystemTime::now());
            let moved = matches!(head.status, 307 | 308).then(|| field(&head, "location")).flatten();
            let (status, framing, is_current) = (head.status, head.framing, head.version == Version::Http11);
            let keeps = head.options.keeps(head.version) && framing != Framing::Close && status != 101;
            self.at += head.length;
            if status == 101 || !(100..200).contains(&status) {
                // The event's fate is known; if the rest can't be read, only the connection is lost.
                let keeps = keeps && self.skip_body(framing).is_ok();
                self.answers = self.answers.saturating_add(1);
                self.is_current &= is_current;
                return Ok(Reply { status, verdict, keeps, moved });
            }
            interims += 1;
            if interims > INTERIM_RESPONSES {
                // Bytes that are there are read whatever the time, so without a limit it might never be over.
                return Err(io::Error::other("no HTTP: too many interim answers"));
            }
        }
    }

    fn skip_body(&mut self, framing: Framing) -> io::Result<()> {
        let mut body = Body::new(framing, Keep::Data);
        let mut skipped = 0;
        while !body.has_ended() {
            let step = body.advance(&mut self.input[self.at..]).map_err(|_| io::Error::other("a broken body"))?;
            self.at += step.consumed;
            skipped += step.consumed;
            if skipped > LOG_ANSWER_BYTES {
                return Err(io::Error::other("a long body"));
            }
            if !body.has_ended() {
                self.fill()?;
            }
        }
        Ok(())
    }

    /// Reads more behind what is not used yet.
    fn fill(&mut self) -> io::Result<()> {
        self.input.drain(..std::mem::take(&mut self.at));
        let length = self.input.len();
        self.input.resize(length + READ, 0);
        let room = &mut self.input[length..];
        let count = match &mut self.stream {
            Stream::Plain(timed) => timed.read(room),
            Stream::Tls(stream) => read_tls(stream, room),
        };
        self.input.truncate(length + *count.as_ref().unwrap_or(&0));
        match count? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the sink has closed the connection")),
            _ => Ok(()),
        }
    }
}

/// Reads what has come, and unlike rustls' stream does not first send what is left to be sent: a sink that refuses an event
/// before it has all of it may take no more.
fn read_tls(
    StreamOwned { conn, sock }: &mut StreamOwned<ClientConnection, Timed>,
    room: &mut [u8],
) -> io::Result<usize> {
    let mut is_first = true;
    loop {
        match conn.reader().read(room) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
        // What is there is read whatever the time, and records that bring nothing could be there for ever.
        if !std::mem::take(&mut is_first) && sock.deadline <= Instant::now() {
            return Err(io::Error::new(ErrorKind::TimedOut, "timed out"));
        }
        // The end of the connection is what the reader says next.
        conn.read_tls(sock)?;
        conn.process_new_packets().map_err(io::Error::other)?;
    }
}

/// The first field of this name.
fn field(head: &ResponseHead<'_, '_>, name: &str) -> Option<String> {
    let found = head.fields.iter().find(|field| field.1.eq_ignore_ascii_case(name));
    found.and_then(|field| std::str::from_utf8(field.2).ok()).map(str::to_owned)
}

/// How old a connection may become: all of them at the same age would be opened again at the same time. `chance`: from 0
/// up to 1.
fn age(chance: f64) -> Duration {
    LOG_CONNECTION_AGE.mul_f64(0.9 + chance / 5.0)
}

/// Whether there is more to read than tickets for the next session, which servers send at any time.
fn has_news(StreamOwned { conn, sock }: &mut StreamOwned<ClientConnection, Timed>) -> bool {
    match conn.read_tls(&mut sock.socket) {
        Ok(0) => true,
        Ok(_) => conn
            .process_new_packets()
            .map_or(true, |state| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed()),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

impl Timed {
    /// Asks a proxy for a tunnel. Not a byte behind its answer is read, as that is the sink's.
    fn tunnel(&mut self, request: &str) -> io::Result<()> {
        self.write_all(request.as_bytes())?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() > HEAD_BYTES || self.read(&mut byte)? == 0 {
                return Err(io::Error::other("the proxy gives no tunnel: its answer is no HTTP"));
            }
            answer.push(byte[0]);
        }
        let mut slots = Slots::new();
        match head::response(&answer, &mut slots) {
            Ok(Parsed::Complete(head)) if (200..300).contains(&head.status) => Ok(()),
            Ok(Parsed::Complete(head)) => {
                Err(io::Error::other(format!("the proxy gives no tunnel: it has answered {}", head.status)))
            }
            _ => Err(io::Error::other("the proxy gives no tunnel: its answer is no HTTP")),
        }
    }

    fn has_input(&self) -> bool {
        self.is_ready(PollFlags::IN, Some(Duration::ZERO)).unwrap_or(true)
    }

    /// Waits, until the deadline or for `patience`.
    fn is_ready(&self, wanted: PollFlags, patience: Option<Duration>) -> io::Result<bool> {
        let left = patience.unwrap_or_else(|| self.deadline.saturating_duration_since(Instant::now()));
        // Years are as good as any longer time.
        let timeout = Timespec::try_from(left.min(Duration::from_secs(u32::MAX.into()))).map_err(io::Error::other)?;
        loop {
            match poll(&mut [PollFd::from_borrowed_fd(self.socket.as_fd(), wanted)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, wanted: PollFlags) -> io::Result<()> {
        if self.is_ready(wanted, None)? { Ok(()) } else { Err(io::Error::new(ErrorKind::TimedOut, "timed out")) }
    }
}

impl Read for Timed {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            // What is asked for is never there yet: a request has just gone out.
            self.wait(PollFlags::IN)?;
            match self.socket.read(room) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                result => return result,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::OUT)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_age_five_minutes_give_or_take_a_tenth() {
        let seconds = |chance| age(chance).as_secs_f64().round();
        assert_eq!([0.0, 0.5, 1.0].map(seconds), [270.0, 300.0, 330.0]);
    }
}
