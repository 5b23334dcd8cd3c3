//! A token or keys that end: cached, and renewed before their end without a request that waits for it (SPEC M11).
//!
//! ```text
//!                 first use                    STORE_TOKEN_RESERVE before the end
//!  no token ───────────────────> valid token ─────────────────────────────────────> valid, renewed by a thread
//!     ^   the caller fetches it;      ^                                               │            │
//!     │   other callers wait          └───────────────── renewed ─────────────────────┘            │
//!     └────────────────────────────────── the end, or refused by the store ────────────────────────┘
//! ```
//!
//! A fetch runs outside the lock, one at a time. A failed fetch is followed by a wait with jitter; until then a valid token
//! is used as it is, and without one the failure is repeated to all callers.
//!
//! Not here: where a token comes from.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::failure::{Failure, Kind};
use crate::config::{
    STORE_TOKEN_BACKOFF, STORE_TOKEN_BACKOFF_MAX, STORE_TOKEN_BACKOFF_MAX_WITHOUT, STORE_TOKEN_LIFE_MAX,
    STORE_TOKEN_RESERVE,
};
use crate::ops::backoff::backoff;
use crate::ops::random;

/// What a fetch gives: a token, and how long it is valid.
pub(super) type Fetched<T> = Result<(T, Duration), Failure>;

/// A token that is renewed by `fetch`.
pub(super) struct Cached<T>(Arc<Shared<T>>);

struct Shared<T> {
    fetch: Box<dyn Fn(SystemTime) -> Fetched<T> + Send + Sync>,
    state: Mutex<State<T>>,
    /// A fetch has ended.
    fetched: Condvar,
}

struct State<T> {
    token: Option<Token<T>>,
    is_fetching: bool,
    /// The last fetch, if it failed.
    failed: Option<Failed>,
}

struct Token<T> {
    value: T,
    renewed_at: SystemTime,
    ends_at: SystemTime,
}

struct Failed {
    failure: Failure,
    times: u32,
    retry_at: SystemTime,
}

/// What a caller does.
enum Step<T> {
    Use(T),
    Renew(T),
    Fetch,
    Wait,
    Fail(Failure),
}

impl<T: Clone + Send + 'static> Cached<T> {
    pub(super) fn new(fetch: impl Fn(SystemTime) -> Fetched<T> + Send + Sync + 'static) -> Self {
        let state = State { token: None, is_fetching: false, failed: None };
        Self(Arc::new(Shared { fetch: Box::new(fetch), state: Mutex::new(state), fetched: Condvar::new() }))
    }

    /// Returns a valid token. Only a caller without one waits for a fetch.
    pub(super) fn current(&self, now: SystemTime) -> Result<T, Failure> {
        let mut state = self.0.lock();
        match state.step(now) {
            Step::Use(value) => Ok(value),
            Step::Fail(failure) => Err(failure),
            Step::Renew(value) => {
                state.is_fetching = true;
                drop(state);
                self.renew(now);
                Ok(value)
            }
            Step::Fetch => {
                state.is_fetching = true;
                drop(state);
                self.0.fetch(now)
            }
            Step::Wait => {
                let ended = self.0.fetched.wait_while(state, |state| state.is_fetching);
                ended.unwrap_or_else(PoisonError::into_inner).last()
            }
        }
    }

    /// The store refused the token: the next caller fetches another.
    pub(super) fn forget(&self) {
        self.0.lock().token = None;
    }

    /// The source of tokens has changed: the next caller has the token renewed, and uses it as it is.
    pub(super) fn renew_soon(&self) {
        let mut state = self.0.lock();
        state.failed = None;
        if let Some(token) = &mut state.token {
            token.renewed_at = SystemTime::UNIX_EPOCH;
        }
    }

    /// Renews the token in a thread. Nobody joins the thread: the time limits of its client end it, and it holds nothing
    /// that a process must finish before its end.
    fn renew(&self, now: SystemTime) {
        let shared = Arc::clone(&self.0);
        let renewal = move || {
            if let Err(failure) = shared.fetch(now) {
                log::warn!("a store's credentials are not renewed: {failure}; the present ones are used to their end");
            }
        };
        if let Err(error) = thread::Builder::new().name("token".to_owned()).spawn(renewal) {
            let _ = self.0.end(now, Err(Failure::transient(format!("a thread for the renewal: {error}"))));
        }
    }
}

impl<T: Clone> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a token. The caller has set `is_fetching`.
    fn fetch(&self, now: SystemTime) -> Result<T, Failure> {
        let unfinished = Unfinished { shared: self, now };
        let fetched = (self.fetch)(now);
        std::mem::forget(unfinished);
        self.end(now, fetched)
    }

    fn end(&self, now: SystemTime, fetched: Fetched<T>) -> Result<T, Failure> {
        let mut state = self.lock();
        state.is_fetching = false;
        match fetched {
            Ok((value, life)) => state.replace(value, life, now),
            // Nothing was asked of the store: a trust that has not spread yet, or a secret that is about to be mounted,
            // must not cost what the request is for.
            Err(failure) if failure.kind == Kind::Refused => {
                let failure = Failure { kind: Kind::Transient { after: None }, ..failure };
                state.fail(failure, now, random::share());
            }
            Err(failure) => state.fail(failure, now, random::share()),
        }
        let outcome = state.last();
        drop(state);
        self.fetched.notify_all();
        outcome
    }
}

/// A fetch that has not returned: one that panics must not leave its waiters for ever.
struct Unfinished<'s, T: Clone> {
    shared: &'s Shared<T>,
    now: SystemTime,
}

impl<T: Clone> Drop for Unfinished<'_, T> {
    fn drop(&mut self) {
        let _ = self.shared.end(self.now, Err(Failure::transient("the fetch of a token has panicked")));
    }
}

impl<T: Clone> State<T> {
    fn step(&self, now: SystemTime) -> Step<T> {
        let may_fetch = !self.is_fetching && self.failed.as_ref().is_none_or(|failed| now >= failed.retry_at);
        match (&self.token, &self.failed) {
            (Some(token), _) if now < token.renewed_at => Step::Use(token.value.clone()),
            (Some(token), _) if now < token.ends_at && may_fetch => Step::Renew(token.value.clone()),
            (Some(token), _) if now < token.ends_at => Step::Use(token.value.clone()),
            _ if self.is_fetching => Step::Wait,
            (_, Some(failed)) if !may_fetch => Step::Fail(failed.failure.clone()),
            _ => Step::Fetch,
        }
    }

    fn replace(&mut self, value: T, life: Duration, now: SystemTime) {
        let life = life.min(STORE_TOKEN_LIFE_MAX);
        // A token that is short-lived by itself is used for half of its life.
        let renewed_at = now + life.saturating_sub(STORE_TOKEN_RESERVE.min(life / 2));
        self.token = Some(Token { value, renewed_at, ends_at: now + life });
        self.failed = None;
    }

    fn fail(&mut self, failure: Failure, now: SystemTime, chance: f64) {
        let times = self.failed.as_ref().map_or(0, |failed| failed.times.saturating_add(1));
        let wait = |longest| now + backoff(STORE_TOKEN_BACKOFF, longest, times, chance);
        let retry_at = match &self.token {
            // At its end at the latest: no request should fail for a wait that has grown while the token was valid.
            Some(token) if now < token.ends_at => wait(STORE_TOKEN_BACKOFF_MAX).min(token.ends_at),
            _ => wait(STORE_TOKEN_BACKOFF_MAX_WITHOUT),
        };
        self.failed = Some(Failed { failure, times, retry_at });
    }

    /// What the fetch that has just ended gave.
    fn last(&self) -> Result<T, Failure> {
        match (&self.failed, &self.token) {
            (Some(failed), _) => Err(failed.failure.clone()),
            (None, Some(token)) => Ok(token.value.clone()),
            (None, None) => Err(Failure::transient("the token was refused")),
        }
    }
}

/// A token and its life, of the JSON that OAuth's servers give (RFC 6749 §5.1).
///
/// Azure's metadata server writes the life as text, its App Service gives the end instead of it, in seconds since 1970.
pub(super) fn parse(answer: &str, now: SystemTime) -> Fetched<String> {
    // The answer holds the token, so not a word of it is quoted.
    let garbage = || Failure::transient("the answer holds no token");
    let given: Given = serde_json::from_str(answer).map_err(|_| garbage())?;
    let life = match (given.expires_in, given.expires_on) {
        (Some(life), _) => Duration::from_secs(life.seconds().ok_or_else(garbage)?),
        (None, Some(end)) => {
            let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Duration::from_secs(end.seconds().ok_or_else(garbage)?).saturating_sub(since_epoch)
        }
        (None, None) => return Err(garbage()),
    };
    Ok((given.access_token, life))
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    fn seconds(&self) -> Option<u64> {
        match self {
            Self::Number(seconds) => Some(*seconds),
            Self::Text(text) => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?,
        }
    }
}

impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cached")
    }
}

#[cfg(test)]
mod tests;
