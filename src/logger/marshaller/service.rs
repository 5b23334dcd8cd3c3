//! The marshaller service: one thread that waits on all of its connections at once, so that one that stalls holds up
//! nobody.
//!
//! ```text
//!   accept ─▶ Receiving ─ answer ─▶ Sending ─┬─ the request was whole ─▶ closed
//!               │                            └─ it was not ─▶ Lingering ─▶ closed
//!               └─ MARSHAL_TIMEOUT ─▶ cut
//! ```
//!
//! The waiting is `poll(2)` over at most [`MARSHAL_CONNECTIONS`] sockets, one read or write for each that is ready: no
//! client gets more than its turn. Making a file is done in between; it takes 0.1 s for the largest.
//!
//! It is not served by tiny_http, which has neither limits nor time limits: 0.12 allocates what a `Content-Length` says
//! and aborts the process, and stops accepting for ever when a descriptor was missing once. Nor by the proxy's workers,
//! whose clients would wait while a file is made.
//!
//! Architecture Invariant: dropping [`Stop`] ends the thread; there is no stop flag.
//!
//! Not here: HTTP and its limits ([`super::exchange`]).

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::exchange::{Answer, Exchange, Next};
use crate::config::{
    LINGER_TIMEOUT, MARSHAL_ACCEPT_WAIT, MARSHAL_CONNECTIONS, MARSHAL_HELD_BYTES, MARSHAL_TIMEOUT, READ_BYTES,
    StoreFormat,
};

/// The service, before it runs.
#[derive(Debug)]
pub struct Service {
    listener: TcpListener,
    format: StoreFormat,
    stop: UnixStream,
    /// The oldest first.
    connections: Vec<Connection>,
    /// Nothing is accepted before this, as the last accept has failed.
    accepts_at: Option<Instant>,
}

/// Ends the service when it is dropped.
#[derive(Debug)]
pub struct Stop {
    _end: UnixStream,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    phase: Phase,
    /// When it is cut.
    deadline: Instant,
}

#[derive(Debug)]
enum Phase {
    Receiving(Exchange),
    Sending {
        answer: Answer,
        /// Bytes of head and body that were sent.
        sent: usize,
    },
    /// Reads what the client still sends, so that the answer is not lost to a reset (RFC 9112 §9.6).
    Lingering,
}

/// What is ready.
struct Ready {
    stop: bool,
    listener: bool,
    /// One for each connection.
    connections: Vec<bool>,
}

impl Service {
    /// Listens on this port of the loopback; 0: any. Files have this format.
    ///
    /// # Errors
    /// When the port is taken or may not be used.
    pub fn bind(port: u16, format: StoreFormat) -> io::Result<(Self, Stop)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let (stop, end) = UnixStream::pair()?;
        Ok((Self { listener, format, stop, connections: Vec::new(), accepts_at: None }, Stop { _end: end }))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until [`Stop`] is dropped.
    ///
    /// # Errors
    /// When the kernel does not let it wait.
    pub fn run(mut self) -> io::Result<()> {
        let mut scratch = vec![0; READ_BYTES];
        loop {
            let ready = self.wait(Instant::now())?;
            if ready.stop {
                return Ok(());
            }
            let now = Instant::now();
            self.serve(&ready.connections, now, &mut scratch);
            if ready.listener {
                self.accept(now);
            }
        }
    }

    /// Waits for something to do, or the first deadline.
    fn wait(&mut self, now: Instant) -> io::Result<Ready> {
        self.accepts_at = self.accepts_at.filter(|at| *at > now);
        let deadlines = self.connections.iter().map(|connection| connection.deadline);
        let until = deadlines.chain(self.accepts_at).min();
        let timeout = until.map(|until| timespec(until.saturating_duration_since(now)));
        let listens = if self.accepts_at.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut waits = vec![PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.listener, listens)];
        waits.extend(self.connections.iter().map(|each| PollFd::new(&each.stream, each.phase.waits_for())));
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = waits.iter().map(|wait| !wait.revents().is_empty());
        let (stop, listener) = (ready.next().unwrap_or_default(), ready.next().unwrap_or_default());
        Ok(Ready { stop, listener, connections: ready.collect() })
    }

    /// A turn for each connection that is ready; those that are done or out of time are closed.
    fn serve(&mut self, ready: &[bool], now: Instant, scratch: &mut [u8]) {
        let mut held: usize = self.connections.iter().map(|connection| connection.phase.held()).sum();
        let mut ready = ready.iter();
        self.connections.retain_mut(|connection| {
            let is_ready = ready.next().is_some_and(|ready| *ready);
            let before = connection.phase.held();
            let turn = || !is_ready || connection.turn(held <= MARSHAL_HELD_BYTES, now, scratch);
            let goes_on = catch_unwind(AssertUnwindSafe(turn)).unwrap_or_else(|_| {
                log::error!("a panic has cost one request to the log marshaller");
                false
            });
            held = held.saturating_sub(before) + connection.phase.held();
            goes_on && connection.deadline > now
        });
    }

    fn accept(&mut self, now: Instant) {
        match self.listener.accept() {
            Ok((stream, _)) => {
                if self.connections.len() >= MARSHAL_CONNECTIONS {
                    self.connections.remove(0);
                }
                let phase = Phase::Receiving(Exchange::new(self.format));
                if stream.set_nonblocking(true).is_ok() {
                    self.connections.push(Connection { stream, phase, deadline: now + MARSHAL_TIMEOUT });
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // No descriptor, most likely: whatever it is, the next moment brings the same.
            Err(_) => self.accepts_at = Some(now + MARSHAL_ACCEPT_WAIT),
        }
    }
}

impl Connection {
    /// One read or write. `false`: it is over.
    fn turn(&mut self, has_room: bool, now: Instant, scratch: &mut [u8]) -> bool {
        let result = match &mut self.phase {
            Phase::Receiving(_) => self.receive(has_room, now, scratch),
            Phase::Sending { .. } => self.send(now),
            Phase::Lingering => (&self.stream).read(scratch).map(|count| count > 0),
        };
        match result {
            Ok(goes_on) => goes_on,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    fn receive(&mut self, has_room: bool, now: Instant, scratch: &mut [u8]) -> io::Result<bool> {
        let Phase::Receiving(exchange) = &mut self.phase else { return Ok(true) };
        let count = (&self.stream).read(scratch)?;
        if count == 0 {
            return Ok(false);
        }
        match exchange.receive(&scratch[..count], has_room) {
            Next::Wait => Ok(true),
            // The first bytes on a connection, for which there is room.
            Next::Continue => (&self.stream).write(b"HTTP/1.1 100 \r\n\r\n").map(|_| true),
            Next::Answer(answer) => {
                self.phase = Phase::Sending { answer, sent: 0 };
                self.deadline = now + MARSHAL_TIMEOUT;
                self.send(now)
            }
        }
    }

    fn send(&mut self, now: Instant) -> io::Result<bool> {
        let Phase::Sending { answer, sent } = &mut self.phase else { return Ok(true) };
        let head = answer.head.get(*sent..).unwrap_or_default();
        let body = &answer.body[sent.saturating_sub(answer.head.len())..];
        *sent += (&self.stream).write_vectored(&[IoSlice::new(head), IoSlice::new(body)])?;
        if *sent < answer.head.len() + answer.body.len() {
            return Ok(true);
        }
        if !answer.is_early {
            return Ok(false);
        }
        self.stream.shutdown(Shutdown::Write)?;
        self.phase = Phase::Lingering;
        self.deadline = now + LINGER_TIMEOUT;
        Ok(true)
    }
}

impl Phase {
    fn waits_for(&self) -> PollFlags {
        match self {
            Self::Receiving(_) | Self::Lingering => PollFlags::IN,
            Self::Sending { .. } => PollFlags::OUT,
        }
    }

    /// Bytes that it keeps.
    fn held(&self) -> usize {
        match self {
            Self::Receiving(exchange) => exchange.held(),
            Self::Sending { answer, .. } => answer.body.len(),
            Self::Lingering => 0,
        }
    }
}

/// Rounded up, so that the deadline has passed when the wait is over.
fn timespec(wait: Duration) -> Timespec {
    let wait = wait + Duration::from_nanos(1);
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(wait.subsec_nanos()) }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
