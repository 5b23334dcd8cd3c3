//! A forwarder: takes batches, calls the model server for each, and gives every member its answer (SPEC B7–B9).
//!
//! ```text
//!   batch ─▶ one body ─▶ call ─▶ 2xx ─▶ each member its share
//!                          ├──▶ 400 404 413 422 500 of several ─▶ each member alone
//!                          ├──▶ other statuses ─▶ the response for each
//!                          └──▶ none ─▶ 502, 504 for each
//! ```
//!
//! Architecture Invariant: a member leaves [`Pending`] with its answer, and what is left when that is dropped, by a panic
//! or a mistake, is answered too: every accepted request gets exactly one answer.
//!
//! Not here: which requests share a batch ([`super::queue`]), and the client ([`super::call`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::Outbox;
use super::answer::{Answer, Failure, Response};
use super::batch::{Batch, Part, Receipt};
use super::bell::Bell;
use super::call::{Call, Client, batch_id};
use super::fields;
use super::metrics::BatcherMetrics;
use super::request::{Payload, Request};
use super::v1;
use super::v2::{self, NewId, Tensors};
use crate::config::UPSTREAM_IDLE_TIMEOUT;

/// What a batch of several is answered when one of its requests may be to blame (SPEC B8).
const ASKED_AGAIN_ALONE: [u16; 5] = [400, 404, 413, 422, 500];

/// What the forwarder threads share.
pub(super) struct Forwarder {
    pub(super) server: SocketAddr,
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
    /// The server has answered it well, so its time says something about the server.
    pub(super) is_success: bool,
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
                        Client::new(self.server, self.timeout, self.metrics.of_forwarder(number))
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
        let is_success = catch_unwind(AssertUnwindSafe(|| self.serve(batch, client))).unwrap_or_else(|_| {
            log::error!("a panic has cost one batch");
            false
        });
        // Not when the batcher takes it back, who sleeps on when nothing waits.
        client.metrics.returned.count();
        // The batcher is gone only when the process is about to be.
        let _ = self.returns.send(Return { forwarder: number, receipt, at: Instant::now(), is_success });
        self.bell.ring_for_return();
    }

    /// Answers a batch that can't be sent.
    pub(super) fn refuse(&self, batch: Batch<Arc<Request>>, failure: &Failure) {
        let Some(part) = batch.part else {
            return Pending::new(batch.members, &self.outbox).fail(failure);
        };
        for member in batch.members {
            self.close(&member, &part, Err(failure.clone()));
        }
    }

    /// Whether the server has answered all of it well at once.
    fn serve(&self, batch: Batch<Arc<Request>>, client: &Client) -> bool {
        if let Some(part) = batch.part {
            return batch.members.iter().all(|member| self.part(member, &part, client));
        }
        let mut pending = Pending::new(batch.members, &self.outbox);
        let members = pending.members.make_contiguous();
        if let Some(answers) = answers_to(members, client) {
            let is_success = answers.iter().all(Answer::is_success);
            answers.into_iter().for_each(|answer| pending.answer(answer));
            return is_success;
        }
        client.metrics.retries.count();
        while let Some(member) = pending.members.front() {
            // Nobody waits for the answer of one that has left.
            let is_wanted = !member.has_left();
            let answers = is_wanted.then(|| answers_to(slice::from_ref(member), client)).flatten();
            let answer = answers.and_then(|mut answers| answers.pop());
            pending.answer(answer.unwrap_or(Answer::Failed(Failure::Internal)));
        }
        false
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
        let is_success = matches!(&result, Ok(Ok(response)) if response.is_success());
        self.close(request, part, result.unwrap_or(Err(Failure::Internal)));
        is_success
    }

    /// A part has its response; the request is answered if that decides it.
    fn close(&self, request: &Request, part: &Part, response: Result<Response, Failure>) {
        if let Some(answer) = request.joint.add(request, part, response) {
            self.outbox.send(request.ticket, answer);
        }
    }
}

impl Pending {
    pub(super) fn new(members: Vec<Arc<Request>>, outbox: &Outbox) -> Self {
        Self { members: members.into(), outbox: outbox.clone() }
    }

    /// Answers all of them alike.
    pub(super) fn fail(mut self, failure: &Failure) {
        while !self.members.is_empty() {
            self.answer(Answer::Failed(failure.clone()));
        }
    }

    /// Answers the first.
    fn answer(&mut self, answer: Answer) {
        if let Some(member) = self.members.pop_front() {
            self.outbox.send(member.ticket, answer);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        while !self.members.is_empty() {
            self.answer(Answer::Failed(Failure::Internal));
        }
    }
}

/// Calls the server once for all; `None`: they are to be asked one by one.
fn answers_to(members: &[Arc<Request>], client: &Client) -> Option<Vec<Answer>> {
    let [first, others @ ..] = members else { return None };
    let other_fields: Vec<&[u8]> = others.iter().map(|member| member.head.fields()).collect();
    let batch_id = batch_id();
    let call = Call {
        batch_id,
        target: first.head.target(),
        fields: &fields::common(first.head.fields(), &other_fields),
        body: &merged(members, &batch_id),
        is_shared: members.len() > 1,
    };
    match post(client, members, &call) {
        Ok(response) if response.is_success() => Some(shares(members, response.into())),
        Ok(response) if members.len() > 1 && ASKED_AGAIN_ALONE.contains(&response.status) => None,
        Ok(response) => {
            let response = Arc::new(response);
            Some(members.iter().map(|_| Answer::Whole(Arc::clone(&response))).collect())
        }
        Err(failure) => Some(members.iter().map(|_| Answer::Failed(failure.clone())).collect()),
    }
}

/// Calls the server for these, as long as one of their clients waits.
fn post(client: &Client, members: &[Arc<Request>], call: &Call<'_>) -> Result<Response, Failure> {
    let under_way = client.line.begin();
    members.iter().for_each(|member| member.await_call(&under_way));
    let result = if under_way.is_wanted() { client.post(call) } else { Err(Failure::Internal) };
    under_way.end();
    members.iter().for_each(|member| member.call_ended(&under_way));
    result
}

/// The body of the one call for all; a single member's is its own, byte for byte.
fn merged(members: &[Arc<Request>], batch_id: &[u8]) -> Vec<u8> {
    if let [only] = members {
        return only.body.clone();
    }
    // INVARIANT: the key of a lane holds the path, so all have the same protocol.
    match &members[0].payload {
        Payload::V1(_) => v1::merge(&of_v1(members)),
        Payload::V2(_) => {
            // Where ids are used at all the batch has one too: the KServe SDK's servers can't answer without it.
            let bodies = of_v2(members);
            let has_id = bodies.iter().any(|(body, tensors)| tensors.id(body).is_some());
            let id = [b"\"", batch_id, b"\""].concat();
            v2::merge(&bodies, if has_id { NewId::This(&id) } else { NewId::AsSent })
        }
    }
}

fn of_v1(members: &[Arc<Request>]) -> Vec<(&[u8], &v1::List)> {
    let bodies = members.iter().filter_map(|member| match &member.payload {
        Payload::V1(list) => Some((&member.body[..], list)),
        Payload::V2(_) => None,
    });
    bodies.collect()
}

fn of_v2(members: &[Arc<Request>]) -> Vec<(&[u8], &Tensors)> {
    let bodies = members.iter().filter_map(|member| match &member.payload {
        Payload::V2(tensors) => Some((&member.body[..], tensors)),
        Payload::V1(_) => None,
    });
    bodies.collect()
}

/// Each member's share of a successful response.
fn shares(members: &[Arc<Request>], response: Arc<Response>) -> Vec<Answer> {
    let counts: Vec<usize> = members.iter().map(|member| member.payload.instances()).collect();
    let shares = match &members[0].payload {
        Payload::V2(_) if members.len() == 1 => return vec![Answer::Whole(response)],
        _ if response.is_coded => Err(Failure::Coded),
        Payload::V1(_) => shares_v1(&counts, &response),
        Payload::V2(_) => shares_v2(&of_v2(members), &counts, &response),
    };
    shares.unwrap_or_else(|failure| members.iter().map(|_| Answer::Failed(failure.clone())).collect())
}

fn shares_v1(counts: &[usize], response: &Arc<Response>) -> Result<Vec<Answer>, Failure> {
    let list = response.predictions(counts.iter().sum())?;
    let ranges = v1::split(&response.body, &list.content, counts.iter().copied());
    Ok(ranges.into_iter().map(|range| Answer::Predictions { response: Arc::clone(response), range }).collect())
}

fn shares_v2(
    members: &[(&[u8], &Tensors)],
    counts: &[usize],
    response: &Arc<Response>,
) -> Result<Vec<Answer>, Failure> {
    let tensors = response.outputs(counts.iter().sum())?;
    let runs = tensors.split(&response.body, counts);
    // An id that the server took from the batch's is nobody's; one of its own making is as good as any.
    let batch_id = [b"\"", &response.batch_id[..], b"\""].concat();
    let own_id = if tensors.id(&response.body) == Some(&batch_id[..]) { NewId::None } else { NewId::AsSent };
    let share = |(number, (body, request)): (usize, &(&[u8], &Tensors))| {
        let id = request.id(body).map_or(own_id, NewId::This);
        let body = tensors.part(&response.body, &runs, number, counts[number], id);
        Answer::Rebuilt { response: Arc::clone(response), body }
    };
    Ok(members.iter().enumerate().map(share).collect())
}
