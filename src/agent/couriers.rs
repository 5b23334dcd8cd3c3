//! The payload log's delivery threads: how they start, and how their end is waited for.
//!
//! Not here: what they do ([`crate::logger`]).

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::parts::{Error, spawn};
use crate::config::LoggerConfig;
use crate::logger::{Control, Left, Logger, Tasks};
use crate::proxy::inbox::{Inbox, Message};

/// Time beyond the deadline in which a thread sees that it has passed.
const GRACE: Duration = Duration::from_millis(200);

/// The delivery threads.
pub(super) struct Couriers {
    control: Control,
    /// Closed when all have ended.
    done: Receiver<Infallible>,
}

/// The delivery threads, who know when to end.
pub(super) struct Ending {
    at: Instant,
    done: Receiver<Infallible>,
    left: Left,
}

/// The logger, whose room wakes these workers.
pub(super) fn new_logger(
    config: &LoggerConfig,
    workers: usize,
    epoch: Instant,
    peers: &Arc<OnceLock<Vec<Inbox>>>,
) -> Result<Logger, Error> {
    let peers = Arc::clone(peers);
    let wake = move || peers.get().into_iter().flatten().for_each(|inbox| inbox.send(Message::Room));
    let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    Logger::new(config, env, (workers, epoch), wake).map_err(|why| Error::of("payload log")(io::Error::other(why)))
}

impl Couriers {
    pub(super) fn spawn(logger: Logger, notify: &UnixStream) -> Result<Self, Error> {
        let Tasks { couriers, others, control } = logger.start();
        for (name, task) in others {
            spawn(name, notify, move || {
                task.run();
                Ok(())
            })?;
        }
        let (works, done) = crossbeam_channel::bounded::<Infallible>(0);
        for (number, courier) in couriers.into_iter().enumerate() {
            let works = works.clone();
            spawn(&format!("log-{number}"), notify, move || {
                courier.run();
                drop(works);
                Ok(())
            })?;
        }
        Ok(Self { control, done })
    }

    /// What waits is delivered now, until this time.
    pub(super) fn end(self, at: Instant) -> Ending {
        Ending { at, done: self.done, left: self.control.end(at) }
    }
}

impl Ending {
    /// Waits for the threads, and says how many events they leave (SPEC L6). One that hangs is left behind.
    pub(super) fn join(self) {
        let _ = self.done.recv_deadline(self.at + GRACE);
        self.left.say();
    }
}
