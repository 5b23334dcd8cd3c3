//! One request with more instances than a batch may have: its parts, and the answer that they make (SPEC B5).
//!
//! Where they make none (another length, unlike outputs, a coding, no room for all of it) the request is asked whole, for
//! it must not fare worse than without a batcher (SPEC B0).
//!
//! Not here: when a part leaves ([`super::queue`]).

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::answer::{Answer, Response, V1_BEFORE_ID, V1_BEFORE_PREDICTIONS, V1_END};
use super::batch::Part;
use super::call::Reply;
use super::divide::is_refusal;
use super::key::Parts;
use super::request::{Payload, Request};
use super::v1;
use super::v2::{self, NewId, Tensors};
use crate::fault::Fault;

/// The responses to a request's parts, which may come at the same time.
#[derive(Debug)]
pub(super) struct Joint {
    /// Where the parts lie in the body, one list for each of its lists of instances: found when the first part leaves.
    runs: OnceLock<Vec<Vec<Range<usize>>>>,
    /// `None`: the request is answered.
    parts: Mutex<Option<Arrived>>,
}

/// The responses that have come.
#[derive(Debug, Default)]
struct Arrived {
    responses: Vec<Option<Response>>,
    count: usize,
}

impl Joint {
    /// Room for the parts of a request that will have some.
    pub(super) fn new() -> Self {
        Self { runs: OnceLock::new(), parts: Mutex::new(Some(Arrived::default())) }
    }

    /// The body of one part.
    pub(super) fn body(&self, request: &Request, part: &Part) -> Vec<u8> {
        let runs = self.runs.get_or_init(|| {
            let counts = counts(request, part);
            match &request.payload {
                Payload::V1(list) => vec![v1::split(&request.body, &list.content, counts.into_iter())],
                Payload::V2(tensors) => tensors.split(&request.body, &counts),
            }
        });
        match &request.payload {
            Payload::V1(list) => v1::with_only(&request.body, list, runs[0][part.number].clone()),
            Payload::V2(tensors) => {
                tensors.part(&request.body, runs, part.number, part.instances(tensors.rows), NewId::AsSent)
            }
        }
    }

    /// Whether the request is answered, so that its other parts need not be sent.
    pub(super) fn is_over(&self) -> bool {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Takes note of what came of a part; what follows for the request, once that is known.
    pub(super) fn add(&self, request: &Request, part: &Part, outcome: Result<Reply, Fault>) -> Option<Joined> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = parts.as_mut()?;
        let decided = match outcome {
            Ok(Reply::Whole(response)) if response.is_success() && !response.is_coded => {
                if !arrived.add(part, response) {
                    return None;
                }
                None
            }
            Ok(Reply::Whole(response)) if response.is_success() || is_refusal(response.status) => {
                Some(Joined::AskWhole)
            }
            Ok(Reply::Whole(response)) => Some(Joined::Answer(Answer::Whole(response.into()))),
            Ok(Reply::Streamed(..)) => Some(Joined::AskWhole),
            Err(fault) => Some(Joined::Answer(Answer::Failed(fault))),
        };
        let responses = parts.take()?.responses;
        drop(parts);
        let join = || join(request, &counts(request, part), responses.into_iter().flatten().collect());
        decided.or_else(|| Some(join().map_or(Joined::AskWhole, Joined::Answer)))
    }
}

impl Arrived {
    /// Whether it was the last one.
    fn add(&mut self, part: &Part, response: Response) -> bool {
        self.responses.resize_with(part.of, || None);
        self.count += usize::from(self.responses[part.number].replace(response).is_none());
        self.count == part.of
    }
}

/// What follows from the parts' responses.
#[derive(Debug)]
pub(super) enum Joined {
    /// What the request is answered.
    Answer(Answer),
    /// They make no answer: the whole request is to be asked.
    AskWhole,
}

/// Instances of each part.
fn counts(request: &Request, part: &Part) -> Vec<usize> {
    (0..part.of).map(|number| Part { number, ..*part }.instances(request.payload.instances())).collect()
}

fn join(request: &Request, counts: &[usize], mut responses: Vec<Response>) -> Option<Answer> {
    let body = match &request.payload {
        Payload::V1(_) => join_v1(&responses, counts),
        Payload::V2(_) => join_v2(&responses, counts),
    }?;
    // Only the head of the first is needed any more.
    let mut response = responses.swap_remove(0);
    drop(responses);
    response.body = Vec::new();
    response.held.give_back();
    let mut held = response.held.beside();
    held.grow(body.len()).then(|| Answer::Rebuilt { response: response.into(), body, held })
}

fn join_v1(responses: &[Response], counts: &[usize]) -> Option<Vec<u8>> {
    let mut body = [V1_BEFORE_ID, &responses[0].batch_id, V1_BEFORE_PREDICTIONS].concat();
    for (number, (response, instances)) in responses.iter().zip(counts.iter().copied()).enumerate() {
        let ranges = v1::predictions(&response.body, &[instances])?;
        let range = ranges.first()?;
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&response.body[range.clone()]);
    }
    body.extend_from_slice(V1_END);
    Some(body)
}

fn join_v2(responses: &[Response], counts: &[usize]) -> Option<Vec<u8>> {
    let mut found: Vec<Tensors> = Vec::with_capacity(responses.len());
    let mut first_key: Option<Parts> = None;
    for (response, instances) in responses.iter().zip(counts.iter().copied()) {
        let mut key = Parts::default();
        let tensors = Tensors::of_part(&response.body, instances, &mut key).ok()?;
        if *first_key.get_or_insert_with(|| key.clone()) != key {
            return None;
        }
        found.push(tensors);
    }
    let bodies: Vec<(&[u8], &Tensors)> = responses.iter().map(|response| &response.body[..]).zip(&found).collect();
    Some(v2::merge(&bodies, NewId::AsSent))
}
