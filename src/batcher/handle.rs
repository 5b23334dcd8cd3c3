//! The workers' end of the batcher.
//!
//! Not here: what becomes of what it is told ([`super`]).

use std::sync::Arc;

use crossbeam_channel::{SendError, Sender};

use super::batch::Ticket;
use super::bell::RungAtEnd;
use super::gate::Gate;
use super::metrics::BatcherMetrics;
use super::request::{Arrival, Request};
use crate::fault::Fault;
use crate::ops::budget::Held;

/// What the batcher is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A request is to be batched.
    Submit(Arc<Request>),
    /// The client of a request has left.
    Left(Ticket),
    /// Others find no room for what the waiting requests hold.
    Press,
    /// Everything leaves at once from now on (SPEC D2).
    Drain,
}

/// A worker's end of the batcher.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(super) messages: Sender<Message>,
    pub(super) gate: Arc<Gate>,
    pub(super) key_headers: Arc<[String]>,
    /// Instances in one call at most.
    pub(super) cap: usize,
    pub(super) metrics: Arc<BatcherMetrics>,
    /// INVARIANT: behind `messages`, so that it rings when those have ended.
    pub(super) bell: RungAtEnd,
}

impl Handle {
    /// Request headers, in lower case, that must be equal inside a batch.
    pub(crate) fn key_headers(&self) -> &[String] {
        &self.key_headers
    }

    /// What the batcher counts.
    pub(crate) fn metrics(&self) -> Arc<BatcherMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Counts the bytes of a body that is being collected.
    pub(crate) fn hold(&self) -> Held {
        self.gate.hold()
    }

    /// Instances in one call at most.
    pub(crate) fn cap(&self) -> usize {
        self.cap
    }

    /// Hands a request over; its answer comes through the outbox. The batcher sees it when it is [woken](Self::wake).
    ///
    /// # Errors
    /// When as many wait as may; it gets no answer then.
    pub(crate) fn submit(&self, ticket: Ticket, arrival: Arrival) -> Result<Arc<Request>, Fault> {
        if !self.gate.enter() {
            return Err(Fault::BatchQueueFull);
        }
        let request = Arc::new(Request::new(ticket, arrival));
        // It ends after the workers, unless it has broken down.
        self.messages.send(Message::Submit(Arc::clone(&request))).map_err(|_| Fault::Internal)?;
        Ok(request)
    }

    /// Wakes the batcher for what was submitted: once for all of a worker's turn (SPEC B13).
    pub(crate) fn wake(&self) {
        self.bell.0.ring();
    }

    /// The client of a request has left.
    pub(crate) fn left(&self, request: &Request) {
        request.leave();
        // With the batcher gone there is nothing to be taken out of.
        let _ = self.send(Message::Left(request.ticket));
    }

    /// A request has found no room: those that wait for others to come leave at once.
    pub(crate) fn press(&self) {
        let _ = self.send(Message::Press);
    }

    /// Everything that waits leaves at once, and so does all that still comes.
    pub(crate) fn drain(&self) {
        let _ = self.send(Message::Drain);
    }

    fn send(&self, message: Message) -> Result<(), SendError<Message>> {
        self.messages.send(message)?;
        self.bell.0.ring();
        Ok(())
    }
}
