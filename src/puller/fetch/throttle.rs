//! How many of a model's requests run at once, and when the next one may: fewer and later while the store is overloaded
//! (SPEC M12).
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, 1989): an overload halves what runs, each piece that comes whole
//! lets one more.
//!
//! Not here: what counts as an overload ([`super::patience`]).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a thread that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// What the threads share.
#[derive(Debug)]
pub(super) struct Throttle {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Debug)]
struct State {
    running: usize,
    limit: usize,
    /// Nothing begins before this.
    not_before: Instant,
}

/// The right to ask the store, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Permit<'t>(&'t Throttle);

impl Throttle {
    /// So many at once, as long as the store can.
    pub(super) fn new(most: usize) -> Self {
        let state = State { running: 0, limit: most, not_before: Instant::now() };
        Self { state: Mutex::new(state), changed: Condvar::new(), most }
    }

    /// Waits until a request may begin; `None`: nobody wants it any more.
    pub(super) fn enter(&self, is_over: &dyn Fn() -> bool) -> Option<Permit<'_>> {
        let mut state = self.state();
        loop {
            if is_over() {
                return None;
            }
            let early = state.not_before.saturating_duration_since(Instant::now());
            if early.is_zero() && state.running < state.limit {
                state.running += 1;
                return Some(Permit(self));
            }
            let wait = if early.is_zero() { LOOK } else { early.min(LOOK) };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The store was overloaded, and is left alone for so long.
    pub(super) fn slow_down(&self, wait: Duration) {
        let mut state = self.state();
        let until = Instant::now() + wait;
        // Those that ran at the same time have met the same overload.
        if until > state.not_before {
            if state.not_before <= Instant::now() {
                state.limit = (state.running / 2).max(1);
            }
            state.not_before = until;
        }
    }

    /// A piece has come whole.
    pub(super) fn speed_up(&self) {
        let mut state = self.state();
        state.limit = (state.limit + 1).min(self.most);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_halves_what_runs_once_and_pieces_bring_it_back() {
        let throttle = Throttle::new(4);
        let wanted = || false;
        let mut permits: Vec<_> = (0..4).map(|_| throttle.enter(&wanted)).collect();
        assert!(permits.iter().all(Option::is_some));
        for _ in 0..4 {
            throttle.slow_down(Duration::from_millis(20));
        }
        assert_eq!(throttle.state().limit, 2, "it was one overload");
        permits.clear();
        let began = Instant::now();
        let permits = [throttle.enter(&wanted), throttle.enter(&wanted)];
        assert!(began.elapsed() >= Duration::from_millis(10) && permits.iter().all(Option::is_some));
        assert!(throttle.enter(&|| throttle.state.try_lock().is_err()).is_none(), "no third one");
        for _ in 0..5 {
            throttle.speed_up();
        }
        assert_eq!(throttle.state().limit, 4);
    }

    #[test]
    fn the_last_one_goes_on() {
        let throttle = Throttle::new(1);
        let permit = throttle.enter(&|| false);
        throttle.slow_down(Duration::ZERO);
        drop(permit);
        assert!(throttle.enter(&|| false).is_some());
    }
}
