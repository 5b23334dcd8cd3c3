//! One request with more instances than a batch may have: its parts, and the answer that they make (SPEC B5).
//!
//! Not here: when a part leaves ([`super::queue`]).

use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::answer::{Answer, Response, V1_BEFORE_ID, V1_BEFORE_PREDICTIONS, V1_END};
use super::batch::Part;
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

    /// Takes note of a part's response; what the request is answered, once that is known.
    pub(super) fn add(&self, request: &Request, part: &Part, response: Result<Response, Fault>) -> Option<Answer> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let arrived = parts.as_mut()?;
        let response = match response {
            Ok(response) if response.is_success() && response.is_coded => Err(Answer::Failed(Fault::PartCoded)),
            Ok(response) if response.is_success() => Ok(response),
            Ok(response) => Err(Answer::Whole(response.into())),
            Err(fault) => Err(Answer::Failed(fault)),
        };
        if let Err(failed) = response.and_then(|response| arrived.add(part, response)) {
            *parts = None;
            return Some(failed);
        }
        if arrived.count < part.of {
            return None;
        }
        let responses: Vec<Response> = parts.take()?.responses.into_iter().flatten().collect();
        drop(parts);
        Some(answer(request, &counts(request, part), responses))
    }
}

impl Arrived {
    /// The error is what the request is answered.
    fn add(&mut self, part: &Part, response: Response) -> Result<(), Answer> {
        self.responses.resize_with(part.of, || None);
        self.count += usize::from(self.responses[part.number].replace(response).is_none());
        Ok(())
    }
}

/// Instances of each part.
fn counts(request: &Request, part: &Part) -> Vec<usize> {
    (0..part.of).map(|number| Part { number, ..*part }.instances(request.payload.instances())).collect()
}

fn answer(request: &Request, counts: &[usize], mut responses: Vec<Response>) -> Answer {
    let joined = match &request.payload {
        Payload::V1(_) => join_v1(&responses, counts),
        Payload::V2(_) => join_v2(&responses, counts),
    };
    let body = match joined {
        Ok(body) => body,
        Err(fault) => return Answer::Failed(fault),
    };
    // Only the head of the first is needed any more.
    let mut response = responses.swap_remove(0);
    drop(responses);
    response.body = Vec::new();
    response.held.give_back();
    let mut held = response.held.beside();
    if !held.grow(body.len()) {
        return Answer::Failed(Fault::AnswersFull);
    }
    Answer::Rebuilt { response: response.into(), body, held }
}

fn join_v1(responses: &[Response], counts: &[usize]) -> Result<Vec<u8>, Fault> {
    let mut body = [V1_BEFORE_ID, &responses[0].batch_id, V1_BEFORE_PREDICTIONS].concat();
    for (number, (response, instances)) in responses.iter().zip(counts.iter().copied()).enumerate() {
        let ranges = v1::predictions(&response.body, &[instances]);
        let [range] = &ranges.unwrap_or_default()[..] else { return Err(Fault::PartLength { instances }) };
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&response.body[range.clone()]);
    }
    body.extend_from_slice(V1_END);
    Ok(body)
}

fn join_v2(responses: &[Response], counts: &[usize]) -> Result<Vec<u8>, Fault> {
    let mut found: Vec<Tensors> = Vec::with_capacity(responses.len());
    let mut first_key: Option<Parts> = None;
    for (response, instances) in responses.iter().zip(counts.iter().copied()) {
        let mut key = Parts::default();
        let tensors = Tensors::of_part(&response.body, instances, &mut key);
        let tensors = tensors.map_err(|_| Fault::PartLength { instances })?;
        if *first_key.get_or_insert_with(|| key.clone()) != key {
            return Err(Fault::PartsDiffer);
        }
        found.push(tensors);
    }
    let bodies: Vec<(&[u8], &Tensors)> = responses.iter().map(|response| &response.body[..]).zip(&found).collect();
    Ok(v2::merge(&bodies, NewId::AsSent))
}
