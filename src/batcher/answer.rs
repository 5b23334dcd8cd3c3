//! What a request of a batch is answered.
//!
//! Not here: how it is written to the client (the worker's).

use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use super::streamed::Streamed;
use super::v1::BadRequest;
use crate::config::BATCH_ANSWER_BYTES;
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
    Failed(Failure),
}

/// Why a request of a batch has no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is no request.
    Bad(BadRequest),
    /// `--batch-queue` requests wait.
    QueueFull,
    /// It has more instances than may be sent in parts.
    TooManyInstances { instances: usize, most: usize },
    /// There is no room for its body beside the others.
    BodiesFull,
    /// It has waited for `--max-latency` and the server was busy all the time.
    Late,
    /// There is no descriptor or memory for a connection to the server.
    Exhausted,
    /// No connection to the server.
    Connect(ErrorKind),
    /// No connection in time.
    ConnectTimeout,
    /// No byte of a response within `--upstream-timeout`.
    Timeout,
    /// The connection broke.
    Broken(ErrorKind),
    /// The connection ended inside the body of the response.
    Truncated,
    /// The response is no HTTP, or over a limit.
    Garbage(String),
    /// The response to a part of a request is compressed, so it can't be joined with the others.
    Coded,
    /// The response to a part of a request of so many instances has not as many predictions.
    Lengths {
        /// Instances of the part.
        instances: usize,
    },
    /// The responses to the parts of a request are too large to be joined.
    PartsTooLarge,
    /// The agent's own fault.
    Internal,
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
            Self::Failed(failure) => failure.status(),
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

impl Failure {
    /// The status of the answer.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::TooManyInstances { .. } => 413,
            Self::QueueFull | Self::BodiesFull | Self::Late | Self::Exhausted => 503,
            Self::Timeout => 504,
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Broken(_)
            | Self::Truncated
            | Self::Garbage(_)
            | Self::Coded
            | Self::Lengths { .. }
            | Self::PartsTooLarge => 502,
            Self::Internal => 500,
        }
    }

    /// Whether the text is given as JSON, in the form of the model server's own errors.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self, Self::Coded | Self::Lengths { .. } | Self::PartsTooLarge)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(why) => f.write_str(why.text()),
            Self::QueueFull => f.write_str("as many requests wait for a batch as may (--batch-queue)"),
            Self::TooManyInstances { instances, most } => {
                write!(f, "{instances} instances in one request, at most {most}")
            }
            Self::BodiesFull => f.write_str("the requests that wait for a batch hold 64 MiB, as much as they may"),
            Self::Late => f.write_str("no batch left within --max-latency, the model server is busy"),
            Self::Exhausted => f.write_str("out of file descriptors"),
            Self::Connect(ErrorKind::ConnectionRefused) => f.write_str("model server: connection refused"),
            Self::Connect(kind) => write!(f, "model server: {kind}"),
            Self::ConnectTimeout => f.write_str("model server: connecting took too long"),
            Self::Timeout => f.write_str("model server: no response in time"),
            Self::Broken(ErrorKind::UnexpectedEof) => f.write_str("model server: connection closed before a response"),
            Self::Broken(kind) => write!(f, "model server: {kind}"),
            Self::Truncated => f.write_str("model server: bad response body: it ended early"),
            Self::Garbage(what) => write!(f, "model server: bad response: {what}"),
            Self::Coded => f.write_str("model server: a compressed response, which nobody asked for"),
            Self::Lengths { instances } => {
                write!(
                    f,
                    "model server: no list of {instances} predictions for {instances} instances of a larger request"
                )
            }
            Self::PartsTooLarge => write!(
                f,
                "the responses to the parts of one request are larger than {BATCH_ANSWER_BYTES} bytes, or than the room for answers"
            ),
            Self::Internal => f.write_str("internal error"),
        }
    }
}
