//! Whether it pays to wait for one more request (SPEC B6, `adaptive`): pure, the time comes in.
//!
//! BentoML's CORK dispatcher asks the same question of a linear model of the server's time (`dispatcher.py`); like it,
//! this one learns the model by least squares over recent batches. Let a batch of `n` instances take `a + b·n`, let `r`
//! requests wait, and let the next one come after a gap `g`. Sent now, the waiting ones are done after `a + b·n`, and the
//! next one, which must wait for that, after another `a + b`. Held until it comes, all are done after
//! `g + a + b·(n + 1)`. Over all requests, holding gains
//!
//! ```text
//!   gain(g) = a − (r + 1)·g − r·b
//! ```
//!
//! and costs `r·h` if no request comes within `h`. The distribution of recent gaps says how likely either is, so the best
//! `h` is where the expected gain is largest; where none is positive nothing is held. No polling, no probing: a lone
//! client's next request never comes before its answer, which the gaps show, so it never waits.
//!
//! The server's time for a batch counts from the return of the one before, if that was later than its departure: while
//! several run, a server that does one thing at a time has not begun, and one that does several needs, per batch, less.
//!
//! Not here: the limit of the wait ([`super::queue`]).

use std::time::{Duration, Instant};

/// What was seen of one key's arrivals and of the server's times.
#[derive(Debug, Default)]
pub struct Pace {
    gaps: Gaps,
    service: Line,
    /// Mean instances of a request.
    size: f64,
    last_arrival: Option<Instant>,
}

/// How much an observation counts when the next one has come: the last fifty or so decide.
const DECAY: f64 = 0.98;
/// Gaps are sorted by powers of two of microseconds: up to 1 µs, 2 µs, … 8 s.
const GAP_CLASSES: usize = 24;

impl Pace {
    /// A request has come.
    pub fn arrived(&mut self, instances: usize, now: Instant) {
        if let Some(last) = self.last_arrival.replace(now) {
            self.gaps.add(now.saturating_duration_since(last));
        }
        let instances = count(instances);
        self.size = if self.size == 0.0 { instances } else { self.size * DECAY + instances * (1.0 - DECAY) };
    }

    /// The server needed this long for a batch.
    pub fn served(&mut self, instances: usize, time: Duration) {
        self.service.add(count(instances), time.as_secs_f64());
    }

    /// Until when a batch of so many requests should wait for another one; `None`: it should not.
    pub fn hold_until(&self, requests: usize) -> Option<Instant> {
        let (per_batch, per_instance) = self.service.coefficients()?;
        let requests = count(requests);
        let gain = |gap: f64| per_batch - (requests + 1.0) * gap - requests * per_instance * self.size;
        let (mut likely, mut gained, mut best) = (0.0, 0.0, (0.0, 0.0));
        for (class, share) in self.gaps.shares().enumerate() {
            likely += share;
            gained += share * gain(Gaps::middle(class));
            let hold = Gaps::end(class);
            let expected = gained - (1.0 - likely) * requests * hold;
            if expected > best.0 {
                best = (expected, hold);
            }
        }
        (best.1 > 0.0).then_some(self.last_arrival? + Duration::from_secs_f64(best.1))
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

    /// A pace that has seen arrivals with these gaps, over and over, and batches of a server of 5 ms + 0.1 ms each.
    fn pace(gaps: &[u32]) -> (Pace, Instant) {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for gap in gaps.iter().cycle().take(500) {
            now += *gap * MICRO;
            pace.arrived(1, now);
        }
        for size in (1..=8).cycle().take(200) {
            pace.served(size, 5000 * MICRO + u32::try_from(size).unwrap() * 100 * MICRO);
        }
        (pace, now)
    }

    fn hold(gaps: &[u32], requests: usize) -> Option<Duration> {
        let (pace, now) = pace(gaps);
        pace.hold_until(requests).map(|until| until - now)
    }

    #[test]
    fn the_line_is_that_of_the_server() {
        let (pace, _) = pace(&[1000]);
        let (per_batch, per_instance) = pace.service.coefficients().unwrap();
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
    fn nothing_is_known_of_a_server_that_has_not_answered() {
        let mut pace = Pace::default();
        pace.arrived(1, Instant::now());
        assert_eq!(pace.hold_until(1), None);
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
