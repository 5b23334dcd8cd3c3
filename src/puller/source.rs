//! Where a model comes from, by its `storageUri` (SPEC M6 to M9).
//!
//! Not here: where it goes in the end, and attempts after the first.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::fetch;
use super::hub::Hub;
use super::local::Local;
use super::web::Web;
use crate::storage::{Failure, Store};

/// What is said of a URI that names none of them.
const ALLOWED: &str =
    "a storageUri is s3://, gs://, abfs://container@account, https://, http://, hf://, file:// or pvc://";

/// A place that a model can be fetched from.
#[derive(Debug)]
pub(super) enum Source {
    /// S3, Google Cloud Storage or Azure Blob Storage.
    Store(Box<Store>),
    /// Any other web server.
    Web(Web),
    /// The Hugging Face Hub.
    Hub(Hub),
    /// A volume of the pod.
    Local(Local),
}

/// How far a download has come, in bytes; read by others while it runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// 0: not known.
    total: AtomicU64,
    /// What is in the folder, from this attempt or one before.
    done: AtomicU64,
}

/// Tells a download that nobody wants it any more: closed by its owner.
#[derive(Debug, Clone)]
pub(super) struct Stop(Receiver<Infallible>);

impl Source {
    /// The source that a URI names, with credentials from the environment. Nothing is asked of it yet. `local`: the folder that
    /// models of this pod may lie in.
    ///
    /// # Errors
    /// When it names none; the text says what is allowed.
    pub(super) fn of(uri: &str, local: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let (scheme, rest) = uri.split_once("://").unwrap_or_default();
        let scheme = scheme.to_ascii_lowercase();
        match scheme.as_str() {
            "http" | "https" if !Store::is_at(uri) => Web::open(uri, env).map(Self::Web),
            "hf" => Hub::open(rest, env).map(Self::Hub),
            _ => match Local::of(&scheme, rest, local) {
                Some(found) => found.map(Self::Local),
                None if Store::is_at(uri) => Store::open(uri, env).map(|store| Self::Store(Box::new(store))),
                None => Err(ALLOWED.to_owned()),
            },
        }
    }

    /// Fetches the model into `folder`, which belongs to this model and specification alone: what an earlier attempt has
    /// left there is gone on with.
    ///
    /// # Errors
    /// When not all of it came; what came stays for the next attempt.
    pub(super) fn fetch(&self, folder: &Path, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
        match self {
            Self::Local(local) => local.fetch(folder, progress, stop),
            Self::Hub(hub) => hub.fetch(folder, progress, stop),
            Self::Web(web) => web.fetch(folder, progress, stop),
            Self::Store(store) => fetch::fetch(store, folder, progress, stop),
        }
    }
}

impl Progress {
    /// So many bytes are to come in all; 0: nobody knows.
    pub(super) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// So many bytes more are there.
    pub(super) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A new attempt begins with this.
    pub(super) fn begin(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// Bytes that are there, and that there are to be.
    pub(super) fn read(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

impl Stop {
    /// Its owner stops it by dropping the other end of this channel.
    pub(super) fn new(end: Receiver<Infallible>) -> Self {
        Self(end)
    }

    /// Whether nobody wants the download any more. Looked at between pieces.
    pub(super) fn is_over(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits, unless nobody wants the download any more.
    pub(crate) fn pause(&self, wait: Duration) -> Result<(), Failure> {
        match self.0.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => Err(unwanted()),
            _ => Ok(()),
        }
    }

    /// The same as a failure.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_over() { Err(unwanted()) } else { Ok(()) }
    }
}

/// Nobody wants the model any more, and nobody will see this.
pub(super) fn unwanted() -> Failure {
    Failure::transient("no longer wanted")
}
