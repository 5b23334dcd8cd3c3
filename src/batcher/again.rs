//! What is asked again, as the answer to a batch could not be divided among its members (SPEC B0, B8): pure.
//!
//! ```text
//!   undivided ─▶ two halves ─▶ answered
//!                  └▶ undivided ─▶ two halves … ─▶ one request: answered, whatever the server says
//! ```
//!
//! Halving finds one bad request among `n` with `2 log n` calls, side by side. All that is asked again for one batch is a
//! trial. When the server has done what each request of a trial asked, none of them was bad: merging was. Three such trials in
//! a row, and the requests of their key are sent one by one for a while.
//!
//! Not here: when batches leave ([`super::queue`]).

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::batch::{Batch, Outcome, Receipt, Trigger};
use crate::config::{BATCH_KEYS_WATCHED, BATCH_SINGLES_AFTER, BATCH_SINGLES_FOR};

/// Batches that are asked again, and what was learnt of keys.
#[derive(Debug)]
pub(super) struct Again<R> {
    /// Those that wait, the next one first.
    waiting: VecDeque<Waiting<R>>,
    trials: Slab<Trial>,
    /// Keys whose answers could not be divided, the latest last. Each stands for its key by a hash, where a mistake would do
    /// no harm.
    keys: VecDeque<Unmerged>,
}

/// A batch that waits to be sent.
#[derive(Debug)]
enum Waiting<R> {
    /// A part of a trial.
    Half { members: Vec<(R, usize)>, receipt: Receipt },
    /// One that could not be sent.
    PutBack(Batch<R>),
}

/// All that is asked again for one batch.
#[derive(Debug)]
struct Trial {
    /// Requests without an answer.
    left: usize,
    /// The server has refused one of them alone, or something else tells nothing of merging.
    has_bad: bool,
}

#[derive(Debug)]
struct Unmerged {
    key: u64,
    failed: u32,
    /// Its requests go one by one until then.
    singly_until: Option<Instant>,
}

impl<R> Default for Again<R> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), trials: Slab::new(), keys: VecDeque::new() }
    }
}

impl<R> Again<R> {
    /// The next batch that is asked again, the `number`-th of all.
    pub(super) fn next(&mut self, number: u64, now: Instant) -> Option<Batch<R>> {
        match self.waiting.pop_front()? {
            Waiting::Half { members, receipt } => Some(Batch {
                instances: receipt.instances,
                members: members.into_iter().map(|member| member.0).collect(),
                trigger: Trigger::Eager,
                part: None,
                receipt: Receipt { number, left: now, is_beside: true, ..receipt },
            }),
            Waiting::PutBack(batch) => {
                let receipt = Receipt { number, left: now, ..batch.receipt };
                Some(Batch { receipt, ..batch })
            }
        }
    }

    /// A batch that could not be sent is the next.
    pub(super) fn put_back(&mut self, batch: Batch<R>) {
        self.waiting.push_front(Waiting::PutBack(batch));
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A batch has come back. `true`: its key goes one by one from now on.
    pub(super) fn returned(&mut self, receipt: Receipt, outcome: Outcome<R>, now: Instant) -> bool {
        match outcome {
            Outcome::Undivided { members, is_of_merging } if members.len() > 1 => {
                self.halve(receipt, members, is_of_merging);
                false
            }
            Outcome::Undivided { .. } => {
                debug_assert!(false, "an answer to one request is never divided");
                self.answered(receipt, false, now)
            }
            Outcome::Answered { is_success } => self.answered(receipt, is_success, now),
        }
    }

    fn halve(&mut self, receipt: Receipt, mut members: Vec<(R, usize)>, is_of_merging: bool) {
        debug_assert!(members.len() <= receipt.requests, "none of them has an answer");
        let trial = match receipt.trial {
            Some(number) => {
                // Those whose clients have left meanwhile tell nothing of their key.
                let trial = &mut self.trials[number];
                trial.left -= receipt.requests - members.len();
                trial.has_bad |= members.len() < receipt.requests;
                number
            }
            None => self.trials.insert(Trial { left: members.len(), has_bad: false }),
        };
        self.trials[trial].has_bad |= !is_of_merging;
        let second = members.split_off(members.len().div_ceil(2));
        for members in [members, second] {
            let instances = members.iter().map(|member| member.1).sum();
            let receipt = Receipt { requests: members.len(), instances, trial: Some(trial), ..receipt };
            self.waiting.push_back(Waiting::Half { members, receipt });
        }
    }

    fn answered(&mut self, receipt: Receipt, is_success: bool, now: Instant) -> bool {
        let Some(number) = receipt.trial else {
            if is_success && receipt.requests > 1 {
                self.keys.retain(|unmerged| unmerged.key != receipt.lane || unmerged.singly_until.is_some());
            }
            return false;
        };
        let trial = &mut self.trials[number];
        trial.left -= receipt.requests;
        trial.has_bad |= !is_success;
        let (is_over, has_bad) = (trial.left == 0, trial.has_bad);
        if is_over {
            self.trials.remove(number);
        }
        is_over && !has_bad && self.has_failed(receipt.lane, now)
    }

    fn has_failed(&mut self, key: u64, now: Instant) -> bool {
        let known = self.keys.iter().position(|unmerged| unmerged.key == key);
        let known = known.and_then(|place| self.keys.remove(place));
        let mut unmerged = known.unwrap_or(Unmerged { key, failed: 0, singly_until: None });
        unmerged.failed += 1;
        let gives_up = unmerged.failed >= BATCH_SINGLES_AFTER && unmerged.singly_until.is_none();
        if gives_up {
            unmerged.singly_until = Some(now + BATCH_SINGLES_FOR);
        }
        if self.keys.len() == BATCH_KEYS_WATCHED {
            self.keys.pop_front();
        }
        self.keys.push_back(unmerged);
        gives_up
    }

    /// Whether the requests of a key are sent one by one.
    pub(super) fn goes_singly(&self, key: u64) -> bool {
        self.keys.iter().any(|unmerged| unmerged.key == key && unmerged.singly_until.is_some())
    }

    /// Merges the requests of a key again whose time is over.
    pub(super) fn forgive(&mut self, key: u64, now: Instant) {
        self.keys.retain(|unmerged| unmerged.key != key || unmerged.singly_until.is_none_or(|until| now < until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;

    fn receipt(now: Instant, requests: usize) -> Receipt {
        let (number, instances) = (0, requests);
        Receipt { number, lane: KEY, requests, instances, left: now, is_beside: false, trial: None }
    }

    fn undivided(members: Vec<(usize, usize)>) -> Outcome<usize> {
        Outcome::Undivided { members, is_of_merging: true }
    }

    fn one(member: usize) -> (usize, usize) {
        (member, 1)
    }

    /// Asks again until all are answered, by a server that answers so many at most of which none is bad. The sizes of the
    /// calls; and whether the key was given up.
    fn ask(again: &mut Again<usize>, members: usize, most: usize, bad: &[usize], now: Instant) -> (Vec<usize>, bool) {
        let (mut sizes, mut answered) = (Vec::new(), Vec::new());
        let mut given_up = again.returned(receipt(now, members), undivided((0..members).map(one).collect()), now);
        while let Some(batch) = again.next(1, now) {
            sizes.push(batch.members.len());
            let is_bad = batch.members.iter().any(|member| bad.contains(member));
            let fails = batch.members.len() > 1 && (is_bad || batch.members.len() > most);
            let outcome = if fails {
                undivided(batch.members.into_iter().map(one).collect())
            } else {
                answered.extend(batch.members);
                Outcome::Answered { is_success: !is_bad }
            };
            given_up |= again.returned(batch.receipt, outcome, now);
        }
        answered.sort_unstable();
        assert!(answered.into_iter().eq(0..members) && again.trials.is_empty());
        (sizes, given_up)
    }

    #[test]
    fn one_bad_request_is_found_by_halving() {
        let (mut again, now) = (Again::default(), Instant::now());
        assert_eq!(ask(&mut again, 8, usize::MAX, &[2], now), (vec![4, 4, 2, 2, 1, 1], false));
        assert_eq!(ask(&mut again, 3, 1, &[], now).0, [2, 1, 1, 1]);
    }

    #[test]
    fn a_key_that_can_not_be_merged_three_times_in_a_row_goes_singly_for_a_while() {
        let (mut again, now) = (Again::default(), Instant::now());
        for round in 0..3 {
            assert!(!again.goes_singly(KEY));
            assert_eq!(ask(&mut again, 3, 1, &[], now).1, round == 2);
        }
        assert!(again.goes_singly(KEY) && !again.goes_singly(KEY + 1));
        again.forgive(KEY, now + BATCH_SINGLES_FOR / 2);
        assert!(again.goes_singly(KEY));
        again.forgive(KEY, now + BATCH_SINGLES_FOR);
        assert!(!again.goes_singly(KEY) && !ask(&mut again, 3, 1, &[], now).1, "it begins anew");
    }

    #[test]
    fn a_bad_request_or_an_answer_that_was_divided_is_no_reason_to_give_up() {
        let (mut again, now) = (Again::default(), Instant::now());
        for _ in 0..5 {
            assert!(!ask(&mut again, 4, usize::MAX, &[1], now).1);
        }
        for _ in 0..5 {
            ask(&mut again, 3, 1, &[], now);
            ask(&mut again, 3, 1, &[], now);
            again.returned(receipt(now, 2), Outcome::Answered { is_success: true }, now);
            assert!(!again.goes_singly(KEY));
        }
    }

    #[test]
    fn a_trial_ends_also_when_some_of_its_clients_leave() {
        let (mut again, now) = (Again::default(), Instant::now());
        again.returned(receipt(now, 6), undivided((0..6).map(one).collect()), now);
        let half = again.next(1, now).unwrap();
        assert_eq!(half.members, [0, 1, 2]);
        again.returned(half.receipt, undivided(vec![one(0), one(2)]), now);
        while let Some(batch) = again.next(1, now) {
            assert!(!again.returned(batch.receipt, Outcome::Answered { is_success: true }, now));
        }
        assert!(again.trials.is_empty() && again.keys.is_empty());
    }

    #[test]
    fn a_want_of_room_is_no_reason_to_give_up() {
        let (mut again, now) = (Again::default(), Instant::now());
        for _ in 0..5 {
            let members = vec![one(0), one(1)];
            again.returned(receipt(now, 2), Outcome::Undivided { members, is_of_merging: false }, now);
            while let Some(batch) = again.next(1, now) {
                again.returned(batch.receipt, Outcome::Answered { is_success: true }, now);
            }
        }
        assert!(!again.goes_singly(KEY) && again.trials.is_empty());
    }

    #[test]
    fn no_more_keys_are_watched_than_may_be() {
        let (mut again, now) = (Again::<usize>::default(), Instant::now());
        for key in 0..BATCH_KEYS_WATCHED as u64 + 10 {
            again.has_failed(key, now);
        }
        assert_eq!((again.keys.len(), again.keys[0].key), (BATCH_KEYS_WATCHED, 10));
    }

    #[test]
    fn what_could_not_be_sent_is_the_next() {
        let (mut again, now) = (Again::default(), Instant::now());
        again.returned(receipt(now, 2), undivided(vec![(1, 1), (2, 1)]), now);
        let first = again.next(1, now).unwrap();
        again.put_back(first);
        assert_eq!(again.next(2, now).unwrap().members, [1]);
        assert_eq!(again.next(3, now).unwrap().members, [2]);
        assert!(again.is_empty());
    }
}
