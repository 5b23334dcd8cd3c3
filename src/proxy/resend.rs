//! A request whose connection to the server failed: may it be sent again? (SPEC P9)
//!
//! Only over a new connection, when the old one had been reused and not a byte of a response has come. An idempotent
//! method may be repeated. Any other only if the server has not read a byte of the request, and that shows:
//!
//! What shows it is in [`crate::ops::server`]. The sign is trusted only for a request that left in one write: a second may go
//! out between the FIN and the reset, and then nobody can tell which of the two the reset is for. The reset may come a moment
//! after the FIN, so a FIN alone waits for it.
//!
//! Not here: a write that took nothing, after which any request may go elsewhere ([`super::receive`]).

use std::io::ErrorKind;

use super::connection::{Phase, Upstream};
use super::exchange::Exchange;
use super::plane::Plane;
use crate::fault::Fault;
use crate::ops::server::{Unread, judge_unread};

/// What became of a request whose connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resent {
    /// It is on its way again.
    Yes,
    /// A reset may still show that the server has not read it.
    Undecided,
    /// It may not be sent again.
    No,
}

impl Plane {
    /// Sends the request again if that is safe. `error`: what reading ended with; `None`: the server's end.
    pub(super) fn resend(
        &mut self,
        key: usize,
        upstream_key: usize,
        error: Option<ErrorKind>,
    ) -> Result<Resent, Fault> {
        let connection = &mut self.connections[key];
        let upstream = &mut self.upstreams[upstream_key];
        let Phase::Exchange(exchange) = &connection.phase else { return Ok(Resent::No) };
        let resent = judge(exchange, upstream, error);
        if upstream.reused && !exchange.has_begun() {
            self.setup.server.has_closed_idle(upstream.sent_at.saturating_duration_since(upstream.idle_since));
        }
        match resent {
            Resent::Yes => {
                self.buffers.out.clear();
                self.buffers.out.extend_from_slice(&upstream.replay);
                connection.upstream = None;
                self.drop_upstream(upstream_key);
                self.setup.metrics.upstream_retries.count();
                self.dispatch_new(key)?;
            }
            Resent::Undecided => {
                upstream.is_ending = true;
                upstream.socket.wait_to_read();
            }
            Resent::No => {}
        }
        Ok(resent)
    }
}

fn judge(exchange: &Exchange, upstream: &mut Upstream, error: Option<ErrorKind>) -> Resent {
    if !upstream.reused || upstream.replay.is_empty() || exchange.has_begun() {
        return Resent::No;
    }
    if exchange.may_resend(false) {
        return Resent::Yes;
    }
    let error = error.or(upstream.broken).or_else(|| upstream.socket.pending_error());
    match judge_unread(upstream.replay.len(), error) {
        Unread::Certain if exchange.may_resend(true) => Resent::Yes,
        Unread::Certain | Unread::No => Resent::No,
        Unread::Undecided => Resent::Undecided,
    }
}
