//! When a token is fetched, by whom, and who waits.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A token service of which each fetch is answered by the test.
struct Service {
    token: Cached<String>,
    /// A fetch has begun.
    asked: Receiver<()>,
    answers: Sender<Fetched<String>>,
}

fn service() -> Service {
    let (began, asked) = unbounded();
    let (answers, answer) = bounded::<Fetched<String>>(8);
    let token = Cached::new(move |_| {
        let _ = began.send(());
        answer.recv().unwrap_or_else(|_| Err(Failure::transient("the test has ended")))
    });
    Service { token, asked, answers }
}

impl Service {
    fn gives(&self, value: &str, life: u64) {
        self.answers.send(Ok((value.to_owned(), seconds(life)))).unwrap();
    }

    fn fails(&self) {
        self.answers.send(Err(Failure::transient("down"))).unwrap();
    }

    fn at(&self, second: u64) -> Result<String, Failure> {
        self.token.current(START + seconds(second))
    }

    /// Waits until no fetch is under way.
    fn settle(&self) {
        let state = self.token.0.lock();
        drop(self.token.0.fetched.wait_while(state, |state| state.is_fetching).unwrap());
    }

    fn fetches(&self) -> usize {
        self.asked.len()
    }
}

#[test]
fn a_token_is_used_until_shortly_before_its_end() {
    let service = service();
    service.gives("a", 3600);
    assert_eq!(service.at(0).unwrap(), "a");
    assert_eq!(service.at(3374).unwrap(), "a");
    assert_eq!(service.fetches(), 1);
    service.gives("b", 3600);
    assert_eq!(service.at(3375).unwrap(), "a", "the caller does not wait for the renewal");
    service.settle();
    assert_eq!((service.at(3375).unwrap().as_str(), service.fetches()), ("b", 2));
}

#[test]
fn a_token_that_lives_for_a_minute_is_renewed_after_half_of_it() {
    let service = service();
    service.gives("a", 60);
    assert_eq!(service.at(0).unwrap(), "a");
    assert_eq!((service.at(29).unwrap().as_str(), service.fetches()), ("a", 1));
    service.gives("b", 60);
    assert_eq!(service.at(30).unwrap(), "a");
    service.settle();
    assert_eq!(service.at(30).unwrap(), "b");
}

#[test]
fn a_token_service_that_hangs_is_asked_once_and_holds_nobody_up() {
    let service = service();
    service.gives("a", 60);
    assert_eq!(service.at(0).unwrap(), "a");
    for second in 30..60 {
        assert_eq!(service.at(second).unwrap(), "a");
    }
    assert_eq!(service.asked.recv_timeout(seconds(5)), Ok(()), "the first fetch");
    assert_eq!(service.asked.recv_timeout(seconds(5)), Ok(()), "the renewal, which hangs");
    assert_eq!(service.fetches(), 0);
    service.gives("b", 60);
    assert_eq!(service.at(60).unwrap(), "b", "without a valid token the caller waits");
}

#[test]
fn a_token_that_cant_be_renewed_is_used_to_its_end() {
    let service = service();
    service.gives("a", 3600);
    assert_eq!(service.at(0).unwrap(), "a");
    service.fails();
    assert_eq!(service.at(3400).unwrap(), "a");
    service.settle();
    assert_eq!(service.at(3400).unwrap(), "a");
    assert_eq!(service.fetches(), 2, "a failure is followed by a wait");
    service.fails();
    assert_eq!(service.at(3599).unwrap(), "a");
    service.settle();
    service.fails();
    assert_eq!((service.at(3600).unwrap_err(), service.fetches()), (Failure::transient("down"), 4));
    assert_eq!((service.at(3600).unwrap_err(), service.fetches()), (Failure::transient("down"), 4));
}

#[test]
fn callers_without_a_token_share_one_fetch_and_its_failure() {
    let service = service();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| service.at(0))).collect();
        assert_eq!(service.asked.recv_timeout(seconds(5)), Ok(()));
        service.fails();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), Err(Failure::transient("down")));
        }
    });
    assert_eq!(service.fetches(), 0);
    service.gives("a", 60);
    assert_eq!(service.at(1).unwrap(), "a", "the wait is over");
}

#[test]
fn a_refusal_of_the_token_service_is_worth_another_attempt() {
    let service = service();
    service.answers.send(Err(Failure::refused("AccessDenied"))).unwrap();
    assert_eq!(service.at(0), Err(Failure::transient("AccessDenied")));
}

#[test]
fn waits_after_failures_double_up_to_the_longest() {
    let mut state = State { token: None, is_fetching: false, failed: None };
    let waits = |state: &mut State<String>, count: usize| -> VecDeque<u64> {
        let wait = |state: &mut State<String>| {
            state.fail(Failure::transient("down"), START, 1.0);
            state.failed.as_ref().unwrap().retry_at.duration_since(START).unwrap().as_secs()
        };
        (0..count).map(|_| wait(state)).collect()
    };
    assert_eq!(waits(&mut state, 6), [1, 2, 4, 8, 10, 10]);
    state.replace("a".to_owned(), seconds(3600), START);
    assert_eq!(waits(&mut state, 11), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
}

#[test]
fn a_token_that_the_store_refused_is_fetched_again() {
    let service = service();
    service.gives("a", 3600);
    assert_eq!(service.at(0).unwrap(), "a");
    service.token.forget();
    service.gives("b", 3600);
    assert_eq!(service.at(0).unwrap(), "b");
}

#[test]
fn a_fetch_that_panics_is_a_failure_and_leaves_no_waiter() {
    let token: Cached<String> = Cached::new(|_| panic!("a bug"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| token.current(START))).is_err());
    assert_eq!(token.current(START), Err(Failure::transient("the fetch of a token has panicked")));
}

#[test]
fn a_servers_answer_is_read_and_garbage_not_quoted() {
    let now = START + seconds(1000);
    for answer in [
        r#"{"token_type":"Bearer","expires_in":3599,"access_token":"ya29.x"}"#,
        r#"{"access_token":"ya29.x","expires_in":"3599","expires_on":"17"}"#,
        r#"{"access_token":"ya29.x","expires_on":"4599"}"#,
    ] {
        assert_eq!(parse(answer, now), Ok(("ya29.x".to_owned(), seconds(3599))), "{answer}");
    }
    for answer in [
        "",
        "{}",
        r#"{"access_token":"secret"}"#,
        r#"{"access_token":"secret","expires_in":-1}"#,
        r#"{"access_token":"secret","expires_in":"+5"}"#,
        r#"{"access_token":"secret","expires_in":""}"#,
    ] {
        assert_eq!(parse(answer, now), Err(Failure::transient("the answer holds no token")), "{answer}");
    }
}

#[test]
fn a_life_without_end_does_not_overflow() {
    let service = service();
    service.gives("a", u64::MAX);
    assert_eq!(service.at(0).unwrap(), "a");
}
