//! What the models are doing, for metrics and the status page (SPEC M5, O1).
//!
//! The reconciler makes a picture after each of its steps; who looks takes the last one, and waits for nobody.
//!
//! Not here: what follows from it ([`super::reconcile`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::models::{Model, Models, State};
use super::source::Progress;
use crate::ops::metrics::family::{Family, Kind, Sample, Source, Value};

/// The last picture.
#[derive(Default)]
pub(crate) struct Views {
    picture: Mutex<Arc<Picture>>,
}

#[derive(Default, Clone)]
struct Picture {
    models: Vec<View>,
    list_failure: Option<String>,
}

/// One model.
#[derive(Clone)]
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
    pub(super) fn show(&self, models: &Models) {
        let models = models.iter().map(|(name, model)| View::of(name, model)).collect();
        let mut picture = self.lock();
        let list_failure = picture.list_failure.clone();
        *picture = Arc::new(Picture { models, list_failure });
    }

    /// Why the list, or an entry of it, is not followed; `None`: it is.
    pub(super) fn list_failed(&self, why: Option<String>) {
        let mut picture = self.lock();
        *picture = Arc::new(Picture { list_failure: why, ..Picture::clone(&picture) });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Picture>> {
        // Held for no longer than it takes to put a pointer in its place.
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.lock())
    }
}

impl View {
    fn of(name: &str, model: &Model) -> Self {
        Self {
            name: name.to_owned(),
            uri: model.uri().map(str::to_owned),
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
        let picture = self.picture();
        let models = &picture.models;
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
                u64::from(picture.list_failure.is_some()),
            ),
        ]
    }

    fn details(&self) -> Option<(&'static str, Json)> {
        let picture = self.picture();
        let models: Vec<Json> = picture.models.iter().map(View::json).collect();
        Some(("models", json!({ "models": models, "list_failure": picture.list_failure })))
    }
}
