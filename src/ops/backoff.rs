//! How long to wait before what has failed is tried again. Pure.
//!
//! The waits double up to the longest. Each is drawn from its upper half, so that many agents whose sink or store comes
//! back do not call it in step, and none calls it much sooner than it should ("equal jitter", M. Brooker, Exponential
//! Backoff And Jitter).
//!
//! Not here: the clock, and the waiting.

use std::time::Duration;

/// The wait after so many waits before. `chance`: from 0 up to 1.
pub(crate) fn backoff(first: Duration, longest: Duration, times: u32, chance: f64) -> Duration {
    let doubled = first.saturating_mul(1 << times.min(16)).min(longest);
    doubled.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let wait = |times| backoff(Duration::from_secs(1), Duration::from_secs(5), times, 1.0).as_secs();
        assert_eq!([0, 1, 2, 3, 16, u32::MAX].map(wait), [1, 2, 4, 5, 5, 5]);
    }

    #[test]
    fn a_wait_is_drawn_from_its_upper_half() {
        let wait = |chance| backoff(Duration::from_secs(1), Duration::MAX, 1, chance).as_secs_f64();
        assert_eq!([-1.0, 0.0, 0.5, 1.0, 2.0].map(wait), [1.0, 1.0, 1.5, 2.0, 2.0]);
    }
}
