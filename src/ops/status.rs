//! The agent as data: `status.json`, which the status page draws (SPEC O2).
//!
//! Not here: who serves it (the proxy).

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value as Json, json};

use super::build::{NAME, VERSION, target};
use super::metrics::family::{Family, Kind, Sample, Source, Value};
use super::metrics::process::{Process, unix_seconds};

/// Everything there is to show.
pub(crate) struct Status {
    /// What does not change.
    pub(crate) config: Json,
    /// The parts that keep metrics, in the order in which theirs are shown.
    pub(crate) sources: Vec<Arc<dyn Source>>,
    pub(crate) process: Arc<Process>,
}

impl Status {
    /// All metrics as they are now.
    pub(crate) fn families(&self) -> Vec<Family> {
        self.sources.iter().flat_map(|source| source.families()).collect()
    }

    /// All of it as it is now.
    pub(crate) fn json(&self) -> String {
        let families: Vec<Json> = self.families().iter().map(family).collect();
        let state = if self.process.is_draining() { "draining" } else { "serving" };
        let mut status = json!({
            "name": NAME,
            "version": VERSION,
            "target": target(),
            "host": rustix::system::uname().nodename().to_string_lossy(),
            "time": unix_seconds(SystemTime::now()),
            "started": self.process.started(),
            "state": state,
            "config": self.config,
            "families": families,
        });
        for (name, details) in self.sources.iter().filter_map(|source| source.details()) {
            status[name] = details;
        }
        status.to_string()
    }
}

fn family(Family { name, help, kind, samples }: &Family) -> Json {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    };
    let samples: Vec<Json> = samples.iter().map(sample).collect();
    json!({ "name": name, "help": help, "type": kind, "samples": samples })
}

/// Counts of a histogram are those of each bucket by itself.
fn sample(Sample { labels, value }: &Sample) -> Json {
    let labels: Map<String, Json> = labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    match value {
        Value::Whole(value) => json!({ "labels": labels, "value": value }),
        Value::Real(value) => json!({ "labels": labels, "value": value }),
        Value::Distribution(reading) => json!({
            "labels": labels,
            "bounds": reading.bounds,
            "counts": reading.counts,
            "sum": reading.sum,
            "count": reading.count(),
        }),
    }
}
