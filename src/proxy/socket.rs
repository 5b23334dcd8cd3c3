//! Non-blocking sockets, and what a read or write can come back with.
//!
//! A socket is registered once, edge-triggered, for both directions, so its readiness is remembered here: it is ready
//! until a call says otherwise. A read that fills less than it was given has emptied the socket (epoll(7)), which
//! saves the read that would say so; not so once the peer has closed, as that is for a further read to tell.
//!
//! Not here: what the bytes mean.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Event;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// A connection and its readiness.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    readable: bool,
    writable: bool,
    /// The peer has sent its last byte.
    peer_closed: bool,
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP, IPv4 or IPv6.
    Tcp(TcpStream),
    /// The abstract socket (SPEC P12).
    Unix(UnixStream),
}

/// What a read came back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The peer has sent its last byte.
    End,
    /// The connection is broken.
    Broken(ErrorKind),
}

impl Socket {
    /// Registers a connection that is taken to be writable: trying costs less than waiting for the first event.
    /// `readable`: reading is worth a try as well.
    pub(crate) fn register(mut stream: Stream, registry: &Registry, token: Token, readable: bool) -> io::Result<Self> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match &mut stream {
            Stream::Tcp(stream) => registry.register(stream, token, both)?,
            Stream::Unix(stream) => registry.register(stream, token, both)?,
        }
        Ok(Self { stream, readable, writable: true, peer_closed: false })
    }

    /// Takes note of what an event says; `true`: the connection was reset.
    pub(crate) fn note(&mut self, event: &Event) -> bool {
        // A hang-up alone is both sides' ends: what the peer sent before its own is still to be read.
        let is_reset = event.is_error();
        self.readable |= event.is_readable() || event.is_read_closed() || is_reset;
        self.writable |= event.is_writable() || event.is_write_closed();
        self.peer_closed |= event.is_read_closed();
        is_reset
    }

    /// Whether the peer is known to have sent its last byte.
    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Whether a read may bring something.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether a write may take something.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Has the next read done without waiting for an event.
    pub(crate) fn try_to_read(&mut self) {
        self.readable = true;
    }

    /// Leaves the next read to the next event.
    pub(crate) fn wait_to_read(&mut self) {
        self.readable = false;
    }

    /// Reads once.
    pub(crate) fn receive(&mut self, buf: &mut [u8]) -> Received {
        loop {
            match self.stream.read(buf) {
                Ok(0) => {
                    self.peer_closed = true;
                    return Received::End;
                }
                Ok(count) => {
                    self.readable = count == buf.len() || self.peer_closed;
                    return Received::Bytes(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Received::Nothing;
                }
                Err(error) => return Received::Broken(error.kind()),
            }
        }
    }

    /// Writes once; returns how much went out, which may be nothing.
    ///
    /// # Errors
    /// When the connection is broken or could not be made.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        loop {
            match self.stream.write(bytes) {
                Ok(count) => {
                    self.writable = count == bytes.len();
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connect that is under way says the one or the other.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    self.writable = false;
                    return Ok(0);
                }
                Err(error) => return Err(error.kind()),
            }
        }
    }

    /// Sends no more: the peer reads to the end of what was sent, and then the end.
    pub(crate) fn end(&self) {
        // A peer that is gone has no use for it.
        let _ = self.stream.end();
    }

    /// Makes the close that follows a reset, so that the peer can't take it for an end.
    pub(crate) fn reset_on_close(&self) {
        // A reset is the best that can be done; a plain close is next best.
        let _ = socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }

    /// The error that the kernel holds for this connection.
    pub(crate) fn pending_error(&self) -> Option<ErrorKind> {
        socket2::SockRef::from(self).take_error().ok().flatten().map(|error| error.kind())
    }
}

impl Stream {
    /// Sends no more.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn end(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}
