//! How a client's connection comes to its worker, and which one goes when there is no room.
//!
//! Not here: who accepts it ([`super::listener`]), and who is asked for a place ([`super::load`]).

use super::buffer::Unsent;
use super::connection::{Connection, Phase, Role};
use super::headers::Peer;
use super::plane::{Plane, Source};
use super::socket::{Socket, Stream};
use super::waiting::deadline;
use crate::config::{EVICTION_AFTER, EVICTION_LOOKS, OPERATOR_CONNECTIONS};
use crate::fault::Fault;

/// A connection that was just accepted.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) stream: Stream,
    /// The client's address.
    pub(crate) peer: Peer,
    /// What its listener is for.
    pub(crate) role: Role,
}

impl Plane {
    /// The connection that has been kept longest for its next request.
    pub(super) fn longest_idle(&self) -> Option<usize> {
        self.deadlines.oldest(deadline::KEEP_ALIVE)
    }

    /// The connection that has been silent longest: a tunnel that the server has not sent a byte through, or else one without
    /// a first byte, which is no more on its way.
    fn longest_silent(&self) -> Option<usize> {
        let has_sent_nothing = |key: &usize| {
            let connection = &self.connections[*key];
            let since = self.deadlines.armed_at(*key);
            matches!(connection.phase, Phase::Idle)
                && connection.input.is_empty()
                && connection.role == Role::Traffic
                && since.is_some_and(|since| self.now.saturating_duration_since(since) >= EVICTION_AFTER)
        };
        let unused = || self.deadlines.first_in(deadline::HEAD, EVICTION_LOOKS).find(has_sent_nothing);
        self.deadlines.oldest(deadline::SILENT).or_else(unused)
    }

    /// Closes connections that have been idle longest until there is room; `silent`: those that are just silent, as no worker
    /// has an idle one. `false`: there is none.
    pub(super) fn make_room(&mut self, silent: bool) -> bool {
        while self.loads.is_over() {
            let idle = if silent { self.longest_silent() } else { self.longest_idle() };
            let Some(idle) = idle else { return false };
            self.close(idle);
            self.note_eviction();
        }
        true
    }

    /// Takes a connection to one of the operators' ports over. They have places of their own, so that clients can't
    /// keep them out, nor they clients; the newest has one in any case.
    pub(super) fn insert_operator(&mut self, client: Newcomer) -> Option<usize> {
        if self.operators >= OPERATOR_CONNECTIONS {
            let operators = self.connections.iter().filter(|(_, connection)| connection.role != Role::Traffic);
            let oldest = operators.min_by_key(|(_, connection)| connection.serial).map(|(key, _)| key);
            oldest.into_iter().for_each(|key| self.close(key));
        }
        self.operators += 1;
        self.insert(client)
    }

    /// Takes a connection over; its slot, unless the kernel has no room for it.
    pub(super) fn insert(&mut self, client: Newcomer) -> Option<usize> {
        let Newcomer { stream, peer, role } = client;
        self.serial += 1;
        let serial = self.serial;
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        match Socket::register(stream, &self.registry, Source::Client(key).token(), true) {
            Ok(socket) => {
                entry.insert(Connection {
                    socket,
                    role,
                    peer,
                    phase: Phase::Idle,
                    input: Vec::new(),
                    ahead: Vec::new(),
                    unsent: Unsent::default(),
                    upstream: None,
                    began: None,
                    owes: None,
                    tap: None,
                    has_waited: false,
                    moved: 0,
                    serial,
                    is_used: false,
                    is_queued: false,
                });
                if role == Role::Traffic {
                    self.setup.metrics.connections.count();
                }
                Some(key)
            }
            // The kernel has no memory for it, or no room in its table of polls.
            Err(_) => {
                self.note_fault(Fault::Exhausted);
                self.leaves(role);
                None
            }
        }
    }
}
