//! The circuit breaker of a sink: whether it is left alone for a while. One for all delivery threads.
//!
//! One event that fails waits for its own next attempt, and holds up no other. A sink that fails whatever it is given must
//! not be given more as fast as it can fail: with tens of thousands of events waiting, a sink that answered garbage took
//! most of a processor, and what shared that processor had a median of 230 µs instead of 72.
//!
//! ```text
//!   closed ─ LOG_FAILED_ATTEMPTS in a row came to nothing, or it can't be reached ─▶ open: rests
//!     ▲                                                                              │  ▲
//!     └── an event was taken or refused ── half-open: one thread tries one event ◀───┘  └─ failed: rests for longer
//! ```
//!
//! It takes as many events that wait to be sent again to open it: a few bad ones must not stop the others.
//!
//! Not here: what an attempt has come to ([`super::retry`]), and the waiting ([`super::deliver`]).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::retry::wait;
use crate::config::{LOG_BREAKER_LOOK, LOG_FAILED_ATTEMPTS, LOG_RETRY_LONGEST};

/// The breaker, which all delivery threads share. It is asked once for several events, and held for a few instructions.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<Health>);

/// What is known of the sink.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Attempts in a row that came to nothing.
    failed: u32,
    rests_until: Option<Instant>,
    /// A thread tries one event; if it has said nothing by then, another may.
    trial_until: Option<Instant>,
    /// Events that wait to be sent again, in all threads.
    pub(super) waiting: usize,
    /// How often it has closed again.
    pub(super) recoveries: u64,
}

/// How an attempt has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tried {
    /// The sink took an event, or refused one for good.
    Well,
    /// Nothing came of it.
    Failed,
    /// The sink was not to be reached.
    Unreached,
}

/// What a thread may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// Send as many events as the sink takes.
    Closed,
    /// Send one, and say what came of it.
    Trial,
    /// Nothing before this time.
    Wait(Instant),
}

impl Breaker {
    pub(super) fn health(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// An attempt has ended. `after`: so much time the sink has asked for, of which it gets what an event would wait at
    /// most. `chance`: from 0 up to 1.
    pub(super) fn tried(&mut self, tried: Tried, now: Instant, after: Option<Duration>, chance: f64) {
        self.trial_until = None;
        let is_unreached = matches!(tried, Tried::Unreached);
        if matches!(tried, Tried::Well) {
            self.recoveries += u64::from(self.is_open());
            (self.failed, self.rests_until) = (0, None);
            return;
        }
        self.failed = self.failed.saturating_add(1);
        if is_unreached {
            self.failed = self.failed.max(LOG_FAILED_ATTEMPTS);
        } else if self.waiting < LOG_FAILED_ATTEMPTS as usize {
            // The same few events again and again: it may be them, and they come back seldom enough by themselves.
            self.failed = self.failed.min(LOG_FAILED_ATTEMPTS - 1);
        }
        let rests = self.failed.checked_sub(LOG_FAILED_ATTEMPTS);
        let long = |times| wait(times, chance).max(after.unwrap_or_default()).min(LOG_RETRY_LONGEST);
        self.rests_until = rests.map(|times| now + long(times));
    }

    /// Asks for leave to send. `limit`: time of an attempt.
    pub(super) fn permit(&mut self, now: Instant, limit: Duration) -> Permit {
        if !self.is_open() {
            return Permit::Closed;
        }
        if let Some(until) = self.rests_until.filter(|until| *until > now) {
            return Permit::Wait(until);
        }
        if let Some(until) = self.trial_until.filter(|until| *until > now) {
            return Permit::Wait(until.min(now + LOG_BREAKER_LOOK));
        }
        // Some time to come to an end in.
        self.trial_until = now.checked_add(limit.saturating_mul(2));
        Permit::Trial
    }

    /// The thread that has leave to try had nothing to try it with.
    pub(super) fn no_trial(&mut self) {
        self.trial_until = None;
    }

    /// The sink fails whatever it is given: one event is enough to find out whether it still does.
    pub(super) fn is_open(&self) -> bool {
        self.failed >= LOG_FAILED_ATTEMPTS
    }

    /// The agent ends, and there is no time for long waits, nor for one thread to try alone.
    pub(super) fn rests_no_longer_than(&mut self, most: Instant) {
        self.rests_until = self.rests_until.map(|until| until.min(most));
        self.trial_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn failed(times: u32, now: Instant) -> Health {
        let mut health = Health { waiting: LOG_FAILED_ATTEMPTS as usize, ..Health::default() };
        (0..times).for_each(|_| health.tried(Tried::Failed, now, None, 1.0));
        health
    }

    #[test]
    fn a_few_bad_events_are_not_a_bad_sink() {
        let now = Instant::now();
        let mut health = failed(LOG_FAILED_ATTEMPTS - 1, now);
        assert_eq!(health.permit(now, LIMIT), Permit::Closed);
        health.tried(Tried::Well, now, None, 1.0);
        health.tried(Tried::Failed, now, None, 1.0);
        assert!(!health.is_open());
        health.waiting = LOG_FAILED_ATTEMPTS as usize - 1;
        (0..100).for_each(|_| health.tried(Tried::Failed, now, Some(LOG_RETRY_LONGEST), 1.0));
        assert_eq!(health.permit(now, LIMIT), Permit::Closed);
        health.waiting += 1;
        health.tried(Tried::Failed, now, None, 1.0);
        assert!(health.is_open());
    }

    #[test]
    fn a_sink_that_is_not_reached_is_left_alone_at_once() {
        let now = Instant::now();
        let mut health = Health::default();
        health.tried(Tried::Unreached, now, None, 1.0);
        assert_eq!(health.permit(now, LIMIT), Permit::Wait(now + Duration::from_millis(500)));
    }

    #[test]
    fn a_sink_that_fails_on_rests_for_longer_and_longer() {
        let now = Instant::now();
        let mut health = failed(LOG_FAILED_ATTEMPTS - 1, now);
        for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            health.tried(Tried::Failed, now, None, 1.0);
            assert_eq!(health.permit(now, LIMIT), Permit::Wait(now + Duration::from_secs_f64(seconds)));
        }
        health.rests_no_longer_than(now + Duration::from_millis(1));
        assert_eq!(health.permit(now, LIMIT), Permit::Wait(now + Duration::from_millis(1)));
        health.tried(Tried::Well, now, None, 1.0);
        assert_eq!((health.permit(now, LIMIT), health.recoveries), (Permit::Closed, 1));
    }

    #[test]
    fn one_thread_tries_and_the_others_look_again() {
        let now = Instant::now();
        let mut health = failed(LOG_FAILED_ATTEMPTS, now);
        let later = now + LOG_RETRY_LONGEST;
        assert_eq!(health.permit(later, LIMIT), Permit::Trial);
        assert_eq!(health.permit(later, LIMIT), Permit::Wait(later + LOG_BREAKER_LOOK));
        health.no_trial();
        assert_eq!(health.permit(later, LIMIT), Permit::Trial);
        assert_eq!(health.permit(later + 2 * LIMIT, LIMIT), Permit::Trial, "the thread has said nothing");
        health.tried(Tried::Failed, later, None, 1.0);
        assert_eq!(health.permit(later, LIMIT), Permit::Wait(later + Duration::from_secs(1)));
    }

    #[test]
    fn a_sink_may_ask_for_rest_up_to_the_longest() {
        let now = Instant::now();
        for (asked, granted) in [(7, 7), (3600, 30)] {
            let mut health = failed(LOG_FAILED_ATTEMPTS - 1, now);
            health.tried(Tried::Failed, now, Some(Duration::from_secs(asked)), 0.0);
            assert_eq!(health.permit(now, LIMIT), Permit::Wait(now + Duration::from_secs(granted)));
        }
    }
}
