//! What lets us in for a while: fetched when it is first needed, renewed before it ends, fetched by one thread for all.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

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

/// A token and its life, of the JSON that OAuth's servers give (RFC 6749 §5.1).
pub(super) fn parse(answer: &str) -> Result<(String, Duration), Failure> {
    // The answer holds the token, so not a word of it is quoted.
    let given: Given = serde_json::from_str(answer).map_err(|_| Failure::transient("the answer holds no token"))?;
    Ok((given.access_token, Duration::from_secs(given.expires_in)))
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
    expires_in: u64,
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
    fn a_servers_answer_is_read_and_garbage_not_quoted() {
        let answer = r#"{"token_type":"Bearer","expires_in":3599,"access_token":"ya29.x"}"#;
        assert_eq!(parse(answer), Ok(("ya29.x".to_owned(), seconds(3599))));
        for answer in ["", "{}", r#"{"access_token":"secret"}"#, r#"{"access_token":"secret","expires_in":-1}"#] {
            assert_eq!(parse(answer), Err(Failure::transient("the answer holds no token")), "{answer}");
        }
    }

    #[test]
    fn a_life_without_end_does_not_overflow() {
        let token = Cached::new();
        assert_eq!(token.current(START, fetch("a", u64::MAX)).unwrap(), "a");
    }
}
