//! A response that is too large to be held, or is to be seen as it comes, as a forwarder hands it over in the middle of its
//! body (SPEC B10, P2).
//!
//! ```text
//!   forwarder: head, the data that have come ─ connection ─▶ worker: relayed like any other response
//! ```
//!
//! So a client that reads slowly keeps neither the forwarder nor memory.
//!
//! Not here: when that is so ([`super::call`]), and how it goes on (the worker's).

use std::net::TcpStream;

use super::answer::Response;
use crate::http1::body::Body;

/// A response whose body has not come to its end.
#[derive(Debug)]
pub(crate) struct Streamed {
    /// The response, with the data that have come.
    pub(crate) response: Response,
    /// Where the rest comes from.
    pub(crate) connection: Rest,
}

/// A connection to the model server in the middle of a response's body.
#[derive(Debug)]
pub(crate) struct Rest {
    /// The connection.
    pub(crate) stream: TcpStream,
    /// What was read from it and belongs to a part of the framing that has not come whole.
    pub(crate) input: Vec<u8>,
    /// Where the body stands.
    pub(crate) body: Body,
    /// Its whole length, if the server has said it.
    pub(crate) length: Option<u64>,
    /// The connection can be used again behind the response.
    pub(crate) keeps: bool,
}
