//! What is known of how model servers end connections, for workers and forwarders alike (SPEC P9).
//!
//! Not here: what follows from it for a request (`proxy::resend`, `batcher::transport`).

use std::io::ErrorKind;

use crate::config::REPLAY_UNSEEN_BYTES;

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
    fn only_a_fin_and_a_reset_behind_a_short_request_show_that_it_was_not_read() {
        assert_eq!(judge_unread(100, Some(ErrorKind::BrokenPipe)), Unread::Certain);
        assert_eq!(judge_unread(100, Some(ErrorKind::ConnectionReset)), Unread::No);
        assert_eq!(judge_unread(100, None), Unread::Undecided);
        assert_eq!(judge_unread(REPLAY_UNSEEN_BYTES + 1, Some(ErrorKind::BrokenPipe)), Unread::No);
    }
}
