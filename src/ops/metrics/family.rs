//! What a metric is when it is read: a family of samples with a name, a type and a text.
//!
//! Not here: how it is written ([`super::text`], `ops::status`).

use serde_json::Value as Json;

/// Metrics of one name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    /// As in the README; a counter's ends in `_total`.
    pub(crate) name: &'static str,
    /// One line.
    pub(crate) help: &'static str,
    /// What its values are.
    pub(crate) kind: Kind,
    /// The values, at least one.
    pub(crate) samples: Vec<Sample>,
}

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A distribution since the start of the process.
    Histogram,
    /// Always 1; the labels say it.
    Info,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Names and values.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// What it is now.
    pub(crate) value: Value,
}

/// What a sample is now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// A count.
    Whole(u64),
    /// A measure.
    Real(f64),
    /// A distribution.
    Distribution(Reading),
}

/// A histogram when it is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// In the metric's unit.
    pub(crate) bounds: Vec<f64>,
    /// For each bound the values between the one before and it, then those above all.
    pub(crate) counts: Vec<u64>,
    /// Of all values.
    pub(crate) sum: f64,
}

/// A part of the agent that keeps metrics.
pub(crate) trait Source: Send + Sync {
    /// All of them as they are now.
    fn families(&self) -> Vec<Family>;

    /// What the status page shows besides, under a name of its own.
    fn details(&self) -> Option<(&'static str, Json)> {
        None
    }
}

impl Family {
    /// Of all its counts.
    pub(crate) fn total(&self) -> u64 {
        self.samples.iter().map(|sample| if let Value::Whole(count) = sample.value { count } else { 0 }).sum()
    }

    /// A count.
    pub(crate) fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::of(name, help, Kind::Counter, Value::Whole(value))
    }

    /// A count for each value of a label.
    pub(crate) fn counters(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counts: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Self {
        let sample =
            |(of, count): (&str, u64)| Sample { labels: vec![(label, of.to_owned())], value: Value::Whole(count) };
        Self { name, help, kind: Kind::Counter, samples: counts.into_iter().map(sample).collect() }
    }

    /// A count that also falls.
    pub(crate) fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::of(name, help, Kind::Gauge, Value::Whole(value))
    }

    /// A distribution.
    pub(crate) fn histogram(name: &'static str, help: &'static str, reading: Reading) -> Self {
        Self::of(name, help, Kind::Histogram, Value::Distribution(reading))
    }

    /// One without labels.
    pub(crate) fn of(name: &'static str, help: &'static str, kind: Kind, value: Value) -> Self {
        Self { name, help, kind, samples: vec![Sample { labels: Vec::new(), value }] }
    }
}

impl Reading {
    /// How many values there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Both together; the other has the same bounds.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
        self
    }

    /// All together; an empty list is an empty reading.
    pub(crate) fn all(readings: impl IntoIterator<Item = Self>) -> Self {
        let together = readings.into_iter().reduce(|all, next| all.and(&next));
        together.unwrap_or_else(|| Self { bounds: Vec::new(), counts: vec![0], sum: 0.0 })
    }
}
