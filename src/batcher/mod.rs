//! The batcher: one thread that owns all open batches, and the forwarders that call the model server (SPEC B).
//!
//! ```text
//!   worker ── request ──▶ batcher: queue ── batch ──▶ forwarder: merge, call, split ── answers ──▶ workers
//!     └─ its client left ──▶ ▲  └────────── return ────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`queue`], `due`, `lane`, [`pace`], [`batch`] | who waits for what, which batch leaves when; pure |
//! | `divide` | what is sent for a batch, and what each member gets; pure |
//! | `again` | what is asked again, and which keys are not merged; pure |
//! | [`json`], `runs` | one walk over JSON, as it comes; pure |
//! | [`v1`], [`v2`], `v2_walk`, `v2_data` | where instances lie in a body, merging and splitting; pure |
//! | [`key`] | what must be equal in a batch |
//! | `request`, `answer`, `join` | what goes through, and a request in parts |
//! | `fields` | which header fields a batch and its members get |
//! | `forward`, `call`, `transport`, `line` | a forwarder thread, its HTTP client, and how a call is ended from outside |
//! | `watch`, `streamed` | what its connection carries, and a response that is handed over in the middle |
//! | `gate`, `bell`, `outbox` | how much may wait, what wakes the batcher, and the way of answers to the workers |
//! | `metrics` | what is counted |
//!
//! The batcher waits in one place, for a message, a return or the next due time, and never for a forwarder: it gives a
//! batch to one that has nothing to do, and makes one where there is none, up to as many as batches may run. When nothing
//! waits it sleeps without a timeout, and returns do not wake it. It ends when the workers are gone, and the forwarders
//! end with it.
//!
//! Architecture Invariant: a worker never waits for the batcher. What may wait, heads, keys and bodies, is bounded by the
//! gate before it is sent.
//!
//! Not here: sockets of clients, and how answers are written (the workers').

mod again;
pub(crate) mod answer;
pub mod batch;
mod bell;
mod call;
mod divide;
mod due;
mod fields;
mod forward;
mod gate;
mod handle;
mod join;
pub mod json;
pub mod key;
mod lane;
mod line;
pub(crate) mod metrics;
pub(crate) mod outbox;
pub mod pace;
pub mod queue;
pub(crate) mod request;
mod runs;
pub(crate) mod streamed;
mod transport;
pub mod v1;
pub mod v2;
mod v2_data;
mod v2_walk;
mod watch;

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, Sender, TryRecvError};
use log::Level;

use self::batch::{Batch, Rules};
use self::bell::{Bell, RungAtEnd};
use self::forward::{Forwarder, Pending, Return};
use self::gate::Gate;
pub(crate) use self::handle::Handle;
use self::handle::Message;
use self::metrics::{BatcherMetrics, GOES_SINGLY, NO_THREAD};
pub(crate) use self::outbox::{Deliver, Outbox};
use self::queue::Queue;
use self::request::Request;
use crate::config::{
    BATCH_CALLS_EAGER, BATCH_CALLS_WINDOW, BATCH_MESSAGES_AT_ONCE, BATCH_THREAD_RETRY, BatchPolicy, BatcherConfig,
};
use crate::fault::Fault;
use crate::ops::notice::Notices;
use crate::ops::server::ModelServer;

/// The batcher, ready to run on its own thread.
pub(crate) struct Batcher {
    rules: Rules,
    server: ModelServer,
    timeout: Option<Duration>,
    /// Bounded by the gate; what clients that left add is bounded by the requests.
    messages: Receiver<Message>,
    gate: Arc<Gate>,
    metrics: Arc<BatcherMetrics>,
    bell: Arc<Bell>,
}

/// The batcher at work.
struct Running {
    queue: Queue<Arc<Request>>,
    messages: Receiver<Message>,
    /// From the forwarders.
    returns: Receiver<Return>,
    gate: Arc<Gate>,
    metrics: Arc<BatcherMetrics>,
    bell: Arc<Bell>,
    /// Batches that may run.
    concurrency: usize,
    /// Requests that the gate counts as waiting.
    counted: usize,
    /// What every forwarder thread has.
    forwarder: Arc<Forwarder>,
    /// The threads, each with the channel of its next batch, which has room for one.
    forwarders: Vec<(Sender<Batch<Arc<Request>>>, Thread)>,
    notices: Arc<Notices>,
    /// When a thread that could not be made is tried again.
    spawn_at: Option<Instant>,
    /// Those that have nothing to do; the one that had last is the first to have again, as what it needs is near.
    idle: Vec<usize>,
}

impl Batcher {
    /// Makes a batcher and the workers' end of it. `timeout`: longest wait for the first byte of a response.
    pub(crate) fn new(config: &BatcherConfig, server: ModelServer, timeout: Option<Duration>) -> (Handle, Self) {
        let concurrency = config.concurrency.map_or_else(|| own_concurrency(config.policy), NonZeroUsize::get);
        let rules = Rules {
            policy: config.policy,
            cap: config.max_batch_size.get(),
            max_latency: config.max_latency,
            concurrency,
        };
        let (sender, messages) = crossbeam_channel::unbounded();
        let gate = Gate::new(config.queue.get());
        let key_headers = config.key_headers.clone().into();
        let bell = Arc::new(Bell::default());
        let at_end = RungAtEnd(Arc::clone(&bell));
        let metrics = Arc::new(BatcherMetrics::new(concurrency, Arc::clone(&gate)));
        let handle = Handle {
            messages: sender,
            gate: Arc::clone(&gate),
            key_headers,
            cap: rules.cap,
            metrics: Arc::clone(&metrics),
            bell: at_end,
        };
        (handle, Self { rules, server, timeout, messages, gate, metrics, bell })
    }

    /// Batches that may run at once.
    pub(crate) fn concurrency(&self) -> usize {
        self.rules.concurrency
    }

    /// Serves until the workers, who hold the handles, are gone.
    pub(crate) fn run(self, outbox: Outbox, notices: Arc<Notices>) {
        // The kernel lets a timer be 50 µs late unless it is told otherwise, which is as long as `adaptive` waits.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let Self { rules, server, timeout, messages, gate, metrics, bell } = self;
        bell.attach();
        let (sender, returns) = crossbeam_channel::bounded(rules.concurrency);
        let of_forwarder = Forwarder {
            server,
            timeout,
            returns: sender,
            bell: Arc::clone(&bell),
            metrics: Arc::clone(&metrics),
            outbox,
        };
        let running = Running {
            queue: Queue::new(rules),
            messages,
            returns,
            gate,
            metrics,
            bell,
            concurrency: rules.concurrency,
            counted: 0,
            forwarder: Arc::new(of_forwarder),
            forwarders: Vec::new(),
            notices,
            spawn_at: None,
            idle: Vec::new(),
        };
        running.run();
    }
}

impl Running {
    fn run(mut self) {
        while let Ok(now) = self.receive() {
            while let Some(batch) = self.queue.take(now) {
                self.forward(batch, now);
            }
            while let Some(request) = self.queue.expired(now) {
                Pending::new(vec![request], &self.forwarder.outbox).fail(Fault::BatchLate);
            }
            self.gate.leave(self.counted - self.queue.len());
            self.counted = self.queue.len();
            if self.messages.is_empty() {
                let due = self.queue.next_due().into_iter().chain(self.spawn_at).min();
                self.bell.sleep(due, !self.queue.is_empty(), || !self.returns.is_empty());
            }
        }
        self.end();
    }

    /// Takes in what has come; returns the time of this wake-up. The error: the workers are gone.
    fn receive(&mut self) -> Result<Instant, RecvError> {
        while let Ok(Return { forwarder, receipt, at, outcome }) = self.returns.try_recv() {
            self.idle.push(forwarder);
            if self.queue.returned(receipt, at, outcome) {
                self.metrics.goes_singly();
                self.notices.write(GOES_SINGLY, Level::Warn, at, format_args!("{SINGLES}"));
            }
        }
        let now = Instant::now();
        if self.spawn_at.is_some_and(|at| at <= now) {
            self.spawn_at = None;
            self.queue.limit_running(self.concurrency);
        }
        for _ in 0..BATCH_MESSAGES_AT_ONCE {
            match self.messages.try_recv() {
                Ok(message) => self.take(message, now),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(RecvError),
            }
        }
        Ok(now)
    }

    /// Lets the forwarders see that there is nothing to come.
    fn end(self) {
        for (jobs, thread) in self.forwarders {
            drop(jobs);
            thread.unpark();
        }
    }

    fn take(&mut self, message: Message, now: Instant) {
        match message {
            Message::Submit(request) => {
                let (ticket, instances) = (request.ticket, request.payload.instances());
                let key = Arc::clone(&request);
                self.queue.push(request, ticket, &key.key, instances, now);
                self.counted += 1;
            }
            Message::Left(ticket) => drop(self.queue.remove(ticket)),
            Message::Press => self.queue.press(),
            Message::Drain => self.queue.drain(),
        }
    }

    /// Gives a batch to a forwarder that has nothing to do. There is one, or can be, for each batch that runs; where the
    /// system has no thread for it the batch waits for one that comes back.
    fn forward(&mut self, batch: Batch<Arc<Request>>, now: Instant) {
        let Some(forwarder) = self.idle.pop().or_else(|| self.spawn(now)) else {
            self.queue.put_back(batch);
            return self.queue.limit_running(self.forwarders.len());
        };
        self.metrics.leaves(&batch, now);
        let (jobs, thread) = &self.forwarders[forwarder];
        // One that has nothing to do has room for it, unless it is gone.
        match jobs.try_send(batch) {
            Ok(()) => thread.unpark(),
            Err(refused) => {
                self.metrics.put_back();
                self.queue.put_back(refused.into_inner());
            }
        }
    }

    /// Makes one more forwarder.
    fn spawn(&mut self, now: Instant) -> Option<usize> {
        let number = self.forwarders.len();
        let forwarder = Arc::clone(&self.forwarder);
        let (jobs, taken) = crossbeam_channel::bounded(1);
        let body = move || forwarder.run(number, &taken);
        // Nobody joins it: it ends when the batcher does, or with the process if the server never answers.
        match std::thread::Builder::new().name(format!("forward-{number}")).spawn(body) {
            Ok(thread) => {
                self.forwarders.push((jobs, thread.thread().clone()));
                Some(number)
            }
            Err(error) => {
                let what =
                    format_args!("no thread for a batch ({error}); those that there are, {number}, take it over");
                self.notices.write(NO_THREAD, Level::Warn, now, what);
                self.spawn_at = Some(now + BATCH_THREAD_RETRY);
                None
            }
        }
    }
}

/// Why requests that could share a batch go one by one.
const SINGLES: &str = "model server: three batches in a row were answered in a way that can't be divided among their \
    requests, which it answers well one by one: requests like these are sent one by one for a minute";

/// SPEC B7.
fn own_concurrency(policy: BatchPolicy) -> usize {
    match policy {
        BatchPolicy::Window => BATCH_CALLS_WINDOW,
        BatchPolicy::Eager | BatchPolicy::Adaptive => BATCH_CALLS_EAGER,
    }
}

#[cfg(test)]
mod alike_tests;
#[cfg(test)]
mod merge_tests;
