//! How a call is ended that nobody waits for any more (SPEC P8): its connection is shut down by the last who leaves.
//!
//! Not here: the call ([`super::forward`]), and who leaves (the workers know).

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A forwarder's connection, as those see it who may end its call.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<Current>);

#[derive(Debug, Default)]
struct Current {
    stream: Weak<TcpStream>,
    /// The call that is under way, by its number; 0: none is.
    call: u64,
    calls: u64,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    line: Arc<Line>,
    number: u64,
    /// Requests whose clients still wait.
    waiting: AtomicUsize,
}

impl Line {
    /// The connection is this one now.
    pub(super) fn connected(&self, stream: &Arc<TcpStream>) {
        self.current().stream = Arc::downgrade(stream);
    }

    /// A call begins, for nobody yet.
    pub(super) fn begin(self: &Arc<Self>) -> Arc<UnderWay> {
        let mut current = self.current();
        current.calls += 1;
        current.call = current.calls;
        Arc::new(UnderWay { line: Arc::clone(self), number: current.calls, waiting: AtomicUsize::new(0) })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    /// One more waits for it.
    pub(super) fn join(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anybody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// One has left; the last one ends the call, unless it has ended.
    pub(super) fn leave(&self) {
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            let current = self.line.current();
            if current.call == self.number
                && let Some(stream) = current.stream.upgrade()
            {
                // It fails only if the connection is gone.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// The call has ended: from now on the connection is another's.
    pub(super) fn end(&self) {
        self.line.current().call = 0;
    }
}
