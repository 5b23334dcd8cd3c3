//! What is known of how model servers end connections, for workers and forwarders alike (SPEC P9).
//!
//! Not here: what follows from it for a request (`proxy::resend`, `batcher::transport`).

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{REPLAY_UNSEEN_BYTES, UPSTREAM_IDLE_LEAST, UPSTREAM_IDLE_TIMEOUT};

/// The model server: where it is, and what was learnt of it.
#[derive(Debug, Clone)]
pub(crate) struct ModelServer {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Microseconds; workers and forwarders learn together.
    idle_limit: Arc<AtomicU64>,
}

impl ModelServer {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, idle_limit: Arc::new(AtomicU64::new(micros(UPSTREAM_IDLE_TIMEOUT))) }
    }

    /// How long a connection may have been idle to be used again: a request that is sent just as the server closes is lost, and
    /// may not be repeated if it is no idempotent one.
    pub(crate) fn idle_limit(&self) -> Duration {
        Duration::from_micros(self.idle_limit.load(Ordering::Relaxed))
    }

    /// The server has closed a connection that was idle for so long. Shorter than any keep-alive time is no sign of one.
    pub(crate) fn has_closed_idle(&self, idle: Duration) {
        if idle >= UPSTREAM_IDLE_LEAST {
            // 0.8 of it: the server's clock has begun a little earlier than ours, and a request takes its time to arrive.
            let limit = micros(idle) / 5 * 4;
            if self.idle_limit.fetch_min(limit, Ordering::Relaxed) > limit {
                log::debug!("the model server closes connections after {idle:?}; they are used for 0.8 of it");
            }
        }
    }

    /// The server was not there: the next one may be another.
    pub(crate) fn is_gone(&self) {
        self.idle_limit.store(micros(UPSTREAM_IDLE_TIMEOUT), Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Whether a server may close its connection behind a response of this status although it says that it keeps it. Starlette,
/// and with it the KServe SDK, answers an exception that nobody caught with a 500, and then closes. A request that met that
/// close would be lost.
pub(crate) fn closes_behind(status: u16) -> bool {
    status == 500
}

/// Whether a server has read a byte of a request whose connection ended without a byte of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It has not, so the request may be sent again, whatever its method.
    Certain,
    /// A reset may still come that shows it.
    Undecided,
    /// It may have.
    No,
}

/// Judges by how the connection ended. It was reused, and the request left in one write of so many bytes.
///
/// A server that closed an idle connection just before the request came answers the write with a reset. Here that is a FIN
/// and then a reset, which the kernel reports as EPIPE (tcp_reset in CLOSE-WAIT). A server that has read all of the request
/// and closes sends a FIN alone; one that closes with none of it read, a reset alone. A FIN and a reset also come from one
/// that shuts down and then closes with a part unread, so the sign is trusted only for requests so short that they are read
/// whole or not at all. `error`: what the connection ended with; `None`: a FIN so far.
pub(crate) fn judge_unread(bytes: usize, error: Option<ErrorKind>) -> Unread {
    match error {
        _ if bytes > REPLAY_UNSEEN_BYTES => Unread::No,
        Some(ErrorKind::BrokenPipe) => Unread::Certain,
        Some(_) => Unread::No,
        None => Unread::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_closes_sooner_is_learnt_and_one_that_was_gone_is_forgotten() {
        let server = ModelServer::at(SocketAddr::from(([127, 0, 0, 1], 1)));
        let other = server.clone();
        for (idle, limit) in [(60_000, 3000), (2000, 1600), (2500, 1600), (50, 1600), (1000, 800)] {
            server.has_closed_idle(Duration::from_millis(idle));
            assert_eq!(other.idle_limit(), Duration::from_millis(limit), "{idle}");
        }
        other.is_gone();
        assert_eq!(server.idle_limit(), UPSTREAM_IDLE_TIMEOUT);
    }

    #[test]
    fn only_a_fin_and_a_reset_behind_a_short_request_show_that_it_was_not_read() {
        assert_eq!(judge_unread(100, Some(ErrorKind::BrokenPipe)), Unread::Certain);
        assert_eq!(judge_unread(100, Some(ErrorKind::ConnectionReset)), Unread::No);
        assert_eq!(judge_unread(100, None), Unread::Undecided);
        assert_eq!(judge_unread(REPLAY_UNSEEN_BYTES + 1, Some(ErrorKind::BrokenPipe)), Unread::No);
    }
}
