//! The queue on disk before its folder can be used: events go on without a copy, and the folder is tried again (SPEC F6).
//!
//! Not here: the queue itself ([`super`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam_channel::{Sender, after, select};

use super::segment::Segments;
use super::{Keeper, Parts};
use crate::config::{LOG_SPOOL_RETRY_FIRST, LOG_SPOOL_RETRY_LONGEST};
use crate::logger::event::Event;
use crate::logger::metrics::SpoolMetrics;
use crate::ops::backoff::backoff;
use crate::ops::random;

/// What opens the folder, and keeps events then.
pub(in crate::logger) struct Opening {
    folder: PathBuf,
    most: u64,
    couriers: Sender<Vec<Event>>,
    parts: Parts,
    /// Bytes in the folder.
    total: Arc<AtomicU64>,
    unread: Arc<AtomicBool>,
    metrics: Arc<SpoolMetrics>,
}

impl Opening {
    pub(in crate::logger) fn new((folder, most): (&Path, u64), couriers: Sender<Vec<Event>>, parts: Parts) -> Self {
        let total = Arc::new(AtomicU64::new(0));
        let metrics = Arc::new(SpoolMetrics::new(Arc::clone(&total), most));
        Self { folder: folder.to_owned(), most, couriers, parts, total, unread: Arc::default(), metrics }
    }

    pub(in crate::logger) fn metrics(&self) -> Arc<SpoolMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Returns whether there is more of an earlier run than was read.
    pub(in crate::logger) fn unread(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unread)
    }

    /// Keeps events until the workers are gone.
    pub(in crate::logger) fn run(self) {
        let mut times = 0;
        loop {
            let error = match Segments::open(&self.folder, &self.total) {
                Ok(segments) => {
                    if times > 0 {
                        log::info!("--log-spool-dir {}: it can be used now", self.folder.display());
                    }
                    let Self { most, couriers, parts, unread, metrics, .. } = self;
                    return Keeper::new(segments, most, couriers, parts, (unread, metrics)).run();
                }
                Err(error) => error,
            };
            if times == 0 {
                let folder = self.folder.display();
                log::error!("--log-spool-dir {folder}: {error}; events are kept in memory alone, it is tried again");
            }
            if !self.pass_on_for(times) {
                return;
            }
            times += 1;
        }
    }

    /// Passes events on until the next attempt. Returns `false` when the workers are gone.
    fn pass_on_for(&self, times: u32) -> bool {
        let retry = after(backoff(LOG_SPOOL_RETRY_FIRST, LOG_SPOOL_RETRY_LONGEST, times, random::share()));
        loop {
            select! {
                recv(self.parts.events) -> events => match events {
                    // If nobody delivers any more the time is over.
                    Ok(events) => _ = self.couriers.send(events),
                    Err(_) => return false,
                },
                recv(retry) -> _ => return true,
            }
        }
    }
}
