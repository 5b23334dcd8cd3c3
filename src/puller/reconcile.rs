//! The reconciler: one thread that knows all models, gives their steps to threads, and waits for changes, results and due
//! times in one place.
//!
//! Not here: what is next for a model ([`super::models`]), how it is done ([`mod@super::work`]).

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, never, select};

use super::disk::Disk;
use super::list::{List, Version};
use super::models::{Failed, Models, Order};
use super::plan::Step;
use super::view::Views;
use super::watch::Seen;
use super::work::Workbench;
use crate::config::{MODEL_RETRY_FIRST, MODEL_RETRY_LONGEST, MODELS_CHECK_INTERVAL, ModelUpdate};
use crate::ops::backoff::backoff;
use crate::ops::random;

/// The thread.
pub(super) struct Reconciler {
    pub(super) changes: Receiver<Seen>,
    /// To the threads that do steps.
    pub(super) tasks: Sender<Task>,
    pub(super) results: Receiver<Outcome>,
    pub(super) views: Arc<Views>,
    pub(super) disk: Disk,
    pub(super) update: ModelUpdate,
    /// Called once, when every model of the first list was tried (SPEC M3).
    pub(super) tried: Option<Box<dyn FnOnce() + Send>>,
    /// A list has come.
    pub(super) has_list: bool,
    /// The server was asked what it has: what it has already is not loaded again. Nothing but downloads begins before.
    pub(super) has_asked: bool,
    pub(super) asks_at: Instant,
    pub(super) is_asking: bool,
    /// It has loaded a model since it was asked.
    pub(super) asks_again: bool,
}

/// What a thread does.
pub(super) enum Task {
    Step(Order),
    /// Ask the server which models are ready.
    Ask,
}

/// What came of it.
pub(super) enum Outcome {
    Step { name: String, step: Step, result: Result<(), Failed> },
    Ready { asked: Instant, ready: Option<BTreeSet<String>> },
}

/// A thread that does steps.
pub(super) fn work(workbench: &Workbench, tasks: &Receiver<Task>, results: &Sender<Outcome>) {
    for task in tasks {
        let outcome = match task {
            Task::Step(order) => {
                // A panic in there must not cost more than the step.
                let result = catch_unwind(AssertUnwindSafe(|| workbench.carry_out(&order)));
                let result = result.unwrap_or_else(|_| Err(Failed::of("a bug of the agent".to_owned())));
                Outcome::Step { name: order.name, step: order.step, result }
            }
            Task::Ask => Outcome::Ready { asked: Instant::now(), ready: workbench.repository.ready() },
        };
        if results.send(outcome).is_err() {
            return;
        }
    }
}

impl Reconciler {
    /// Reconciles until nobody watches any more.
    pub(super) fn run(mut self) {
        self.open();
        loop {
            self.order();
            self.tell_when_tried();
            if !self.wait() {
                return;
            }
        }
    }

    /// Looks at what lies on the disk; where it can't be used it is said once and tried again, and nobody waits (SPEC F6).
    fn open(&mut self) {
        let mut times = 0;
        let found = loop {
            let why = match self.disk.survey() {
                Ok(found) => break found,
                Err(error) => format!("--model-dir: {error}"),
            };
            if times == 0 {
                log::error!("{why}; no model is pulled, it is tried again");
            }
            self.views.list_failed(Some(why));
            self.tried.take().into_iter().for_each(|tried| tried());
            thread::sleep(backoff(MODEL_RETRY_FIRST, MODEL_RETRY_LONGEST, times, random::share()));
            times += 1;
        };
        if times > 0 {
            log::info!("--model-dir: it can be used now");
            self.views.list_failed(None);
        }
        let is_new = |name: &str| self.disk.is_new(name);
        self.views.open(Models::found(found, is_new, self.update));
    }

    /// Gives out what can be done.
    fn order(&mut self) {
        let now = Instant::now();
        if !self.is_asking && self.asks_at <= now && self.has_list {
            self.is_asking = self.tasks.send(Task::Ask).is_ok();
        }
        while let Some(order) = self.next_order(now) {
            if self.tasks.send(Task::Step(order)).is_err() {
                return;
            }
        }
    }

    fn next_order(&self, now: Instant) -> Option<Order> {
        self.views.models().next(self.has_asked, now)
    }

    fn tell_when_tried(&mut self) {
        if self.has_list
            && self.has_asked
            && let Some(tried) = self.tried.take_if(|_| self.views.models().were_tried())
        {
            tried();
        }
    }

    fn wait(&mut self) -> bool {
        let asks_at = Some(self.asks_at).filter(|_| self.has_list && !self.is_asking);
        let due = self.views.models().next_due(self.has_asked).into_iter().chain(asks_at).min();
        let due = due.map_or_else(never, crossbeam_channel::at);
        select! {
            recv(self.changes) -> seen => match seen {
                Ok(seen) => self.see(seen),
                Err(_) => return false,
            },
            recv(self.results) -> outcome => match outcome {
                Ok(outcome) => self.take(outcome),
                Err(_) => return false,
            },
            recv(due) -> _ => {}
        }
        true
    }

    /// The list has changed, or can't be read: then the last good one holds.
    fn see(&mut self, seen: Seen) {
        let list = match seen {
            Seen::Text(text) => List::parse(&text).map_err(|why| format!("models.json: {why}")),
            Seen::Nothing(why) => Err(why),
        };
        let List { models, refused } = match list {
            Ok(list) => list,
            Err(why) => {
                log::error!("--config-dir: {why}; the models stay as they are");
                self.views.list_failed(Some(why));
                // Nobody waits for a list that does not come.
                if let Some(tried) = self.tried.take_if(|_| !self.has_list) {
                    tried();
                }
                return;
            }
        };
        refused.iter().for_each(|why| log::error!("--config-dir: models.json: {why}"));
        log::info!("models.json: {} models", models.len());
        self.views.list_failed(refused.into_iter().next());
        self.views.models().want(models);
        self.has_list = true;
        self.sweep();
    }

    /// Deletes what downloads that nobody wants any more have left.
    fn sweep(&self) {
        let keeps = |name: &str, version: &Version| self.views.models().keeps(name, version);
        if let Err(error) = self.disk.sweep(keeps) {
            log::warn!("--model-dir: what is left of a download can't be deleted: {error}");
        }
    }

    fn take(&mut self, outcome: Outcome) {
        let now = Instant::now();
        match outcome {
            Outcome::Step { name, step, result } => {
                let reason = result.as_ref().err().map(|failed| failed.reason.clone());
                if matches!((&step, &reason), (Step::Load(_), None)) {
                    // Only a server that has called a model ready is known to have lost it when it no longer does; one that
                    // falls over its first request must not be asked too late.
                    self.asks_at = now;
                    self.asks_again = self.is_asking;
                }
                let has_failed = self.views.models().ended(&name, result, now, random::share());
                match reason {
                    None => log::info!("model {name}: {step}"),
                    Some(reason) if has_failed => log::warn!("model {name}: not {step}: {reason}; it is tried again"),
                    Some(_) => {
                        log::info!("model {name}: not {step} any more, as the list has changed");
                        self.sweep();
                    }
                }
            }
            Outcome::Ready { asked, ready } => {
                self.is_asking = false;
                self.has_asked = true;
                self.asks_at = if std::mem::take(&mut self.asks_again) { now } else { now + MODELS_CHECK_INTERVAL };
                if let Some(ready) = ready {
                    self.views.models().are_ready(&ready, asked);
                }
            }
        }
    }
}
