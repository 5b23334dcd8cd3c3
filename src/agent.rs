//! The composition root: every channel and every thread is made here, named here, and ended here, in this order.
//!
//! | thread | ends when |
//! |---|---|
//! | `worker-N` | told to finish, and its last connection is gone or [`FINISH_TIMEOUT`] has passed |
//! | `batcher` | the workers, who hand it requests, are gone |
//! | `forward-N` | the batcher, who made it, is gone; nobody joins it |
//! | `log-N` | the workers, whose events they deliver, are gone and nothing is left, or at the deadline |
//! | `log-batch` | the same, where they go to an object store; nobody joins it |
//! | `log-spool` | the workers, whose events it writes, are gone and nothing is left, or at the deadline; nobody joins it |
//! | `log-lookup` | it has the addresses of the sink's name; nobody joins it |
//! | `prober` | the workers, who ask it, are gone |
//! | `watch`, `puller`, `pull-N` | with the process: whatever they do may be cut at any moment |
//! | main | all of these but the last have ended |
//!
//! The main thread waits for signals and drives the drain (SPEC D):
//!
//! ```text
//!   serving ─ signal ─▶ quiet: probes fail ─ --drain-period without a request, or a signal ─▶ finish ─▶ exit
//! ```
//!
//! Not here: what the threads do.

mod couriers;
mod parts;
mod shared;

use std::convert::Infallible;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use self::couriers::{Couriers, new_logger};
pub use self::parts::Error;
use self::parts::{DOWN, PULLED, Prober, listen, listen_for_operators, spawn, spawn_batcher, spawn_puller};
use self::shared::{Optional, Shared};
use crate::batcher::{self, Batcher};
use crate::config::{Config, FINISH_TIMEOUT, LOG_FLUSH_TIMEOUT};
use crate::ops::build::{NAME, VERSION};
use crate::ops::limits;
use crate::ops::metrics::process::count_panics;
use crate::ops::server::ModelServer;
use crate::proxy::inbox::{Inbox, Message};
use crate::proxy::listener::Acceptor;
use crate::proxy::plane::{Drain, Setup};
use crate::proxy::worker::Worker;
use crate::puller::Puller;

/// The ends of the agent's threads that the main thread holds.
struct Threads {
    workers: Vec<(Inbox, JoinHandle<()>)>,
    shared: Shared,
    /// Closed when the listeners are.
    open: Receiver<Infallible>,
    prober: Option<JoinHandle<()>>,
    batcher: Option<(batcher::Handle, JoinHandle<()>)>,
    couriers: Option<Couriers>,
}

/// What made the main thread's wait end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Signal,
    Down,
    /// The first round of models was tried.
    Pulled,
    TimeOut,
}

/// Serves until a signal ends it.
///
/// # Errors
/// When something it needs is not to be had, or a thread could not go on.
pub fn run(config: &Config) -> Result<(), Error> {
    let epoch = Instant::now();
    count_panics();
    log::info!("{NAME} {VERSION} starts");
    let (mut wake, notify) = UnixStream::pair().map_err(Error::of("signals"))?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let end = notify.try_clone().map_err(Error::of("signals"))?;
        signal_hook::low_level::pipe::register(signal, end).map_err(Error::of("signals"))?;
    }
    let threads = Threads::start(config, epoch, &notify)?;
    let mut woken = Woken::Pulled;
    if config.puller.is_some() {
        log::info!("waiting for the first round of models before port {} is opened", config.port);
        woken = wait(&mut wake, None);
    }
    // While nobody was let in there is nobody to wait for.
    let mut quiet = Duration::ZERO;
    if woken == Woken::Pulled {
        threads.open(config)?;
        quiet = config.proxy.drain_period;
        log::info!("serving on port {}, model server on 127.0.0.1:{}", config.port, config.component_port);
        woken = wait(&mut wake, None);
    }
    let is_down = woken == Woken::Down || !threads.drain(&mut wake, quiet, epoch);
    if is_down {
        return Err(Error::of("a thread")(io::Error::other("ended early")));
    }
    log::info!("stopped");
    Ok(())
}

/// Waits for a signal, a thread that can't go on, or the time.
fn wait(wake: &mut UnixStream, patience: Option<Duration>) -> Woken {
    let mut byte = [0];
    let zero_is_refused = patience.map(|patience| patience.max(Duration::from_millis(1)));
    loop {
        return match wake.set_read_timeout(zero_is_refused).and_then(|()| wake.read(&mut byte)) {
            Ok(_) if byte == [DOWN] => Woken::Down,
            Ok(_) if byte == [PULLED] => Woken::Pulled,
            Ok(_) => Woken::Signal,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Woken::TimeOut,
        };
    }
}

impl Threads {
    fn start(config: &Config, epoch: Instant, notify: &UnixStream) -> Result<Self, Error> {
        let descriptors = limits::raise_descriptors();
        let listeners = listen_for_operators(config);
        let prober = Prober::new(&config.probe);
        let count = config.proxy.threads.map_or_else(limits::worker_threads, NonZeroUsize::get);
        let processors = limits::processors_to_pin(config.proxy.pin);
        let max_connections = limits::max_connections(config.proxy.max_connections, descriptors, count);
        let server = ModelServer::at(SocketAddr::from((Ipv4Addr::LOCALHOST, config.component_port.get())));
        let batcher = config.batcher.as_ref();
        let batcher = batcher.map(|batcher| Batcher::new(batcher, server.clone(), config.proxy.upstream_timeout));
        let peers = Arc::new(OnceLock::<Vec<Inbox>>::new());
        let logger = config.logger.as_ref();
        let logger = logger.map(|config| new_logger(config, count, epoch, &peers)).transpose()?;
        let puller = config.puller.as_ref().map(|puller| Puller::new(puller, config.component_port));
        let optional = Optional { batcher: batcher.as_ref(), logger: logger.as_ref(), puller: puller.as_ref() };
        let shared = Shared::new(config, (count, !processors.is_empty()), max_connections, optional, epoch);
        let mut made = Vec::new();
        for number in 0..count {
            let setup = Setup {
                server: server.clone(),
                authority: server.address.to_string(),
                upstream_timeout: config.proxy.upstream_timeout,
                body_timeout: config.proxy.body_timeout,
                prober: prober.as_ref().map(|prober| prober.tickets.clone()),
                batcher: batcher.as_ref().map(|(handle, _)| handle.clone()),
                logger: logger.as_ref().map(|logger| logger.handle(number)),
                worker: number,
                metrics: shared.proxy.of(number),
                status: Arc::clone(&shared.status),
                notices: Arc::clone(&shared.notices),
            };
            made.push(Worker::new(setup, Arc::clone(&shared.loads), epoch).map_err(Error::of("worker"))?);
        }
        let (closes, open) = crossbeam_channel::bounded(0);
        if let Some((first, _)) = made.first_mut() {
            first.listen(Acceptor::new(closes), listeners).map_err(Error::of("listeners"))?;
        }
        let inboxes: Vec<Inbox> = made.iter().map(|(_, inbox)| inbox.clone()).collect();
        let _ = peers.set(inboxes.clone());
        let mut workers = Vec::new();
        for (number, (worker, inbox)) in made.into_iter().enumerate() {
            let processor = (!processors.is_empty()).then(|| processors[number % processors.len()]);
            let peers = inboxes.clone();
            let thread = spawn(&format!("worker-{number}"), notify, move || {
                if let Some(processor) = processor {
                    limits::pin(processor);
                }
                worker.run(peers)
            })?;
            workers.push((inbox, thread));
        }
        let prober = prober.map(|prober| prober.spawn(inboxes.clone(), notify)).transpose()?;
        let batcher = batcher
            .map(|batcher| spawn_batcher(batcher, inboxes.clone(), Arc::clone(&shared.notices), notify))
            .transpose()?;
        let couriers = logger.map(|logger| Couriers::spawn(logger, notify)).transpose()?;
        log::info!("configuration: {}", shared.status.config);
        puller.map(|puller| spawn_puller(puller, notify)).transpose()?;
        Ok(Self { workers, shared, open, prober, batcher, couriers })
    }

    /// Lets requests in.
    fn open(&self, config: &Config) -> Result<(), Error> {
        let listeners = listen(config)?;
        // The first worker accepts for all.
        if let Some((inbox, _)) = self.workers.first() {
            listeners.into_iter().for_each(|listener| inbox.send(Message::Listen(listener)));
        }
        Ok(())
    }

    /// SPEC D1, D2. `false`: a thread could not go on.
    fn drain(self, wake: &mut UnixStream, period: Duration, epoch: Instant) -> bool {
        log::info!("draining: probes fail now, connections close after {period:?} without a request");
        self.shared.status.process.drains();
        tell(&self.workers, Drain::Quiet);
        if self.wait_for_quiet(wake, period, epoch) == Woken::Down {
            return false;
        }
        log::info!("finishing: no new connections, at most {FINISH_TIMEOUT:?} for running requests");
        tell(&self.workers, Drain::Closing);
        if let Some((batcher, _)) = &self.batcher {
            batcher.drain();
        }
        // A worker that has nothing left to do must not end before it gets the last of those that waited.
        let _ = self.open.recv_timeout(FINISH_TIMEOUT);
        let finish = Instant::now() + FINISH_TIMEOUT;
        tell(&self.workers, Drain::Finish(finish));
        let couriers = self.couriers.map(|couriers| couriers.end(finish + LOG_FLUSH_TIMEOUT));
        for (inbox, thread) in self.workers {
            let _ = thread.join();
            drop(inbox);
        }
        if let Some((handle, thread)) = self.batcher {
            drop(handle);
            let _ = thread.join();
        }
        if let Some(couriers) = couriers {
            couriers.join();
        }
        // A probe of a server that does not answer may take its whole limit; nobody waits for its result any more.
        drop(self.prober);
        self.shared.say_what_was_left_out();
        true
    }

    /// Until `period` has passed without a proxied request, or a second signal.
    fn wait_for_quiet(&self, wake: &mut UnixStream, period: Duration, epoch: Instant) -> Woken {
        let began = Instant::now();
        loop {
            let quiet_since = began.max(epoch + Duration::from_millis(self.shared.loads.last_request()));
            let left = (quiet_since + period).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::TimeOut;
            }
            match wait(wake, Some(left)) {
                Woken::TimeOut => {}
                woken => return woken,
            }
        }
    }
}

fn tell(workers: &[(Inbox, JoinHandle<()>)], drain: Drain) {
    workers.iter().for_each(|(inbox, _)| inbox.send(Message::Drain(drain)));
}
