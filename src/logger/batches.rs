//! Which records share an object (SPEC L8), pure: `--log-batch-size` of them, or what came in `--log-batch-interval`.
//!
//! There is one open batch, of requests and responses in the order they came, as with the Go agent: all records of an
//! agent go to one bucket. It is complete with its last record, due when its first has waited long enough, and taken as
//! it is at shutdown. Payloads may be large and `--log-batch-size` any number, so a batch is complete as well when it has
//! `most_bytes`: without that, one that is larger than the queue would never be complete.
//!
//! `R` is a record together with its place in the queue; what it counts for comes with it.
//!
//! Not here: the file that becomes of a batch, and where it is stored.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// The open batch.
#[derive(Debug)]
pub struct Batches<R> {
    size: usize,
    /// Longest wait of a record; `None`: until the batch is complete.
    interval: Option<Duration>,
    records: Vec<R>,
    bytes: usize,
    most_bytes: usize,
    /// When the first of them has waited long enough.
    due: Option<Instant>,
}

impl<R> Batches<R> {
    /// No record yet. `size`: records of a batch; `interval`: longest wait of one, `None`: no limit; `most_bytes`: of a
    /// batch, before its last record.
    pub fn new(size: NonZeroUsize, interval: Option<Duration>, most_bytes: usize) -> Self {
        Self { size: size.get(), interval, records: Vec::new(), bytes: 0, most_bytes, due: None }
    }

    /// Takes a record of so many bytes. Returns the batch that it completes.
    pub fn add(&mut self, record: R, bytes: usize, now: Instant) -> Option<Vec<R>> {
        if self.records.is_empty() {
            self.due = self.interval.and_then(|interval| now.checked_add(interval));
        }
        self.records.push(record);
        self.bytes = self.bytes.saturating_add(bytes);
        (self.records.len() >= self.size || self.bytes >= self.most_bytes).then(|| self.take())
    }

    /// When to ask for the batch again, if it is to leave before it is complete.
    pub fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// The batch, if it has waited long enough.
    pub fn due(&mut self, now: Instant) -> Option<Vec<R>> {
        self.due.is_some_and(|due| due <= now).then(|| self.take())
    }

    /// What is left, at shutdown.
    pub fn finish(&mut self) -> Option<Vec<R>> {
        Some(self.take()).filter(|records| !records.is_empty())
    }

    fn take(&mut self) -> Vec<R> {
        self.due = None;
        self.bytes = 0;
        std::mem::take(&mut self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    fn batches(size: usize, interval: Option<Duration>) -> (Batches<u32>, Instant) {
        (Batches::new(NonZeroUsize::new(size).unwrap(), interval, MOST), Instant::now())
    }

    #[test]
    fn a_batch_of_one_leaves_at_once() {
        let (mut batches, now) = batches(1, Some(SECOND));
        assert_eq!(batches.add(7, 1, now), Some(vec![7]));
        assert_eq!(batches.next_due(), None);
        assert_eq!(batches.due(now + SECOND), None);
        assert_eq!(batches.finish(), None);
    }

    #[test]
    fn a_batch_leaves_with_its_last_record_in_the_order_they_came() {
        let (mut batches, now) = batches(3, None);
        assert_eq!(batches.add(1, 1, now), None);
        assert_eq!(batches.add(2, 1, now), None);
        assert_eq!(batches.add(3, 1, now), Some(vec![1, 2, 3]));
        assert_eq!(batches.add(4, 1, now), None);
        assert_eq!(batches.finish(), Some(vec![4]));
    }

    #[test]
    fn a_record_waits_no_longer_than_the_interval() {
        let (mut batches, now) = batches(3, Some(SECOND));
        assert_eq!(batches.next_due(), None);
        batches.add(1, 1, now);
        batches.add(2, 1, now + SECOND / 2);
        assert_eq!(batches.next_due(), Some(now + SECOND));
        assert_eq!(batches.due(now + SECOND - Duration::from_nanos(1)), None);
        assert_eq!(batches.due(now + SECOND), Some(vec![1, 2]));
        assert_eq!(batches.next_due(), None);
        batches.add(3, 1, now + 5 * SECOND);
        assert_eq!(batches.next_due(), Some(now + 6 * SECOND));
    }

    #[test]
    fn without_an_interval_a_partial_batch_waits_for_the_shutdown() {
        let (mut batches, now) = batches(2, None);
        batches.add(1, 1, now);
        assert_eq!(batches.next_due(), None);
        assert_eq!(batches.due(now + 1_000_000 * SECOND), None);
        assert_eq!(batches.finish(), Some(vec![1]));
    }

    #[test]
    fn a_batch_that_has_its_bytes_is_complete() {
        let (mut batches, now) = batches(usize::MAX, Some(Duration::MAX));
        assert_eq!(batches.add(1, MOST - 1, now), None);
        assert_eq!(batches.next_due(), None);
        assert_eq!(batches.add(2, 1, now), Some(vec![1, 2]));
        assert_eq!(batches.add(3, 1, now), None);
        assert_eq!(batches.add(4, usize::MAX, now), Some(vec![3, 4]));
    }
}
