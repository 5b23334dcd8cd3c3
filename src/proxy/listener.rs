//! Every listener, and what becomes of a connection that waits at one.
//!
//! One worker accepts for all and gives each connection to the one that has the fewest. (A listener per worker with
//! `SO_REUSEPORT` lets a hash put the few long-lived connections of a gateway all on one core. A thread of its own costs
//! a context switch for each connection, a third of what a short one takes.) Running out of descriptors is handled here
//! and nowhere else.
//!
//! Not here: who gets the connection ([`super::worker`]), and what it says.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry};
use socket2::{Domain, Protocol, TcpKeepalive, Type};

use super::admit::Newcomer;
use super::closing::turn_away;
use super::connection::Role;
use super::headers::Peer;
use super::plane::Source;
use super::socket::Stream;
use crate::ops::limits::is_exhausted;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
pub(super) const BACKLOG: u16 = 4096;
/// Wait after an accept that failed for want of a resource that nothing here can free.
const RETRY: Duration = Duration::from_millis(50);
/// Accepts that may fail for their connections' sake, one after the other, before the listener itself is suspected.
const FAILED_ACCEPTS: usize = 128;
/// The abstract socket's name (SPEC P12).
const ABSTRACT_NAME: &[u8] = b"/kserve/agent.sock";
/// Finds clients whose node died without a word, in two minutes, while a long inference or a tunnel is silent.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);

/// A listener and what it is for.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Bound,
    role: Role,
    /// Connections may be waiting, and no event will tell of them again.
    waits: bool,
}

/// A listening socket of either kind.
#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// All listeners, for the worker that accepts.
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener whose turn it is.
    at: usize,
    /// Closed to accept, and turn away, a connection when there is no other descriptor left.
    spare: Option<OwnedFd>,
    /// Accepts that failed one after the other.
    failed: usize,
    /// Nothing is accepted before this.
    retry_at: Option<Instant>,
    /// Closed with the listeners, which tells the main thread.
    _open: Sender<Infallible>,
}

/// What an acceptor has taken from a listener.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A connection.
    Client(Newcomer),
    /// One that was turned away, as there was no descriptor for it.
    TurnedAway,
    /// One that ended before it was accepted.
    Gone,
}

/// What came of one `accept`.
enum Accepted {
    Connection(Newcomer),
    /// None is waiting.
    Nothing,
    /// That one failed; others may not.
    Failed,
    /// No descriptor, or no memory.
    Exhausted,
}

impl Listener {
    /// Listens on every interface: IPv6 and IPv4, or IPv4 alone where the node has no IPv6 (SPEC F).
    ///
    /// # Errors
    /// When the port is taken or may not be used.
    pub(crate) fn tcp(port: u16, role: Role) -> io::Result<Self> {
        let both = bind(Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let listener = match both {
            Err(error) if error.kind() == ErrorKind::AddrInUse || error.kind() == ErrorKind::PermissionDenied => {
                Err(error)
            }
            Err(_) => bind(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
            bound => bound,
        }?;
        Ok(Self { socket: Bound::Tcp(TcpListener::from_std(listener)), role, waits: true })
    }

    /// Listens on the loopback.
    ///
    /// # Errors
    /// When the port is taken or may not be used.
    pub(crate) fn loopback(port: u16, role: Role) -> io::Result<Self> {
        let listener = bind(Domain::IPV4, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(Self { socket: Bound::Tcp(TcpListener::from_std(listener)), role, waits: true })
    }

    /// Listens on the abstract socket.
    ///
    /// # Errors
    /// When another agent in this network namespace has it.
    pub(crate) fn unix() -> io::Result<Self> {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(ABSTRACT_NAME)?;
        let socket = UnixListener::bind_addr(&address).map(Bound::Unix)?;
        Ok(Self { socket, role: Role::Traffic, waits: true })
    }

    fn accept(&self) -> Accepted {
        let accepted = match &self.socket {
            Bound::Tcp(listener) => listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), Some(peer.ip()))),
            Bound::Unix(listener) => listener.accept().map(|(stream, _)| (Stream::Unix(stream), None)),
        };
        match accepted {
            Ok((stream, peer)) => Accepted::Connection(Newcomer { stream, peer: Peer::new(peer), role: self.role }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Accepted::Nothing,
            Err(error) if is_exhausted(&error) => Accepted::Exhausted,
            // ECONNABORTED and the network errors that accept(2) lists belong to the connection that was to come.
            Err(_) => Accepted::Failed,
        }
    }
}

fn bind(domain: Domain, address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted connections inherit these, which saves the calls for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::from(BACKLOG))?;
    Ok(socket.into())
}

impl Acceptor {
    /// Without a listener; `open` is closed when it is.
    pub(crate) fn new(open: Sender<Infallible>) -> Self {
        Self { listeners: Vec::new(), at: 0, spare: spare_descriptor(), failed: 0, retry_at: None, _open: open }
    }

    /// Takes a listener, and lets a poll tell of connections.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub(crate) fn add(&mut self, mut listener: Listener, registry: &Registry) -> io::Result<()> {
        let token = Source::Listener(self.listeners.len()).token();
        match &mut listener.socket {
            Bound::Tcp(listener) => registry.register(listener, token, Interest::READABLE)?,
            Bound::Unix(listener) => registry.register(listener, token, Interest::READABLE)?,
        }
        self.listeners.push(listener);
        Ok(())
    }

    /// An event has told of connections at this listener.
    pub(crate) fn note(&mut self, index: usize) {
        self.listeners[index].waits = true;
    }

    /// Something may wait at every listener.
    pub(crate) fn note_all(&mut self) {
        self.listeners.iter_mut().for_each(|listener| listener.waits = true);
    }

    /// When to accept again, if something may be waiting.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let waits = self.listeners.iter().any(|listener| listener.waits);
        waits.then(|| self.retry_at.unwrap_or(now))
    }

    /// Takes what waits, one at a time and from all listeners in turn; `None`: nothing can be taken now.
    pub(crate) fn accept(&mut self, now: Instant) -> Option<Arrival> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        for _ in 0..self.listeners.len() {
            self.at = (self.at + 1) % self.listeners.len();
            if !self.listeners[self.at].waits {
                continue;
            }
            match self.listeners[self.at].accept() {
                Accepted::Connection(client) => {
                    self.failed = 0;
                    return Some(Arrival::Client(client));
                }
                Accepted::Nothing => self.listeners[self.at].waits = false,
                Accepted::Failed => return self.gone(now),
                Accepted::Exhausted => return self.shed(now),
            }
        }
        None
    }

    fn gone(&mut self, now: Instant) -> Option<Arrival> {
        self.failed += 1;
        if self.failed < FAILED_ACCEPTS {
            return Some(Arrival::Gone);
        }
        self.failed = 0;
        self.retry_at = Some(now + RETRY);
        None
    }

    /// Turns a connection away with the help of the spare descriptor; when even that does not work it waits.
    fn shed(&mut self, now: Instant) -> Option<Arrival> {
        let turned_away = self.spare.take().is_some() && {
            match self.listeners[self.at].accept() {
                Accepted::Connection(client) => {
                    turn_away(client.stream);
                    true
                }
                Accepted::Failed | Accepted::Nothing | Accepted::Exhausted => false,
            }
        };
        self.spare = spare_descriptor();
        if turned_away {
            return Some(Arrival::TurnedAway);
        }
        self.retry_at = Some(now + RETRY);
        None
    }
}

fn spare_descriptor() -> Option<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned().ok()
}
