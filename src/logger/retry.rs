//! What a sink's answer means for an event, and when the event is sent again (SPEC L5). Pure.
//!
//! The waits double from [`LOG_RETRY_FIRST`] to [`LOG_RETRY_LONGEST`].
//!
//! Not here: the clock, and the waiting ([`super::deliver`]).

use std::time::{Duration, Instant, SystemTime};

use crate::config::{LOG_RETRY_AFTER_LONGEST, LOG_RETRY_FIRST, LOG_RETRY_LONGEST};
use crate::ops::backoff::backoff;
use crate::ops::retry_after::retry_after;

/// What a sink's answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has the event.
    Delivered,
    /// It may take the event later; `after`: not before so long a time.
    Later { after: Option<Duration> },
    /// It will never take the event.
    Rejected,
}

/// How often an event was sent, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempts {
    first: Instant,
    /// How long it is sent again; `None`: for ever.
    most: Option<Duration>,
    failed: u32,
}

impl Verdict {
    /// That of a status, and of what the answer asks for by `Retry-After`.
    pub(crate) fn of(status: u16, asked: Option<&str>, now: SystemTime) -> Self {
        match status {
            200..=299 => Self::Delivered,
            // 404 and 409: a route or a broker that is just coming, as Knative's own sender has it (`SelectiveRetry`).
            404 | 408 | 409 | 425 | 429 | 500..=599 => {
                Self::Later { after: asked.and_then(|value| retry_after(value, now)) }
            }
            _ => Self::Rejected,
        }
    }
}

impl Attempts {
    /// The first is made now. `most`: how long there are others; `None`: for ever.
    pub(crate) fn begin(now: Instant, most: Option<Duration>) -> Self {
        Self { first: now, most, failed: 0 }
    }

    /// One has failed: when the next is due, or `None` if its time is over. `chance`: from 0 up to 1. Who asks for more time
    /// than there is gets all that there is, and one more attempt.
    pub(crate) fn next(&mut self, now: Instant, after: Option<Duration>, chance: f64) -> Option<Instant> {
        let last = self.over_at();
        // Nobody waits for more than a day, whatever a sink asks for.
        let longest = last.map_or(LOG_RETRY_AFTER_LONGEST, |last| last.saturating_duration_since(now));
        let asked = after.unwrap_or_default().min(longest);
        let due = now.checked_add(wait(self.failed, chance).max(asked))?;
        self.failed = self.failed.saturating_add(1);
        last.is_none_or(|last| due <= last).then_some(due)
    }

    /// From then on no further attempt would be in time.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        self.most.and_then(|most| self.first.checked_add(most))
    }

    /// No further attempt would be in time.
    pub(crate) fn are_over(&self, now: Instant) -> bool {
        self.over_at().is_some_and(|over| over < now)
    }
}

/// How long to wait after so many waits before. `chance`: from 0 up to 1.
pub(super) fn wait(times: u32, chance: f64) -> Duration {
    backoff(LOG_RETRY_FIRST, LOG_RETRY_LONGEST, times, chance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LOG_RETRY_FOR;

    const FOR: Option<Duration> = Some(LOG_RETRY_FOR);

    #[test]
    fn an_answer_says_whether_to_come_again() {
        let later = |after| Verdict::Later { after };
        let seconds = |count| Some(Duration::from_secs(count));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (status, retry_after, verdict) in [
            (200, None, Verdict::Delivered),
            (202, Some("5"), Verdict::Delivered),
            (302, None, Verdict::Rejected),
            (400, None, Verdict::Rejected),
            (401, Some("5"), Verdict::Rejected),
            (404, Some("5"), later(seconds(5))),
            (409, None, later(None)),
            (410, None, Verdict::Rejected),
            (413, None, Verdict::Rejected),
            (408, None, later(None)),
            (425, None, later(None)),
            (429, Some(" 7 "), later(seconds(7))),
            (500, None, later(None)),
            (503, Some("Sun, 06 Nov 1994 08:49:47 GMT"), later(seconds(10))),
            (503, Some("-1"), later(None)),
        ] {
            assert_eq!(Verdict::of(status, retry_after, now), verdict, "{status} {retry_after:?}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let start = Instant::now();
        let mut attempts = Attempts::begin(start, FOR);
        let waits: Vec<_> = (0..8).map(|_| attempts.next(start, None, 1.0).unwrap() - start).collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0].map(Duration::from_secs_f64));
    }

    #[test]
    fn a_wait_is_drawn_from_its_upper_half() {
        let start = Instant::now();
        let wait = |chance| Attempts::begin(start, FOR).next(start, None, chance).unwrap() - start;
        assert_eq!((wait(0.0), wait(0.5)), (Duration::from_millis(250), Duration::from_millis(375)));
    }

    #[test]
    fn a_sink_that_asks_for_more_time_gets_it() {
        let start = Instant::now();
        let mut attempts = Attempts::begin(start, FOR);
        let mut after = |now, seconds| attempts.next(now, Some(Duration::from_secs(seconds)), 0.0);
        assert_eq!(after(start, 60), Some(start + Duration::from_secs(60)));
        let last = start + LOG_RETRY_FOR;
        for more in [301, 999_999, u64::MAX] {
            assert_eq!(after(start, more), Some(last), "more than an event is kept");
        }
        assert_eq!(after(last, 1), None);
    }

    #[test]
    fn without_an_end_an_event_is_never_given_up() {
        let start = Instant::now();
        let mut attempts = Attempts::begin(start, None);
        let late = start + 1000 * LOG_RETRY_FOR;
        assert_eq!(attempts.next(late, None, 1.0), Some(late + LOG_RETRY_FIRST));
        assert_eq!(attempts.next(late, Some(Duration::MAX), 1.0), Some(late + LOG_RETRY_AFTER_LONGEST));
        assert!(!attempts.are_over(late));
    }

    #[test]
    fn after_five_minutes_an_event_is_given_up() {
        let start = Instant::now();
        let mut attempts = Attempts::begin(start, FOR);
        assert!(attempts.next(start + LOG_RETRY_FOR - LOG_RETRY_FIRST, None, 1.0).is_some());
        assert!(!attempts.are_over(start + LOG_RETRY_FOR));
        assert_eq!(attempts.next(start + LOG_RETRY_FOR, None, 0.0), None);
        assert!(attempts.are_over(start + LOG_RETRY_FOR + LOG_RETRY_FIRST));
    }
}
