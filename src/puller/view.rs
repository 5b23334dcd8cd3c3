//! What the models are doing, for metrics and the status page (SPEC M5, O1).
//!
//! Who looks makes a picture of them, while the reconciler waits for as long as that takes: ten thousand take milliseconds,
//! where a picture after each of its steps took most of its time.
//!
//! Not here: what follows from it ([`super::reconcile`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::models::{Model, Models, State};
use super::source::Progress;
use crate::ops::metrics::family::{Family, Kind, Sample, Source, Value};

/// The models, which the reconciler changes and others look at.
#[derive(Default)]
pub(crate) struct Views {
    models: Mutex<Models>,
    list_failure: Mutex<Option<String>>,
}

/// One model.
struct View {
    name: String,
    uri: Option<String>,
    state: State,
    reason: Option<String>,
    next_try: Option<Instant>,
    failures: u64,
    progress: Option<Arc<Progress>>,
}

const STATES: [(State, &str); 6] = [
    (State::Pending, "pending"),
    (State::Downloading, "downloading"),
    (State::Loading, "loading"),
    (State::Removing, "removing"),
    (State::Ready, "ready"),
    (State::Failed, "failed"),
];

impl Views {
    /// All of them; nobody else sees them meanwhile.
    pub(super) fn models(&self) -> MutexGuard<'_, Models> {
        // Whoever panicked with them has left them as they were between two steps.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that there are at the start.
    pub(super) fn open(&self, models: Models) {
        *self.models() = models;
    }

    /// Why the list, or an entry of it, is not followed; `None`: it is.
    pub(super) fn list_failed(&self, why: Option<String>) {
        *self.list_failure.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn list_failure(&self) -> Option<String> {
        self.list_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn all(&self) -> Vec<View> {
        self.models().iter().map(|(name, model)| View::of(name, model)).collect()
    }
}

impl View {
    fn of(name: &str, model: &Model) -> Self {
        Self {
            name: name.to_owned(),
            uri: model.uri(),
            state: model.state(),
            reason: model.failure().map(|failure| failure.reason.clone()),
            next_try: model.failure().map(|failure| failure.due),
            failures: model.failures(),
            progress: model.progress(),
        }
    }

    fn state(&self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self.state).map_or("", |(_, name)| name)
    }

    fn bytes(&self) -> Option<(u64, u64)> {
        self.progress.as_ref().filter(|_| self.state == State::Downloading).map(|progress| progress.read())
    }

    fn json(&self) -> Json {
        let (done, total) = self.bytes().unzip();
        json!({
            "name": self.name,
            "uri": self.uri,
            "state": self.state(),
            "reason": self.reason,
            "next_try_seconds": self.next_try.map(|due| due.saturating_duration_since(Instant::now()).as_secs_f64()),
            "failures": self.failures,
            "downloaded_bytes": done,
            "size_bytes": total.filter(|total| *total > 0),
        })
    }

    fn sample(&self, value: u64) -> Sample {
        Sample { labels: vec![("model", self.name.clone())], value: Value::Whole(value) }
    }
}

impl Source for Views {
    fn families(&self) -> Vec<Family> {
        let models = self.all();
        let count = |wanted: State| models.iter().filter(|model| model.state == wanted).count() as u64;
        let counts = STATES.into_iter().map(|(state, name)| Sample {
            labels: vec![("state", name.to_owned())],
            value: Value::Whole(count(state)),
        });
        let of_each = |name, help, kind, value: &dyn Fn(&View) -> Option<u64>| {
            let samples = models.iter().filter_map(|model| Some(model.sample(value(model)?))).collect();
            Family { name, help, kind, samples }
        };
        vec![
            Family {
                name: "kserve_agent_models",
                help: "Models by what they are doing.",
                kind: Kind::Gauge,
                samples: counts.collect(),
            },
            of_each(
                "kserve_agent_model_ready",
                "Whether the model server has the model in the version of the list.",
                Kind::Gauge,
                &|model| Some(u64::from(model.state == State::Ready)),
            ),
            of_each("kserve_agent_model_failures_total", "Steps for a model that failed.", Kind::Counter, &|model| {
                Some(model.failures)
            }),
            of_each(
                "kserve_agent_model_downloaded_bytes",
                "Bytes of a model's download that are there.",
                Kind::Gauge,
                &|model| model.bytes().map(|(done, _)| done),
            ),
            of_each("kserve_agent_model_size_bytes", "Bytes that a model's download has.", Kind::Gauge, &|model| {
                model.bytes().map(|(_, total)| total).filter(|total| *total > 0)
            }),
            Family::gauge(
                "kserve_agent_models_list_failed",
                "Whether models.json, or an entry of it, can't be followed.",
                u64::from(self.list_failure().is_some()),
            ),
        ]
    }

    fn details(&self) -> Option<(&'static str, Json)> {
        let models: Vec<Json> = self.all().iter().map(View::json).collect();
        Some(("models", json!({ "models": models, "list_failure": self.list_failure() })))
    }
}
