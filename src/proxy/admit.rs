//! How a client's connection comes to its worker, and which one goes when there is no room.
//!
//! Not here: who accepts it ([`super::listener`]), and who is asked for a place ([`super::load`]).

use super::buffer::Unsent;
use super::connection::{Connection, Phase, Role};
use super::fault::Fault;
use super::headers::Peer;
use super::plane::{Plane, Source};
use super::socket::{Socket, Stream};
use super::waiting::deadline;
use crate::config::OPERATOR_CONNECTIONS;

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
    /// Closes connections that have been idle longest until there is room. `false`: none is idle.
    pub(super) fn make_room(&mut self) -> bool {
        while self.loads.is_over() {
            let Some(idle) = self.deadlines.oldest(deadline::KEEP_ALIVE) else { return false };
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
                    held: None,
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
