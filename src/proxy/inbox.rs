//! What other threads tell a worker, and how it wakes up for it.
//!
//! Not here: what it does then ([`super::worker`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

use super::admit::Newcomer;
use super::listener::Listener;
use super::load::Place;
use super::plane::Drain;
use crate::batcher::answer::Answer;

/// What a worker is told by other threads.
#[derive(Debug)]
pub(crate) enum Message {
    /// A client has connected.
    Accepted {
        /// Its connection.
        client: Newcomer,
        /// How it comes to its place.
        place: Place,
    },
    /// The container probe has a result for the connection in this slot.
    Probed { key: usize, serial: u64, passed: bool },
    /// The batched request of the connection in this slot has an answer.
    Answered { key: usize, serial: u64, answer: Answer },
    /// Connections come in here as well from now on.
    Listen(Listener),
    /// The payload log has room again.
    Room,
    /// A request to be batched has found no room, and no client of its worker's holds some for long.
    Relieve,
    /// The shutdown goes on to this.
    Drain(Drain),
}

/// Where other threads leave messages for a worker.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    sender: Sender<Message>,
    waker: Arc<Waker>,
    is_woken: Arc<AtomicBool>,
}

/// The worker's end of its inbox.
pub(super) struct Letters {
    messages: Receiver<Message>,
    /// The worker is awake, or a wake-up is under way: it will look into the inbox before it sleeps. INVARIANT: taken back
    /// before that last look, so no message is without a wake-up; and there is one at most for each time that it sleeps.
    is_woken: Arc<AtomicBool>,
    /// Held so that the poll keeps what the inbox's owner said last: a waker that is closed takes its wake-up along.
    _waker: Arc<Waker>,
}

impl Inbox {
    /// Both ends; the waker is of the worker's poll.
    pub(super) fn new(waker: Waker) -> (Self, Letters) {
        // Bounded by what may be under way: connections by the descriptors, results by the connections that wait.
        let (sender, messages) = crossbeam_channel::unbounded();
        let waker = Arc::new(waker);
        let is_woken = Arc::new(AtomicBool::new(false));
        let inbox = Self { sender, waker: Arc::clone(&waker), is_woken: Arc::clone(&is_woken) };
        (inbox, Letters { messages, is_woken, _waker: waker })
    }

    /// Leaves a message and wakes the worker.
    pub(crate) fn send(&self, message: Message) {
        self.leave(message);
        self.wake();
    }

    /// Leaves a message, behind which [`Self::wake`] is called. A worker that has ended has no use for it.
    pub(crate) fn leave(&self, message: Message) {
        let _ = self.sender.send(message);
    }

    /// Wakes the worker for what was left, unless it is awake.
    pub(crate) fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::SeqCst) {
            // It fails only if the kernel has lost the poll, and with it the worker.
            let _ = self.waker.wake();
        }
    }
}

impl Letters {
    /// The worker is awake.
    pub(super) fn awake(&self) {
        self.is_woken.store(true, Ordering::SeqCst);
    }

    /// Before the worker sleeps; `false`: there are messages.
    pub(super) fn sleeps(&self) -> bool {
        self.is_woken.store(false, Ordering::SeqCst);
        self.messages.is_empty()
    }

    /// The next message.
    pub(super) fn next(&self) -> Option<Message> {
        self.messages.try_recv().ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    #[test]
    fn messages_sent_at_the_same_time_wake_the_worker() {
        let mut poll = Poll::new().unwrap();
        let (inbox, letters) = Inbox::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut events = Events::with_capacity(8);
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        barrier.wait();
                        inbox.send(Message::Drain(Drain::Quiet));
                        barrier.wait();
                    }
                });
            }
            for round in 0..20_000 {
                barrier.wait();
                barrier.wait();
                // Asleep since the look that found nothing; the two messages are one wake-up.
                poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
                assert!(!events.is_empty(), "round {round}: {} messages and no wake-up", letters.messages.len());
                letters.awake();
                while letters.next().is_some() {}
                inbox.send(Message::Room);
                assert!(!letters.sleeps() && letters.next().is_some() && letters.sleeps());
                poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
                assert!(events.is_empty(), "round {round}: woken while awake");
            }
        });
    }
}
