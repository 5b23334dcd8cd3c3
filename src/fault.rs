//! What can go wrong with a request, alone or in a batch: whose fault it is, and the one place that turns it into an answer.
//!
//! Not here: whether the connection is kept (`proxy::exchange`), and how the answer is sent.

use std::fmt;
use std::io;

use crate::http1::body::BodyError;
use crate::http1::head::HeadError;
use crate::ops::metrics::{Label, label};

/// Why a request was not answered by the model server, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Client: the request head.
    RequestHead(HeadError),
    /// Client: the head was not complete in [`crate::config::HEAD_TIMEOUT`].
    RequestHeadTimeout,
    /// Client: the body.
    RequestBody(BodyError),
    /// Client: the body came slower than [`crate::config::PROGRESS_RATE`] over `--request-body-timeout`.
    RequestBodyTimeout,
    /// Server: no connection.
    Connect(io::ErrorKind),
    /// Server: no connection within [`crate::config::CONNECT_TIMEOUT`].
    ConnectTimeout,
    /// Server: it closed or reset the connection before a byte of the response.
    NoResponse,
    /// Server: the response head.
    ResponseHead(HeadError),
    /// Server: the connection ended inside the response head.
    ResponseHeadTruncated,
    /// Server: more interim responses than [`crate::config::INTERIM_RESPONSES`].
    TooManyInterims,
    /// Server: it switched protocols though nobody had asked.
    UnaskedSwitch,
    /// Server: the response body broke its framing or ended early.
    ResponseBody(BodyError),
    /// Server: no byte of a response within `--upstream-timeout`.
    ResponseTimeout,
    /// Server: no 100 and no response within [`crate::config::HEAD_TIMEOUT`], for which the client waits with its body.
    ContinueTimeout,
    /// Agent: no descriptor or memory for a connection to the server.
    Exhausted,
    /// Agent: as many connections as are allowed, none of them idle.
    TooManyConnections,
    /// Client: the body is no predict request.
    BadPredict(BadPredict),
    /// Agent: `--batch-queue` requests wait.
    BatchQueueFull,
    /// Agent: there is no room for a body beside the others that wait for batches.
    BatchBytesFull,
    /// Agent: a request has waited for `--max-latency`, and the server was busy all the time.
    BatchLate,
    /// Agent: a bug.
    Internal,
}

label! {
    /// Why the agent turned a request or a connection away.
    pub(crate) Reason as "reason" {
        /// It is no HTTP, or ambiguous, or no predict request.
        BadRequest = "bad_request",
        /// Its head is over a limit, or it has too many instances.
        TooLarge = "too_large",
        /// It asks for what the agent does not do.
        Unsupported = "unsupported",
        /// The client sends or takes too slowly.
        SlowClient = "slow_client",
        /// `--max-connections`.
        TooManyConnections = "too_many_connections",
        /// There was no descriptor, or no memory, for a connection.
        OutOfDescriptors = "out_of_descriptors",
        /// `--batch-queue`.
        BatchQueueFull = "batch_queue_full",
        /// Bodies that wait for batches have all the memory they may.
        BatchBytesFull = "batch_bytes_full",
        /// No batch left within `--max-latency`.
        BatchLate = "batch_late",
    }
}

label! {
    /// What was wrong with the model server.
    pub(crate) UpstreamError as "kind" {
        /// No connection.
        Connect = "connect",
        /// No connection in time.
        ConnectTimeout = "connect_timeout",
        /// It closed or reset the connection before an answer.
        Closed = "closed",
        /// No answer in time.
        Timeout = "timeout",
        /// Its answer is no HTTP, or not what was asked for.
        BadResponse = "bad_response",
        /// Its answer ended early.
        Truncated = "truncated",
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The client's, or there was no room: the agent turned it away.
    Rejected(Reason),
    /// The model server's.
    Upstream(UpstreamError),
    /// A bug of the agent's, which is counted where it shows.
    Agent,
}

impl Blame {
    /// One number for each that gets a line in the log.
    pub(crate) fn kind(self) -> usize {
        match self {
            Self::Rejected(reason) => reason.index(),
            Self::Upstream(error) => Reason::VALUES.len() + error.index(),
            Self::Agent => Reason::VALUES.len() + UpstreamError::VALUES.len(),
        }
    }
}

/// Why a body is no V1 request (SPEC B2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPredict {
    /// It could not be read to its end.
    Unreadable,
    /// It is not JSON, not an object, or `instances` is not a list.
    Malformed,
    /// `instances` is missing or empty.
    NoInstances,
}

impl BadPredict {
    /// What the client is told: the Go agent's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unreadable => "can't read body",
            Self::Malformed => "can't Unmarshal body",
            Self::NoInstances => "no instances in the request",
        }
    }
}

impl Fault {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::RequestHead(error) => error.status(),
            Self::RequestBody(BodyError::TooLarge(_)) => 431,
            Self::RequestBody(_) | Self::BadPredict(_) => 400,
            Self::RequestHeadTimeout | Self::RequestBodyTimeout => 408,
            Self::Connect(_)
            | Self::ConnectTimeout
            | Self::NoResponse
            | Self::ResponseHead(_)
            | Self::ResponseHeadTruncated
            | Self::TooManyInterims
            | Self::UnaskedSwitch
            | Self::ResponseBody(_) => 502,
            Self::ResponseTimeout | Self::ContinueTimeout => 504,
            Self::Exhausted
            | Self::TooManyConnections
            | Self::BatchQueueFull
            | Self::BatchBytesFull
            | Self::BatchLate => 503,
            Self::Internal => 500,
        }
    }

    /// Whose fault it is.
    pub(crate) fn blame(self) -> Blame {
        match self {
            Self::RequestHead(HeadError::Malformed(_)) | Self::BadPredict(_) => Blame::Rejected(Reason::BadRequest),
            Self::RequestHead(HeadError::TooLarge | HeadError::RequestLineTooLong)
            | Self::RequestBody(BodyError::TooLarge(_)) => Blame::Rejected(Reason::TooLarge),
            Self::RequestHead(_) => Blame::Rejected(Reason::Unsupported),
            Self::RequestBody(_) => Blame::Rejected(Reason::BadRequest),
            Self::RequestHeadTimeout | Self::RequestBodyTimeout => Blame::Rejected(Reason::SlowClient),
            Self::Exhausted => Blame::Rejected(Reason::OutOfDescriptors),
            Self::TooManyConnections => Blame::Rejected(Reason::TooManyConnections),
            Self::BatchQueueFull => Blame::Rejected(Reason::BatchQueueFull),
            Self::BatchBytesFull => Blame::Rejected(Reason::BatchBytesFull),
            Self::BatchLate => Blame::Rejected(Reason::BatchLate),
            Self::Connect(_) => Blame::Upstream(UpstreamError::Connect),
            Self::ConnectTimeout => Blame::Upstream(UpstreamError::ConnectTimeout),
            Self::NoResponse => Blame::Upstream(UpstreamError::Closed),
            Self::ResponseTimeout | Self::ContinueTimeout => Blame::Upstream(UpstreamError::Timeout),
            Self::ResponseHeadTruncated | Self::ResponseBody(BodyError::Truncated) => {
                Blame::Upstream(UpstreamError::Truncated)
            }
            Self::ResponseHead(_) | Self::TooManyInterims | Self::UnaskedSwitch | Self::ResponseBody(_) => {
                Blame::Upstream(UpstreamError::BadResponse)
            }
            Self::Internal => Blame::Agent,
        }
    }

    /// Whether the client may use its connection again: not when what it sends can no longer be told apart.
    pub(crate) fn keeps_client(self) -> bool {
        matches!(self.status(), 502 | 504)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestHead(error) => write!(f, "bad request: {error}"),
            Self::RequestHeadTimeout => f.write_str("the request head was not complete in time"),
            Self::RequestBody(error) => write!(f, "bad request body: {error}"),
            Self::RequestBodyTimeout => f.write_str("the request body came too slowly"),
            Self::Connect(io::ErrorKind::ConnectionRefused) => f.write_str("model server: connection refused"),
            Self::Connect(kind) => write!(f, "model server: {kind}"),
            Self::ConnectTimeout => f.write_str("model server: connecting took too long"),
            Self::NoResponse => f.write_str("model server: connection closed before a response"),
            Self::ResponseHead(error) => write!(f, "model server: bad response: {error}"),
            Self::ResponseHeadTruncated => f.write_str("model server: the response head was cut off"),
            Self::TooManyInterims => f.write_str("model server: too many interim responses"),
            Self::UnaskedSwitch => f.write_str("model server: switched protocols unasked"),
            Self::ResponseBody(error) => write!(f, "model server: bad response body: {error}"),
            Self::ResponseTimeout => f.write_str("model server: no response in time"),
            Self::ContinueTimeout => f.write_str("model server: no 100 in time for a client that waits for it"),
            Self::Exhausted => f.write_str("out of file descriptors"),
            Self::TooManyConnections => f.write_str("too many connections"),
            Self::BadPredict(why) => f.write_str(why.text()),
            Self::BatchQueueFull => f.write_str("as many requests wait for a batch as may (--batch-queue)"),
            Self::BatchBytesFull => f.write_str("the requests that wait for a batch hold 64 MiB, as much as they may"),
            Self::BatchLate => f.write_str("no batch left within --max-latency, the model server is busy"),
            Self::Internal => f.write_str("internal error"),
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(what) => what,
            Self::Blanks => "blanks before a colon",
            Self::TooLarge => "head over 64 KiB, or over 128 fields (512 of a response)",
            Self::RequestLineTooLong => "request line over 16 KiB",
            Self::Version => "HTTP version is not 1.0 or 1.1",
            Self::Connect => "CONNECT is not supported",
            Self::Coding => "transfer coding other than chunked",
            Self::Expectation => "expectation other than 100-continue",
        })
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => f.write_str(what),
            Self::TooLarge(what) => write!(f, "{what} over the limit"),
            Self::Truncated => f.write_str("it ended early"),
        }
    }
}
