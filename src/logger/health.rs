//! How a sink has been lately, and whether it is left alone for a while. Pure.
//!
//! One event that fails waits for its own next attempt, and holds up no other. A sink that fails whatever it is given must
//! not be given more as fast as it can fail: with tens of thousands of events waiting, a sink that answered garbage took
//! most of a processor, and what shared that processor had a median of 230 µs instead of 72. So after some attempts in a
//! row that came to nothing, while as many events wait to be sent again, it rests, for as long as an event would wait, and
//! is tried with one event at a time until something comes of it.
//!
//! Not here: what an attempt has come to ([`super::retry`]), and the waiting ([`super::deliver`]).

use std::time::{Duration, Instant};

use super::retry::wait;
use crate::config::{LOG_FAILED_ATTEMPTS, LOG_RETRY_LONGEST};

/// What one delivery thread knows of its sink.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Attempts in a row that came to nothing.
    failed: u32,
    rests_until: Option<Instant>,
}

/// How an attempt has ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tried {
    /// The sink took an event, or refused one for good.
    Well,
    /// Nothing came of it; so many events wait to be sent again, its own among them.
    Failed { waiting: usize },
}

impl Health {
    /// An attempt has ended. `after`: so much time the sink has asked for, of which it gets what an event would wait at
    /// most. `chance`: from 0 up to 1.
    pub(super) fn tried(&mut self, tried: Tried, now: Instant, after: Option<Duration>, chance: f64) {
        let Tried::Failed { waiting } = tried else { return *self = Self::default() };
        self.failed = self.failed.saturating_add(1);
        // The same few events again and again: it may be them, and they come back seldom enough by themselves.
        if waiting < LOG_FAILED_ATTEMPTS as usize {
            self.failed = self.failed.min(LOG_FAILED_ATTEMPTS - 1);
        }
        let rests = self.failed.checked_sub(LOG_FAILED_ATTEMPTS);
        let long = |times| wait(times, chance).max(after.unwrap_or_default()).min(LOG_RETRY_LONGEST);
        self.rests_until = rests.map(|times| now + long(times));
    }

    /// It fails whatever it is given: one event is enough to find out whether it still does.
    pub(super) fn is_ill(&self) -> bool {
        self.failed >= LOG_FAILED_ATTEMPTS
    }

    /// Until when it is left alone; `None`: it is not.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| *until > now)
    }

    /// The agent ends, and there is no time for long waits.
    pub(super) fn rests_no_longer_than(&mut self, most: Instant) {
        self.rests_until = self.rests_until.map(|until| until.min(most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Tried = Tried::Failed { waiting: LOG_FAILED_ATTEMPTS as usize };

    fn failed(times: u32, now: Instant) -> Health {
        let mut health = Health::default();
        (0..times).for_each(|_| health.tried(MANY, now, None, 1.0));
        health
    }

    #[test]
    fn a_few_bad_events_are_not_a_bad_sink() {
        let now = Instant::now();
        let mut health = failed(LOG_FAILED_ATTEMPTS - 1, now);
        assert!(!health.is_ill() && health.rests_until(now).is_none());
        health.tried(Tried::Well, now, None, 1.0);
        health.tried(MANY, now, None, 1.0);
        assert!(!health.is_ill());
        let few = Tried::Failed { waiting: LOG_FAILED_ATTEMPTS as usize - 1 };
        (0..100).for_each(|_| health.tried(few, now, Some(LOG_RETRY_LONGEST), 1.0));
        assert!(!health.is_ill() && health.rests_until(now).is_none());
        health.tried(MANY, now, None, 1.0);
        assert!(health.is_ill());
    }

    #[test]
    fn a_sink_that_fails_on_rests_for_longer_and_longer() {
        let now = Instant::now();
        let mut health = failed(LOG_FAILED_ATTEMPTS - 1, now);
        for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            health.tried(MANY, now, None, 1.0);
            assert_eq!(health.rests_until(now), Some(now + Duration::from_secs_f64(seconds)));
        }
        assert!(health.rests_until(now + LOG_RETRY_LONGEST).is_none() && health.is_ill());
        health.rests_no_longer_than(now + Duration::from_millis(1));
        assert_eq!(health.rests_until(now), Some(now + Duration::from_millis(1)));
        health.tried(Tried::Well, now, None, 1.0);
        assert!(!health.is_ill() && health.rests_until(now).is_none());
    }

    #[test]
    fn a_sink_may_ask_for_rest_up_to_the_longest() {
        let now = Instant::now();
        for (asked, granted) in [(7, 7), (3600, 30)] {
            let mut health = failed(LOG_FAILED_ATTEMPTS - 1, now);
            health.tried(MANY, now, Some(Duration::from_secs(asked)), 0.0);
            assert_eq!(health.rests_until(now), Some(now + Duration::from_secs(granted)));
        }
    }
}
