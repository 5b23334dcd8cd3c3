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
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Waker};

use super::admit::Newcomer;
use super::connection::{Phase, Role};
use super::inbox::{Inbox, Letters, Message};
use super::listener::{Acceptor, Arrival, BACKLOG, Listener};
use super::load::{Loads, Place};
use super::plane::{Drain, Plane, Setup, Source, WAKE_UP_READS};
use crate::batcher::Handle as Batches;
use crate::fault::Fault;
use crate::logger::tap::Handle;

/// Events taken from the poll at once.
const EVENTS: usize = 256;
/// Connections accepted before the others have their turn: a flood of them must not starve those that are there.
const ACCEPTS_AT_ONCE: usize = 64;
/// Messages dealt with before the others have their turn (SPEC P14): an answer takes a few microseconds.
const MESSAGES_AT_ONCE: usize = 256;
/// Connections that had more to do than one turn allows, of which each has another in one wake-up.
const TURNS_AT_ONCE: usize = 256;
/// Deadlines dealt with in one wake-up: closing a connection takes some 10 microseconds.
const EXPIRIES_AT_ONCE: usize = 128;

/// A worker that is ready to run on its own thread.
pub(crate) struct Worker {
    poll: Poll,
    plane: Plane,
    inbox: Letters,
    /// All workers' inboxes, this one's included, in order.
    peers: Vec<Inbox>,
    /// The listeners, for the one worker that accepts for all.
    acceptor: Option<Acceptor>,
    /// Where the search for the worker of the next connection begins.
    turn: usize,
    /// The agent's start, from which [`Loads`] counts.
    epoch: Instant,
}

impl Worker {
    /// Makes a worker and its inbox.
    ///
    /// # Errors
    /// When the kernel has no descriptors for them.
    pub(crate) fn new(setup: Setup, loads: Arc<Loads>, epoch: Instant) -> io::Result<(Self, Inbox)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Source::Inbox.token())?;
        let (handle, inbox) = Inbox::new(waker);
        let plane = Plane::new(poll.registry().try_clone()?, setup, loads);
        let worker = Self { poll, plane, inbox, peers: Vec::new(), acceptor: None, turn: 0, epoch };
        Ok((worker, handle))
    }

    /// Makes it the worker that accepts for all, at these listeners and those that come later.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub(crate) fn listen(&mut self, mut acceptor: Acceptor, listeners: Vec<Listener>) -> io::Result<()> {
        for listener in listeners {
            acceptor.add(listener, self.poll.registry())?;
        }
        self.acceptor = Some(acceptor);
        Ok(())
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
            self.inbox.awake();
            self.plane.now = Instant::now();
            self.plane.wake_up = WAKE_UP_READS;
            events.iter().for_each(|event| self.dispatch(event));
            // After the events: a new connection in the slot of one that has just closed must not get its event.
            self.accept(ACCEPTS_AT_ONCE);
            self.take_messages();
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
        if !self.plane.again.is_empty() || !self.inbox.sleeps() {
            return Some(Duration::ZERO);
        }
        let finish = match self.plane.drain {
            Drain::Finish(until) => Some(until),
            Drain::No | Drain::Quiet | Drain::Closing => None,
        };
        let accept = self.acceptor.as_ref().and_then(|acceptor| acceptor.next_due(self.plane.now));
        let events = self.plane.setup.logger.as_ref().and_then(Handle::next_due);
        let due = [self.plane.deadlines.next_due(), self.plane.upstream_deadlines.next_due(), finish, accept, events];
        due.into_iter().flatten().min().map(|due| due.saturating_duration_since(self.plane.now))
    }

    /// Gives an event to the connection that it is about.
    fn dispatch(&mut self, event: &Event) {
        match Source::of(event.token()) {
            // It is looked into in any case.
            Source::Inbox => {}
            Source::Listener(index) => {
                if let Some(acceptor) = &mut self.acceptor {
                    acceptor.note(index);
                }
            }
            Source::Client(key) => self.guard(Some(key), |plane| plane.on_client(key, event)),
            Source::Upstream(key) => {
                let owner = self.plane.upstreams.get(key).and_then(|upstream| upstream.owner);
                self.guard(owner, |plane| plane.on_upstream(key, event));
            }
        }
    }

    /// Runs a step of a connection; a panic in it costs that connection.
    fn guard(&mut self, key: Option<usize>, step: impl FnOnce(&mut Plane)) {
        let plane = &mut self.plane;
        if catch_unwind(AssertUnwindSafe(|| step(plane))).is_err() {
            log::error!("a panic has cost one connection");
            if let Some(key) = key
                && catch_unwind(AssertUnwindSafe(|| plane.close(key))).is_err()
            {
                // What it had of others is lost to them, but nothing else is.
                plane.deadlines.cancel(key);
                plane.connections.try_remove(key);
            }
        }
    }

    /// Takes messages, so many at most: while they are dealt with others come, and the connections must have their turn.
    fn take_messages(&mut self) {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(message) = self.inbox.next() else { return };
            match message {
                Message::Accepted { client, place } => self.admit(client, place),
                Message::Probed { key, serial, passed } => {
                    self.guard(Some(key), |plane| plane.on_probed(key, serial, passed));
                }
                Message::Answered { key, serial, answer } => {
                    self.guard(Some(key), |plane| plane.on_answer(key, serial, answer));
                }
                Message::Listen(listener) => self.also_listen(listener),
                Message::Room => self.plane.resume(),
                Message::Relieve => drop(self.plane.relieve()),
                Message::Drain(drain) => self.begin_drain(drain),
            }
        }
    }

    /// Accepts what waits, so many at most, and gives each to the worker that has the fewest.
    fn accept(&mut self, most: usize) {
        for _ in 0..most {
            let arrival = self.acceptor.as_mut().and_then(|acceptor| acceptor.accept(self.plane.now));
            match arrival {
                Some(Arrival::Client(client)) => self.assign(client),
                Some(Arrival::TurnedAway) => self.plane.note_fault(Fault::Exhausted),
                Some(Arrival::Gone) => {}
                None => return,
            }
        }
    }

    fn assign(&mut self, client: Newcomer) {
        if client.role != Role::Traffic {
            if let Some(key) = self.plane.insert_operator(client) {
                self.guard(Some(key), |plane| plane.drive(key));
            }
            return;
        }
        let (worker, place) = self.plane.loads.assign(self.turn);
        self.turn = worker + 1;
        if worker == self.plane.setup.worker {
            self.admit(client, place);
        } else {
            self.peers[worker].send(Message::Accepted { client, place });
        }
    }

    /// Takes a connection over, if there is a place for it.
    fn admit(&mut self, client: Newcomer, place: Place) {
        if let Place::OfIdle { asked } = place
            && !self.plane.make_room(asked >= self.peers.len())
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
        if asked >= 2 * self.peers.len() {
            self.plane.note_fault(Fault::TooManyConnections);
            return super::closing::turn_away(client.stream);
        }
        let next = (self.plane.setup.worker + 1) % self.peers.len();
        self.plane.loads.of(next).gets_one();
        self.peers[next].send(Message::Accepted { client, place: Place::OfIdle { asked } });
    }

    fn also_listen(&mut self, listener: Listener) {
        if let Some(acceptor) = &mut self.acceptor
            && let Err(error) = acceptor.add(listener, self.poll.registry())
        {
            log::error!("a listener is deaf, as the kernel has no room for it: {error}");
        }
    }

    fn begin_drain(&mut self, drain: Drain) {
        self.plane.drain = drain;
        if drain == Drain::Closing {
            // Those that wait already, at every listener, and no more.
            self.acceptor.iter_mut().for_each(Acceptor::note_all);
            self.accept(usize::from(BACKLOG));
            self.acceptor = None;
        }
        let keys: Vec<usize> = self.plane.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            match self.plane.connections[key].phase {
                // Nobody waits for its result any more (SPEC D1).
                Phase::Parked(_) => self.guard(Some(key), |plane| {
                    let flow = plane.probed(key, false);
                    plane.follow(key, flow);
                }),
                Phase::Idle if drain != Drain::Quiet => self.plane.queue(key),
                _ => {}
            }
        }
    }

    /// Gives those that had more to do another turn, so many at most, and as long as something may be moved.
    fn run_again(&mut self) {
        for _ in 0..self.plane.again.len().min(TURNS_AT_ONCE) {
            if self.plane.wake_up == 0 {
                return;
            }
            let Some(key) = self.plane.again.pop_front() else { return };
            if let Some(connection) = self.plane.connections.get_mut(key) {
                connection.is_queued = false;
                self.guard(Some(key), |plane| plane.drive(key));
            }
        }
    }

    /// Deals with deadlines that have passed, so many at most.
    fn expire(&mut self) {
        for _ in 0..EXPIRIES_AT_ONCE {
            let Some((key, list)) = self.plane.deadlines.expire(self.plane.now) else { break };
            self.guard(Some(key), |plane| plane.on_deadline(key, list));
        }
        for _ in 0..EXPIRIES_AT_ONCE {
            let Some((key, list)) = self.plane.upstream_deadlines.expire(self.plane.now) else { break };
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

    /// Lets the other threads have its events, and see how this worker is loaded.
    fn publish(&mut self) {
        let millis = |instant: Instant| {
            u64::try_from(instant.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
        };
        let plane = &mut self.plane;
        if std::mem::take(&mut plane.has_submitted)
            && let Some(batcher) = &plane.setup.batcher
        {
            batcher.wake();
        }
        if std::mem::take(&mut plane.wants_relief) {
            let own = plane.setup.worker;
            let others = self.peers.iter().enumerate().filter(|(worker, _)| *worker != own);
            others.for_each(|(_, peer)| peer.send(Message::Relieve));
            plane.setup.batcher.iter().for_each(Batches::press);
        }
        if let Some(logger) = &plane.setup.logger {
            logger.flush(plane.now, matches!(plane.drain, Drain::Finish(_)));
        }
        if std::mem::take(&mut plane.saw_request) {
            plane.load().set_last_request(millis(plane.now));
        }
        let oldest = plane.longest_idle().and_then(|key| plane.deadlines.armed_at(key));
        plane.load().set_oldest_idle(oldest.map_or(u64::MAX, millis));
    }

    fn has_ended(&self) -> bool {
        // An operator's connection holds nothing up.
        let clients = self.plane.connections.len() - self.plane.operators;
        matches!(self.plane.drain, Drain::Finish(_)) && clients == 0 && self.inbox.is_empty()
    }
}

impl Plane {
    fn on_client(&mut self, key: usize, event: &Event) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let is_gone = connection.socket.note(event);
        if is_gone { self.close(key) } else { self.wake(key) }
    }

    fn on_upstream(&mut self, key: usize, event: &Event) {
        let Some(upstream) = self.upstreams.get_mut(key) else { return };
        upstream.socket.note(event);
        match upstream.owner {
            Some(owner) => self.wake(owner),
            // Nobody asked for what it sends, or it has closed.
            None if upstream.socket.is_readable() => self.server_closed_idle(key),
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
