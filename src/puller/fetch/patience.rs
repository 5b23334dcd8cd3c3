//! Which failures are tried again at once, before anybody waits: a connection that was cut is no reason to. Pure.

use crate::config::{FETCH_RETRIES, FETCH_WORTH_BYTES};
use crate::storage::{Failure, Kind};

/// What is left for one request and those that go on with it.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { left: FETCH_RETRIES }
    }

    /// Whether to ask at once for what is missing, after an attempt that brought so many bytes and this failure.
    pub(super) fn has(&mut self, failure: &Failure, brought: u64) -> bool {
        // A store that asks for time gets it, from whoever waits.
        if failure.kind != (Kind::Transient { after: None }) {
            return false;
        }
        if brought >= FETCH_WORTH_BYTES {
            self.left = FETCH_RETRIES;
            return true;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_ends_after_a_few_attempts_that_bring_nothing() {
        let mut patience = Patience::new();
        let cut = Failure::transient("cut");
        for _ in 0..FETCH_RETRIES {
            assert!(patience.has(&cut, FETCH_WORTH_BYTES - 1));
        }
        assert!(!patience.has(&cut, FETCH_WORTH_BYTES - 1));
    }

    #[test]
    fn an_attempt_that_was_worth_it_gives_it_back() {
        let mut patience = Patience::new();
        let cut = Failure::transient("cut");
        for _ in 0..100 {
            assert!(patience.has(&cut, 0));
            assert!(patience.has(&cut, FETCH_WORTH_BYTES));
        }
    }

    #[test]
    fn there_is_none_for_what_another_attempt_can_not_mend_now() {
        let mut busy = Failure::transient("busy");
        busy.kind = Kind::Transient { after: Some(Duration::from_secs(1)) };
        for failure in [busy, Failure::changed("x"), Failure::refused("x")] {
            assert!(!Patience::new().has(&failure, FETCH_WORTH_BYTES), "{failure:?}");
        }
    }
}
