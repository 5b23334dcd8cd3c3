//! Requests that wait for something else than the model server: a probe for its result, any for room in the payload log.
//!
//! Not here: those that wait for a batch ([`super::batch`]).

use super::buffer::{Buffers, READ_AT};
use super::connection::{Closing, Phase};
use super::headers::{self, Answer, Connection as Field, Parked};
use super::metrics::Code;
use super::plane::{Drain, Flow, Plane, ProbeTicket};
use super::receive::SHUTTING_DOWN;

impl Plane {
    /// Leaves a request where it is until the payload log has room (SPEC L4).
    pub(super) fn delay(&mut self, key: usize, end: usize) -> Flow {
        let connection = &mut self.connections[key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        pool.keep(&mut connection.input, &read[READ_AT..end]);
        // What waits is looked at from its start again.
        connection.phase = Phase::Idle;
        if self.setup.logger.as_ref().is_some_and(|logger| logger.wait(connection.has_waited)) {
            connection.phase = Phase::Delayed;
            connection.has_waited = true;
            self.forget_delayed();
            self.delayed.push(key);
        }
        Flow::Next
    }

    /// Of those that have left while they waited: so the list is no longer than a few times the connections.
    fn forget_delayed(&mut self) {
        if self.delayed.len() > 2 * self.connections.len() {
            let connections = &self.connections;
            let waits = |key: usize| connections.get(key).is_some_and(|one| matches!(one.phase, Phase::Delayed));
            self.delayed.retain(|key| waits(*key));
        }
    }

    /// The payload log has room again: those that wait for it have a turn each.
    pub(super) fn resume(&mut self) {
        for key in std::mem::take(&mut self.delayed) {
            // Another connection may have its slot by now.
            if let Some(connection) = self.connections.get_mut(key)
                && matches!(connection.phase, Phase::Delayed)
            {
                connection.phase = Phase::Idle;
                self.queue(key);
            }
        }
    }

    /// Leaves a probe with the prober; the worker goes on.
    pub(super) fn park(&mut self, key: usize, parked: Parked, rest_at: usize, end: usize) -> Flow {
        let connection = &mut self.connections[key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        pool.keep(&mut connection.input, &read[rest_at..end]);
        connection.phase = Phase::Parked(parked);
        let ticket = ProbeTicket { worker: self.setup.worker, key, serial: connection.serial };
        match &self.setup.prober {
            Some(prober) => match prober.try_send(ticket) {
                Ok(()) => Flow::Wait,
                Err(_) => self.probed(key, false),
            },
            None => self.probed(key, true),
        }
    }

    /// Answers a parked probe (SPEC H1).
    pub(super) fn probed(&mut self, key: usize, passed: bool) -> Flow {
        let Phase::Parked(parked) = self.connections[key].phase else { return Flow::Wait };
        let is_quiet = self.drain != Drain::No;
        let answer = match (is_quiet, passed) {
            (true, _) => SHUTTING_DOWN,
            (false, true) => Answer::plain(200, b"queue"),
            (false, false) => Answer::plain(503, b""),
        };
        let keeps = parked.keeps && !self.is_finishing();
        self.setup.metrics.probes.count(Code::of(answer.status));
        self.buffers.out.clear();
        headers::write_answer(
            &mut self.buffers.out,
            answer,
            parked.version,
            Field::of_client(keeps, parked.version),
            parked.is_head,
        );
        if keeps { self.answered(key) } else { self.send_and_close(key, Closing::Linger) }
    }
}
