//! The way of answers back to the workers.
//!
//! Not here: the workers' inboxes, which the composition root puts behind it.

use std::fmt;
use std::sync::Arc;

use super::answer::Answer;
use super::batch::Ticket;

/// Where answers go.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<dyn Deliver>);

/// Hands things to the workers, without waiting itself.
pub(crate) trait Deliver: Send + Sync {
    /// Leaves an answer with the worker that waits for it.
    fn leave(&self, ticket: Ticket, answer: Answer);
    /// Wakes a worker for what was left.
    fn wake(&self, worker: usize);
}

impl Outbox {
    /// `deliver` hands answers to the workers.
    pub(crate) fn new(deliver: impl Deliver + 'static) -> Self {
        Self(Arc::new(deliver))
    }

    /// Sends the answers of a batch, and wakes each worker once for all that are its own (SPEC B13).
    pub(super) fn send(&self, answers: impl IntoIterator<Item = (Ticket, Answer)>) {
        let mut workers: u128 = 0;
        for (ticket, answer) in answers {
            self.0.leave(ticket, answer);
            match 1_u128.checked_shl(u32::try_from(ticket.worker).unwrap_or(u32::MAX)) {
                Some(bit) => workers |= bit,
                None => self.0.wake(ticket.worker),
            }
        }
        (0..128).filter(|worker| workers >> worker & 1 == 1).for_each(|worker| self.0.wake(worker));
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outbox")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::fault::Fault;

    #[derive(Default)]
    struct Counts {
        left: Mutex<Vec<usize>>,
        woken: Mutex<Vec<usize>>,
    }

    impl Deliver for Arc<Counts> {
        fn leave(&self, ticket: Ticket, _: Answer) {
            assert!(self.woken.lock().unwrap().is_empty(), "all are left before anybody is woken");
            self.left.lock().unwrap().push(ticket.worker);
        }

        fn wake(&self, worker: usize) {
            self.woken.lock().unwrap().push(worker);
        }
    }

    #[test]
    fn a_worker_is_woken_once_for_all_answers_of_a_batch() {
        let counts = Arc::new(Counts::default());
        let outbox = Outbox::new(Arc::clone(&counts));
        let workers = [3, 0, 3, 127, 0, 3];
        let answers = workers.map(|worker| (Ticket { worker, key: 0, serial: 0 }, Answer::Failed(Fault::BatchLate)));
        outbox.send(answers);
        assert_eq!(
            (&counts.left.lock().unwrap()[..], &counts.woken.lock().unwrap()[..]),
            (&workers[..], &[0, 3, 127][..])
        );
    }
}
