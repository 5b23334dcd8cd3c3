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
    /// Nobody waits for it any more.
    is_cancelled: bool,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    line: Arc<Line>,
    number: u64,
    /// Requests whose clients still wait; and one more until all have joined, so that a first one that leaves does not end
    /// the call of those who are just joining.
    waiting: AtomicUsize,
}

impl Line {
    /// The connection is this one now; `false`: nobody waits any more for the call that it was made for.
    pub(super) fn connected(&self, stream: &Arc<TcpStream>) -> bool {
        let mut current = self.current();
        current.stream = Arc::downgrade(stream);
        !current.is_cancelled
    }

    /// A call begins; those who wait for it join, and then it is [wanted](UnderWay::is_wanted) or not.
    pub(super) fn begin(self: &Arc<Self>) -> Arc<UnderWay> {
        let mut current = self.current();
        current.calls += 1;
        current.call = current.calls;
        current.is_cancelled = false;
        Arc::new(UnderWay { line: Arc::clone(self), number: current.calls, waiting: AtomicUsize::new(1) })
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

    /// All have joined; whether anybody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.fetch_sub(1, Ordering::Relaxed) > 1
    }

    /// One has left; the last one ends the call, unless it has ended.
    pub(super) fn leave(&self) {
        if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut current = self.line.current();
            if current.call != self.number {
                return;
            }
            current.is_cancelled = true;
            if let Some(stream) = current.stream.upgrade() {
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    fn line() -> (Arc<Line>, Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let line = Arc::new(Line::default());
        assert!(line.connected(&stream));
        (line, stream, listener.accept().unwrap().0)
    }

    fn is_shut_down(mut server: &TcpStream) -> bool {
        server.set_nonblocking(true).unwrap();
        server.read(&mut [0]).is_ok_and(|count| count == 0)
    }

    #[test]
    fn the_last_who_leaves_ends_the_call() {
        let (line, _stream, server) = line();
        let call = line.begin();
        call.join();
        call.leave();
        call.join();
        call.join();
        assert!(call.is_wanted());
        call.leave();
        assert!(!is_shut_down(&server));
        call.leave();
        assert!(is_shut_down(&server));
    }

    #[test]
    fn a_call_that_nobody_waits_for_any_more_gets_no_connection() {
        let (line, stream, _server) = line();
        let call = line.begin();
        call.join();
        assert!(call.is_wanted());
        call.leave();
        assert!(!line.connected(&stream), "it was being made when the last one left");
        line.begin();
        assert!(line.connected(&stream));
    }

    #[test]
    fn a_call_that_has_ended_does_not_end_the_next() {
        let (line, _stream, server) = line();
        let first = line.begin();
        first.join();
        assert!(first.is_wanted());
        first.end();
        let second = line.begin();
        first.leave();
        assert!(!is_shut_down(&server));
        assert!(!second.is_wanted());
    }
}
