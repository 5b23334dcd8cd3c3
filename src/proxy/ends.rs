//! What becomes of the two connections of an exchange, and why.
//!
//! Not here: who decides it ([`super::exchange`]).

/// Why the client's connection closes after the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCloses {
    /// It asked for it, or is HTTP/1.0 and did not ask for the opposite.
    Asked,
    /// The agent is about to stop.
    Draining,
    /// The response began before the request had ended, so what follows can't be told apart.
    RequestUnfinished,
    /// An HTTP/1.0 client can only be told the end of this body by closing.
    EndsBody,
    /// What it sends can no longer be told apart.
    Fault,
}

/// Why the server's connection is not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerCloses {
    /// It said so, or is HTTP/1.0 and did not say the opposite.
    Said,
    /// Its body ends with the connection.
    EndsBody,
    /// It answered before it had the whole request.
    RequestUnfinished,
    /// It may close behind a response of this status, a 500.
    Failed,
    /// Its fields promise a body that must not be there: a 204 with a length, a 304 with a coding.
    Contradiction,
}

/// What becomes of the two connections after the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: the client may send its next request.
    pub client_closes: Option<ClientCloses>,
    /// `None`: the connection to the server may carry another request.
    pub server_closes: Option<ServerCloses>,
}
