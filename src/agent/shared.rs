//! What several threads hold together: loads, counters, the log's quiet times; and the agent as data.
//!
//! Not here: what of it is whose ([`super`]).

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value as Json, json};

use crate::batcher::{self, Batcher};
use crate::config::{BATCH_BODY_BYTES, BatchPolicy, Config, LogMode, LoggerConfig, WhenFull};
use crate::logger::Logger;
use crate::ops::metrics::family::Source;
use crate::ops::metrics::process::Process;
use crate::ops::notice::Notices;
use crate::ops::status::Status;
use crate::proxy::load::Loads;
use crate::proxy::metrics::{ProxyMetrics, name_of_kind};
use crate::puller::Puller;

pub(super) struct Shared {
    pub(super) loads: Arc<Loads>,
    pub(super) proxy: Arc<ProxyMetrics>,
    pub(super) notices: Arc<Notices>,
    /// What the status page shows.
    pub(super) status: Arc<Status>,
}

/// The parts that are there only when they were turned on.
#[derive(Clone, Copy)]
pub(super) struct Optional<'p> {
    pub(super) batcher: Option<&'p (batcher::Handle, Batcher)>,
    pub(super) logger: Option<&'p Logger>,
    pub(super) puller: Option<&'p Puller>,
}

impl Shared {
    /// `workers`: how many, and whether each stays on one processor.
    pub(super) fn new(
        config: &Config,
        workers: (usize, bool),
        max_connections: usize,
        parts: Optional<'_>,
        epoch: Instant,
    ) -> Self {
        let loads = Arc::new(Loads::new(workers.0, max_connections));
        let proxy = Arc::new(ProxyMetrics::new(workers.0, Arc::clone(&loads)));
        let process = Arc::new(Process::new());
        let mut sources: Vec<Arc<dyn Source>> = vec![Arc::<ProxyMetrics>::clone(&proxy)];
        sources.extend(parts.batcher.map(|(handle, _)| handle.metrics() as Arc<dyn Source>));
        sources.extend(parts.logger.into_iter().flat_map(Logger::metrics));
        sources.extend(parts.puller.map(Puller::views));
        sources.push(Arc::<Process>::clone(&process));
        let config = resolved(config, workers, max_connections, parts);
        let status = Arc::new(Status { config, sources, process });
        Self { loads, proxy, notices: Arc::new(Notices::new(epoch)), status }
    }

    /// At the end, so that no failure goes without a trace.
    pub(super) fn say_what_was_left_out(&self) {
        for (kind, lines) in self.notices.left_out() {
            log::warn!("{}: {lines} more like it since the last such line", name_of_kind(kind));
        }
    }
}

/// The configuration with what the agent has chosen itself.
fn resolved(config: &Config, (workers, pinned): (usize, bool), max_connections: usize, parts: Optional<'_>) -> Json {
    let batcher = config.batcher.as_ref().zip(parts.batcher).map(|(config, (_, batcher))| {
        json!({
            "policy": match config.policy {
                BatchPolicy::Window => "window",
                BatchPolicy::Eager => "eager",
                BatchPolicy::Adaptive => "adaptive",
            },
            "max_batch_size": config.max_batch_size,
            "max_latency_ms": config.max_latency.as_secs_f64() * 1e3,
            "concurrency": batcher.concurrency(),
            "queue": config.queue,
            "held_bytes_limit": BATCH_BODY_BYTES,
        })
    });
    json!({
        "port": config.port,
        "component_port": config.component_port,
        "metrics_port": config.metrics_port,
        "admin_port": config.admin_port,
        "workers": workers,
        "max_connections": max_connections,
        "pinned": pinned,
        "batcher": batcher,
        "puller": config.puller.as_ref().map(|puller| {
            json!({ "config_dir": puller.config_dir, "model_dir": puller.model_dir })
        }),
        "logger": config.logger.as_ref().zip(parts.logger).map(|(config, logger)| logger_json(config, logger)),
    })
}

fn logger_json(config: &LoggerConfig, logger: &Logger) -> Json {
    json!({
        "url": logger.destination(),
        "mode": match config.mode {
            LogMode::All => "all",
            LogMode::Request => "request",
            LogMode::Response => "response",
        },
        "threads": config.workers,
        "queue_limit_bytes": config.queue_bytes,
        "when_full": match config.when_full {
            WhenFull::Drop => "drop",
            WhenFull::Block => "block",
        },
        "sample": config.sample,
        "retry_for_seconds": config.retry_for.map(|most| most.as_secs_f64()),
        "spool_dir": config.spool_dir,
        "spool_limit_bytes": config.spool_dir.as_ref().map(|_| config.spool_bytes),
        "all_responses": config.all_responses,
    })
}
