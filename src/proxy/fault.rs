//! What can go wrong with an exchange: whose fault it is, and the one place that turns it into an answer.
//!
//! Not here: whether the connection is kept ([`super::exchange`]), and how the answer is sent.

use std::fmt;
use std::io;

use super::metrics::{Blame, Reason, UpstreamError};
use crate::http1::body::BodyError;
use crate::http1::head::HeadError;

/// Why a request was not answered by the model server, or not to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Client: the request head.
    RequestHead(HeadError),
    /// Client: the head was not complete in [`crate::config::HEAD_TIMEOUT`].
    RequestHeadTimeout,
    /// Client: the body.
    RequestBody(BodyError),
    /// Client: the body came slower than [`crate::config::PROGRESS_BYTES`] in [`crate::config::PROGRESS_WINDOW`].
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
}

impl Fault {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::RequestHead(error) => error.status(),
            Self::RequestBody(BodyError::TooLarge(_)) => 431,
            Self::RequestBody(_) => 400,
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
            Self::Exhausted | Self::TooManyConnections => 503,
        }
    }

    /// Whose fault it is.
    pub(crate) fn blame(self) -> Blame {
        match self {
            Self::RequestHead(HeadError::Malformed(_)) => Blame::Rejected(Reason::BadRequest),
            Self::RequestHead(HeadError::TooLarge | HeadError::RequestLineTooLong)
            | Self::RequestBody(BodyError::TooLarge(_)) => Blame::Rejected(Reason::TooLarge),
            Self::RequestHead(_) => Blame::Rejected(Reason::Unsupported),
            Self::RequestBody(_) => Blame::Rejected(Reason::BadRequest),
            Self::RequestHeadTimeout | Self::RequestBodyTimeout => Blame::Rejected(Reason::SlowClient),
            Self::Exhausted => Blame::Rejected(Reason::OutOfDescriptors),
            Self::TooManyConnections => Blame::Rejected(Reason::TooManyConnections),
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
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed(what) => what,
            Self::TooLarge => "head over 64 KiB or 128 fields",
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
