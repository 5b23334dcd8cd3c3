//! A forwarder: takes batches, calls the model server for each, and gives every member its answer (SPEC B7–B9).
//!
//! ```text
//!   batch ─▶ one body ─▶ call ─▶ 2xx ─▶ each member its share
//!                          ├──▶ 2xx that can't be divided, of several ─▶ asked again one by one
//!                          ├──▶ 400 404 413 422 500 507, of several ─▶ asked again in halves
//!                          ├──▶ other statuses ─▶ the response for each
//!                          └──▶ none ─▶ 502, 504 for each
//! ```
//!
//! Architecture Invariant: a member leaves [`Pending`] with its answer, and what is left when that is dropped, by a panic
//! or a mistake, is answered too: every accepted request gets exactly one answer.
//!
//! Not here: which requests share a batch ([`super::queue`]), and the client ([`super::call`]).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::answer::Answer;
use super::batch::{Batch, Outcome, Part, Receipt, Undivided};
use super::bell::Bell;
use super::call::{Call, Client, Reply, batch_id};
use super::divide::{divide, is_divisible, merged};
use super::fields;
use super::join::Joined;
use super::metrics::BatcherMetrics;
use super::outbox::Outbox;
use super::request::Request;
use crate::config::UPSTREAM_IDLE_TIMEOUT;
use crate::fault::Fault;
use crate::ops::server::ModelServer;

/// What the forwarder threads share.
pub(super) struct Forwarder {
    pub(super) server: ModelServer,
    /// Longest wait for the first byte of a response.
    pub(super) timeout: Option<Duration>,
    /// To the batcher, which counts what runs. There is room for one of each thread.
    pub(super) returns: Sender<Return>,
    pub(super) bell: Arc<Bell>,
    pub(super) metrics: Arc<BatcherMetrics>,
    pub(super) outbox: Outbox,
}

/// A batch is done.
#[derive(Debug)]
pub(super) struct Return {
    /// Which forwarder has nothing to do again.
    pub(super) forwarder: usize,
    pub(super) receipt: Receipt,
    pub(super) at: Instant,
    /// What has become of it.
    pub(super) outcome: Outcome<Arc<Request>>,
}

/// Requests without an answer so far, in order. Dropping it answers them.
pub(super) struct Pending {
    members: VecDeque<Arc<Request>>,
    outbox: Outbox,
}

impl Forwarder {
    /// Serves until the batcher has ended. `number`: this thread's. It keeps one connection to the server, and closes it
    /// when it has had nothing to do for [`UPSTREAM_IDLE_TIMEOUT`] (SPEC P9).
    pub(super) fn run(&self, number: usize, jobs: &Receiver<Batch<Arc<Request>>>) {
        let mut client: Option<Client> = None;
        let mut closes_at = Instant::now();
        loop {
            match jobs.try_recv() {
                Ok(batch) => {
                    let client = client.get_or_insert_with(|| {
                        let answers = Arc::clone(self.metrics.answers());
                        Client::new(self.server.clone(), self.timeout, answers, self.metrics.of_forwarder(number))
                    });
                    self.complete(number, batch, client);
                    closes_at = Instant::now() + UPSTREAM_IDLE_TIMEOUT;
                }
                Err(TryRecvError::Empty) if client.is_none() => std::thread::park(),
                Err(TryRecvError::Empty) => match closes_at.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => client = None,
                    left => std::thread::park_timeout(left),
                },
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn complete(&self, number: usize, batch: Batch<Arc<Request>>, client: &Client) {
        let receipt = batch.receipt;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve(batch, client))).unwrap_or_else(|_| {
            log::error!("a panic has cost one batch");
            Outcome::Answered { is_success: false, is_divisible: true }
        });
        // Not when the batcher takes it back, who sleeps on when nothing waits.
        client.metrics.returned.count();
        let is_undivided = matches!(outcome, Outcome::Undivided { .. });
        // The batcher is gone only when the process is about to be.
        let _ = self.returns.send(Return { forwarder: number, receipt, at: Instant::now(), outcome });
        if is_undivided {
            self.bell.ring();
        } else {
            self.bell.ring_for_return();
        }
    }

    /// Asks the server for a batch and answers its members, unless what it says can't be divided among them.
    fn serve(&self, batch: Batch<Arc<Request>>, client: &Client) -> Outcome<Arc<Request>> {
        if let Some(part) = batch.part {
            let is_success = batch.members.iter().all(|member| self.part(member, &part, client));
            return Outcome::Answered { is_success, is_divisible: true };
        }
        let mut pending = Pending::new(batch.members, &self.outbox);
        // Nobody waits for the answer of one that has left.
        pending.members.retain(|member| !member.has_left() || batch.receipt.trial.is_none());
        let members = pending.members.make_contiguous();
        if members.is_empty() {
            return Outcome::Answered { is_success: false, is_divisible: true };
        }
        match self.answers_to(members, client) {
            Ok(answers) => {
                let is_success = answers.iter().all(Answer::is_success);
                let is_divisible = match (&members[..], &answers[..]) {
                    ([only], [Answer::Whole(response)]) if is_success && batch.receipt.trial.is_some() => {
                        is_divisible(only, response)
                    }
                    _ => true,
                };
                pending.answer(answers);
                Outcome::Answered { is_success, is_divisible }
            }
            Err(why) => {
                client.metrics.retries.count();
                let members = std::mem::take(&mut pending.members).into_iter();
                let members = members.map(|member| (Arc::clone(&member), member.payload.instances())).collect();
                Outcome::Undivided { members, why }
            }
        }
    }

    /// Calls the server once for all.
    ///
    /// # Errors
    /// When they are to be asked again, fewer at a time.
    fn answers_to(&self, members: &[Arc<Request>], client: &Client) -> Result<Vec<Answer>, Undivided> {
        let [first, others @ ..] = members else { return Ok(Vec::new()) };
        let other_fields: Vec<&[u8]> = others.iter().map(|member| member.head.fields()).collect();
        let lacks_fields = other_fields.iter().any(|fields| *fields != first.head.fields());
        let batch_id = batch_id();
        let call = Call {
            batch_id,
            target: first.head.target(),
            fields: &fields::common(first.head.fields(), &other_fields),
            body: &merged(members, &batch_id),
            is_shared: members.len() > 1,
        };
        match post(client, members, &call) {
            Ok(Reply::Streamed(_, why)) if members.len() > 1 => Err(why),
            Ok(Reply::Streamed(streamed, _)) => Ok(vec![Answer::Streamed(streamed)]),
            Ok(Reply::Whole(response)) => divide(members, response, lacks_fields),
            Err(fault) => Ok(members.iter().map(|_| Answer::Failed(fault)).collect()),
        }
    }

    /// Calls the server for a part of a request that is too large for one batch.
    fn part(&self, request: &Arc<Request>, part: &Part, client: &Client) -> bool {
        let joint = &request.joint;
        if joint.is_over() || request.has_left() {
            return false;
        }
        let result = catch_unwind(AssertUnwindSafe(|| {
            let call = Call {
                target: request.head.target(),
                fields: &fields::common(request.head.fields(), &[]),
                body: &joint.body(request, part),
                batch_id: batch_id(),
                is_shared: false,
            };
            post(client, slice::from_ref(request), &call)
        }));
        let outcome = result.unwrap_or(Err(Fault::Internal));
        let is_success = matches!(&outcome, Ok(Reply::Whole(response)) if response.is_success());
        match joint.add(request, part, outcome) {
            Some(Joined::Answer(answer)) => self.outbox.send([(request.ticket, answer)]),
            Some(Joined::AskWhole) => return self.whole(request, client),
            None => {}
        }
        is_success
    }

    /// Asks the server for a request whose parts make no answer.
    fn whole(&self, request: &Arc<Request>, client: &Client) -> bool {
        client.metrics.retries.count();
        let mut pending = Pending::new(vec![Arc::clone(request)], &self.outbox);
        let Ok(answers) = self.answers_to(slice::from_ref(request), client) else {
            debug_assert!(false, "an answer to one request is never divided");
            return false;
        };
        let is_success = answers.iter().all(Answer::is_success);
        pending.answer(answers);
        is_success
    }
}

impl Pending {
    pub(super) fn new(members: Vec<Arc<Request>>, outbox: &Outbox) -> Self {
        Self { members: members.into(), outbox: outbox.clone() }
    }

    /// Answers all of them alike.
    pub(super) fn fail(mut self, fault: Fault) {
        let answers = self.members.iter().map(|_| Answer::Failed(fault)).collect();
        self.answer(answers);
    }

    /// Answers them, in order.
    fn answer(&mut self, answers: Vec<Answer>) {
        debug_assert_eq!(answers.len(), self.members.len(), "each member has an answer");
        let tickets: Vec<_> = self.members.drain(..answers.len()).map(|member| member.ticket).collect();
        self.outbox.send(tickets.into_iter().zip(answers));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.members.is_empty() {
            let answers = self.members.iter().map(|_| Answer::Failed(Fault::Internal)).collect();
            self.answer(answers);
        }
    }
}

/// Calls the server for these, as long as one of their clients waits.
fn post(client: &Client, members: &[Arc<Request>], call: &Call<'_>) -> Result<Reply, Fault> {
    let under_way = client.line.begin();
    members.iter().for_each(|member| member.await_call(&under_way));
    let result = if under_way.is_wanted() { client.post(call) } else { Err(Fault::Internal) };
    under_way.end();
    members.iter().for_each(|member| member.call_ended(&under_way));
    result
}
