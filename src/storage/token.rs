//! What lets us in for a while: fetched when it is first needed, renewed before it ends, fetched by one thread for all.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::failure::Failure;
use crate::config::STORE_TOKEN_RESERVE;

/// The one in use.
pub(super) struct Cached<T> {
    token: Mutex<Option<Token<T>>>,
}

struct Token<T> {
    value: T,
    renewed_at: SystemTime,
    ends_at: SystemTime,
}

impl<T: Clone> Cached<T> {
    pub(super) fn new() -> Self {
        Self { token: Mutex::new(None) }
    }

    /// The token, fetched if there is none that is good for long enough. `fetch` says how long its own will be.
    ///
    /// Threads that come meanwhile wait: a store's threads have nothing else to do without one. If a token can't be
    /// renewed, it is used to its end.
    pub(super) fn current(
        &self,
        now: SystemTime,
        fetch: impl FnOnce() -> Result<(T, Duration), Failure>,
    ) -> Result<T, Failure> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match &*token {
            Some(token) if now < token.renewed_at => return Ok(token.value.clone()),
            _ => {}
        }
        match (fetch(), &*token) {
            (Ok((value, life)), _) => {
                // One that is short-lived by itself is used for half of its time.
                let reserve = STORE_TOKEN_RESERVE.min(life / 2);
                let renewed_at = now + life.saturating_sub(reserve).min(LONGEST);
                *token = Some(Token { value: value.clone(), renewed_at, ends_at: now + life.min(LONGEST) });
                Ok(value)
            }
            (Err(_), Some(token)) if now < token.ends_at => Ok(token.value.clone()),
            (Err(failure), _) => Err(failure),
        }
    }

    /// The store did not take it: the next request gets another.
    pub(super) fn forget(&self) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What a server says of a token's life is believed up to a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cached")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn fetch(value: &str, life: u64) -> impl FnOnce() -> Result<(String, Duration), Failure> {
        move || Ok((value.to_owned(), seconds(life)))
    }

    fn fails() -> Result<(String, Duration), Failure> {
        Err(Failure::transient("down"))
    }

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        let token = Cached::new();
        assert_eq!(token.current(START, fetch("a", 3600)).unwrap(), "a");
        assert_eq!(token.current(START + seconds(3374), fetch("b", 3600)).unwrap(), "a");
        assert_eq!(token.current(START + seconds(3375), fetch("b", 3600)).unwrap(), "b");
    }

    #[test]
    fn a_token_that_lives_for_a_minute_is_used_for_half_of_it() {
        let token = Cached::new();
        assert_eq!(token.current(START, fetch("a", 60)).unwrap(), "a");
        assert_eq!(token.current(START + seconds(29), fetch("b", 60)).unwrap(), "a");
        assert_eq!(token.current(START + seconds(30), fetch("b", 60)).unwrap(), "b");
    }

    #[test]
    fn a_token_that_cant_be_renewed_is_used_to_its_end() {
        let token = Cached::new();
        assert_eq!(token.current(START, fails), Err(Failure::transient("down")));
        assert_eq!(token.current(START, fetch("a", 3600)).unwrap(), "a");
        assert_eq!(token.current(START + seconds(3599), fails).unwrap(), "a");
        assert_eq!(token.current(START + seconds(3600), fails), Err(Failure::transient("down")));
    }

    #[test]
    fn a_token_that_was_not_taken_is_fetched_again() {
        let token = Cached::new();
        assert_eq!(token.current(START, fetch("a", 3600)).unwrap(), "a");
        token.forget();
        assert_eq!(token.current(START, fetch("b", 3600)).unwrap(), "b");
    }

    #[test]
    fn a_life_without_end_does_not_overflow() {
        let token = Cached::new();
        assert_eq!(token.current(START, fetch("a", u64::MAX)).unwrap(), "a");
    }
}
