//! The policies beside each other in front of simulated servers: clients that ask again when they are answered, a server
//! that does one batch at a time or all at once, and times as they were measured on the loopback.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::batcher::batch::{Outcome, Receipt, Rules, Ticket};
use crate::batcher::key::Parts;
use crate::batcher::queue::Queue;
use crate::config::BatchPolicy;

#[derive(Debug, Clone, Copy)]
struct Setting {
    clients: usize,
    is_serial: bool,
    per_batch: u64,
    per_instance: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(usize),
    Return(usize),
}

struct World {
    setting: Setting,
    queue: Queue<usize>,
    /// Microseconds since the start.
    now: u64,
    start: Instant,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    sent: Vec<(Receipt, Vec<usize>)>,
    free_at: u64,
    random: u64,
    answered: usize,
}

/// Of a call there and back, beyond the server's time.
const WAY: u64 = 40;
const SIMULATED: u64 = 1_000_000;

impl World {
    fn new(setting: Setting, policy: BatchPolicy) -> Self {
        let max_latency = Duration::from_millis(if policy == BatchPolicy::Window { 10 } else { 1000 });
        let concurrency = if policy == BatchPolicy::Window { 32 } else { 2 };
        let queue = Queue::new(Rules { policy, cap: 32, max_latency, concurrency });
        let events = (0..setting.clients).map(|client| Reverse((client as u64, Event::Arrival(client)))).collect();
        let start = Instant::now();
        Self { setting, queue, now: 0, start, events, sent: Vec::new(), free_at: 0, random: 42, answered: 0 }
    }

    fn at(&self, micros: u64) -> Instant {
        self.start + Duration::from_micros(micros)
    }

    /// Requests/s.
    fn run(mut self) -> usize {
        while self.now < SIMULATED {
            let due = self.queue.next_due().map(|due| u64::try_from((due - self.start).as_micros()).unwrap() + 1);
            let next = self.events.peek().map(|event| event.0.0);
            self.now = next.into_iter().chain(due).min().unwrap().max(self.now);
            while self.events.peek().is_some_and(|event| event.0.0 <= self.now) {
                match self.events.pop().unwrap().0.1 {
                    Event::Arrival(client) => self.arrive(client),
                    Event::Return(number) => self.give_back(number),
                }
            }
            let now = self.at(self.now);
            while let Some(batch) = self.queue.take(now) {
                let began = self.now + WAY;
                let began = if self.setting.is_serial { began.max(self.free_at) } else { began };
                let instances = u64::try_from(batch.instances).unwrap();
                self.free_at = began + self.setting.per_batch + self.setting.per_instance * instances;
                self.events.push(Reverse((self.free_at + WAY, Event::Return(self.sent.len()))));
                self.sent.push((batch.receipt, batch.members));
            }
            assert_eq!(self.queue.expired(now), None, "{:?}", self.setting);
        }
        self.answered * 1_000_000 / usize::try_from(SIMULATED).unwrap()
    }

    fn arrive(&mut self, client: usize) {
        let ticket = Ticket { worker: 0, key: client, serial: client as u64 };
        let now = self.at(self.now);
        self.queue.push(client, ticket, &Parts::default().finish(), 1, now);
    }

    /// Clients are answered one after the other, and ask again after 60 to 140 µs.
    fn give_back(&mut self, number: usize) {
        let (receipt, members) = (self.sent[number].0, std::mem::take(&mut self.sent[number].1));
        let now = self.at(self.now);
        self.queue.returned(receipt, now, Outcome::Answered { is_success: true, is_divisible: true });
        self.answered += members.len();
        for (place, client) in members.into_iter().enumerate() {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pause = 60 + (self.random >> 33) % 80 + 8 * place as u64;
            self.events.push(Reverse((self.now + pause, Event::Arrival(client))));
        }
    }
}

/// `(clients, serial, µs per batch, µs per instance)`
const SETTINGS: [(usize, bool, u64, u64); 20] = [
    (1, true, 5000, 100),
    (2, true, 5000, 100),
    (8, true, 5000, 100),
    (32, true, 5000, 100),
    (64, true, 5000, 100),
    (128, true, 5000, 100),
    (1, false, 5000, 100),
    (2, false, 5000, 100),
    (8, false, 5000, 100),
    (32, false, 5000, 100),
    (128, false, 5000, 100),
    (1, true, 600, 5),
    (8, true, 600, 5),
    (32, true, 600, 5),
    (64, true, 600, 5),
    (8, true, 200, 200),
    (64, true, 200, 200),
    (1, false, 50, 2),
    (8, false, 50, 2),
    (64, false, 50, 2),
];

#[test]
fn adaptive_is_as_good_as_the_better_policy() {
    let mut report = String::new();
    let mut worst = f64::INFINITY;
    for (clients, is_serial, per_batch, per_instance) in SETTINGS {
        let setting = Setting { clients, is_serial, per_batch, per_instance };
        let [window, eager, adaptive] = [BatchPolicy::Window, BatchPolicy::Eager, BatchPolicy::Adaptive]
            .map(|policy| World::new(setting, policy).run());
        // In front of a server that does all at once `window` has 32 places, not 2.
        let better = if is_serial { window.max(eager) } else { eager };
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let ratio = adaptive as f64 / better as f64;
        let line =
            format!("{setting:?}: window {window}, eager {eager}, adaptive {adaptive}: {ratio:.2} of the better\n");
        report.push_str(&line);
        worst = worst.min(ratio);
    }
    assert!(worst > 0.9, "{report}");
}
