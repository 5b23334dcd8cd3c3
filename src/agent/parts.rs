//! What a thread needs before it runs, and how it starts.
//!
//! Not here: the order of it all ([`super`]).

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use crate::batcher::answer::Answer;
use crate::batcher::batch::Ticket;
use crate::batcher::{self, Batcher, Deliver, Outbox};
use crate::config::{Config, ContainerProbe, PROBES_WAITING, Probe};
use crate::ops::notice::Notices;
use crate::ops::probe;
use crate::proxy::connection::Role;
use crate::proxy::inbox::{Inbox, Message};
use crate::proxy::listener::Listener;
use crate::proxy::plane::ProbeTicket;
use crate::puller::Puller;

/// What a thread that can't go on writes to the main thread; a signal writes another byte.
pub(super) const DOWN: u8 = b'!';

/// What the puller writes to it when the first round of models was tried.
pub(super) const PULLED: u8 = b'p';

/// Why the agent could not start, or had to stop.
#[derive(Debug)]
pub struct Error {
    what: String,
    why: io::Error,
}

/// The workers' inboxes, where the batcher's answers go.
struct Workers(Vec<Inbox>);

impl Deliver for Workers {
    fn leave(&self, Ticket { worker, key, serial }: Ticket, answer: Answer) {
        self.0[worker].leave(Message::Answered { key, serial, answer });
    }

    fn wake(&self, worker: usize) {
        self.0[worker].wake();
    }
}

/// Starts the batcher.
pub(super) fn spawn_batcher(
    (handle, batcher): (batcher::Handle, Batcher),
    workers: Vec<Inbox>,
    notices: Arc<Notices>,
    notify: &UnixStream,
) -> Result<(batcher::Handle, JoinHandle<()>), Error> {
    let outbox = Outbox::new(Workers(workers));
    let thread = spawn("batcher", notify, move || {
        batcher.run(outbox, notices);
        Ok(())
    })?;
    Ok((handle, thread))
}

/// Where requests come in.
pub(super) fn listen(config: &Config) -> Result<Vec<Listener>, Error> {
    let port = config.port.get();
    let traffic = Listener::tcp(port, Role::Traffic);
    let mut listeners = vec![traffic.map_err(Error::of(&format!("listen on port {port} (--port)")))?];
    match Listener::unix() {
        Ok(listener) => listeners.push(listener),
        // Two agents in one network namespace; probes over TCP still reach this one (SPEC P12).
        Err(error) => log::warn!("not listening on the abstract socket @/kserve/agent.sock: {error}"),
    }
    Ok(listeners)
}

/// Where operators look in. None of these is worth failing for.
pub(super) fn listen_for_operators(config: &Config) -> Vec<Listener> {
    let mut listeners = Vec::new();
    if let Some(port) = config.metrics_port {
        match Listener::tcp(port.get(), Role::Metrics) {
            Ok(listener) => listeners.push(listener),
            Err(error) => log::warn!("no metrics, as port {port} (--metrics-port) is not to be had: {error}"),
        }
    }
    if let Some(port) = config.admin_port {
        match Listener::loopback(port.get(), Role::Admin) {
            Ok(listener) => listeners.push(listener),
            Err(error) => log::warn!("no status page, as port {port} (--admin-port) is not to be had: {error}"),
        }
    }
    listeners
}

/// The prober's inbox, made before the workers who send to it.
pub(super) struct Prober {
    pub(super) tickets: Sender<ProbeTicket>,
    inbox: Receiver<ProbeTicket>,
    probes: Vec<Probe>,
}

impl Prober {
    pub(super) fn new(probe: &ContainerProbe) -> Option<Self> {
        match probe {
            ContainerProbe::AlwaysReady => None,
            ContainerProbe::All(probes) => {
                let (tickets, inbox) = crossbeam_channel::bounded(PROBES_WAITING);
                Some(Self { tickets, inbox, probes: probes.clone() })
            }
        }
    }

    pub(super) fn spawn(self, workers: Vec<Inbox>, notify: &UnixStream) -> Result<JoinHandle<()>, Error> {
        let Self { tickets, inbox, probes } = self;
        // The workers hold the others; when they are gone the prober ends.
        drop(tickets);
        spawn("prober", notify, move || {
            probe::run(&probes, &inbox, |ticket: ProbeTicket, passed| {
                workers[ticket.worker].send(Message::Probed { key: ticket.key, serial: ticket.serial, passed });
            });
            Ok(())
        })
    }
}

/// Starts the puller, which tells the main thread when the first round of models was tried.
pub(super) fn spawn_puller(puller: Puller, notify: &UnixStream) -> Result<(), Error> {
    let mut tell = notify.try_clone().map_err(Error::of("puller"))?;
    // The main thread is gone only when the process is about to be.
    let tried = move || _ = tell.write_all(&[PULLED]);
    for task in puller.start(tried) {
        spawn(&task.name.clone(), notify, move || {
            task.run();
            Ok(())
        })?;
    }
    Ok(())
}

/// Starts a named thread that tells the main thread when it can't go on.
pub(super) fn spawn(
    name: &str,
    notify: &UnixStream,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let mut notify = notify.try_clone().map_err(Error::of(name))?;
    let thread = name.to_owned();
    let body = move || {
        let result = catch_unwind(AssertUnwindSafe(run));
        let why = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "panicked".to_owned(),
        };
        log::error!("thread {thread}: {why}");
        // The main thread is gone only when the process is about to be.
        let _ = notify.write_all(&[DOWN]);
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::of(name))
}

impl Error {
    pub(super) fn of(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |why| Self { what, why }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.why)
    }
}
