//! Everything that one worker owns, and the steps that every phase of a connection shares.
//!
//! Architecture Invariant: nothing in here is shared with another thread but [`Loads`], which is written once per
//! wake-up and read by others; no lock, no queue.
//!
//! Not here: the poll, the inbox ([`super::worker`]), and the phases themselves.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use slab::Slab;

use super::buffer::Buffers;
use super::connection::{Connection, Phase, Role, Upstream};
use super::load::{Load, Loads};
use super::metrics::WorkerMetrics;
use super::timers::Timers;
use super::waiting::{deadline, upstream_deadline};
use crate::batcher;
use crate::config::{
    CONNECT_TIMEOUT, GATHER_TIMEOUT, HEAD_TIMEOUT, KEEP_ALIVE_TIMEOUT, LEAVE_TIMEOUT, LINGER_TIMEOUT, READ_BYTES,
    RESET_TIMEOUT, TUNNEL_IDLE_TIMEOUT, UPSTREAM_IDLE_TIMEOUT,
};
use crate::logger::tap::Handle;
use crate::ops::notice::Notices;
use crate::ops::server::ModelServer;
use crate::ops::status::Status;

/// Steps of one connection before the others have their turn: a client could send requests that are answered at once
/// without end.
const TURN_STEPS: usize = 64;

/// Reads of one connection before the others have their turn: 2 MiB, about 1 ms.
pub(super) const TURN_READS: usize = 2 * 1024 * 1024 / READ_BYTES;

/// Reads of all connections in one wake-up, after which the others have theirs in the next one: 8 MiB, so that a wake-up ends
/// within the 10 ms of SPEC P14 also when many connections have much to do.
pub(super) const WAKE_UP_READS: usize = 4 * TURN_READS;

/// Of these, reads that are left to those that have waited for another turn, so that new events can't keep them waiting.
const READS_OF_QUEUED: usize = WAKE_UP_READS / 2;

/// One worker's part of the proxy.
pub(crate) struct Plane {
    pub(crate) connections: Slab<Connection>,
    pub(crate) upstreams: Slab<Upstream>,
    pub(crate) deadlines: Timers<{ deadline::COUNT }>,
    pub(crate) upstream_deadlines: Timers<{ upstream_deadline::COUNT }>,
    pub(crate) buffers: Buffers,
    /// Connections whose request waits until the payload log has room.
    pub(crate) delayed: Vec<usize>,
    /// Connections that had more to do than one turn allows.
    pub(crate) again: VecDeque<usize>,
    /// The time of this wake-up.
    pub(crate) now: Instant,
    pub(crate) drain: Drain,
    /// A request came in this wake-up.
    pub(crate) saw_request: bool,
    /// A request was handed to the batcher in this wake-up.
    pub(crate) has_submitted: bool,
    /// When room was made for others in the batcher's budget.
    pub(crate) relieved: Option<Instant>,
    /// No client of this worker could make way, so one of another's has to.
    pub(crate) wants_relief: bool,
    /// Reads that the connection whose turn it is may still do, and all together in this wake-up.
    pub(crate) turn: usize,
    pub(crate) wake_up: usize,
    /// When the model server began to fail, if nothing has come from it since.
    pub(crate) failing_since: Option<Instant>,
    pub(crate) serial: u64,
    /// Connections of operators, which have a limit of their own.
    pub(crate) operators: usize,
    pub(crate) registry: Registry,
    pub(crate) setup: Setup,
    pub(crate) loads: Arc<Loads>,
}

/// What a worker is told once.
pub(crate) struct Setup {
    /// Where the model server is.
    pub(crate) server: ModelServer,
    /// The same as text, for requests without a `Host`.
    pub(crate) authority: String,
    /// Longest wait for the first byte of a response.
    pub(crate) upstream_timeout: Option<Duration>,
    /// Window over which a client must keep moving.
    pub(crate) body_timeout: Duration,
    /// Asks for the container probe's result; `None`: the container is always ready.
    pub(crate) prober: Option<crossbeam_channel::Sender<ProbeTicket>>,
    /// Takes requests to be batched; `None`: none are.
    pub(crate) batcher: Option<batcher::Handle>,
    /// Takes payloads; `None`: none are logged.
    pub(crate) logger: Option<Handle>,
    /// This worker's number.
    pub(crate) worker: usize,
    /// This worker's counters.
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Everybody's, for those who ask.
    pub(crate) status: Arc<Status>,
    /// Which lines of the log are due.
    pub(crate) notices: Arc<Notices>,
}

/// A probe's way back to the connection that waits for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeTicket {
    /// The worker's number.
    pub(crate) worker: usize,
    /// The connection's slot.
    pub(crate) key: usize,
    /// The connection's serial.
    pub(crate) serial: u64,
}

/// How far the shutdown has come (SPEC D).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Not begun.
    No,
    /// Probes fail; everything else goes on.
    Quiet,
    /// Connections close after their response; new ones may still come.
    Closing,
    /// No new connections; what runs may end until then.
    Finish(Instant),
}

/// What a phase wants after its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// To go on in the phase that it has set.
    Next,
    /// The next event.
    Wait,
    /// Another turn, after the others had theirs.
    Yield,
    /// The end of the connection.
    Close,
}

impl Drain {
    /// Whether connections close after their response.
    pub(crate) fn is_finishing(self) -> bool {
        matches!(self, Self::Closing | Self::Finish(_))
    }
}

impl Plane {
    pub(crate) fn new(registry: Registry, setup: Setup, loads: Arc<Loads>) -> Self {
        // Never armed when there is no limit.
        let response = setup.upstream_timeout.unwrap_or(KEEP_ALIVE_TIMEOUT);
        Self {
            connections: Slab::new(),
            upstreams: Slab::new(),
            deadlines: Timers::new([
                HEAD_TIMEOUT,
                KEEP_ALIVE_TIMEOUT,
                setup.body_timeout,
                LINGER_TIMEOUT,
                TUNNEL_IDLE_TIMEOUT,
                TUNNEL_IDLE_TIMEOUT,
                LEAVE_TIMEOUT,
                GATHER_TIMEOUT,
            ]),
            upstream_deadlines: Timers::new([CONNECT_TIMEOUT, response, UPSTREAM_IDLE_TIMEOUT, RESET_TIMEOUT]),
            buffers: Buffers::new(),
            delayed: Vec::new(),
            again: VecDeque::new(),
            now: Instant::now(),
            drain: Drain::No,
            saw_request: false,
            has_submitted: false,
            relieved: None,
            wants_relief: false,
            turn: 0,
            wake_up: WAKE_UP_READS,
            failing_since: None,
            serial: 0,
            operators: 0,
            registry,
            setup,
            loads,
        }
    }

    /// Something has happened to a connection: it goes on now, or in a later turn if it moves bodies and others have moved as
    /// much as they may (SPEC P14). A request's head is always read.
    pub(crate) fn wake(&mut self, key: usize) {
        let moves_bodies = self.connections.get(key).is_some_and(|connection| match connection.phase {
            Phase::Exchange(_) | Phase::Collecting(_) | Phase::Tunnel(_) | Phase::Closing(_) => true,
            Phase::Idle | Phase::Head | Phase::Parked(_) | Phase::Delayed | Phase::Batched(_) => false,
        });
        if moves_bodies && self.wake_up <= READS_OF_QUEUED { self.queue(key) } else { self.drive(key) }
    }

    /// Lets a connection go as far as it can without waiting, within its turn: the longer the queue, the shorter.
    pub(crate) fn drive(&mut self, key: usize) {
        let share = if self.again.is_empty() { TURN_READS } else { self.wake_up / (1 + self.again.len()) };
        self.turn = share.clamp(1, TURN_READS).min(self.wake_up);
        for _ in 0..TURN_STEPS {
            let Some(connection) = self.connections.get(key) else { return };
            let flow = match &connection.phase {
                Phase::Idle | Phase::Head => self.receive(key),
                Phase::Exchange(_) => self.relay(key),
                Phase::Batched(_) | Phase::Parked(_) | Phase::Delayed => Flow::Wait,
                Phase::Collecting(_) => self.collect_more(key),
                Phase::Tunnel(_) => self.tunnel(key),
                Phase::Closing(_) => self.closing(key),
            };
            match flow {
                Flow::Next => {}
                Flow::Wait => return self.settle(key),
                Flow::Yield => break,
                Flow::Close => return self.close(key),
            }
        }
        self.queue(key);
    }

    /// Gives a connection another turn, after the others had theirs.
    pub(super) fn queue(&mut self, key: usize) {
        self.settle(key);
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.is_queued, true)
        {
            self.again.push_back(key);
        }
    }

    /// Whether the connection whose turn it is may do something more that takes as long as so many reads (SPEC P14).
    pub(super) fn may_move(&mut self, reads: usize) -> bool {
        let may = self.turn > 0;
        self.turn = self.turn.saturating_sub(reads);
        self.wake_up = self.wake_up.saturating_sub(reads);
        may
    }

    /// So many bytes of a request were read with its head.
    pub(super) fn has_read(&mut self, bytes: usize) {
        self.wake_up = self.wake_up.saturating_sub((bytes + READ_BYTES / 2) / READ_BYTES);
    }

    /// What this worker lets others see.
    pub(crate) fn load(&self) -> &Load {
        self.loads.of(self.setup.worker)
    }

    /// Whether responses tell their clients that the connection closes.
    pub(crate) fn is_finishing(&self) -> bool {
        self.drain.is_finishing()
    }

    /// Sends bytes to a client, or keeps what it does not take.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn send_to_client(
        connection: &mut Connection,
        buffers: &mut Buffers,
        setup: &Setup,
        bytes: SendFrom,
    ) -> Result<(), ErrorKind> {
        let Buffers { read, out, pool } = buffers;
        let bytes = match bytes {
            SendFrom::Out => &out[..],
            SendFrom::Read { start, end } => &read[start..end],
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = if connection.unsent.is_empty() { connection.socket.send(bytes)? } else { 0 };
        connection.moved += sent as u64;
        setup.metrics.sent.add(sent as u64);
        if let Some(tap) = &mut connection.tap {
            tap.sent(bytes, setup.logger.as_ref());
        }
        connection.unsent.keep(&bytes[sent..], pool);
        Ok(())
    }

    /// Sends what a client had not taken; returns whether all of it went out.
    ///
    /// # Errors
    /// When the client is gone.
    pub(crate) fn flush_client(&mut self, key: usize) -> Result<bool, ErrorKind> {
        let connection = &mut self.connections[key];
        while !connection.unsent.is_empty() {
            if !connection.socket.is_writable() {
                return Ok(false);
            }
            let sent = connection.socket.send(connection.unsent.rest())?;
            connection.moved += sent as u64;
            self.setup.metrics.sent.add(sent as u64);
            connection.unsent.advance(sent, &mut self.buffers.pool);
        }
        if let Some(status) = connection.owes.take() {
            self.end_request(key, status);
            self.end_tap(key);
        }
        Ok(true)
    }

    /// Closes a client's connection, and the server's if it works for it.
    pub(crate) fn close(&mut self, key: usize) {
        if self.connections.contains(key) {
            self.cut_request(key);
        }
        let Some(mut connection) = self.connections.try_remove(key) else { return };
        self.deadlines.cancel(key);
        self.buffers.pool.put(&mut connection.input);
        self.buffers.pool.put(&mut connection.ahead);
        connection.unsent.clear(&mut self.buffers.pool);
        if let Some(upstream) = connection.upstream {
            self.drop_upstream(upstream);
        }
        if let (Phase::Batched(batched), Some(batcher)) = (&connection.phase, &self.setup.batcher) {
            batcher.left(&batched.request);
        }
        if matches!(connection.phase, Phase::Tunnel(_)) {
            self.setup.metrics.tunnels_closed.count();
        }
        self.leaves(connection.role);
    }

    /// A connection is gone, and its place is free.
    pub(super) fn leaves(&mut self, role: Role) {
        match role {
            Role::Traffic => self.load().has_lost_one(),
            Role::Metrics | Role::Admin => self.operators -= 1,
        }
    }
}

/// Which of the worker's buffers holds what is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SendFrom {
    /// All of `out`.
    Out,
    /// A part of `read`.
    Read { start: usize, end: usize },
}

/// What an event is about. A client's connection has an even token, one to the server an odd one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The worker's inbox.
    Inbox,
    /// A listener, by its number.
    Listener(usize),
    /// A client's connection, by its slot.
    Client(usize),
    /// A connection to the server, by its slot.
    Upstream(usize),
}

/// Tokens that no slot can have.
const FIRST_LISTENER: usize = usize::MAX / 2 + 1;

impl Source {
    /// What the token of an event stands for.
    pub(crate) fn of(Token(token): Token) -> Self {
        match token {
            usize::MAX => Self::Inbox,
            FIRST_LISTENER.. => Self::Listener(token - FIRST_LISTENER),
            _ if token.is_multiple_of(2) => Self::Client(token / 2),
            _ => Self::Upstream(token / 2),
        }
    }

    /// The token that stands for it.
    pub(crate) fn token(self) -> Token {
        Token(match self {
            Self::Inbox => usize::MAX,
            Self::Listener(index) => FIRST_LISTENER + index,
            Self::Client(key) => key * 2,
            Self::Upstream(key) => key * 2 + 1,
        })
    }
}
