//! A request that waits for its batch, as its worker hands it over.
//!
//! Not here: the way it takes ([`super::queue`]), and what it becomes ([`super::forward`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::batch::Ticket;
use super::join::Joint;
use super::key::{Key, Parts};
use super::line::UnderWay;
use super::v1;
pub(crate) use super::v1::Unfit;
use super::v2;
use crate::fault::BadPredict;
use crate::ops::budget::Held;

/// The protocol that a request's path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `…:predict`
    V1,
    /// `/v2/models/M[/versions/V]/infer`
    V2,
}

/// What of a request's head goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Path and query, then the field lines, each with its CRLF.
    pub(crate) text: Vec<u8>,
    /// Where the field lines start.
    pub(crate) fields_at: usize,
}

/// A request with everything that batching it needs.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ticket: Ticket,
    pub(crate) key: Key,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) payload: Payload,
    /// When all of it had come to its worker.
    pub(super) came: Instant,
    /// The bytes of the body count until the request is answered.
    pub(crate) _held: Held,
    /// Who waits for the answer.
    wait: Mutex<Wait>,
    /// Its parts, should it have more instances than a batch may.
    pub(super) joint: Joint,
}

/// A request as a worker hands it over.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) key: Key,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) payload: Payload,
    pub(crate) held: Held,
    /// When all of it had come.
    pub(crate) came: Instant,
}

/// Whether its client waits, and for which calls: one, or as many as there are parts under way.
#[derive(Debug, Default)]
struct Wait {
    has_left: bool,
    calls: Vec<Arc<UnderWay>>,
}

/// Where a body's instances lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Its `instances`.
    V1(v1::List),
    /// Its `inputs`.
    V2(v2::Tensors),
}

impl Request {
    /// A request that was handed over.
    pub(super) fn new(ticket: Ticket, arrival: Arrival) -> Self {
        let Arrival { key, head, body, payload, held, came } = arrival;
        Self { ticket, key, head, body, payload, came, _held: held, wait: Mutex::default(), joint: Joint::new() }
    }

    /// Its client has closed the connection.
    pub(super) fn leave(&self) {
        let mut wait = self.wait();
        wait.has_left = true;
        wait.calls.drain(..).for_each(|call| call.leave());
    }

    /// It waits for this call, unless its client has left.
    pub(super) fn await_call(&self, call: &Arc<UnderWay>) {
        let mut wait = self.wait();
        if !wait.has_left {
            call.join();
            wait.calls.push(Arc::clone(call));
        }
    }

    /// This call has ended.
    pub(super) fn call_ended(&self, call: &Arc<UnderWay>) {
        self.wait().calls.retain(|other| !Arc::ptr_eq(other, call));
    }

    /// Whether nobody waits for its answer any more.
    pub(super) fn has_left(&self) -> bool {
        self.wait().has_left
    }

    fn wait(&self) -> MutexGuard<'_, Wait> {
        self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for the instances of a body while it comes (SPEC B13).
#[derive(Debug)]
pub(crate) enum Scan {
    /// Of `instances`.
    V1(v1::RequestWalk),
    /// Of `inputs`.
    V2(v2::RequestWalk),
}

impl Scan {
    /// At the start of a body.
    pub(crate) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::V1 => Self::V1(v1::RequestWalk::default()),
            Protocol::V2 => Self::V2(v2::RequestWalk::default()),
        }
    }

    /// Goes as far as the body has come.
    ///
    /// # Errors
    /// When it is not to be batched, whatever follows.
    pub(crate) fn advance(&mut self, body: &[u8]) -> Result<(), Unfit> {
        match self {
            Self::V1(walk) => walk.advance(body).map_err(|_| Unfit::Bad(BadPredict::Malformed)),
            Self::V2(walk) => walk.advance(body).map_err(|_| Unfit::Passes),
        }
    }

    /// Bytes that it holds beside the body.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::V1(walk) => walk.held(),
            Self::V2(walk) => walk.held(),
        }
    }

    /// Where the instances lie in the whole body. What must be equal in all members of a batch goes to the key.
    ///
    /// # Errors
    /// When it is not to be batched.
    pub(crate) fn finish(self, body: &[u8], key: &mut Parts) -> Result<Payload, Unfit> {
        match self {
            Self::V1(walk) => walk.finish(body, key).map(Payload::V1),
            Self::V2(walk) => walk.finish(body, key).map(Payload::V2).map_err(|_| Unfit::Passes),
        }
    }
}

impl Payload {
    /// How many instances there are.
    pub(crate) fn instances(&self) -> usize {
        match self {
            Self::V1(list) => list.count,
            Self::V2(tensors) => tensors.rows,
        }
    }

    /// Whether it is merged with no other, although it is batched.
    pub(crate) fn is_alone(&self) -> bool {
        match self {
            Self::V1(list) => list.is_ambiguous,
            // A single dimension of several may be one thing, as in [`Self::can_be_split`].
            Self::V2(tensors) => tensors.rows > 1 && !tensors.can_be_split(),
        }
    }

    /// Bytes of a body of so many that stand outside its instances, and so in each of its parts.
    pub(crate) fn outside(&self, body: usize) -> usize {
        let inside = match self {
            Self::V1(list) => list.content.len(),
            Self::V2(tensors) => tensors.data_bytes(),
        };
        body.saturating_sub(inside)
    }

    /// Whether its instances may be sent in several calls (SPEC B5).
    pub(crate) fn can_be_split(&self) -> bool {
        match self {
            Self::V1(list) => !list.is_ambiguous,
            Self::V2(tensors) => tensors.can_be_split(),
        }
    }
}

impl Head {
    /// Path and query.
    pub(crate) fn target(&self) -> &[u8] {
        &self.text[..self.fields_at]
    }

    /// The field lines.
    pub(crate) fn fields(&self) -> &[u8] {
        &self.text[self.fields_at..]
    }
}
