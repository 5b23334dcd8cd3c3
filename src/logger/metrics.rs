//! What the logger counts (SPEC O1).
//!
//! ```text
//!   payload ─┬─▶ accepted ─┬─▶ sent
//!            └─▶ dropped   ├─▶ failed
//!                          └─▶ waiting: the depth of the queue
//! ```
//!
//! Each worker and each delivery thread writes its own counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::event::Type;
use super::room::Room;
use crate::ops::metrics::family::{Family, Kind, Reading, Sample, Source, Value};
use crate::ops::metrics::{Counter, DURATION, Histogram, Label, Labelled, label};

label! {
    /// Why a payload became no event.
    pub(crate) Dropped as "reason" {
        /// There was no room for it (`--log-queue-bytes`).
        Full = "full",
        /// It is longer than a payload may be.
        TooLarge = "too_large",
    }
}

label! {
    /// Why an event was given up.
    pub(crate) Failed as "reason" {
        /// The sink will not take it.
        Rejected = "rejected",
        /// It was tried for as long as events are.
        Expired = "expired",
        /// The agent ended.
        Shutdown = "shutdown",
        /// It was damaged on disk.
        Corrupt = "corrupt",
    }
}

label! {
    /// Why an event is not on disk.
    pub(crate) Unspooled as "reason" {
        /// The folder has as much as it may.
        Full = "full",
        /// It could not be written.
        Error = "error",
    }
}

label! {
    /// What was found on disk instead of an event.
    pub(crate) Corrupt as "kind" {
        /// Bytes that are no event, among events.
        Damaged = "damaged",
        /// The beginning of one at the end of a file, as a crash leaves it.
        Torn = "torn",
    }
}

/// The whole logger's counters.
#[derive(Debug)]
pub(crate) struct LoggerMetrics {
    /// Of the workers, and then of the spool.
    taps: Vec<Arc<TapMetrics>>,
    /// Of the delivery threads, and then of the spool.
    couriers: Vec<Arc<CourierMetrics>>,
    room: Arc<Room>,
}

/// One worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct TapMetrics {
    pub(super) accepted: Labelled<Type>,
    dropped: [Labelled<Dropped>; 2],
    /// Requests that were made to wait.
    pub(super) delayed: Counter,
}

/// One delivery thread's.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CourierMetrics {
    pub(super) sent: Labelled<Type>,
    failed: [Labelled<Failed>; 2],
    pub(super) retries: Counter,
    /// Times that the sink was found not to take several requests together.
    pub(super) pipelining_stopped: Counter,
    /// Of an attempt.
    pub(super) duration: Histogram,
}

/// The spool's.
#[derive(Debug)]
pub(crate) struct SpoolMetrics {
    pub(super) replayed: Counter,
    pub(super) unspooled: Labelled<Unspooled>,
    pub(super) corrupt: Labelled<Corrupt>,
    bytes: Arc<AtomicU64>,
    most: u64,
}

impl TapMetrics {
    pub(super) fn drops(&self, of: Type, why: Dropped) {
        self.dropped[of.index()].count(why);
    }
}

impl CourierMetrics {
    pub(super) fn fails(&self, of: Type, why: Failed) {
        self.failed[of.index()].count(why);
    }
}

impl Default for CourierMetrics {
    fn default() -> Self {
        Self {
            sent: Labelled::default(),
            failed: Default::default(),
            retries: Counter::default(),
            pipelining_stopped: Counter::default(),
            duration: Histogram::new(&DURATION),
        }
    }
}

impl SpoolMetrics {
    /// `bytes`: in the folder; `most`: that may be there.
    pub(super) fn new(bytes: Arc<AtomicU64>, most: u64) -> Self {
        Self { replayed: Counter::default(), unspooled: Labelled::default(), corrupt: Labelled::default(), bytes, most }
    }
}

impl Source for SpoolMetrics {
    fn families(&self) -> Vec<Family> {
        vec![
            Family::counter(
                "kserve_logger_spool_replayed_total",
                "Events of an earlier run that were read from disk; some may have been delivered before.",
                self.replayed.read(),
            ),
            Family::counters(
                "kserve_logger_spool_skipped_total",
                "Events that were accepted without being on disk.",
                Unspooled::NAME,
                self.unspooled.read(),
            ),
            Family::counters(
                "kserve_logger_spool_corrupt_total",
                "Places on disk that were no event and were set aside.",
                Corrupt::NAME,
                self.corrupt.read(),
            ),
            Family::gauge("kserve_logger_spool_bytes", "Bytes of events on disk.", self.bytes.load(Ordering::Relaxed)),
            Family::gauge("kserve_logger_spool_limit_bytes", "Bytes that events may have on disk.", self.most),
        ]
    }
}

impl LoggerMetrics {
    pub(super) fn new(workers: usize, couriers: usize, room: Arc<Room>) -> Self {
        let taps = (0..=workers).map(|_| Arc::default()).collect();
        Self { taps, couriers: (0..=couriers).map(|_| Arc::default()).collect(), room }
    }

    pub(super) fn of_tap(&self, number: usize) -> Arc<TapMetrics> {
        Arc::clone(&self.taps[number])
    }

    pub(super) fn of_courier(&self, number: usize) -> Arc<CourierMetrics> {
        Arc::clone(&self.couriers[number])
    }

    /// Events that were accepted and are neither sent nor given up.
    pub(crate) fn waiting(&self) -> u64 {
        // Those that are done are read first, so that they are not more than all.
        let total = |counts: &Labelled<Type>| counts.read().map(|(_, count)| count).sum::<u64>();
        let sent: u64 = self.couriers.iter().map(|courier| total(&courier.sent)).sum();
        let failed: u64 = self.couriers.iter().map(|courier| failures(courier).sum::<u64>()).sum();
        let accepted: u64 = self.taps.iter().map(|tap| total(&tap.accepted)).sum();
        accepted.saturating_sub(sent + failed)
    }

    /// Events that were given up because the agent ends.
    pub(crate) fn given_up(&self) -> u64 {
        let of = |courier: &Arc<CourierMetrics>| -> u64 {
            courier
                .failed
                .iter()
                .flat_map(Labelled::read)
                .filter(|count| count.0 == "shutdown")
                .map(|count| count.1)
                .sum()
        };
        self.couriers.iter().map(of).sum()
    }
}

fn failures(courier: &CourierMetrics) -> impl Iterator<Item = u64> {
    courier.failed.iter().flat_map(Labelled::read).map(|(_, count)| count)
}

/// A count for each type.
fn by_type<'c>(
    name: &'static str,
    help: &'static str,
    parts: impl Iterator<Item = &'c Labelled<Type>> + Clone,
) -> Family {
    let of = |(index, of): (usize, &&'static str)| {
        let count = parts.clone().filter_map(|counts| counts.read().nth(index)).map(|(_, count)| count).sum();
        (*of, count)
    };
    Family::counters(name, help, Type::NAME, Type::VALUES.iter().enumerate().map(of))
}

/// A count for each type and reason.
fn by_reason<'c, L: Label + 'c>(
    name: &'static str,
    help: &'static str,
    parts: impl Iterator<Item = &'c [Labelled<L>; 2]> + Clone,
) -> Family {
    let mut samples = Vec::new();
    for (index, of) in Type::VALUES.iter().enumerate() {
        for (place, reason) in L::VALUES.iter().enumerate() {
            let counts = parts.clone().filter_map(|counts| counts[index].read().nth(place));
            let value = Value::Whole(counts.map(|(_, count)| count).sum());
            let labels = vec![(Type::NAME, (*of).to_owned()), (L::NAME, (*reason).to_owned())];
            samples.push(Sample { labels, value });
        }
    }
    Family { name, help, kind: Kind::Counter, samples }
}

impl Source for LoggerMetrics {
    fn families(&self) -> Vec<Family> {
        let taps = || self.taps.iter().map(|tap| &**tap);
        let couriers = || self.couriers.iter().map(|courier| &**courier);
        // What is done is read before what was accepted.
        let sent = by_type(
            "kserve_logger_events_sent_total",
            "Events that the sink has taken.",
            couriers().map(|courier| &courier.sent),
        );
        let failed = by_reason(
            "kserve_logger_events_failed_total",
            "Events that were accepted and given up.",
            couriers().map(|courier| &courier.failed),
        );
        let accepted = by_type(
            "kserve_logger_events_accepted_total",
            "Payloads that became events.",
            taps().map(|tap| &tap.accepted),
        );
        // Of these very numbers, so that they add up.
        let waiting = accepted.total().saturating_sub(sent.total() + failed.total());
        vec![
            sent,
            failed,
            accepted,
            by_reason(
                "kserve_logger_events_dropped_total",
                "Payloads that became no event.",
                taps().map(|tap| &tap.dropped),
            ),
            Family::counter(
                "kserve_logger_requests_delayed_total",
                "Requests that waited for room in the queue.",
                taps().map(|tap| tap.delayed.read()).sum(),
            ),
            Family::counter(
                "kserve_logger_delivery_retries_total",
                "Attempts that failed and were to be made again.",
                couriers().map(|courier| courier.retries.read()).sum(),
            ),
            Family::counter(
                "kserve_logger_pipelining_stopped_total",
                "Times that the sink answered some of several requests sent together and not the others.",
                couriers().map(|courier| courier.pipelining_stopped.read()).sum(),
            ),
            Family::histogram(
                "kserve_logger_delivery_duration_seconds",
                "An attempt to deliver an event.",
                Reading::all(couriers().map(|courier| courier.duration.read())),
            ),
            Family::gauge("kserve_logger_work_queue_depth", "Events that wait for their delivery.", waiting),
            Family::gauge("kserve_logger_queue_bytes", "Bytes that events hold.", self.room.bytes() as u64),
            Family::gauge("kserve_logger_queue_limit_bytes", "Bytes that events may hold.", self.room.most() as u64),
        ]
    }
}
