//! A forwarder's connection to the model server, under ureq: a socket and its buffers.
//!
//! It is here, and not ureq's own, for what servers of models do and for what a batch costs:
//!
//! - Head and body of a request leave in one write, so that the server wakes once for it.
//! - A server that refuses a large body may answer and close without reading it. When it takes no more, what it has
//!   said is read all the same (RFC 9112 §9.5).
//! - A connection that has carried a 500 is not used again: Starlette, and with it the KServe SDK, answers an exception
//!   that nobody caught with a 500 that keeps the connection, and then closes it. A request that met that close would be
//!   lost, as nobody could know whether it was read.
//! - Whether an idle connection is still open is one call.
//!
//! Not here: HTTP, and the pool of idle connections, which are ureq's.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, Timeout};

use super::line::Line;
use crate::config::BATCH_CALL_BUFFER_BYTES;

/// Makes connections to the one address that there is.
#[derive(Debug)]
pub(super) struct WireConnector {
    /// Is told of each.
    pub(super) line: Arc<Line>,
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
    /// Writing has failed.
    is_broken: bool,
    /// The last response was a 500.
    has_failed: bool,
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
        self.line.connected(&stream);
        Ok(Some(Wire {
            stream,
            input: LazyBuffers::new(BATCH_CALL_BUFFER_BYTES, 1),
            output: vec![0; BATCH_CALL_BUFFER_BYTES],
            head: 0,
            awaits_response: false,
            is_broken: false,
            has_failed: false,
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
        self.has_failed = false;
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
        let count = loop {
            match (&*self.stream).read(self.input.input_append_buf()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.map_err(|error| timed(error, timeout.reason))?,
            }
        };
        self.input.input_appended(count);
        if self.awaits_response && self.input.input().len() >= FAILED.len() {
            self.awaits_response = false;
            self.has_failed = self.input.input().starts_with(FAILED);
        }
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        if self.is_broken || self.has_failed {
            return false;
        }
        self.awaits_response = false;
        // There is nothing to read on an idle connection, not even its end.
        let mut byte = [0];
        let peeked = recv(&*self.stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(peeked, Err(rustix::io::Errno::AGAIN))
    }
}

/// How a response begins that the server may close behind.
const FAILED: &[u8] = b"HTTP/1.1 500";

impl Wire {
    /// Writes what waits in the output. Without an answer, what is read afterwards says why it could not be written.
    fn flush(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.head);
        if waiting == 0 || self.is_broken {
            return Ok(());
        }
        let timeout = timeout.for_write();
        let limit = timeout.not_zero().map(|limit| *limit);
        if limit != self.write_timeout {
            self.stream.set_write_timeout(limit)?;
            self.write_timeout = limit;
        }
        match (&*self.stream).write_all(&self.output[..waiting]) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.is_broken = true;
                Ok(())
            }
            result => result.map_err(|error| timed(error, timeout.reason)),
        }
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
        self.input.input_consume(amount);
    }

    fn can_use_input(&self) -> bool {
        self.input.can_use_input()
    }
}
