//! A forwarder's connection to the model server, under ureq: a socket and its buffers.
//!
//! It is here, and not ureq's own, for what servers of models do and for what a batch costs:
//!
//! - Head and body of a request leave in one write, so that the server wakes once for it.
//! - A server that refuses a large body may answer and close without reading it. When it takes no more, what it has
//!   said is read all the same (RFC 9112 §9.5).
//! - A connection behind whose last response the server may close is not used again ([`closes_behind`]).
//! - Whether an idle connection is still open is one call. A request that met its end all the same is known as unread, if it
//!   is certain that it was not read ([`judge_unread`]).
//!
//! Not here: HTTP, and the pool of idle connections, which are ureq's.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

use super::line::Line;
use super::watch::Watch;
use crate::config::{BATCH_CALL_BUFFER_BYTES, RESET_TIMEOUT};
use crate::ops::server::{ModelServer, Unread, closes_behind, judge_unread};

/// Makes connections to the one address that there is.
#[derive(Debug)]
pub(super) struct WireConnector {
    /// Whose connections they are.
    pub(super) server: ModelServer,
    /// Is told of each.
    pub(super) line: Arc<Line>,
    /// Sees what each carries.
    pub(super) watch: Watch,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    /// Shared only with the [`Line`], which may shut it down.
    stream: Arc<TcpStream>,
    /// Its input half is used.
    input: LazyBuffers,
    output: Vec<u8>,
    /// Bytes of a head, at the start of the output, that wait for the body.
    head: usize,
    /// What comes next is a request's head, or what is read next a response's.
    awaits_response: bool,
    /// What has come of that head.
    response: Vec<u8>,
    watch: Watch,
    /// Writing has failed with this.
    broken: Option<ErrorKind>,
    /// It has carried a response before this request.
    is_reused: bool,
    server: ModelServer,
    /// When a byte was read last, and how long before this request that was.
    read_at: Instant,
    idle: Duration,
    /// Bytes of this request that were written, and in how many pieces.
    sent: usize,
    pieces: usize,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Connector for WireConnector {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Wire>, Error> {
        let address = details.addrs.iter().next().ok_or(Error::HostNotFound)?;
        let limit = details.timeout.not_zero();
        let connected = match limit {
            Some(limit) => TcpStream::connect_timeout(address, *limit),
            None => TcpStream::connect(address),
        };
        let stream = connected.map_err(|error| timed(error, Timeout::Connect))?;
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        if !self.line.connected(&stream) {
            return Err(Error::ConnectionFailed);
        }
        Ok(Some(Wire {
            stream,
            input: LazyBuffers::new(BATCH_CALL_BUFFER_BYTES, 1),
            output: vec![0; BATCH_CALL_BUFFER_BYTES],
            head: 0,
            awaits_response: false,
            response: Vec::new(),
            watch: self.watch.clone(),
            broken: None,
            is_reused: false,
            server: self.server.clone(),
            read_at: Instant::now(),
            idle: Duration::ZERO,
            sent: 0,
            pieces: 0,
            read_timeout: None,
            write_timeout: None,
        }))
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let is_head = !std::mem::replace(&mut self.awaits_response, true);
        self.head += amount;
        // Every request here has a body, for which half of the buffer is left.
        if is_head && self.head <= BATCH_CALL_BUFFER_BYTES / 2 {
            return Ok(());
        }
        self.flush(timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.flush(timeout)?;
        let timeout = timeout.for_read();
        let limit = timeout.not_zero().map(|limit| *limit);
        if limit != self.read_timeout {
            self.stream.set_read_timeout(limit)?;
            self.read_timeout = limit;
        }
        let read = loop {
            let buffer = self.input.input_append_buf();
            // What ureq is given for a head may be longer than the head, by little.
            let room = if self.awaits_response { buffer.len() / 2 } else { buffer.len() };
            match (&*self.stream).read(&mut buffer[..room]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        if self.awaits_response && self.response.is_empty() {
            match &read {
                Ok(0) => self.judge(None),
                Ok(_) => {}
                Err(error) => self.judge(Some(error.kind())),
            }
        }
        let count = read.map_err(|error| match error.kind() {
            // ureq takes it for the end of a body that ends with the connection, which would look whole.
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted if !self.awaits_response => {
                Error::Io(io::Error::other(error))
            }
            _ => timed(error, timeout.reason),
        })?;
        self.read_at = Instant::now();
        if self.awaits_response {
            self.gather_head(count)?;
        } else {
            self.input.input_appended(count);
        }
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        let status = self.watch.watched().status();
        if self.broken.is_some() || status.is_ok_and(closes_behind) {
            return false;
        }
        debug_assert!(self.response.is_empty(), "what is used again has carried a whole response");
        (self.awaits_response, self.is_reused, self.sent, self.pieces) = (false, true, 0, 0);
        self.idle = self.read_at.elapsed();
        if self.idle >= self.server.idle_limit() {
            return false;
        }
        // There is nothing to read on an idle connection, not even its end.
        let mut byte = [0];
        let peeked = recv(&*self.stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        let is_open = matches!(peeked, Err(rustix::io::Errno::AGAIN));
        if !is_open {
            // Within this time; nobody has looked before.
            self.server.has_closed_idle(self.idle);
        }
        is_open
    }
}

impl Wire {
    /// Writes what waits in the output. Without an answer, what is read afterwards says why it could not be written.
    fn flush(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.head);
        if waiting == 0 || self.broken.is_some() {
            return Ok(());
        }
        let timeout = timeout.for_write();
        let limit = timeout.not_zero().map(|limit| *limit);
        if limit != self.write_timeout {
            self.stream.set_write_timeout(limit)?;
            self.write_timeout = limit;
        }
        let mut rest = &self.output[..waiting];
        while !rest.is_empty() {
            match (&*self.stream).write(rest) {
                Ok(count) => {
                    self.sent += count;
                    self.pieces += 1;
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    self.broken = Some(error.kind());
                    return Ok(());
                }
                Err(error) => return Err(timed(error, timeout.reason)),
            }
        }
        Ok(())
    }

    /// Takes so many bytes more of a response's head, and what is behind it.
    fn gather_head(&mut self, count: usize) -> Result<(), Error> {
        self.response.extend_from_slice(&self.input.input_append_buf()[..count]);
        // What is wrong is told by the watch.
        let refused = |_| Error::Io(ErrorKind::InvalidData.into());
        if self.watch.watched().take_head(&mut self.response).map_err(refused)? {
            let buffer = self.input.input_append_buf();
            buffer[..self.response.len()].copy_from_slice(&self.response);
            self.input.input_appended(self.response.len());
            self.response.clear();
            self.awaits_response = false;
        }
        Ok(())
    }

    /// The connection has ended without a byte of a response: says whether the request may be sent again (SPEC P9). `error`:
    /// what reading has ended with; `None`: the server's end, behind which a reset may come a moment later.
    fn judge(&self, error: Option<ErrorKind>) {
        if !self.is_reused {
            return;
        }
        self.server.has_closed_idle(self.idle);
        let unread = match (self.sent, self.pieces) {
            // Not a byte was taken.
            (0, _) => Unread::Certain,
            (sent, 1) => match judge_unread(sent, error.or(self.broken)) {
                Unread::Undecided => judge_unread(sent, self.reset_in_time()),
                unread => unread,
            },
            _ => Unread::No,
        };
        self.watch.watched().is_unread = unread == Unread::Certain;
    }

    /// The error that the kernel holds for the connection, once it has one.
    fn reset_in_time(&self) -> Option<ErrorKind> {
        // Only an error or a hang-up is waited for.
        let mut polled = [PollFd::new(&*self.stream, PollFlags::empty())];
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(RESET_TIMEOUT.subsec_nanos()) };
        // Without the wait there is just no sign.
        let _ = poll(&mut polled, Some(&limit));
        self.stream.take_error().ok().flatten().map(|error| error.kind())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.watch.watched().given_up(&self.stream, self.input.input());
    }
}

/// A socket's time limit shows as `WouldBlock`.
fn timed(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(reason),
        _ => Error::Io(error),
    }
}

impl Buffers for Wire {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output[self.head..]
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (self.input.input_append_buf(), &mut self.output[self.head..])
    }

    fn input(&self) -> &[u8] {
        self.input.input()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.input.input_append_buf()
    }

    fn input_appended(&mut self, amount: usize) {
        self.input.input_appended(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        let used = self.input.input();
        self.watch.watched().used(&used[..amount.min(used.len())]);
        self.input.input_consume(amount);
    }

    fn can_use_input(&self) -> bool {
        self.input.can_use_input()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A connection that has carried a response, and the server's end of it.
    fn reused() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let wire = Wire {
            stream,
            input: LazyBuffers::new(BATCH_CALL_BUFFER_BYTES, 1),
            output: vec![0; BATCH_CALL_BUFFER_BYTES],
            head: 0,
            awaits_response: false,
            response: Vec::new(),
            watch: Watch::default(),
            broken: None,
            is_reused: true,
            server: ModelServer::at(listener.local_addr().unwrap()),
            read_at: Instant::now(),
            idle: Duration::ZERO,
            sent: 0,
            pieces: 0,
            read_timeout: None,
            write_timeout: None,
        };
        (wire, listener.accept().unwrap().0)
    }

    /// Sends a request of so many bytes; whether it is certain that the server has not read it.
    fn is_unread(wire: &mut Wire, bytes: usize, server: impl FnOnce()) -> bool {
        wire.watch.begin();
        wire.transmit_output(bytes / 2, NextTimeout::default()).unwrap();
        wire.transmit_output(bytes - bytes / 2, NextTimeout::default()).unwrap();
        server();
        // A connection that has ended reads nothing, or an error.
        let _ = wire.await_input(NextTimeout::default());
        wire.watch.watched().is_unread
    }

    #[test]
    fn a_server_that_closed_before_the_request_came_has_not_read_it() {
        let (mut wire, server) = reused();
        drop(server);
        assert!(is_unread(&mut wire, 1000, || ()));
        let (mut wire, server) = reused();
        drop(server);
        assert!(!is_unread(&mut wire, 5000, || ()), "of a long one it may have read a part");
    }

    #[test]
    fn a_server_that_closes_behind_the_request_may_have_read_it() {
        let (mut wire, mut server) = reused();
        let read = move || {
            server.read_exact(&mut [0; 1000]).unwrap();
        };
        assert!(!is_unread(&mut wire, 1000, read), "it has read all of it");
        let (mut wire, mut server) = reused();
        let read = move || {
            server.read_exact(&mut [0; 10]).unwrap();
        };
        assert!(!is_unread(&mut wire, 1000, read), "a part of it");
        let (mut wire, server) = reused();
        wire.is_reused = false;
        drop(server);
        assert!(!is_unread(&mut wire, 1000, || ()), "a new connection was not idle");
    }
}
