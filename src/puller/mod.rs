//! The model puller: disk and model server agree with the list of models, and keep doing so (SPEC M).
//!
//! ```text
//!   models.json ─▶ watch ─ list ─▶ reconciler: one step at a time for each model ─ order ─▶ pull-N: fetch, place,
//!                                       ▲                                                   load, unload, delete
//!                                       └──────────────────── what came of it ◀─────────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | `reconcile` | the reconciler's thread |
//! | `models`, `plan` | what is next for each model; pure |
//! | `list`, `watch` | the list, and its changes |
//! | `work` | one step |
//! | `disk` | the models' folder |
//! | `server` | what the model server is told |
//! | `source` | where models come from |
//! | `web` | a file or an archive from a web server |
//! | `hub` | the Hugging Face Hub |
//! | `local` | a volume of the pod |
//! | `archive` | models that come as zip, tar or tar.gz |
//! | `fetch` | objects of a store: ranges at the same time, gone on with, checked |
//! | `extent` | how much a model may be; pure |
//! | `scratch` | the folder that a model comes into |
//! | `view` | what is shown of it |
//!
//! Architecture Invariant: whatever fails is tried again, and a model that fails holds up no other.
//!
//! Architecture Invariant: a crash at any moment leaves the old model or the new one, never a part of one.
//!
//! Not here: requests (the proxy knows no models).

mod archive;
mod disk;
mod extent;
mod fetch;
mod hub;
mod injected;
mod list;
mod local;
mod models;
mod plan;
mod reconcile;
mod scratch;
mod server;
mod source;
mod view;
mod watch;
mod web;
mod work;

use std::convert::Infallible;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;

use self::disk::Disk;
use self::reconcile::{Reconciler, work};
use self::server::Repository;
use self::source::{Progress, Source, Stop};
use self::view::Views;
use self::watch::Watch;
use self::work::Workbench;
use crate::config::{MODEL_DOWNLOADS, MODEL_LOADS, MODEL_REMOVALS, PullerConfig};
use crate::ops::metrics::family;
use crate::storage::Failure;

/// The puller before its threads run.
pub(crate) struct Puller {
    config: PullerConfig,
    workbench: Workbench,
    views: Arc<Views>,
}

/// What one thread does.
pub(crate) struct Task {
    pub(crate) name: String,
    run: Box<dyn FnOnce() + Send>,
}

impl Puller {
    /// For the model server at this port.
    pub(crate) fn new(config: &PullerConfig, server: NonZeroU16) -> Self {
        let disk = Disk::at(&config.model_dir);
        let source_dir = config.source_dir.clone();
        let workbench = Workbench { disk, repository: Repository::new(server, config.load_timeout), source_dir };
        Self { config: config.clone(), workbench, views: Arc::default() }
    }

    /// What is shown of it.
    pub(crate) fn views(&self) -> Arc<dyn family::Source> {
        Arc::clone(&self.views) as Arc<dyn family::Source>
    }

    /// What its threads do. `tried`: called once, when every model of the first list was tried (SPEC M3).
    pub(crate) fn start(self, tried: impl FnOnce() + Send + 'static) -> Vec<Task> {
        let (changes_to, changes) = crossbeam_channel::unbounded();
        let (tasks, tasks_of) = crossbeam_channel::unbounded();
        let (results_to, results) = crossbeam_channel::unbounded();
        let watch = Watch::new(&self.config.config_dir, changes_to);
        let reconciler = Reconciler {
            changes,
            tasks,
            results,
            views: self.views,
            disk: self.workbench.disk.clone(),
            update: self.config.update,
            tried: Some(Box::new(tried)),
            has_list: false,
            has_asked: false,
            asks_at: Instant::now(),
            is_asking: false,
            asks_again: false,
        };
        // One for the question what the server has.
        let workers = (0..=MODEL_DOWNLOADS + MODEL_LOADS + MODEL_REMOVALS).map(|number| {
            let (workbench, tasks, results) = (self.workbench.clone(), tasks_of.clone(), results_to.clone());
            Task::new(&format!("pull-{number}"), move || work(&workbench, &tasks, &results))
        });
        let mut all = vec![Task::new("watch", || watch.run()), Task::new("puller", || reconciler.run())];
        all.extend(workers);
        all
    }
}

impl Task {
    fn new(name: &str, run: impl FnOnce() + Send + 'static) -> Self {
        Self { name: name.to_owned(), run: Box::new(run) }
    }

    /// Until its input ends.
    pub(crate) fn run(self) {
        (self.run)();
    }
}

/// Fetches a model once, for a program without the rest of the agent (`examples/pull.rs`): what has come, and what was to
/// come if that is known, in bytes, also after a failure. `local`: the folder that models of this machine may lie in; `end`:
/// closed to stop it.
///
/// # Errors
/// When the URI names no source, or not all of the model came.
pub fn pull(
    uri: &str,
    folder: &Path,
    local: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    end: Receiver<Infallible>,
) -> ((u64, u64), Result<(), Failure>) {
    let progress = Progress::default();
    let source = Source::of(uri, local, env).map_err(Failure::refused);
    let result = source.and_then(|source| source.fetch(folder, &progress, &Stop::new(end)));
    (progress.read(), result)
}
