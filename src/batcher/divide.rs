//! What is sent for a batch, and what each member gets of the answer (SPEC B0, B8, B9): pure.
//!
//! Not here: the call ([`super::forward`]), and how bodies are merged and cut ([`super::v1`], [`super::v2`]).

use std::borrow::Cow;
use std::sync::Arc;

use super::answer::{Answer, Response};
use super::batch::Undivided;
use super::request::{Payload, Request};
use super::v1;
use super::v2::{self, NewId, Tensors};

/// What a batch of several is answered when one of its requests may be to blame, or their number (SPEC B8). TorchServe says
/// 507 when a batch is more than the memory holds.
const ASKED_AGAIN: [u16; 6] = [400, 404, 413, 422, 500, 507];

/// The body of the one call for all; a single member's is its own, byte for byte.
pub(super) fn merged<'m>(members: &'m [Arc<Request>], batch_id: &[u8]) -> Cow<'m, [u8]> {
    if let [only] = members {
        return Cow::Borrowed(&only.body);
    }
    // INVARIANT: the key of a lane holds the path, so all have the same protocol.
    match &members[0].payload {
        Payload::V1(_) => v1::merge(&of_v1(members)).into(),
        Payload::V2(_) => {
            // Where ids are used at all the batch has one too: the KServe SDK's servers can't answer without it.
            let bodies = of_v2(members);
            let has_id = bodies.iter().any(|(body, tensors)| tensors.id(body).is_some());
            let id = [b"\"", batch_id, b"\""].concat();
            v2::merge(&bodies, if has_id { NewId::This(&id) } else { NewId::AsSent }).into()
        }
    }
}

/// What each member gets of the response to all. What is said to one alone is passed on as it is, if it can't be read (SPEC
/// B0).
///
/// # Errors
/// When it can't be divided with certainty, or one of them may be to blame for it, or what was left out of the call as they
/// differ in it (`lacks_fields`), so that they are to be asked again.
pub(super) fn divide(
    members: &[Arc<Request>],
    response: Response,
    lacks_fields: bool,
) -> Result<Vec<Answer>, Undivided> {
    let response = Arc::new(response);
    if response.is_success() {
        return shares(members, &response);
    }
    match response.status {
        _ if members.len() == 1 => Ok(whole(members, &response)),
        status if is_refusal(status) => Err(Undivided::Refused),
        // Too slow, and too many, are said to all, whatever they are.
        408 | 429 => Ok(whole(members, &response)),
        400..500 if lacks_fields => Err(Undivided::Indivisible),
        _ => Ok(whole(members, &response)),
    }
}

/// Whether a refusal may be of one request among several, or of their number.
pub(super) fn is_refusal(status: u16) -> bool {
    ASKED_AGAIN.contains(&status)
}

/// Whether the response to one request has a part for each of its instances.
pub(super) fn is_divisible(member: &Request, response: &Response) -> bool {
    let counts = [member.payload.instances()];
    !response.is_coded
        && match &member.payload {
            Payload::V1(_) => v1::predictions(&response.body, &counts).is_some(),
            Payload::V2(_) => Tensors::of_response(&response.body, &counts).is_ok(),
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

/// The response for each of them as it came.
fn whole(members: &[Arc<Request>], response: &Arc<Response>) -> Vec<Answer> {
    members.iter().map(|_| Answer::Whole(Arc::clone(response))).collect()
}

/// Each member's share of a successful response.
fn shares(members: &[Arc<Request>], response: &Arc<Response>) -> Result<Vec<Answer>, Undivided> {
    let counts: Vec<usize> = members.iter().map(|member| member.payload.instances()).collect();
    // Another success is none that has a body for each, or one that is whole.
    let can_be_read = !response.is_coded && matches!(response.status, 200 | 201);
    match (&members[0].payload, members.len()) {
        (Payload::V1(_), 1) if can_be_read => {
            Ok(shares_v1(&counts, response).unwrap_or_else(|| whole(members, response)))
        }
        (_, 1) => Ok(whole(members, response)),
        _ if !can_be_read => Err(Undivided::Indivisible),
        (Payload::V1(_), _) => shares_v1(&counts, response).ok_or(Undivided::Indivisible),
        (Payload::V2(_), _) => shares_v2(&of_v2(members), &counts, response),
    }
}

fn shares_v1(counts: &[usize], response: &Arc<Response>) -> Option<Vec<Answer>> {
    let ranges = v1::predictions(&response.body, counts)?;
    Some(ranges.into_iter().map(|range| Answer::Predictions { response: Arc::clone(response), range }).collect())
}

fn shares_v2(
    members: &[(&[u8], &Tensors)],
    counts: &[usize],
    response: &Arc<Response>,
) -> Result<Vec<Answer>, Undivided> {
    let tensors = Tensors::of_response(&response.body, counts).map_err(|_| Undivided::Indivisible)?;
    // An id that the server took from the batch's is nobody's; one of its own making is as good as any.
    let batch_id = [b"\"", &response.batch_id[..], b"\""].concat();
    let own_id = if tensors.id(&response.body) == Some(&batch_id[..]) { NewId::None } else { NewId::AsSent };
    let has_text = tensors.id(&response.body).is_some();
    let share = |(number, (body, request)): (usize, &(&[u8], &Tensors))| {
        // A server that gives no id gives none to a request alone either.
        let id = request.id(body).filter(|_| has_text).map_or(own_id, NewId::This);
        let body = tensors.share(&response.body, number, counts[number], id);
        let mut held = response.held.beside();
        held.grow(body.len()).then(|| Answer::Rebuilt { response: Arc::clone(response), body, held })
    };
    members.iter().enumerate().map(share).collect::<Option<_>>().ok_or(Undivided::NoRoom)
}

#[cfg(test)]
#[path = "divide_tests.rs"]
mod tests;
