//! What is asked again, as the answer to a batch could not be divided among its members (SPEC B0, B8): pure.
//!
//! ```text
//!   refused ─▶ two halves ─▶ answered
//!                └▶ refused ─▶ two halves … ─▶ one request: answered, whatever the server says
//!   no part for each ─▶ one by one
//! ```
//!
//! Halving finds one bad request among `n` with `2 log n` calls, side by side. All that is asked again for one reason is a
//! trial. When the server has done what each request of a trial asked, none of them was bad: merging was. Three such trials in
//! a row, or one in which not even the answer to a request alone has a part for each of its instances, and the requests of
//! their key are sent one by one for a while.
//!
//! Not here: when batches leave ([`super::queue`]).

use std::collections::VecDeque;
use std::time::Instant;

use slab::Slab;

use super::batch::{Batch, Outcome, Receipt, Trigger, Undivided};
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
    Piece { members: Vec<(R, usize)>, receipt: Receipt },
    /// One that could not be sent.
    PutBack(Batch<R>),
}

/// All that is asked again for one batch.
#[derive(Debug)]
struct Trial {
    /// Requests without an answer, and with one.
    left: usize,
    answered: usize,
    /// Requests whose own answer has not a part for each of their instances.
    odd: usize,
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
            Waiting::Piece { members, receipt } => Some(Batch {
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
            Outcome::Undivided { members, why } if members.len() > 1 => {
                self.split(receipt, members, why);
                false
            }
            Outcome::Undivided { .. } => {
                debug_assert!(false, "an answer to one request is never divided");
                self.answered(receipt, (false, true), now)
            }
            Outcome::Answered { is_success, is_divisible } => self.answered(receipt, (is_success, is_divisible), now),
        }
    }

    /// Lets the members be asked again in smaller batches.
    fn split(&mut self, receipt: Receipt, mut members: Vec<(R, usize)>, why: Undivided) {
        debug_assert!(members.len() <= receipt.requests, "none of them has an answer");
        let trial = self.trial_of(receipt, members.len(), why);
        let size = if why == Undivided::Indivisible { 1 } else { members.len().div_ceil(2) };
        while !members.is_empty() {
            let rest = members.split_off(size.min(members.len()));
            let instances = members.iter().map(|member| member.1).sum();
            let receipt = Receipt { requests: members.len(), instances, trial: Some(trial), ..receipt };
            self.waiting.push_back(Waiting::Piece { members, receipt });
            members = rest;
        }
    }

    /// The trial that so many requests of a batch belong to from now on.
    fn trial_of(&mut self, receipt: Receipt, members: usize, why: Undivided) -> usize {
        let new = Trial { left: members, answered: 0, odd: 0, has_bad: why == Undivided::NoRoom };
        let Some(number) = receipt.trial else { return self.trials.insert(new) };
        let trial = &mut self.trials[number];
        // Those whose clients have left meanwhile tell nothing of their key.
        trial.has_bad |= members < receipt.requests || why == Undivided::NoRoom;
        if why != Undivided::Indivisible {
            trial.left -= receipt.requests - members;
            return number;
        }
        // It is another reason, and the others may have one of their own.
        trial.left -= receipt.requests;
        trial.has_bad = true;
        if trial.left == 0 {
            self.trials.remove(number);
        }
        self.trials.insert(Trial { has_bad: members < receipt.requests, ..new })
    }

    fn answered(&mut self, receipt: Receipt, (is_success, is_divisible): (bool, bool), now: Instant) -> bool {
        let Some(number) = receipt.trial else {
            if is_success && receipt.requests > 1 {
                self.keys.retain(|unmerged| unmerged.key != receipt.lane || unmerged.singly_until.is_some());
            }
            return false;
        };
        let trial = &mut self.trials[number];
        trial.left -= receipt.requests;
        trial.answered += receipt.requests;
        trial.has_bad |= !is_success;
        trial.odd += usize::from(!is_divisible);
        if trial.left > 0 {
            return false;
        }
        let Trial { answered, odd, has_bad, .. } = self.trials.remove(number);
        match odd {
            _ if has_bad => false,
            0 => self.has_failed(receipt.lane, 1, now),
            // No answer of such a model has a part for each.
            _ if odd == answered => self.has_failed(receipt.lane, BATCH_SINGLES_AFTER, now),
            // It was what was odd in them.
            _ => false,
        }
    }

    /// Merging has failed as much as so many times.
    fn has_failed(&mut self, key: u64, times: u32, now: Instant) -> bool {
        let known = self.keys.iter().position(|unmerged| unmerged.key == key);
        let known = known.and_then(|place| self.keys.remove(place));
        let mut unmerged = known.unwrap_or(Unmerged { key, failed: 0, singly_until: None });
        unmerged.failed += times;
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

    const GOOD: Outcome<usize> = Outcome::Answered { is_success: true, is_divisible: true };

    fn undivided(members: Vec<(usize, usize)>) -> Outcome<usize> {
        Outcome::Undivided { members, why: Undivided::Refused }
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
                Outcome::Answered { is_success: !is_bad, is_divisible: true }
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
            again.returned(receipt(now, 2), GOOD, now);
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
            assert!(!again.returned(batch.receipt, GOOD, now));
        }
        assert!(again.trials.is_empty() && again.keys.is_empty());
    }

    /// Asks a batch whose answer has no part for each; these requests' own has none either. The sizes of the calls that
    /// follow; and whether the key was given up.
    fn ask_indivisible(again: &mut Again<usize>, members: usize, odd: &[usize], now: Instant) -> (Vec<usize>, bool) {
        let whole = Outcome::Undivided { members: (0..members).map(one).collect(), why: Undivided::Indivisible };
        let mut given_up = again.returned(receipt(now, members), whole, now);
        let mut sizes = Vec::new();
        while let Some(batch) = again.next(1, now) {
            sizes.push(batch.members.len());
            let is_divisible = !batch.members.iter().any(|member| odd.contains(member));
            given_up |= again.returned(batch.receipt, Outcome::Answered { is_success: true, is_divisible }, now);
        }
        assert!(again.trials.is_empty());
        (sizes, given_up)
    }

    #[test]
    fn what_has_no_part_for_each_is_asked_one_by_one() {
        let (mut again, now) = (Again::default(), Instant::now());
        assert_eq!(ask_indivisible(&mut again, 3, &[], now), (vec![1; 3], false));
        assert_eq!(ask_indivisible(&mut again, 3, &[], now), (vec![1; 3], false));
        assert_eq!(ask_indivisible(&mut again, 3, &[], now), (vec![1; 3], true));
    }

    #[test]
    fn a_model_that_has_no_part_for_each_even_alone_is_given_up_at_once_and_not_for_one_odd_request() {
        let (mut again, now) = (Again::default(), Instant::now());
        for _ in 0..5 {
            assert!(!ask_indivisible(&mut again, 3, &[1], now).1);
        }
        assert!(ask_indivisible(&mut again, 3, &[0, 1, 2], now).1);
    }

    #[test]
    fn a_bad_request_does_not_hide_that_the_others_can_not_be_merged() {
        let (mut again, now) = (Again::default(), Instant::now());
        for round in 0..3 {
            assert!(!again.goes_singly(KEY), "{round}");
            // The first half is good, and has no part for each; in the second one is bad.
            again.returned(receipt(now, 4), undivided((0..4).map(one).collect()), now);
            while let Some(batch) = again.next(1, now) {
                let members: Vec<_> = batch.members.iter().copied().map(one).collect();
                let outcome = match &batch.members[..] {
                    [0, 1] => Outcome::Undivided { members, why: Undivided::Indivisible },
                    [2, 3] => undivided(members),
                    [member] => Outcome::Answered { is_success: *member != 3, is_divisible: true },
                    other => panic!("{other:?}"),
                };
                again.returned(batch.receipt, outcome, now);
            }
            assert!(again.trials.is_empty());
        }
        assert!(again.goes_singly(KEY));
    }

    #[test]
    fn a_want_of_room_is_no_reason_to_give_up() {
        let (mut again, now) = (Again::default(), Instant::now());
        for _ in 0..5 {
            let members = vec![one(0), one(1)];
            again.returned(receipt(now, 2), Outcome::Undivided { members, why: Undivided::NoRoom }, now);
            while let Some(batch) = again.next(1, now) {
                again.returned(batch.receipt, GOOD, now);
            }
        }
        assert!(!again.goes_singly(KEY) && again.trials.is_empty());
    }

    #[test]
    fn no_more_keys_are_watched_than_may_be() {
        let (mut again, now) = (Again::<usize>::default(), Instant::now());
        for key in 0..BATCH_KEYS_WATCHED as u64 + 10 {
            again.has_failed(key, 1, now);
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
