//! The two ends of the proxy: a client's connection and one to the model server.
//!
//! ```text
//!   Idle ──▶ Head ──▶ Exchange ──▶ Idle …           a client's connection, between accept and close
//!     │        │         ├───────▶ Tunnel
//!     │        ├───────▶ Parked ─▶ Idle             (a probe waits for its result)
//!     │        ├───────▶ Delayed ─▶ Idle            (the payload log has no room)
//!     │        ├───────▶ Collecting ─▶ Batched ─▶ Idle   (or Exchange, should it not be one to batch)
//!     └────────┴─────────┴───────▶ Closing          (last bytes out, then the end)
//! ```
//!
//! Not here: the steps between the phases ([`super::receive`], [`super::relay`], [`super::tunnel`]).

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use super::buffer::Unsent;
use super::collect::Collecting;
use super::exchange::Exchange;
use super::headers::{Parked, Peer};
use super::socket::Socket;
use crate::batcher::request::Request;
use crate::config::BATCH_RELIEF_AFTER;
use crate::logger::tap::Tap;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) role: Role,
    pub(crate) peer: Peer,
    pub(crate) phase: Phase,
    /// Read, but not used yet: a part of a head or chunk line, or requests that wait for their turn.
    pub(crate) input: Vec<u8>,
    /// What has come of a short request, as it goes to the server: in one write, if the rest comes within
    /// [`GATHER_TIMEOUT`](crate::config::GATHER_TIMEOUT).
    pub(crate) ahead: Vec<u8>,
    /// Bytes that the client has not taken.
    pub(crate) unsent: Unsent,
    /// The connection to the server that its exchange or tunnel uses.
    pub(crate) upstream: Option<usize>,
    /// When the head of the request under way had come.
    pub(crate) began: Option<Instant>,
    /// Bytes moved for the client since the start of its progress window.
    pub(crate) moved: u64,
    /// Tells this connection from an earlier one in the same slot.
    pub(crate) serial: u64,
    /// The status of a batched request's answer that has not gone out to its last byte, behind which it is counted.
    pub(crate) owes: Option<u16>,
    /// Captures the request and its response for the payload log.
    pub(crate) tap: Option<Box<Tap>>,
    /// Its request has waited for room in the payload log.
    pub(crate) has_waited: bool,
    /// It has more to do and waits for another turn.
    pub(crate) is_queued: bool,
    /// Requests were received on it.
    pub(crate) is_used: bool,
}

/// What a client's connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Requests for the model server, and probes.
    Traffic,
    /// `--metrics-port`: the agent answers.
    Metrics,
    /// `--admin-port`: the same.
    Admin,
}

/// What a client's connection is doing.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Waiting for a request.
    Idle,
    /// A part of a head has come; it is in `input`.
    Head,
    /// A request is on its way, or its response.
    Exchange(Exchange),
    /// A probe waits for its result.
    Parked(Parked),
    /// A request waits, its head unread, until the payload log has room.
    Delayed,
    /// A request that is to be batched is coming.
    Collecting(Box<Collecting>),
    /// A request waits for its batch, or for its batch's response.
    Batched(Batched),
    /// Bytes pass both ways as they are.
    Tunnel(Tunnel),
    /// The last bytes go out, then the connection closes.
    Closing(Closing),
}

/// A request that was handed to the batcher.
#[derive(Debug)]
pub(crate) struct Batched {
    pub(crate) parked: Parked,
    /// What was handed over.
    pub(crate) request: Arc<Request>,
}

impl Connection {
    /// Bytes a second in which the client sends a body that is collected; `None`: it sends none, or only for a moment.
    pub(super) fn upload_pace(&self, now: Instant) -> Option<u64> {
        let Phase::Collecting(collecting) = &self.phase else { return None };
        let took = now.saturating_duration_since(self.began?);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        (took >= BATCH_RELIEF_AFTER).then(|| collecting.received() as u64 * 1000 / millis)
    }
}

/// Which directions of a tunnel have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tunnel {
    pub(crate) client_ended: bool,
    pub(crate) server_ended: bool,
    /// The server has sent a byte.
    pub(crate) is_served: bool,
}

/// How a connection closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// As soon as everything is sent: the client has nothing under way.
    Clean,
    /// It may still be sending; a close now could reset the connection and take the answer along (RFC 9112 §9.6).
    Linger,
    /// Everything is sent and the client knows; what it still sends is thrown away.
    Lingering,
}

/// A connection to the model server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) socket: Socket,
    /// When the request that it carries was sent.
    pub(crate) sent_at: Instant,
    /// When it became idle last.
    pub(crate) idle_since: Instant,
    /// The client's connection it works for; `None`: it is idle.
    pub(crate) owner: Option<usize>,
    /// A part of a response head, chunk line or trailer section.
    pub(crate) input: Vec<u8>,
    /// Bytes that the server has not taken.
    pub(crate) unsent: Unsent,
    /// What the one write so far has sent, if it may have to be sent again. Empty once there was another write, or a
    /// byte of the response has come.
    pub(crate) replay: Vec<u8>,
    /// It has carried a request before.
    pub(crate) reused: bool,
    /// The server's kernel has taken the connection.
    pub(crate) connected: bool,
    /// It was looked at once more before the second write of a request.
    pub(crate) is_checked: bool,
    /// The server has sent its end without a response; a reset may follow, and decides whether the request is sent again.
    pub(crate) is_ending: bool,
    /// Writing failed, with this; whether the server has answered all the same, reading will tell.
    pub(crate) broken: Option<ErrorKind>,
}
