//! Which failures are tried again before they are told, and when. Pure.
//!
//! A connection that was cut is no reason to wait. A store that is overloaded is: 503 SlowDown, which seldom says for how long,
//! and 429.

use std::time::Duration;

use crate::config::{FETCH_OVERLOAD_LONGEST, FETCH_OVERLOAD_WAIT, FETCH_OVERLOADS, FETCH_RETRIES, FETCH_WORTH_BYTES};
use crate::ops::backoff::backoff;
use crate::storage::{Failure, Kind};

/// What is left for one request and those that go on with it.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    overloads: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { left: FETCH_RETRIES, overloads: 0 }
    }

    /// When to ask for what is missing, after an attempt that brought so many bytes and this failure; `None`: it is told.
    /// `chance`: from 0 up to 1.
    pub(super) fn wait(&mut self, failure: &Failure, brought: u64, chance: f64) -> Option<Duration> {
        let Kind::Transient { after } = failure.kind else { return None };
        if brought >= FETCH_WORTH_BYTES {
            *self = Self::new();
        }
        if failure.is_overload() {
            let wait = backoff(FETCH_OVERLOAD_WAIT, FETCH_OVERLOAD_LONGEST, self.overloads, chance);
            self.overloads += 1;
            let wait = wait.max(after.unwrap_or_default());
            return (self.overloads <= FETCH_OVERLOADS && wait <= FETCH_OVERLOAD_LONGEST).then_some(wait);
        }
        // A store that asks for time gets it, from whoever waits.
        if after.is_some() {
            return None;
        }
        let is_left = self.left > 0 || brought >= FETCH_WORTH_BYTES;
        self.left = self.left.saturating_sub(u32::from(brought < FETCH_WORTH_BYTES));
        is_left.then_some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use ureq::http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn has(patience: &mut Patience, failure: &Failure, brought: u64) -> bool {
        patience.wait(failure, brought, 1.0).is_some_and(|wait| wait.is_zero())
    }

    fn slow_down(after: &'static str) -> Failure {
        let fields = [("retry-after".parse().unwrap(), HeaderValue::from_static(after))];
        let fields = fields.into_iter().filter(|_| !after.is_empty());
        Failure::of_answer(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::from_iter(fields), "")
    }

    #[test]
    fn it_ends_after_a_few_attempts_that_bring_nothing() {
        let mut patience = Patience::new();
        let cut = Failure::transient("cut");
        for _ in 0..FETCH_RETRIES {
            assert!(has(&mut patience, &cut, FETCH_WORTH_BYTES - 1));
        }
        assert!(!has(&mut patience, &cut, FETCH_WORTH_BYTES - 1));
    }

    #[test]
    fn an_attempt_that_was_worth_it_gives_it_back() {
        let mut patience = Patience::new();
        let cut = Failure::transient("cut");
        for _ in 0..100 {
            assert!(has(&mut patience, &cut, 0));
            assert!(has(&mut patience, &cut, FETCH_WORTH_BYTES));
        }
    }

    #[test]
    fn there_is_none_for_what_another_attempt_can_not_mend_now() {
        let mut busy = Failure::transient("busy");
        busy.kind = Kind::Transient { after: Some(Duration::from_secs(1)) };
        for failure in [busy, Failure::changed("x"), Failure::refused("x")] {
            assert_eq!(Patience::new().wait(&failure, FETCH_WORTH_BYTES, 1.0), None, "{failure:?}");
        }
    }

    #[test]
    fn a_store_that_is_overloaded_is_asked_again_later_and_later() {
        let mut patience = Patience::new();
        let waits: Vec<_> = std::iter::from_fn(|| patience.wait(&slow_down(""), 0, 1.0)).collect();
        assert_eq!(waits.len(), FETCH_OVERLOADS as usize);
        assert!(
            waits.is_sorted() && waits[0] == FETCH_OVERLOAD_WAIT && waits[1] == 2 * FETCH_OVERLOAD_WAIT,
            "{waits:?}"
        );
        assert_eq!(Patience::new().wait(&slow_down("7"), 0, 1.0), Some(Duration::from_secs(7)));
        assert_eq!(Patience::new().wait(&slow_down("1000"), 0, 1.0), None, "that long others wait");
        assert!(Patience::new().wait(&slow_down(""), 0, 0.0).unwrap() >= FETCH_OVERLOAD_WAIT / 2);
    }
}
