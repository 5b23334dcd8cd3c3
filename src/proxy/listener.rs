//! The accept thread: every listener, and who serves a new connection.
//!
//! One thread accepts for all workers and gives each connection to the one that has the fewest. (A listener per worker
//! with `SO_REUSEPORT` lets a hash put the few long-lived connections of a gateway all on one core.) Running out of
//! descriptors is handled here and nowhere else.
//!
//! Not here: what a connection says.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use log::Level;
use mio::net::{TcpListener, UnixListener};
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, TcpKeepalive, Type};

use super::admit::Newcomer;
use super::closing::turn_away;
use super::connection::Role;
use super::fault::Fault;
use super::headers::Peer;
use super::load::Loads;
use super::metrics::AcceptMetrics;
use super::socket::Stream;
use super::worker::{Inbox, Message};
use crate::ops::limits::is_exhausted;
use crate::ops::notice::Notices;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Wait after an accept that failed for want of a resource that nothing here can free.
const RETRY: Duration = Duration::from_millis(50);
/// Accepts that may fail for their connections' sake, one after the other, before the listener itself is suspected.
const FAILED_ACCEPTS: usize = 128;
/// The abstract socket's name (SPEC P12).
const ABSTRACT_NAME: &[u8] = b"/kserve/agent.sock";
/// Finds clients whose node died without a word, in two minutes, while a long inference or a tunnel is silent.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
const STOP: Token = Token(usize::MAX);

/// A listener and what it is for.
pub(crate) struct Listener {
    socket: Bound,
    role: Role,
}

/// A listening socket of either kind.
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The accept thread's own.
pub(crate) struct Acceptor {
    poll: Poll,
    listeners: Vec<Listener>,
    workers: Vec<Inbox>,
    loads: Arc<Loads>,
    /// Where the search for a worker begins.
    turn: usize,
    /// Closed to accept, and turn away, a connection when there is no other descriptor left.
    spare: Option<OwnedFd>,
    /// Closed by the main thread: stop.
    stop: Receiver<()>,
    metrics: Arc<AcceptMetrics>,
    notices: Arc<Notices>,
    /// Held so that the poll keeps what the other end said last: a waker that is closed takes its wake-up along.
    _waker: Arc<Waker>,
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
        Ok(Self { socket: Bound::Tcp(TcpListener::from_std(listener)), role })
    }

    /// Listens on the abstract socket.
    ///
    /// # Errors
    /// When another agent in this network namespace has it.
    pub(crate) fn unix() -> io::Result<Self> {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(ABSTRACT_NAME)?;
        let socket = UnixListener::bind_addr(&address).map(Bound::Unix)?;
        Ok(Self { socket, role: Role::Traffic })
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
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Acceptor {
    /// Makes the accept thread's poll; the waker is for the one who holds the other end of `stop`.
    ///
    /// # Errors
    /// When the kernel has no descriptors for it.
    pub(crate) fn new(
        mut listeners: Vec<Listener>,
        workers: Vec<Inbox>,
        loads: Arc<Loads>,
        stop: Receiver<()>,
        (metrics, notices): (Arc<AcceptMetrics>, Arc<Notices>),
    ) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            match &mut listener.socket {
                Bound::Tcp(listener) => poll.registry().register(listener, Token(index), Interest::READABLE)?,
                Bound::Unix(listener) => poll.registry().register(listener, Token(index), Interest::READABLE)?,
            }
        }
        let waker = Arc::new(Waker::new(poll.registry(), STOP)?);
        let spare = spare_descriptor();
        let _waker = Arc::clone(&waker);
        Ok((Self { poll, listeners, workers, loads, turn: 0, spare, stop, metrics, notices, _waker }, waker))
    }

    /// Accepts until it is told to stop; then those that still wait, and no more.
    ///
    /// # Errors
    /// When the poll fails.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        let (mut patience, mut exhausted) = (None, false);
        loop {
            if let Err(error) = self.poll.poll(&mut events, patience)
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error);
            }
            let stops = self.stop.try_recv() == Err(TryRecvError::Disconnected);
            // No event tells of connections that were waiting before, when there was no descriptor for them.
            let all = stops || patience.is_some();
            for index in 0..self.listeners.len() {
                if all || events.iter().any(|event| event.token() == Token(index)) {
                    exhausted |= self.accept_all(index);
                }
            }
            if stops {
                return Ok(());
            }
            patience = std::mem::take(&mut exhausted).then_some(RETRY);
        }
    }

    /// Accepts until none is waiting; returns whether some are that could not be accepted.
    fn accept_all(&mut self, index: usize) -> bool {
        let mut failed = 0;
        while failed < FAILED_ACCEPTS {
            match self.listeners[index].accept() {
                Accepted::Connection(client) => self.assign(client),
                Accepted::Failed => failed += 1,
                Accepted::Nothing => return false,
                Accepted::Exhausted if self.shed(index) => {}
                Accepted::Exhausted => return true,
            }
        }
        true
    }

    /// Gives the connection to a worker.
    fn assign(&mut self, client: Newcomer) {
        let (worker, place) = self.loads.assign(self.turn);
        self.turn = worker + 1;
        self.workers[worker].send(Message::Accepted { client, place });
    }

    /// Turns one connection away with the help of the spare descriptor; `false` when even that did not work.
    fn shed(&mut self, index: usize) -> bool {
        if self.spare.take().is_none() {
            self.spare = spare_descriptor();
            return self.spare.is_some();
        }
        let shed = match self.listeners[index].accept() {
            Accepted::Connection(client) => {
                turn_away(client.stream);
                self.metrics.shed.count();
                let kind = Fault::Exhausted.blame().kind();
                let what = format_args!("{}: connections are turned away", Fault::Exhausted);
                self.notices.write(kind, Level::Warn, Instant::now(), what);
                true
            }
            Accepted::Failed => true,
            Accepted::Nothing | Accepted::Exhausted => false,
        };
        self.spare = spare_descriptor();
        shed
    }
}

fn spare_descriptor() -> Option<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned().ok()
}
