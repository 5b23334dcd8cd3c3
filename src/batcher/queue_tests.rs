//! The queue by rule: for random requests, keys, times, cancellations and returns, what must never happen does not.

use std::collections::HashMap;

use super::*;
use crate::batcher::batch::{Outcome, Undivided};
use crate::batcher::json::tests::Random;
use crate::batcher::key::Parts;
use crate::config::BATCH_GATHER_MAX;

const MILLI: Duration = Duration::from_millis(1);

fn key(number: usize) -> Key {
    let mut key = Parts::default();
    key.add(&number.to_ne_bytes());
    key.finish()
}

fn ticket(serial: u64) -> Ticket {
    Ticket { worker: 0, key: 0, serial }
}

fn rules(policy: BatchPolicy, cap: usize, concurrency: usize) -> Rules {
    Rules { policy, cap, max_latency: 10 * MILLI, concurrency }
}

fn queue(policy: BatchPolicy, cap: usize, concurrency: usize) -> (Queue<u64>, Instant) {
    (Queue::new(rules(policy, cap, concurrency)), Instant::now())
}

/// What the test knows of a request.
struct Known {
    key: usize,
    instances: usize,
    arrived: Instant,
    /// Instances that have left.
    left: usize,
    is_gone: bool,
}

struct World {
    queue: Queue<u64>,
    rules: Rules,
    random: Random,
    now: Instant,
    known: HashMap<u64, Known>,
    running: Vec<Receipt>,
    expired: usize,
}

impl World {
    fn new(seed: u64, policy: BatchPolicy) -> Self {
        let mut random = Random(seed);
        let rules = rules(policy, 1 + random.below(8), 1 + random.below(4));
        let queue = Queue::new(rules);
        Self { queue, rules, random, now: Instant::now(), known: HashMap::new(), running: Vec::new(), expired: 0 }
    }

    fn step(&mut self, serial: u64) {
        match self.random.below(10) {
            0..5 => self.arrive(serial),
            5 => self.leave(),
            6..8 => self.give_back(),
            _ => self.now += u32::try_from(self.random.below(4)).unwrap() * MILLI,
        }
        self.settle();
    }

    fn arrive(&mut self, serial: u64) {
        let (of, instances) = (self.random.below(3), 1 + self.random.below(2 * self.rules.cap));
        self.queue.push(serial, ticket(serial), &key(of), instances, self.now);
        self.known.insert(serial, Known { key: of, instances, arrived: self.now, left: 0, is_gone: false });
    }

    fn leave(&mut self) {
        let waiting: Vec<u64> = self
            .known
            .iter()
            .filter(|(_, known)| known.left < known.instances && !known.is_gone)
            .map(|k| *k.0)
            .collect();
        if waiting.is_empty() {
            return;
        }
        let serial = waiting[self.random.below(waiting.len())];
        assert_eq!(self.queue.remove(ticket(serial)), Some(serial));
        assert_eq!(self.queue.remove(ticket(serial)), None);
        self.known.get_mut(&serial).unwrap().is_gone = true;
    }

    fn give_back(&mut self) {
        if !self.running.is_empty() {
            let receipt = self.running.swap_remove(self.random.below(self.running.len()));
            self.queue.returned(receipt, self.now, Outcome::Answered { is_success: true, is_divisible: true });
        }
    }

    /// What the batcher's thread does in each turn.
    fn settle(&mut self) {
        while let Some(batch) = self.queue.take(self.now) {
            self.check(&batch);
            self.running.push(batch.receipt);
        }
        while let Some(serial) = self.queue.expired(self.now) {
            let known = self.known.get_mut(&serial).unwrap();
            assert!(!known.is_gone && known.left == 0 && self.now >= known.arrived + self.rules.max_latency);
            assert!(self.rules.policy != BatchPolicy::Window && self.running.len() == self.rules.concurrency);
            known.is_gone = true;
            self.expired += 1;
        }
        let due = self.queue.next_due();
        assert!(due.is_none_or(|due| due > self.now), "there is something to do and nothing was done");
        let waits = self.known.values().filter(|known| !known.is_gone && known.left < known.instances);
        for known in waits {
            let is_late = self.now >= known.arrived + self.rules.max_latency;
            let has_place = self.running.len() < self.rules.concurrency;
            assert!(!(is_late && has_place), "a request waits past its deadline");
            assert!(due.is_some() || !has_place, "nobody will wake up for it");
        }
    }

    fn check(&mut self, batch: &Batch<u64>) {
        assert!(self.running.len() < self.rules.concurrency && batch.instances <= self.rules.cap);
        let mut instances = 0;
        for serial in &batch.members {
            let known = self.known.get_mut(serial).unwrap();
            assert!(!known.is_gone, "its client has left");
            let own = match batch.part {
                Some(part) => part.instances(known.instances),
                None => known.instances,
            };
            known.left += own;
            instances += own;
            assert!(known.left <= known.instances, "it left twice");
        }
        let keys: Vec<usize> = batch.members.iter().map(|serial| self.known[serial].key).collect();
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]), "keys are mixed");
        assert_eq!(instances, batch.instances);
        assert!(batch.part.is_none() || batch.members.len() == 1);
    }
}

#[test]
fn every_request_leaves_once_with_its_like_within_the_cap_and_in_time() {
    for policy in [BatchPolicy::Window, BatchPolicy::Eager, BatchPolicy::Adaptive] {
        for seed in 1..400 {
            let mut world = World::new(seed, policy);
            (0..300).for_each(|serial| world.step(serial));
            world.queue.drain();
            while !world.queue.is_empty() || !world.running.is_empty() {
                world.settle();
                world.give_back();
            }
            assert!(world.known.values().all(|known| known.is_gone || known.left == known.instances), "seed {seed}");
        }
    }
}

#[test]
fn a_window_closes_when_it_is_full_or_its_oldest_has_waited() {
    let (mut queue, start) = queue(BatchPolicy::Window, 4, 32);
    queue.push(1, ticket(1), &key(0), 1, start);
    queue.push(2, ticket(2), &key(0), 2, start + 3 * MILLI);
    assert_eq!((queue.next_due(), queue.take(start + 9 * MILLI).is_none()), (Some(start + 10 * MILLI), true));
    let batch = queue.take(start + 10 * MILLI).unwrap();
    assert_eq!((batch.members, batch.instances, batch.trigger), (vec![1, 2], 3, Trigger::Latency));
    (3..7).for_each(|serial| queue.push(serial, ticket(serial), &key(0), 1, start));
    assert_eq!(queue.take(start).unwrap().trigger, Trigger::Full);
}

#[test]
fn a_request_that_does_not_fit_makes_the_batch_leave_and_is_not_split() {
    let (mut queue, start) = queue(BatchPolicy::Window, 4, 32);
    queue.push(1, ticket(1), &key(0), 3, start);
    queue.push(2, ticket(2), &key(0), 2, start);
    let batch = queue.take(start).unwrap();
    assert_eq!((batch.members, batch.trigger), (vec![1], Trigger::Full));
    assert!(queue.take(start).is_none());
    assert_eq!(queue.take(start + 10 * MILLI).unwrap().members, [2]);
}

#[test]
fn one_over_the_cap_leaves_in_parts() {
    let (mut queue, start) = queue(BatchPolicy::Window, 4, 2);
    queue.push(1, ticket(1), &key(0), 9, start);
    let parts: Vec<(usize, Option<Part>)> =
        std::iter::from_fn(|| queue.take(start)).map(|batch| (batch.instances, batch.part)).collect();
    let part = |number| Some(Part { number, of: 3, size: 4 });
    assert_eq!(parts, [(4, part(0)), (4, part(1))]);
    assert_eq!((queue.len(), queue.next_due()), (1, None));
}

#[test]
fn what_waits_leaves_at_once_when_there_is_no_room_and_what_comes_then_waits_again() {
    let (mut queue, start) = queue(BatchPolicy::Window, 4, 1);
    queue.press();
    queue.push(1, ticket(1), &key(0), 1, start);
    assert!(queue.take(start).is_none(), "nothing waited when there was no room");
    queue.push(2, ticket(2), &key(1), 1, start);
    queue.press();
    let first = queue.take(start).unwrap();
    assert_eq!((first.members, first.trigger, queue.len()), (vec![1], Trigger::Eager, 1));
    queue.returned(first.receipt, start, Outcome::Answered { is_success: true, is_divisible: true });
    assert_eq!(queue.take(start).unwrap().members, [2], "as soon as there is a place");
    queue.push(3, ticket(3), &key(0), 1, start);
    assert!(queue.take(start).is_none());
}

#[test]
fn requests_that_wait_when_their_key_is_given_up_leave_one_by_one_at_once() {
    let (mut queue, start) = queue(BatchPolicy::Window, 2, 4);
    (1..3).for_each(|serial| queue.push(serial, ticket(serial), &key(0), 1, start));
    let batch = queue.take(start).unwrap();
    queue.push(3, ticket(3), &key(0), 1, start);
    let outcome = Outcome::Undivided { members: vec![(1, 1), (2, 1)], why: Undivided::Indivisible };
    queue.returned(batch.receipt, start, outcome);
    let singles = [queue.take(start).unwrap(), queue.take(start).unwrap()];
    assert!(queue.take(start).is_none());
    for single in singles {
        queue.returned(single.receipt, start, Outcome::Answered { is_success: true, is_divisible: false });
    }
    assert_eq!(queue.take(start).unwrap().members, [3]);
}

#[test]
fn eager_leaves_at_once_while_there_is_a_place_and_takes_all_that_waits_on_a_return() {
    let (mut queue, start) = queue(BatchPolicy::Eager, 4, 1);
    queue.push(1, ticket(1), &key(0), 1, start);
    let first = queue.take(start).unwrap();
    assert_eq!(first.trigger, Trigger::Eager);
    (2..8).for_each(|serial| queue.push(serial, ticket(serial), &key(0), 1, start));
    assert!(queue.take(start).is_none());
    queue.returned(first.receipt, start, Outcome::Answered { is_success: true, is_divisible: true });
    assert_eq!(queue.take(start).unwrap().members, [2, 3, 4, 5]);
    assert_eq!(queue.next_due(), Some(start + 10 * MILLI));
    assert_eq!((queue.expired(start + 9 * MILLI), queue.expired(start + 10 * MILLI)), (None, Some(6)));
}

#[test]
fn eager_lets_those_come_back_that_were_just_answered_while_the_server_is_busy() {
    let (mut queue, start) = queue(BatchPolicy::Eager, 4, 2);
    let push = |queue: &mut Queue<u64>, serial, at| queue.push(serial, ticket(serial), &key(0), 1, at);
    push(&mut queue, 1, start);
    let first = queue.take(start).unwrap();
    push(&mut queue, 2, start);
    let second = queue.take(start).unwrap();
    push(&mut queue, 3, start);
    let back = start + 8 * MILLI;
    queue.returned(first.receipt, back, Outcome::Answered { is_success: true, is_divisible: true });
    assert!(queue.take(back).is_none());
    assert_eq!(queue.next_due(), Some(back + BATCH_GATHER_MAX));
    push(&mut queue, 4, back + BATCH_GATHER_MAX / 2);
    assert_eq!(queue.take(back + BATCH_GATHER_MAX).unwrap().members, [3, 4]);
    // With nothing to do the server gets what there is.
    push(&mut queue, 5, back + BATCH_GATHER_MAX);
    queue.returned(second.receipt, back + 2 * MILLI, Outcome::Answered { is_success: true, is_divisible: true });
    assert_eq!(queue.take(back + 2 * MILLI + BATCH_GATHER_MAX).unwrap().members, [5]);
}

#[test]
fn keys_take_turns_by_the_age_of_their_oldest() {
    let (mut queue, start) = queue(BatchPolicy::Eager, 4, 1);
    queue.push(1, ticket(1), &key(0), 4, start);
    let first = queue.take(start).unwrap();
    queue.push(2, ticket(2), &key(1), 1, start + MILLI);
    queue.push(3, ticket(3), &key(0), 4, start + 2 * MILLI);
    queue.returned(first.receipt, start + 3 * MILLI, Outcome::Answered { is_success: true, is_divisible: true });
    assert_eq!(queue.take(start + 3 * MILLI).unwrap().members, [2]);
}

#[test]
fn what_adaptive_has_learnt_is_kept_for_so_many_keys() {
    let (mut queue, start) = queue(BatchPolicy::Adaptive, 4, 1);
    for number in 0..3 * BATCH_LANES_KEPT {
        let serial = number as u64;
        queue.push(serial, ticket(serial), &key(number), 1, start);
        let batch = queue.take(start).unwrap();
        queue.returned(batch.receipt, start, Outcome::Answered { is_success: true, is_divisible: true });
    }
    assert_eq!((queue.lanes.len(), queue.by_key.len()), (BATCH_LANES_KEPT, BATCH_LANES_KEPT));
    let (mut window, _) = self::queue(BatchPolicy::Window, 1, 9);
    window.push(1, ticket(1), &key(1), 1, start);
    assert!(window.take(start).is_some() && window.lanes.is_empty() && window.by_key.is_empty());
}

/// Clients of one key that ask again at once, and one of another key: how long that one waits, in front of a server that
/// takes 5 ms for a batch and does one at a time.
fn wait_beside_a_hot_key(policy: BatchPolicy, concurrency: usize) -> Duration {
    let rules = Rules { max_latency: 2000 * MILLI, ..rules(policy, 8, concurrency) };
    let (mut queue, start) = (Queue::new(rules), Instant::now());
    let (mut now, mut serial) = (start, 0);
    let mut push = |queue: &mut Queue<u64>, key: &Key, now| {
        serial += 1;
        queue.push(serial, ticket(serial), key, 1, now);
        serial
    };
    for _ in 0..64 {
        push(&mut queue, &key(0), start);
    }
    let (mut running, mut rare, mut longest) = (VecDeque::new(), None, Duration::ZERO);
    for round in 0..2000 {
        if round % 400 == 399 && rare.is_none() {
            rare = Some((push(&mut queue, &key(1), now), now));
        }
        loop {
            while let Some(batch) = queue.take(now) {
                if let Some((_, since)) = rare.filter(|rare| batch.members.contains(&rare.0)) {
                    longest = longest.max(now - since);
                    rare = None;
                }
                running.push_back(batch);
            }
            match queue.next_due().filter(|due| *due < now + 5 * MILLI) {
                Some(due) => now = due,
                None => break,
            }
        }
        assert!(queue.expired(now).is_none(), "{policy:?} {concurrency}");
        now += 5 * MILLI;
        let Some(batch) = running.pop_front() else { continue };
        queue.returned(batch.receipt, now, Outcome::Answered { is_success: true, is_divisible: true });
        for _ in &batch.members {
            push(&mut queue, &key(0), now);
        }
    }
    longest
}

#[test]
fn a_rare_key_has_its_turn_beside_a_hot_one() {
    for policy in [BatchPolicy::Eager, BatchPolicy::Adaptive] {
        for concurrency in [1, 2, 8] {
            let wait = wait_beside_a_hot_key(policy, concurrency);
            assert!(wait < 100 * MILLI, "{policy:?} with {concurrency}: {wait:?}");
        }
    }
}

#[test]
fn others_have_their_turn_between_the_parts_of_a_large_request() {
    let (mut queue, start) = queue(BatchPolicy::Window, 4, 1);
    queue.push(1, ticket(1), &key(0), 400, start);
    let first = queue.take(start).unwrap();
    queue.push(2, ticket(2), &key(1), 4, start + MILLI);
    queue.returned(first.receipt, start + 2 * MILLI, Outcome::Answered { is_success: true, is_divisible: true });
    let second = queue.take(start + 2 * MILLI).unwrap();
    queue.returned(second.receipt, start + 4 * MILLI, Outcome::Answered { is_success: true, is_divisible: true });
    let third = queue.take(start + 4 * MILLI).unwrap();
    let members = [second.members, third.members].concat();
    assert!(members.contains(&2), "{members:?}");
}

#[test]
fn a_long_key_is_not_kept() {
    let (mut queue, start) = queue(BatchPolicy::Adaptive, 4, 1);
    let mut long = Parts::default();
    long.add(&vec![b'x'; BATCH_KEY_KEPT_BYTES]);
    queue.push(1, ticket(1), &long.finish(), 1, start);
    assert!(queue.take(start).is_some() && queue.lanes.is_empty() && queue.by_key.is_empty());
}
