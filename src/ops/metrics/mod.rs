//! Metrics: numbers that threads keep for themselves, added up when somebody asks (SPEC O1).
//!
//! ```text
//!   worker-0 ─ its counters ─┐
//!   worker-1 ─ its counters ─┼─▶ Source::families ─▶ Status ─▶ /metrics (text), /status.json
//!   batcher  ─ its counters ─┘        on request only
//! ```
//!
//! A [`Counter`] has one thread that writes: adding is a load and a store to a line that no other thread writes, so the
//! request path has no atomic read-modify-write and shares nothing. Readers see a moment ago, each number by itself.
//!
//! | module | what |
//! |---|---|
//! | [`family`] | what a metric is when it is read |
//! | [`text`] | Prometheus text and OpenMetrics |
//! | [`process`] | the process and the build |
//!
//! Not here: which numbers a part keeps (`proxy::metrics`, `batcher::metrics`).

pub(crate) mod family;
pub(crate) mod process;
pub(crate) mod text;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::family::Reading;

/// A number that grows. INVARIANT: one thread adds.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

/// A counter for each value of a label.
#[derive(Debug)]
pub(crate) struct Labelled<L> {
    counts: [Counter; LABEL_VALUES],
    label: PhantomData<L>,
}

/// How often values fell between which bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    scale: &'static Scale,
    /// One for each bound, and one for what lies above all. Those that the scale does not need stay 0.
    counts: [Counter; BUCKETS],
    sum: Counter,
}

/// The bounds of a histogram, each the largest value that falls below it.
#[derive(Debug)]
pub(crate) struct Scale {
    bounds: &'static [u64],
    /// How many of them make one of the metric's unit.
    per_unit: f64,
}

/// The values of a label, as an enum.
pub(crate) trait Label: Copy {
    /// The label's name.
    const NAME: &'static str;
    /// The values, in the order of the variants.
    const VALUES: &'static [&'static str];

    /// The place of this one among them.
    fn index(self) -> usize;
}

/// Declares an enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $vis:vis $name:ident as $label:literal { $($(#[$of:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($(#[$of])* $variant,)+ }

        impl $crate::ops::metrics::Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value,)+];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use label;

/// Values of one label at most.
const LABEL_VALUES: usize = 12;
/// Buckets of one histogram at most.
const BUCKETS: usize = 19;

/// Durations in nanoseconds: from the time that a proxy takes to that of a large model, three bounds to the decade.
pub(crate) static DURATION: Scale = Scale {
    bounds: &[
        100_000,
        200_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        20_000_000,
        50_000_000,
        100_000_000,
        200_000_000,
        500_000_000,
        1_000_000_000,
        2_000_000_000,
        5_000_000_000,
        10_000_000_000,
        20_000_000_000,
        50_000_000_000,
    ],
    per_unit: 1e9,
};
/// Instances of a batch.
pub(crate) static SIZE: Scale = Scale { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], per_unit: 1.0 };

const _: () = assert!(DURATION.bounds.len() < BUCKETS && SIZE.bounds.len() < BUCKETS);

impl Counter {
    /// Adds. For the one thread that owns the counter.
    pub(crate) fn add(&self, number: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
    }

    /// Adds one.
    pub(crate) fn count(&self) {
        self.add(1);
    }

    /// What was added so far.
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<L: Label> Default for Labelled<L> {
    fn default() -> Self {
        const { assert!(L::VALUES.len() <= LABEL_VALUES) };
        Self { counts: Default::default(), label: PhantomData }
    }
}

impl<L: Label> Labelled<L> {
    /// Adds one to the counter of a value.
    pub(crate) fn count(&self, value: L) {
        self.counts[value.index()].count();
    }

    /// Adds to the counter of a value.
    pub(crate) fn add(&self, value: L, count: u64) {
        self.counts[value.index()].add(count);
    }

    /// What each value has so far.
    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        L::VALUES.iter().copied().zip(self.counts.iter().map(Counter::read))
    }
}

impl Histogram {
    /// An empty one.
    pub(crate) fn new(scale: &'static Scale) -> Self {
        Self { scale, counts: Default::default(), sum: Counter::default() }
    }

    /// Counts a value.
    pub(crate) fn observe(&self, value: u64) {
        self.counts[self.scale.bounds.partition_point(|bound| *bound < value)].count();
        self.sum.add(value);
    }

    /// Counts a duration.
    pub(crate) fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was counted so far.
    #[expect(clippy::cast_precision_loss, reason = "a sum is read as a float by everyone")]
    pub(crate) fn read(&self) -> Reading {
        let Scale { bounds, per_unit } = self.scale;
        Reading {
            bounds: bounds.iter().map(|bound| *bound as f64 / per_unit).collect(),
            counts: self.counts[..=bounds.len()].iter().map(Counter::read).collect(),
            sum: self.sum.read() as f64 / per_unit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    label! {
        /// For the tests.
        Fruit as "fruit" {
            /// Red.
            Apple = "apple",
            /// Green.
            Pear = "pear",
        }
    }

    #[test]
    fn a_value_at_a_bound_falls_below_it() {
        let histogram = Histogram::new(&SIZE);
        [1, 2, 3, 4, 1024, 1025].into_iter().for_each(|value| histogram.observe(value));
        let read = histogram.read();
        assert_eq!(read.counts, [1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((read.sum, read.count()), (2059.0, 6));
    }

    #[test]
    fn durations_are_read_in_seconds() {
        let histogram = Histogram::new(&DURATION);
        histogram.observe_duration(Duration::from_micros(150));
        histogram.observe_duration(Duration::from_secs(3600));
        let read = histogram.read();
        assert_eq!((read.bounds[0], read.bounds[17]), (0.0001, 50.0));
        assert_eq!((read.counts[1], read.counts[18]), (1, 1));
        assert!((read.sum - 3_600.000_15).abs() < 1e-9);
    }

    #[test]
    fn bounds_grow() {
        for scale in [&DURATION, &SIZE] {
            assert!(scale.bounds.is_sorted_by(|one, next| one < next));
        }
    }

    #[test]
    fn each_value_of_a_label_has_its_own_counter() {
        let fruits = Labelled::<Fruit>::default();
        fruits.count(Fruit::Pear);
        fruits.count(Fruit::Pear);
        fruits.count(Fruit::Apple);
        assert_eq!(fruits.read().collect::<Vec<_>>(), [("apple", 1), ("pear", 2)]);
    }
}
