//! How a client's connection comes to its worker, and which one goes when there is no room.
//!
//! Not here: who accepts it ([`super::listener`]), and who is asked for a place ([`super::load`]).

use super::buffer::Unsent;
use super::connection::{Connection, Phase, Role};
use super::headers::Peer;
use super::plane::{Plane, Source};
use super::socket::{Socket, Stream};
use super::waiting::deadline;

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
    /// Closes the connection that has been idle longest, unless there is room by now. `false`: none is idle.
    pub(super) fn make_room(&mut self) -> bool {
        if !self.loads.is_over() {
            return true;
        }
        let idle = self.deadlines.oldest(deadline::KEEP_ALIVE);
        if let Some(idle) = idle {
            self.close(idle);
            self.note_eviction();
        }
        idle.is_some()
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
                    unsent: Unsent::default(),
                    upstream: None,
                    began: None,
                    held: None,
                    moved: 0,
                    serial,
                    is_used: false,
                    is_queued: false,
                });
                self.setup.metrics.connections.count();
                Some(key)
            }
            Err(error) => {
                log::warn!("a connection could not be served: {error}");
                self.load().has_lost_one();
                None
            }
        }
    }
}
