//! The payload logger: what clients send and get, as CloudEvents, delivered or counted (SPEC L).
//!
//! ```text
//!   worker: tap ── event ──▶ queue, bounded in bytes ──▶ courier: a request to the sink ───┬─▶ sent
//!                                                           ▲                              ├─▶ given up
//!                                                           └── heap of retries ◀── later ─┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | `tap` | a request's bytes and its response's, captured as they pass |
//! | `sent` | the head of a response as the client got it; pure |
//! | `outgoing` | what a worker hands over together |
//! | `room` | the bytes that events may have, and who waits for them |
//! | `event` | an event and its CloudEvents attributes; pure |
//! | `deliver` | a delivery thread |
//! | `retry` | what an answer means, and when to come again; pure |
//! | `breaker` | whether the sink fails whatever it is given, and is left alone; pure |
//! | `retries` | events that are sent again; pure |
//! | `carrier` | what such a thread needs of the way to a destination |
//! | `flight`, `line`, `sink` | the way to an HTTP sink: events on it, over which connection, and where to |
//! | `pipeline` | whether several events may be sent before the first is answered; pure |
//! | `route`, `address`, `fields` | a sink's URL and its redirects, its addresses, its secret header fields |
//! | `depot` | the way to an object store: batches, made into files |
//! | `spool` | the queue on disk |
//! | `metrics` | what is counted |
//! | [`record`] | a payload as an object store gets it; pure |
//! | [`batches`] | which records share a file; pure |
//! | [`marshal`] | records to files; pure |
//! | `marshaller` | who makes the files: the agent itself, or a service |
//!
//! Architecture Invariant: a worker never waits for the logger. Every byte of an event is counted in `room` before it is
//! kept, from the first that is captured to the end of the delivery.
//!
//! Architecture Invariant: an accepted event is counted once more, as sent or as given up.
//!
//! Not here: which requests have a tap, and how one waits for room (the proxy).

mod address;
pub mod batches;
mod breaker;
mod carrier;
mod deliver;
mod depot;
mod ending;
mod event;
mod fields;
mod flight;
mod line;
pub mod marshal;
mod marshaller;
mod metrics;
mod outgoing;
mod pipeline;
pub mod record;
mod retries;
mod retry;
mod room;
mod route;
mod sent;
mod sink;
mod spool;
pub(crate) mod tap;

use std::cell::RefCell;
use std::convert::Infallible;
use std::iter;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use self::breaker::Breaker;
use self::carrier::Carrier;
use self::deliver::{Courier, Shared};
use self::depot::{Depot, Gatherer, Porter};
use self::ending::Ending;
use self::event::Event;
use self::flight::Pilot;
use self::metrics::{CourierMetrics, LoggerMetrics, SpoolMetrics};
use self::outgoing::Outgoing;
use self::room::Room;
use self::sink::Sink;
use self::spool::{Opening, Parked, Parts};
use self::tap::{Handle, Wanted};
use crate::config::LoggerConfig;
use crate::ops::metrics::family::Source;
use crate::ops::notice::Notices;

/// The logger before its threads run.
pub(crate) struct Logger {
    events: (Sender<Vec<Event>>, Receiver<Vec<Event>>),
    wanted: Arc<Wanted>,
    room: Arc<Room>,
    destination: Destination,
    notices: Arc<Notices>,
    metrics: Arc<LoggerMetrics>,
    couriers: usize,
    retry_for: Option<Duration>,
    /// Takes events that have failed and have a copy on disk.
    parking: Option<Sender<Parked>>,
    /// Writes events before couriers get them.
    spool: Option<Spool>,
    /// Dropped when the agent begins to end.
    end: Sender<Infallible>,
    ending: Ending,
}

/// Variables by their names.
pub(crate) type Env = fn(&str) -> Option<String>;

/// Where events go.
enum Destination {
    Sink(Arc<Sink>),
    Store(Arc<Depot>),
}

/// The keeper, and what it hands on.
struct Spool {
    keeper: Opening,
    kept: Receiver<Vec<Event>>,
    metrics: Arc<SpoolMetrics>,
}

/// What the logger's threads do.
pub(crate) struct Tasks {
    /// Those that deliver: when they have ended nothing waits.
    pub(crate) couriers: Vec<Task>,
    /// The others, which end before them, with their names.
    pub(crate) others: Vec<(&'static str, Task)>,
    pub(crate) control: Control,
}

/// What one thread does, until its input ends.
pub(crate) struct Task(Box<dyn FnOnce() + Send>);

/// The main thread's end of the logger.
pub(crate) struct Control {
    end: Sender<Infallible>,
    ends_at: Arc<OnceLock<Instant>>,
    /// With a queue on disk: whether there is more in it than was read.
    unread: Option<Arc<AtomicBool>>,
    metrics: Arc<LoggerMetrics>,
}

/// What the end has left.
pub(crate) struct Left {
    /// With a queue on disk: whether there is more in it than was read.
    unread: Option<Arc<AtomicBool>>,
    metrics: Arc<LoggerMetrics>,
}

impl Logger {
    /// For so many workers. `env`: where credentials of object stores come from; `wake` tells all workers that there is
    /// room again. What can't be used is said, and tried again by the threads (SPEC F6).
    ///
    /// # Errors
    /// When the sink's address is of no use.
    pub(crate) fn new(
        config: &LoggerConfig,
        env: Env,
        (workers, epoch): (usize, Instant),
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let destination = match &config.store {
            None => Destination::Sink(Sink::new(config, env)?),
            Some(store) => Destination::Store(Depot::new(config, store, env)),
        };
        let notices = Arc::new(Notices::new(epoch));
        let (made, room_made) = crossbeam_channel::bounded(1);
        let room = Room::new(config.queue_bytes.get(), config.when_full, Box::new(wake), made);
        let couriers = config.workers.get();
        let metrics = Arc::new(LoggerMetrics::new(workers, couriers, Arc::clone(&room)));
        let (end, begins) = crossbeam_channel::bounded(0);
        // Bounded by the room.
        let events = crossbeam_channel::unbounded();
        let ending = Ending { begins, ends_at: Arc::default() };
        // Bounded by the events that there are.
        let (parking, failed) = crossbeam_channel::unbounded();
        let spool = config.spool_dir.as_deref().map(|folder| {
            let parts = Parts {
                events: events.1.clone(),
                failed,
                room_made,
                room: Arc::clone(&room),
                ending: ending.clone(),
                notices: Arc::clone(&notices),
                accepted: metrics.of_tap(workers),
                given_up: metrics.of_courier(couriers),
            };
            Spool::new((folder, config.spool_bytes), parts)
        });
        Ok(Self {
            events,
            wanted: Arc::new(Wanted::of(config)),
            metrics,
            room,
            destination,
            notices,
            couriers,
            retry_for: config.retry_for,
            spool,
            end,
            parking: config.spool_dir.is_some().then_some(parking),
            ending,
        })
    }

    /// A worker's end.
    pub(crate) fn handle(&self, worker: usize) -> Handle {
        Handle {
            outgoing: RefCell::new(Outgoing::new(self.events.0.clone())),
            wanted: Arc::clone(&self.wanted),
            room: Arc::clone(&self.room),
            notices: Arc::clone(&self.notices),
            is_spooled: self.spool.is_some(),
            metrics: self.metrics.of_tap(worker),
        }
    }

    /// Where events go, without what is secret in it.
    pub(crate) fn destination(&self) -> &str {
        match &self.destination {
            Destination::Sink(sink) => &sink.name,
            Destination::Store(depot) => depot.name(),
        }
    }

    /// What it counts.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = Arc<dyn Source>> {
        let spool = self.spool.as_ref().map(|spool| Arc::clone(&spool.metrics) as Arc<dyn Source>);
        iter::once(Arc::clone(&self.metrics) as Arc<dyn Source>).chain(spool)
    }

    /// What its threads do. The workers have their ends by now.
    pub(crate) fn start(mut self) -> Tasks {
        let mut others = Vec::new();
        let mut events = self.events.1.clone();
        let unread = self.spool.as_ref().map(|spool| spool.keeper.unread());
        if let Some(Spool { keeper, kept, .. }) = self.spool.take() {
            others.push(("log-spool", Task::of(|| keeper.run())));
            events = kept;
        }
        let couriers = match &self.destination {
            Destination::Sink(sink) => self.couriers(&events, |metrics| Pilot::new(Arc::clone(sink), metrics)),
            Destination::Store(depot) => {
                let (batches, made) = crossbeam_channel::unbounded();
                // A batch must be complete before a spool has to wait for it.
                let most = if unread.is_some() { self.room.most() / 4 } else { self.room.most() };
                let gatherer = Gatherer::new(depot, events, batches, most);
                others.push(("log-batch", Task::of(|| gatherer.run())));
                self.couriers(&made, |_| Porter(Arc::clone(depot)))
            }
        };
        let control = Control { end: self.end, ends_at: self.ending.ends_at, unread, metrics: self.metrics };
        Tasks { couriers, others, control }
    }

    fn couriers<C: Carrier<Cargo: Send> + Send + 'static>(
        &self,
        queue: &Receiver<Vec<C::Cargo>>,
        carrier: impl Fn(Arc<CourierMetrics>) -> C,
    ) -> Vec<Task> {
        let breaker = Arc::new(Breaker::default());
        let courier = |number| {
            let metrics = self.metrics.of_courier(number);
            let carrier = carrier(Arc::clone(&metrics));
            let (breaker, notices) = (Arc::clone(&breaker), Arc::clone(&self.notices));
            let parking = self.parking.clone();
            let shared = Shared { breaker, retry_for: self.retry_for, metrics, notices, parking };
            let courier = Courier::new(queue.clone(), self.ending.clone(), carrier, shared);
            Task::of(|| courier.run())
        };
        (0..self.couriers).map(courier).collect()
    }
}

impl Task {
    fn of(run: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(run))
    }

    /// Until its input ends.
    pub(crate) fn run(self) {
        (self.0)();
    }
}

impl Control {
    /// The agent begins to end: what waits is delivered now, until this time.
    pub(crate) fn end(self, at: Instant) -> Left {
        let _ = self.ends_at.set(at);
        drop(self.end);
        Left { unread: self.unread, metrics: self.metrics }
    }
}

impl Left {
    /// When the threads have ended, or nobody waits for them any longer (SPEC L6).
    pub(crate) fn say(&self) {
        let (given_up, waiting) = (self.metrics.given_up(), self.metrics.waiting());
        let (lost, kept) = if self.unread.is_some() { (given_up, waiting) } else { (given_up + waiting, 0) };
        let unread = self.unread.as_ref().is_some_and(|unread| unread.load(Ordering::Relaxed));
        if kept > 0 || unread {
            let more = if unread { ", and more that were not read," } else { "" };
            log::warn!("payload log: {kept} events{more} wait in --log-spool-dir for the next start");
        }
        if lost > 0 {
            log::error!("payload log: {lost} events were not delivered before the agent ended");
        }
    }
}

impl Spool {
    fn new(folder: (&Path, u64), parts: Parts) -> Self {
        let (couriers, kept) = crossbeam_channel::unbounded();
        let keeper = Opening::new(folder, couriers, parts);
        Self { metrics: keeper.metrics(), keeper, kept }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroUsize;
    use std::path::PathBuf;

    use super::*;
    use crate::config::{LogMode, WhenFull};

    /// As the flags make it by default.
    pub(crate) fn config(url: &str) -> LoggerConfig {
        LoggerConfig {
            url: url.to_owned(),
            workers: NonZeroUsize::new(5).unwrap(),
            source_uri: "http://localhost:9081/".to_owned(),
            mode: LogMode::All,
            store: None,
            inference_service: "iris".to_owned(),
            namespace: "prod".to_owned(),
            endpoint: "default".to_owned(),
            component: "predictor".to_owned(),
            metadata_headers: Vec::new(),
            metadata_annotations: Vec::new(),
            ca_cert_file: PathBuf::from("/etc/tls/logger/service-ca.crt"),
            tls_skip_verify: false,
            all_responses: false,
            client_timeout: Duration::from_secs(10),
            retry_for: Some(Duration::from_secs(300)),
            headers_file: None,
            queue_bytes: NonZeroUsize::new(64 * 1024 * 1024).unwrap(),
            when_full: WhenFull::Drop,
            spool_dir: None,
            spool_bytes: 1 << 30,
            sample: 1.0,
        }
    }
}
