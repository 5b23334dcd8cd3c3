//! Whether it pays to wait (SPEC B6, `adaptive`): pure, the time comes in.
//!
//! BentoML's CORK dispatcher asks the same question of a linear model of the server's time (`dispatcher.py`); like it,
//! this one learns the model by least squares over recent batches. Let a batch of `n` instances that runs alone take
//! `a + b·n`. There are two waits.
//!
//! **For one more request**, when a batch may leave. Let `r` requests wait, and let the next one come after a gap `g`.
//! Sent now, the waiting ones are done after `a + b·n`, and the next one, which has to wait for that, after another
//! `a + b`. Held until it comes, all are done after `g + a + b·(n + 1)`. Over all requests, holding gains
//!
//! ```text
//!   gain(g) = a − (r + 1)·g − r·b
//! ```
//!
//! and costs `r·h` if no request comes within `h`. Behind the return of a batch its clients come back in a burst of `k`,
//! with gaps `c` between them, and then the gain is `k·(a − r·b) − r·(g + (k − 1)·c) − g`. The distribution of recent gaps says how likely either is, so the best
//! `h` is where the expected gain is largest; where none is positive nothing is held. No polling, no probing: a lone
//! client's next request never comes before its answer, which the gaps show, so it never waits.
//!
//! **For a batch that runs to return**, when there is a place beside it. How much that one delays another is learnt as
//! the share `s` of their common time: 1 where the server does one thing at a time, 0 where it does both as fast as one.
//! Let the running one be back after `t`, and `k` requests come until then. Sent now, the waiting ones are done after
//! `s·t + a + b·r`, and those `k`, sent at `t`, are delayed by the rest of that. Held, all leave together. That gains
//!
//! ```text
//!   k·(s·(a + b·r − (1 − s)·t) − b·r) − r·((1 − s)·t + b·k)
//! ```
//!
//! Not here: full batches, which never wait, and the limit of every wait ([`super::queue`]).

use std::time::{Duration, Instant};

/// What was seen of one key's arrivals.
#[derive(Debug, Default)]
pub struct Pace {
    /// From one arrival to the next.
    gaps: Gaps,
    /// From a batch's return to the first arrival behind it: whoever was answered comes back.
    gaps_behind_return: Gaps,
    /// Requests that the last return before the last arrival has answered, and those that have come since.
    answered: f64,
    since_return: f64,
    /// Which share of the answered ones comes back before the next return.
    share_back: f64,
    /// Mean instances of a request.
    size: f64,
    last_arrival: Option<Instant>,
}

/// The requests that wait for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub requests: usize,
    /// Instances that the batch has room for beside theirs.
    pub room: usize,
}

/// When a batch last returned, and how many requests it has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastReturn {
    /// When it returned.
    pub at: Instant,
    /// Its requests.
    pub requests: usize,
    /// The lane that it was of.
    pub lane: u64,
}

/// What was seen of the server's times.
#[derive(Debug, Default)]
pub struct Server {
    /// Seconds over instances, of batches that left when no other ran.
    alone: Line,
    /// How much of the time beside another batch delays one: 0 to 1.
    overlap: f64,
}

/// How much an observation counts when the next one has come: the last fifty or so decide.
const DECAY: f64 = 0.98;
/// The same for what is seen once per batch or less.
const RARE_DECAY: f64 = 0.8;
/// Gaps are sorted by powers of two of microseconds: up to 1 µs, 2 µs, … 8 s.
const GAP_CLASSES: usize = 24;

impl Pace {
    /// A request has come.
    pub fn arrived(&mut self, instances: usize, now: Instant, last_return: Option<LastReturn>) {
        let last_arrival = self.last_arrival.replace(now);
        if let Some(last_arrival) = last_arrival {
            self.gaps.add(now.saturating_duration_since(last_arrival));
        }
        if let Some(last_return) = last_return.filter(|last_return| Some(last_return.at) > last_arrival) {
            self.gaps_behind_return.add(now.saturating_duration_since(last_return.at));
            if self.answered > 0.0 {
                let share = (self.since_return / self.answered).min(1.0);
                self.share_back = self.share_back * RARE_DECAY + share * (1.0 - RARE_DECAY);
            }
            self.answered = count(last_return.requests);
            self.since_return = 0.0;
        }
        self.since_return += 1.0;
        let instances = count(instances);
        self.size = if self.size == 0.0 { instances } else { self.size * DECAY + instances * (1.0 - DECAY) };
    }

    /// Until when these requests should wait for another one; `None`: they should not. `is_last_place`: no other batch
    /// can leave after this one before one returns.
    pub fn hold_until(
        &self,
        waiting: Waiting,
        server: &Server,
        is_last_place: bool,
        last_return: Option<LastReturn>,
    ) -> Option<Instant> {
        let behind = last_return.filter(|last_return| Some(last_return.at) > self.last_arrival);
        let gaps = if behind.is_some() { &self.gaps_behind_return } else { &self.gaps };
        let (per_batch, per_instance) = server.alone.coefficients()?;
        let requests = count(waiting.requests);
        // What the next request would have to wait for: this batch, as far as the server works on it alone, or half a
        // batch until there is a place.
        let waits = if is_last_place { server.overlap.max(0.5) } else { server.overlap };
        // Behind a return they come in a burst, and all of it gains.
        let back = behind.map_or(self.share_back * self.answered - self.since_return, |last_return| {
            self.share_back * count(last_return.requests)
        });
        let coming = back.min(count(waiting.room) / self.size.max(1.0)).max(1.0);
        let rest = (coming - 1.0) * self.gaps.median();
        let each = waits * per_batch - requests * per_instance * self.size;
        let gain = |gap: f64| coming * each - requests * (gap + rest) - gap;
        let (mut likely, mut gained, mut best) = (0.0, 0.0, (0.0, 0.0));
        for (class, share) in gaps.shares().enumerate() {
            likely += share;
            gained += share * gain(Gaps::middle(class));
            let hold = Gaps::end(class);
            let expected = gained - (1.0 - likely) * requests * hold;
            if expected > best.0 {
                best = (expected, hold);
            }
        }
        let last = behind.map(|last_return| last_return.at).or(self.last_arrival)?;
        (best.1 > 0.0).then_some(last + Duration::from_secs_f64(best.1))
    }

    /// Whether so many requests should wait for a batch that has been running for so long and has so many instances.
    pub fn waits_for_return(&self, requests: usize, running: (usize, Duration), server: &Server) -> bool {
        let Some((per_batch, per_instance)) = server.alone.coefficients() else { return false };
        let (waiting, share, per_request) = (count(requests), server.overlap, per_instance * self.size);
        let left = (per_batch + per_instance * count(running.0) - running.1.as_secs_f64()).max(0.0);
        // In a closed loop those that are about to be answered come back; else the rate decides, which is no less.
        let coming = (count(running.0) / self.size.max(1.0)).max(1.0);
        let delay = share * (per_batch + per_request * waiting - (1.0 - share) * left) - per_request * waiting;
        coming * delay > waiting * ((1.0 - share) * left + per_request * coming)
    }
}

impl Server {
    /// A batch that left when no other ran has taken this long.
    pub fn served_alone(&mut self, instances: usize, time: Duration) {
        self.alone.add(count(instances), time.as_secs_f64());
    }

    /// A batch that left when another ran has taken this long, for so much of which the other one ran too.
    pub fn served_beside(&mut self, instances: usize, time: Duration, common: Duration) {
        let Some((per_batch, per_instance)) = self.alone.coefficients() else { return };
        let delay = time.as_secs_f64() - per_batch - per_instance * count(instances);
        let share = if common.is_zero() { 0.0 } else { (delay / common.as_secs_f64()).clamp(0.0, 1.0) };
        self.overlap = self.overlap * RARE_DECAY + share * (1.0 - RARE_DECAY);
    }
}

/// How often the next request came how soon.
#[derive(Debug, Default)]
struct Gaps {
    weights: [f64; GAP_CLASSES],
    total: f64,
}

impl Gaps {
    fn add(&mut self, gap: Duration) {
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        let class = (u64::BITS - micros.leading_zeros()) as usize;
        self.weights.iter_mut().for_each(|weight| *weight *= DECAY);
        self.weights[class.min(GAP_CLASSES - 1)] += 1.0;
        self.total = self.total * DECAY + 1.0;
    }

    fn shares(&self) -> impl Iterator<Item = f64> {
        let total = self.total.max(1.0);
        self.weights.iter().map(move |weight| weight / total)
    }

    /// In seconds.
    fn median(&self) -> f64 {
        let mut half = 0.5;
        let class = self.shares().position(|share| {
            half -= share;
            half <= 0.0
        });
        class.map_or(0.0, Self::middle)
    }

    /// The longest gap of a class, in seconds.
    fn end(class: usize) -> f64 {
        count(1 << class) * 1e-6
    }

    fn middle(class: usize) -> f64 {
        Self::end(class) * 0.75
    }
}

/// A line through points, the latest of which count most (weighted least squares).
#[derive(Debug, Default)]
struct Line {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn add(&mut self, x: f64, y: f64) {
        for (sum, term) in
            [(&mut self.weight, 1.0), (&mut self.x, x), (&mut self.y, y), (&mut self.xx, x * x), (&mut self.xy, x * y)]
        {
            *sum = *sum * DECAY + term;
        }
    }

    /// Height at 0 and slope, neither below 0; `None` before the first point. With points of one size only the slope is
    /// taken to be 0.
    fn coefficients(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let spread = self.weight * self.xx - self.x * self.x;
        let is_spread = spread > 1e-3 * self.weight * self.xx;
        let slope = if is_spread { (self.weight * self.xy - self.x * self.y) / spread } else { 0.0 };
        let slope = slope.clamp(0.0, self.y / self.x.max(1.0));
        Some(((self.y - slope * self.x) / self.weight, slope))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// A server of 5 ms + 0.1 ms for each instance that does one thing at a time.
    fn server() -> Server {
        let mut server = Server::default();
        for size in (1..=8).cycle().take(200) {
            let alone = 5000 * MICRO + u32::try_from(size).unwrap() * 100 * MICRO;
            server.served_alone(size, alone);
            server.served_beside(size, alone + 3000 * MICRO, 3000 * MICRO);
        }
        server
    }

    /// How long is waited after arrivals with these gaps, over and over.
    fn hold(gaps: &[u32], requests: usize) -> Option<Duration> {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for gap in gaps.iter().cycle().take(500) {
            now += *gap * MICRO;
            pace.arrived(1, now, None);
        }
        pace.hold_until(Waiting { requests, room: 1000 }, &server(), true, None).map(|until| until - now)
    }

    #[test]
    fn the_line_is_that_of_the_server() {
        let (per_batch, per_instance) = server().alone.coefficients().unwrap();
        assert!((per_batch - 5e-3).abs() < 1e-5 && (per_instance - 1e-4).abs() < 1e-6, "{per_batch} {per_instance}");
    }

    #[test]
    fn a_lone_client_never_waits() {
        // Its next request comes behind its answer.
        assert_eq!(hold(&[5200], 1), None);
        assert_eq!(hold(&[5100], 1), None);
    }

    #[test]
    fn a_burst_is_waited_for_and_its_end_is_not() {
        let burst = [20, 20, 20, 20, 20, 20, 20, 5200];
        let held = hold(&burst, 2).unwrap();
        assert!((20 * MICRO..200 * MICRO).contains(&held), "{held:?}");
        assert_eq!(hold(&burst, 400), None, "what many would lose is more than one more gains");
    }

    #[test]
    fn those_that_were_answered_are_waited_for() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut back = None;
        for _ in 0..100 {
            pace.arrived(1, now + 100 * MICRO, back);
            now += 6000 * MICRO;
            back = Some(LastReturn { at: now, requests: 1, lane: 0 });
        }
        let waiting = Waiting { requests: 4, room: 4 };
        let held = pace.hold_until(waiting, &server(), false, back).map(|until| until - now);
        assert_eq!(held, Some(128 * MICRO));
        assert_eq!(pace.hold_until(waiting, &server(), false, None), None);
    }

    #[test]
    fn nothing_is_known_of_a_server_that_has_not_answered() {
        let mut pace = Pace::default();
        pace.arrived(1, Instant::now(), None);
        assert_eq!(pace.hold_until(Waiting { requests: 1, room: 9 }, &Server::default(), true, None), None);
        assert!(!pace.waits_for_return(1, (1, MICRO), &Server::default()));
    }

    #[test]
    fn a_return_is_waited_for_only_where_the_server_does_one_thing_at_a_time() {
        let mut pace = Pace::default();
        pace.arrived(1, Instant::now(), None);
        let mut server = server();
        assert!(server.overlap > 0.99);
        assert!(pace.waits_for_return(16, (16, 1000 * MICRO), &server));
        assert!(!pace.waits_for_return(60, (4, 1000 * MICRO), &server), "too many would wait for too few");
        (0..20).for_each(|_| server.served_beside(8, 5800 * MICRO, 3000 * MICRO));
        assert!(server.overlap < 0.02);
        assert!(!pace.waits_for_return(16, (16, 1000 * MICRO), &server));
    }

    #[test]
    fn batches_of_one_size_have_no_slope() {
        let mut line = Line::default();
        assert_eq!(line.coefficients(), None);
        line.add(32.0, 1.0);
        line.add(32.0, 3.0);
        let (height, slope) = line.coefficients().unwrap();
        assert!((height - 2.0).abs() < 0.02 && slope == 0.0, "{height} {slope}");
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod simulation;
