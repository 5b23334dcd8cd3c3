//! Counting: the beginning and end of requests, and whose fault a failure is (SPEC O1, O3).
//!
//! A request is counted once, at its end, wherever that comes: with its answer, with a cut, or with a client that left.
//! Times are those of the worker's wake-ups, so they cost no clock call.
//!
//! Not here: what the counters are called ([`super::metrics`]).

use std::fmt::Display;
use std::ops::Range;

use log::Level;

use super::connection::{Phase, Role};
use super::metrics::{Code, EVICTED, RECOVERED};
use super::plane::Plane;
use crate::fault::{Blame, Fault, Reason};

impl Plane {
    /// A request's head has come.
    pub(super) fn begin_request(&mut self, key: usize) {
        self.saw_request = true;
        self.connections[key].began = Some(self.now);
        self.setup.metrics.begun.count();
    }

    /// A request is over, answered with this status; 0: with none.
    pub(super) fn end_request(&mut self, key: usize, status: u16) {
        let Some(began) = self.connections.get_mut(key).and_then(|connection| connection.began.take()) else { return };
        let metrics = &self.setup.metrics;
        metrics.ended.count();
        metrics.requests.count(Code::of(status));
        if status > 0 {
            metrics.duration.observe_duration(self.now.saturating_duration_since(began));
        }
    }

    /// What could not be read as far as a request's head is answered all the same.
    pub(super) fn end_refused(&mut self, key: usize, status: u16) {
        let connection = &self.connections[key];
        if connection.began.is_none() && connection.role == Role::Traffic {
            self.setup.metrics.requests.count(Code::of(status));
        }
        self.end_request(key, status);
    }

    /// The request under way, if there is one, is over as its connection is.
    pub(super) fn cut_request(&mut self, key: usize) {
        let status = match &self.connections[key].phase {
            Phase::Exchange(exchange) => exchange.status(),
            _ => 0,
        };
        self.end_request(key, status);
        self.connections[key].owes = None;
        // Half a response is no event.
        self.connections[key].tap = None;
    }

    /// A part of a request's body is on its way, as it lies in the worker's buffer.
    pub(super) fn tap_request(&mut self, key: usize, body: Range<usize>) {
        let connection = &mut self.connections[key];
        if let (Some(tap), Phase::Exchange(exchange)) = (&mut connection.tap, &connection.phase) {
            tap.request(&self.buffers.read[body], exchange.has_request(), self.setup.logger.as_ref());
        }
    }

    /// The response that the tap captures, if there is one, has ended.
    pub(super) fn end_tap(&mut self, key: usize) {
        let tap = self.connections.get_mut(key).and_then(|connection| connection.tap.take());
        if let (Some(tap), Some(logger)) = (tap, &self.setup.logger) {
            tap.ends(logger);
        }
    }

    /// The model server has sent the head of its response.
    pub(super) fn note_response(&mut self, upstream_key: usize) {
        let waited = self.now.saturating_duration_since(self.upstreams[upstream_key].sent_at);
        self.setup.metrics.upstream_duration.observe_duration(waited);
        self.note_recovery();
    }

    /// The model server answers, perhaps again.
    pub(super) fn note_recovery(&mut self) {
        if let Some(since) = self.failing_since.take() {
            let failed = self.now.saturating_duration_since(since);
            self.setup.notices.write(
                RECOVERED,
                Level::Info,
                self.now,
                format_args!("model server: answers again, {:.1} s after it began to fail", failed.as_secs_f32()),
            );
        }
    }

    /// A request or a connection has failed.
    pub(super) fn note_fault(&mut self, fault: Fault) {
        if matches!(fault, Fault::Connect(_)) {
            self.setup.server.is_gone();
        }
        self.note_failure(fault.blame(), &fault);
    }

    /// A request, or the wait for one, has failed.
    pub(super) fn note_failure(&mut self, blame: Blame, what: &dyn Display) {
        let metrics = &self.setup.metrics;
        let level = match blame {
            Blame::Upstream(error) => {
                metrics.upstream_errors.count(error);
                self.failing_since.get_or_insert(self.now);
                Level::Warn
            }
            Blame::Rejected(reason) => {
                metrics.rejected.count(reason);
                level_of(reason)
            }
            Blame::Agent => Level::Error,
        };
        self.setup.notices.write(blame.kind(), level, self.now, format_args!("{what}"));
    }

    /// An idle connection was closed to make room.
    pub(super) fn note_eviction(&mut self) {
        self.setup.metrics.evicted.count();
        let limit = self.loads.max_connections();
        self.setup.notices.write(
            EVICTED,
            Level::Warn,
            self.now,
            format_args!("{limit} connections, as many as are allowed: idle ones are closed to make room"),
        );
    }
}

/// A client's mistakes are its own affair; what an operator can mend is a warning.
fn level_of(reason: Reason) -> Level {
    match reason {
        Reason::BadRequest | Reason::TooLarge | Reason::Unsupported | Reason::SlowClient => Level::Info,
        Reason::TooManyConnections
        | Reason::OutOfDescriptors
        | Reason::BatchQueueFull
        | Reason::BatchBytesFull
        | Reason::BatchLate => Level::Warn,
    }
}
