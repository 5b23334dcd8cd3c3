//! One worker thread: the one place where it waits, and who gets what happened.
//!
//! ```text
//!   poll ─▶ events of clients and of the server ─▶ inbox ─▶ those with more to do ─▶ deadlines ─▶ poll
//! ```
//!
//! A panic costs the connection whose event it was (DESIGN §3): it is closed, the rest goes on.
//!
//! Not here: what a connection does with its event ([`super::plane`] and the phases).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use mio::event::Event;
use mio::{Events, Poll, Waker};

use super::admit::Newcomer;
use super::connection::Phase;
use super::fault::Fault;
use super::load::{Loads, Place};
use super::plane::{Drain, Plane, Setup, Source};
use super::waiting::deadline;
use crate::batcher::answer::Answer;

/// Events taken from the poll at once.
const EVENTS: usize = 256;

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

/// A worker that is ready to run on its own thread.
pub(crate) struct Worker {
    poll: Poll,
    plane: Plane,
    inbox: Receiver<Message>,
    /// A wake-up is under way that will find every message sent before it is taken back. INVARIANT: taken back before
    /// the inbox is emptied, set only behind a message, so no message is without a wake-up.
    is_woken: Arc<AtomicBool>,
    /// All workers' inboxes, this one's included, in order.
    peers: Vec<Inbox>,
    /// The other list of those that have more to do: one is filled while the other is served.
    spare: Vec<usize>,
    /// Held so that the poll keeps what the inbox's owner said last: a waker that is closed takes its wake-up along.
    _waker: Arc<Waker>,
    /// The agent's start, from which [`Loads`] counts.
    epoch: Instant,
}

impl Inbox {
    /// Leaves a message and wakes the worker. A worker that has ended has no use for it.
    pub(crate) fn send(&self, message: Message) {
        if self.sender.send(message).is_ok() && !self.is_woken.swap(true, Ordering::SeqCst) {
            // It fails only if the kernel has lost the poll, and with it the worker.
            let _ = self.waker.wake();
        }
    }
}

impl Worker {
    /// Makes a worker and its inbox.
    ///
    /// # Errors
    /// When the kernel has no descriptors for them.
    pub(crate) fn new(setup: Setup, loads: Arc<Loads>, epoch: Instant) -> io::Result<(Self, Inbox)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Source::Inbox.token())?);
        // Bounded by what may be under way: connections by the descriptors, results by the connections that wait.
        let (sender, inbox) = crossbeam_channel::unbounded();
        let plane = Plane::new(poll.registry().try_clone()?, setup, loads);
        let is_woken = Arc::new(AtomicBool::new(false));
        let handle = Inbox { sender, waker: Arc::clone(&waker), is_woken: Arc::clone(&is_woken) };
        Ok((Self { poll, plane, inbox, is_woken, peers: Vec::new(), spare: Vec::new(), _waker: waker, epoch }, handle))
    }

    /// Serves until the shutdown is complete. `peers`: all workers' inboxes, in order.
    ///
    /// # Errors
    /// When the poll fails, which leaves the worker deaf.
    pub(crate) fn run(mut self, peers: Vec<Inbox>) -> io::Result<()> {
        self.peers = peers;
        let mut events = Events::with_capacity(EVENTS);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.patience())
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            self.plane.now = Instant::now();
            let has_messages = events.iter().fold(false, |has_messages, event| self.dispatch(event) | has_messages);
            // After the events: a new connection in the slot of one that has just closed must not get its event.
            if has_messages {
                self.take_messages();
            }
            self.run_again();
            self.expire();
            self.publish();
            if self.has_ended() {
                return Ok(());
            }
        }
    }

    /// How long the poll may wait.
    fn patience(&self) -> Option<Duration> {
        if !self.plane.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let finish = match self.plane.drain {
            Drain::Finish(until) => Some(until),
            Drain::No | Drain::Quiet | Drain::Closing => None,
        };
        let due = [self.plane.deadlines.next_due(), self.plane.upstream_deadlines.next_due(), finish];
        due.into_iter().flatten().min().map(|due| due.saturating_duration_since(self.plane.now))
    }

    /// Gives an event to the connection that it is about; `true`: it is about the inbox.
    fn dispatch(&mut self, event: &Event) -> bool {
        match Source::of(event.token()) {
            Source::Inbox => return true,
            Source::Client(key) => self.guard(Some(key), |plane| plane.on_client(key, event)),
            Source::Upstream(key) => {
                let owner = self.plane.upstreams.get(key).and_then(|upstream| upstream.owner);
                self.guard(owner, |plane| plane.on_upstream(key, event));
            }
        }
        false
    }

    /// Runs a step of a connection; a panic in it costs that connection.
    fn guard(&mut self, key: Option<usize>, step: impl FnOnce(&mut Plane)) {
        let plane = &mut self.plane;
        if catch_unwind(AssertUnwindSafe(|| step(plane))).is_err() {
            log::error!("a panic has cost one connection");
            if let Some(key) = key {
                plane.close(key);
            }
        }
    }

    fn take_messages(&mut self) {
        self.is_woken.store(false, Ordering::SeqCst);
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Accepted { client, place } => self.admit(client, place),
                Message::Probed { key, serial, passed } => {
                    self.guard(Some(key), |plane| plane.on_probed(key, serial, passed));
                }
                Message::Answered { key, serial, answer } => {
                    self.guard(Some(key), |plane| plane.on_answer(key, serial, &answer));
                }
                Message::Drain(drain) => self.begin_drain(drain),
            }
        }
    }

    /// Takes a connection over, if there is a place for it.
    fn admit(&mut self, client: Newcomer, place: Place) {
        if let Place::OfIdle { asked } = place
            && !self.plane.make_room()
        {
            return self.pass_on(client, asked + 1);
        }
        if let Some(key) = self.plane.insert(client) {
            self.guard(Some(key), |plane| plane.drive(key));
        }
    }

    /// Asks the next worker for a place, or turns the connection away when all were asked.
    fn pass_on(&mut self, client: Newcomer, asked: usize) {
        self.plane.load().has_lost_one();
        if asked >= self.peers.len() {
            self.plane.note_fault(Fault::TooManyConnections);
            return super::closing::turn_away(client.stream);
        }
        let next = (self.plane.setup.worker + 1) % self.peers.len();
        self.plane.loads.of(next).gets_one();
        self.peers[next].send(Message::Accepted { client, place: Place::OfIdle { asked } });
    }

    fn begin_drain(&mut self, drain: Drain) {
        self.plane.drain = drain;
        let keys: Vec<usize> = self.plane.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            match self.plane.connections[key].phase {
                // Nobody waits for its result any more (SPEC D1).
                Phase::Parked(_) => self.guard(Some(key), |plane| {
                    let flow = plane.probed(key, false);
                    plane.follow(key, flow);
                }),
                Phase::Idle if drain != Drain::Quiet => self.guard(Some(key), |plane| plane.drive(key)),
                _ => {}
            }
        }
    }

    /// Gives those that had more to do another turn.
    fn run_again(&mut self) {
        let mut turns = std::mem::replace(&mut self.plane.again, std::mem::take(&mut self.spare));
        for key in turns.drain(..) {
            if let Some(connection) = self.plane.connections.get_mut(key) {
                connection.is_queued = false;
                self.guard(Some(key), |plane| plane.drive(key));
            }
        }
        self.spare = turns;
    }

    fn expire(&mut self) {
        while let Some((key, list)) = self.plane.deadlines.expire(self.plane.now) {
            self.guard(Some(key), |plane| plane.on_deadline(key, list));
        }
        while let Some((key, list)) = self.plane.upstream_deadlines.expire(self.plane.now) {
            let owner = self.plane.upstreams.get(key).and_then(|upstream| upstream.owner);
            self.guard(owner, |plane| plane.on_upstream_deadline(key, list));
        }
        if let Drain::Finish(until) = self.plane.drain
            && until <= self.plane.now
        {
            let left: Vec<usize> = self.plane.connections.iter().map(|(key, _)| key).collect();
            if !left.is_empty() {
                log::warn!("cutting {} connections that did not end in time", left.len());
            }
            for key in left {
                // What is cut must not look complete.
                self.plane.connections[key].socket.reset_on_close();
                self.plane.close(key);
            }
        }
    }

    /// Lets the other threads see how this worker is loaded.
    fn publish(&mut self) {
        let millis = |instant: Instant| {
            u64::try_from(instant.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
        };
        let plane = &mut self.plane;
        if std::mem::take(&mut plane.saw_request) {
            plane.load().set_last_request(millis(plane.now));
        }
        let oldest = plane.deadlines.oldest(deadline::KEEP_ALIVE).and_then(|key| plane.deadlines.armed_at(key));
        plane.load().set_oldest_idle(oldest.map_or(u64::MAX, millis));
    }

    fn has_ended(&self) -> bool {
        matches!(self.plane.drain, Drain::Finish(_)) && self.plane.connections.is_empty() && self.inbox.is_empty()
    }
}

impl Plane {
    fn on_client(&mut self, key: usize, event: &Event) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let is_gone = connection.socket.note(event);
        if is_gone { self.close(key) } else { self.drive(key) }
    }

    fn on_upstream(&mut self, key: usize, event: &Event) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        upstream.socket.note(event);
        match upstream.owner {
            Some(owner) => self.drive(owner),
            // Nobody asked for what it sends, or it has closed.
            None if upstream.socket.is_readable() => self.drop_upstream(key),
            None => {}
        }
    }

    fn on_probed(&mut self, key: usize, serial: u64, passed: bool) {
        if self.connections.get(key).is_some_and(|connection| connection.serial == serial) {
            let flow = self.probed(key, passed);
            self.follow(key, flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::ops::metrics::family::Sources;
    use crate::ops::notice::Notices;
    use crate::proxy::metrics::ProxyMetrics;

    fn worker() -> (Worker, Inbox) {
        let loads = Arc::new(Loads::new(1, 1));
        let metrics = ProxyMetrics::new(1, Arc::clone(&loads));
        let setup = Setup {
            server: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
            authority: String::new(),
            upstream_timeout: None,
            prober: None,
            batcher: None,
            worker: 0,
            metrics: metrics.of(0),
            sources: Sources::new(Vec::new()),
            notices: Arc::new(Notices::new(Instant::now())),
        };
        Worker::new(setup, loads, Instant::now()).unwrap()
    }

    #[test]
    fn messages_sent_at_the_same_time_wake_the_worker() {
        let (mut worker, inbox) = worker();
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
                worker.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
                let is_woken = events.iter().any(|event| Source::of(event.token()) == Source::Inbox);
                assert!(is_woken, "round {round}: {} messages and no wake-up", worker.inbox.len());
                worker.take_messages();
                assert!(worker.inbox.is_empty());
            }
        });
    }
}
