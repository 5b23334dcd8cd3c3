//! Lines of the log that a failing client, server or sink must not be able to multiply (SPEC O3): one of each kind in
//! [`NOTICE_PERIOD`], with a count of those that were left out.
//!
//! Threads share it without a lock: who moves the end of the quiet time forward writes the line.
//!
//! Not here: which kinds there are (`proxy::metrics`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use log::Level;

use crate::config::NOTICE_PERIOD;

/// When each kind of line may be written again.
#[derive(Debug)]
pub(crate) struct Notices {
    epoch: Instant,
    kinds: [Kind; KINDS],
}

/// One kind of line.
#[derive(Debug, Default)]
struct Kind {
    /// In ms since the epoch.
    quiet_until: AtomicU64,
    left_out: AtomicU64,
}

/// Kinds at most.
pub(crate) const KINDS: usize = 24;

impl Notices {
    /// None was written yet.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, kinds: Default::default() }
    }

    /// Writes a line of this kind, unless there was one a moment ago.
    pub(crate) fn write(&self, kind: usize, level: Level, now: Instant, what: fmt::Arguments<'_>) {
        match self.admit(kind, now) {
            None => {}
            Some(0) => log::log!(level, "{what}"),
            Some(left_out) => log::log!(level, "{what} ({left_out} more like it since the last such line)"),
        }
    }

    /// Says how many lines were left out of which kinds, at the end.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.kinds.iter().map(|kind| kind.left_out.swap(0, Ordering::Relaxed));
        counts.enumerate().filter(|(_, left_out)| *left_out > 0)
    }

    /// Whether a line of this kind may be written, and how many were left out before it.
    fn admit(&self, kind: usize, now: Instant) -> Option<u64> {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = millis(now.saturating_duration_since(self.epoch));
        let Kind { quiet_until, left_out } = &self.kinds[kind];
        let until = quiet_until.load(Ordering::Relaxed);
        let next = now.saturating_add(millis(NOTICE_PERIOD));
        if now < until || quiet_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_in_a_period_says_how_many_there_were() {
        let start = Instant::now();
        let notices = Notices::new(start);
        assert_eq!(notices.admit(0, start), Some(0));
        assert_eq!(notices.admit(0, start), None);
        assert_eq!(notices.admit(0, start + NOTICE_PERIOD / 2), None);
        assert_eq!(notices.admit(1, start), Some(0), "another kind has its own");
        assert_eq!(notices.admit(0, start + NOTICE_PERIOD), Some(2));
        assert_eq!(notices.admit(0, start + NOTICE_PERIOD), None);
        assert_eq!(notices.left_out().collect::<Vec<_>>(), [(0, 1)]);
    }

    #[test]
    fn no_line_is_lost_between_threads() {
        let notices = Notices::new(Instant::now());
        let written: usize = std::thread::scope(|scope| {
            let count = || (0..1000).filter(|_| notices.admit(0, notices.epoch).is_some()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(written, 1);
        assert_eq!(notices.left_out().collect::<Vec<_>>(), [(0, 3999)]);
    }
}
