//! Events that have failed and have a copy on disk leave memory until they are due again.
//!
//! Not here: where they wait ([`crate::logger::spool`]).

use std::time::Instant;

use super::Courier;
use crate::config::{LOG_PARK_AFTER, LOG_PARK_FOR};
use crate::logger::carrier::{Cargo as _, Carrier};
use crate::logger::retries::Parcel;
use crate::logger::retry::Attempts;
use crate::logger::spool::Parked;
use crate::logger::spool::segment::EntryRef;

impl<C: Carrier> Courier<C> {
    /// One that waits for longer and has a copy on disk holds no memory meanwhile.
    pub(super) fn park(&mut self, now: Instant, due: Instant, Parcel { cargo, attempts }: Parcel<C::Cargo>) {
        let Some(attempts) = attempts.filter(|_| self.shared.parking.is_some() && due >= now + LOG_PARK_AFTER) else {
            return self.again(due, Parcel { cargo, attempts });
        };
        match cargo.into_entry() {
            Ok(entry) => {
                self.shared.metrics.retries.count();
                self.send_to_disk(due, attempts, entry);
            }
            Err(cargo) => self.again(due, Parcel { cargo, attempts: Some(attempts) }),
        }
    }

    /// The sink may fail of the very events that have failed: those with a copy on disk make room in memory for others.
    pub(super) fn shed(&mut self, now: Instant) {
        if self.is_down || self.shared.parking.is_none() || self.ending.ends_at.get().is_some() {
            return;
        }
        for (due, Parcel { cargo, attempts }) in self.retries.take() {
            match (cargo.into_entry(), attempts) {
                (Ok(entry), Some(attempts)) => self.send_to_disk(due.max(now + LOG_PARK_FOR), attempts, entry),
                (Ok(_), None) => {}
                (Err(cargo), attempts) => self.retries.push(due, Parcel { cargo, attempts }),
            }
        }
        let left = self.retries.len();
        let mut health = self.shared.breaker.health();
        health.waiting = health.waiting.saturating_sub(self.told.0) + left;
        self.told.0 = left;
    }

    fn send_to_disk(&self, due: Instant, attempts: Attempts, entry: EntryRef) {
        if let Some(parking) = &self.shared.parking {
            // If the spool has ended, the event stays on disk for the next start.
            let _ = parking.send(Parked { due, attempts, entry });
        }
    }
}
