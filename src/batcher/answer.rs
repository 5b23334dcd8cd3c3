//! What a request of a batch is answered.
//!
//! Not here: how it is written to the client (the worker's).

use std::ops::Range;
use std::sync::Arc;

use super::streamed::Streamed;
use crate::fault::Fault;
use crate::ops::budget::Held;

/// A response of the model server, which the members of its batch share.
#[derive(Debug)]
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// The field lines that clients get, each with its CRLF.
    pub(crate) fields: Vec<u8>,
    /// Those that describe this body, such as `Content-Type`.
    pub(crate) fields_of_body: Vec<u8>,
    /// The body is compressed.
    pub(crate) is_coded: bool,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// Names the batch in V1 answers: a UUID of version 4.
    pub(crate) batch_id: [u8; 36],
    /// What counts the body until the last of it has gone out.
    pub(crate) held: Held,
}

/// What one request is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its predictions, where they lie in the response's body (SPEC B2).
    Predictions {
        /// The response.
        response: Arc<Response>,
        /// Where they lie.
        range: Range<usize>,
    },
    /// The response as it came.
    Whole(Arc<Response>),
    /// The response with this body instead.
    Rebuilt {
        /// The response, whose body is given back when the last share of it has been made.
        response: Arc<Response>,
        /// The body.
        body: Vec<u8>,
        /// What counts it.
        held: Held,
    },
    /// The response as it comes, which is too large to be held.
    Streamed(Box<Streamed>),
    /// None came that could be used.
    Failed(Fault),
}

impl Response {
    /// Whether the server has done what it was asked.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Answer {
    /// The status.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Predictions { response, .. } | Self::Whole(response) | Self::Rebuilt { response, .. } => {
                response.status
            }
            Self::Streamed(streamed) => streamed.response.status,
            Self::Failed(fault) => fault.status(),
        }
    }

    /// Whether the server has done what it was asked.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status())
    }
}

/// The text before the batch's id in a V1 answer.
pub(crate) const V1_BEFORE_ID: &[u8] = b"{\"message\":\"\",\"batchId\":\"";
/// The text between the id and the predictions.
pub(crate) const V1_BEFORE_PREDICTIONS: &[u8] = b"\",\"predictions\":[";
/// The text behind the predictions.
pub(crate) const V1_END: &[u8] = b"]}";
