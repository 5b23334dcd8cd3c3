//! All models, and what is done for each next: the reconciler's memory. Pure but for the time, which comes in.
//!
//! Not here: threads, disk and server ([`super::reconcile`], [`mod@super::work`]).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::list::{Spec, Version};
use super::plan::{Facts, Server, Step};
use super::source::{Progress, Stop};
use crate::config::{
    MODEL_DOWNLOADS, MODEL_LOADS, MODEL_REMOVALS, MODEL_RETRY_ASKED, MODEL_RETRY_FIRST, MODEL_RETRY_LONGEST,
    MODEL_UNLOADS, ModelUpdate,
};
use crate::ops::backoff::backoff;

/// The models that are wanted, there, or on their way out.
#[derive(Default)]
pub(super) struct Models {
    models: BTreeMap<String, Model>,
    update: ModelUpdate,
}

pub(super) struct Model {
    facts: Facts,
    /// As it is wanted.
    spec: Option<Spec>,
    running: Option<Running>,
    failure: Option<Failure>,
    /// What the server said it had when the agent started says something about this version.
    is_of_start: bool,
    /// When the server took it last.
    loaded_at: Option<Instant>,
    /// The server has called it ready.
    was_ready: bool,
    failures: u64,
}

/// A step under way.
struct Running {
    step: Step,
    progress: Arc<Progress>,
    /// Dropped to stop it.
    stop: Option<Sender<Infallible>>,
}

/// The last step failed.
pub(super) struct Failure {
    pub(super) reason: String,
    /// In a row.
    times: u32,
    pub(super) due: Instant,
}

/// A step to be done.
pub(super) struct Order {
    pub(super) name: String,
    pub(super) step: Step,
    pub(super) spec: Option<Spec>,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: Stop,
}

/// Why a step failed.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub(super) reason: String,
    /// The other side asked for so much time.
    pub(super) after: Option<Duration>,
    /// There is no room on the disk.
    pub(super) is_full: bool,
}

/// What a model is doing, for those who look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Downloading,
    Loading,
    Removing,
    Ready,
    Failed,
}

impl Models {
    /// Those that lie on the disk at the start. `is_new`: what the server calls ready may be another version.
    pub(super) fn found(
        on_disk: BTreeMap<String, Version>,
        is_new: impl Fn(&str) -> bool,
        update: ModelUpdate,
    ) -> Self {
        let makes_way = update == ModelUpdate::Replace;
        let model = |(name, version): (String, Version)| {
            let facts = Facts { wanted: None, on_disk: Some(version), server: Server::Unknown, makes_way };
            let is_of_start = !is_new(&name);
            (name, Model { is_of_start, ..Model::new(facts) })
        };
        Self { models: on_disk.into_iter().map(model).collect(), update }
    }

    /// There is a new list: what is not wanted any more is stopped.
    pub(super) fn want(&mut self, list: BTreeMap<String, Spec>) {
        for (name, model) in &mut self.models {
            if !list.contains_key(name) {
                model.want(None);
            }
        }
        for (name, spec) in list {
            let makes_way = self.update == ModelUpdate::Replace;
            let nothing = Facts { wanted: None, on_disk: None, server: Server::Without, makes_way };
            self.models.entry(name).or_insert_with(|| Model::new(nothing)).want(Some(spec));
        }
        self.forget();
    }

    /// The next step that can be done now. `has_asked`: the server was asked what it has, before which nothing is loaded, as it
    /// may be there, and nothing unloaded.
    pub(super) fn next(&mut self, has_asked: bool, now: Instant) -> Option<Order> {
        let has_thread = self.has_thread(has_asked);
        // Those that have failed come behind all others, so that none waits for one that fails again and again.
        let is_due =
            |model: &Model| model.running.is_none() && model.failure.as_ref().is_none_or(|failure| failure.due <= now);
        let name = |is_first: bool| {
            let mut due = self.models.iter().filter(|(_, model)| is_due(model) && has_thread(model));
            due.find(|(_, model)| model.failure.is_none() == is_first).map(|(name, _)| name.clone())
        };
        let name = name(true).or_else(|| name(false))?;
        let model = self.models.get_mut(&name)?;
        let step = model.facts.next()?;
        let progress = Arc::new(Progress::default());
        let (stop, over) = crossbeam_channel::bounded(0);
        model.running = Some(Running { step: step.clone(), progress: Arc::clone(&progress), stop: Some(stop) });
        Some(Order { name, step, spec: model.spec.clone(), progress, stop: Stop::new(over) })
    }

    /// When the next failed step is due; `None`: not before something else has happened.
    pub(super) fn next_due(&self, has_asked: bool) -> Option<Instant> {
        let has_thread = self.has_thread(has_asked);
        let failed = self.models.values().filter(|model| model.running.is_none() && model.failure.is_some());
        failed.filter(|model| has_thread(model)).filter_map(Model::due).min()
    }

    /// A step has ended. `chance`: from 0 up to 1. Whether it failed.
    pub(super) fn ended(&mut self, name: &str, result: Result<(), Failed>, now: Instant, chance: f64) -> bool {
        let Some(model) = self.models.get_mut(name) else { return false };
        let Some(Running { step, stop, .. }) = model.running.take() else { return false };
        // One that was stopped may be what is wanted once more.
        let was_stopped = stop.is_none();
        let has_failed = match result {
            Ok(()) => {
                model.done(&step, now);
                model.facts.makes_way &= !matches!(step, Step::Pull(_)) || self.update == ModelUpdate::Replace;
                false
            }
            Err(_) if was_stopped => false,
            Err(failed) => {
                // A version that there is no room beside makes way.
                model.facts.makes_way |=
                    failed.is_full && self.update == ModelUpdate::Auto && model.facts.on_disk.is_some();
                model.fail(failed, now, chance);
                if step == Step::Unload && model.failure.as_ref().is_some_and(|failure| failure.times >= MODEL_UNLOADS)
                {
                    model.done(&step, now);
                }
                true
            }
        };
        self.forget();
        has_failed
    }

    /// What the server calls ready, when it was asked.
    pub(super) fn are_ready(&mut self, ready: &BTreeSet<String>, asked: Instant) {
        for (name, model) in self.models.iter_mut().filter(|(_, model)| model.running.is_none()) {
            let is_ready = ready.contains(name);
            match &model.facts.server {
                Server::Unknown if is_ready && model.is_of_start => {
                    if let Some(version) = &model.facts.on_disk {
                        model.facts.server = Server::With(version.clone());
                        // It got there without the agent's call.
                        model.failure = None;
                    }
                }
                // It was started anew.
                Server::With(_) if !is_ready && model.was_ready && model.loaded_at.is_none_or(|at| at < asked) => {
                    model.facts.server = Server::Unknown;
                    model.is_of_start = false;
                }
                _ => {}
            }
            model.was_ready = is_ready;
        }
    }

    /// Every wanted model is ready or has failed once, and every other is gone or could not go.
    pub(super) fn were_tried(&self) -> bool {
        let is_done = |model: &Model| model.running.is_none() && model.facts.next().is_none();
        self.models.values().all(|model| model.failures > 0 || is_done(model))
    }

    /// Whether this version of a model is wanted, or on its way though it no longer is: then its thread has the folder.
    pub(super) fn keeps(&self, name: &str, version: &Version) -> bool {
        self.models.get(name).is_some_and(|model| {
            let is_coming = |running: &Running| matches!(&running.step, Step::Pull(coming) if coming == version);
            model.facts.wanted.as_ref() == Some(version) || model.running.as_ref().is_some_and(is_coming)
        })
    }

    /// All of them, for those who look.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.models.iter().map(|(name, model)| (&**name, model))
    }

    /// Whether there is a thread for a model's next step.
    fn has_thread(&self, has_asked: bool) -> impl Fn(&Model) -> bool + use<> {
        let beside = if has_asked { [MODEL_LOADS, MODEL_REMOVALS] } else { [0, 0] };
        let mut threads = [MODEL_DOWNLOADS, beside[0], beside[1]];
        for running in self.models.values().filter_map(|model| model.running.as_ref()) {
            let of = &mut threads[threads_of(&running.step)];
            *of = of.saturating_sub(1);
        }
        move |model| model.facts.next().is_some_and(|step| threads[threads_of(&step)] > 0)
    }

    fn forget(&mut self) {
        self.models.retain(|_, model| model.running.is_some() || !model.facts.is_forgotten());
    }
}

/// Which threads do a step.
fn threads_of(step: &Step) -> usize {
    match step {
        Step::Pull(_) => 0,
        Step::Load(_) => 1,
        Step::Unload | Step::Delete => 2,
    }
}

impl Model {
    fn new(facts: Facts) -> Self {
        Self {
            facts,
            spec: None,
            running: None,
            failure: None,
            is_of_start: false,
            loaded_at: None,
            was_ready: false,
            failures: 0,
        }
    }

    fn want(&mut self, spec: Option<Spec>) {
        let version = spec.as_ref().map(Spec::version);
        if version != self.facts.wanted {
            // Another version has not failed yet.
            self.failure = None;
        }
        self.facts.wanted = version;
        self.spec = spec;
        if let Some(running) = &mut self.running
            && !self.facts.allows(&running.step)
        {
            running.stop = None;
        }
    }

    fn done(&mut self, step: &Step, now: Instant) {
        self.failure = None;
        self.facts.done(step);
        match step {
            Step::Pull(_) => self.is_of_start = false,
            Step::Load(_) => {
                self.loaded_at = Some(now);
                self.was_ready = false;
            }
            Step::Unload | Step::Delete => {}
        }
    }

    fn fail(&mut self, Failed { reason, after, .. }: Failed, now: Instant, chance: f64) {
        let times = self.failure.as_ref().map_or(0, |failure| failure.times);
        let asked = after.unwrap_or_default().min(MODEL_RETRY_ASKED);
        let wait = backoff(MODEL_RETRY_FIRST, MODEL_RETRY_LONGEST, times, chance).max(asked);
        self.failures += 1;
        self.failure = Some(Failure { reason, times: times.saturating_add(1), due: now + wait });
    }

    pub(super) fn state(&self) -> State {
        match (&self.running, &self.failure) {
            (Some(running), _) => match running.step {
                Step::Pull(_) => State::Downloading,
                Step::Load(_) => State::Loading,
                Step::Unload | Step::Delete => State::Removing,
            },
            (None, Some(_)) => State::Failed,
            (None, None) if self.facts.next().is_none() => State::Ready,
            (None, None) => State::Pending,
        }
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// When it is tried again.
    fn due(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.due)
    }

    /// Steps that failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Of the download under way.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.running.as_ref().map(|running| Arc::clone(&running.progress))
    }

    /// Where it comes from, without what is secret in it.
    pub(super) fn uri(&self) -> Option<String> {
        self.spec.as_ref().map(|spec| shown(&spec.storage_uri))
    }
}

/// A URI without the query, which may be a signature, and without a user's name and password. What is before the @ of
/// abfs is a container.
fn shown(uri: &str) -> String {
    let uri = uri.split('?').next().unwrap_or_default();
    match uri.split_once("://") {
        Some((scheme, rest)) if scheme.to_ascii_lowercase().starts_with("http") => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        _ => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests;
