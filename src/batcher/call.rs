//! One call of the model server by ureq, with ureq's own ideas turned off: no proxy from the environment, no
//! redirects, no fields that no client sent, no status that is an error.
//!
//! Not here: what is sent and what becomes of the response ([`super::forward`]).

use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Error, Timeout};

use super::answer::Response;
use super::batch::Undivided;
use super::fields;
use super::line::Line;
use super::metrics::CallMetrics;
use super::streamed::Streamed;
use super::transport::WireConnector;
use super::watch::Watch;
use crate::config::{BATCH_ANSWER_BYTES, CONNECT_TIMEOUT, HEAD_BYTES, READ_BYTES, UPSTREAM_IDLE_TIMEOUT};
use crate::fault::Fault;
use crate::http1::body::BodyError;
use crate::http1::head::HeadError;
use crate::ops::budget::Budget;
use crate::ops::client;
use crate::ops::limits::is_exhausted;
use crate::ops::memory;
use crate::ops::random;
use crate::ops::server::ModelServer;

/// A client of the model server with one connection.
pub(super) struct Client {
    agent: Agent,
    /// `http://` and the server's address.
    base: String,
    /// The connection, for those who may end a call.
    pub(super) line: Arc<Line>,
    /// What the connection carries.
    watch: Watch,
    /// What answers may hold.
    answers: Arc<Budget>,
    /// What its forwarder counts.
    pub(super) metrics: Arc<CallMetrics>,
}

/// What is sent.
pub(super) struct Call<'c> {
    /// Path and query.
    pub(super) target: &'c [u8],
    /// Names and values.
    pub(super) fields: &'c [(&'c [u8], &'c [u8])],
    pub(super) body: &'c [u8],
    /// Names the batch.
    pub(super) batch_id: [u8; 36],
    /// Several clients share the response.
    pub(super) is_shared: bool,
}

impl Client {
    /// A client of the server at this address. `timeout`: longest wait for the first byte of a response.
    pub(super) fn new(
        server: ModelServer,
        timeout: Option<Duration>,
        answers: Arc<Budget>,
        metrics: Arc<CallMetrics>,
    ) -> Self {
        let config = client::config()
            .accept("")
            .user_agent("")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            // A server that takes no bytes does not answer either.
            .timeout_per_write(timeout)
            .timeout_recv_response(timeout)
            .max_response_header_size(HEAD_BYTES)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(UPSTREAM_IDLE_TIMEOUT)
            .build();
        let line = Arc::new(Line::default());
        let watch = Watch::default();
        let (address, line_of_wire) = (server.address, Arc::clone(&line));
        let connector = WireConnector { server, line: line_of_wire, watch: watch.clone() };
        let agent = Agent::with_parts(config, connector, Known(address));
        Self { agent, base: format!("http://{address}"), line, watch, answers, metrics }
    }

    /// Calls the server, and reads its response as far as it is to be held. A request that met the end of an idle connection
    /// and was not read is sent once more (SPEC P9).
    pub(super) fn post(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        match self.try_to_post(call) {
            Err(_) if self.watch.watched().is_unread => self.try_to_post(call),
            result => result,
        }
    }

    fn try_to_post(&self, call: &Call<'_>) -> Result<Reply, Fault> {
        let target = String::from_utf8_lossy(call.target);
        let mut request = Request::post(format!("{}{target}", self.base));
        for (name, value) in call.fields {
            request = request.header(*name, *value);
        }
        // The worker lets only targets and fields through that make a request.
        let request = request.body(call.body).map_err(|_| Fault::Internal)?;
        self.watch.begin();
        let began = Instant::now();
        let answered = self.agent.run(request);
        let status = self.watch.watched().status().map_err(Fault::ResponseHead)?;
        let body = answered.map_err(fault)?.into_body();
        let fields = self.watch.watched().take_fields();
        let mut response = Response {
            status,
            fields: fields::of_exchange(&fields, call.is_shared),
            fields_of_body: fields::of_body(&fields),
            is_coded: fields::is_coded(&fields),
            body: Vec::new(),
            batch_id: call.batch_id,
            held: self.answers.hold(),
        };
        let is_stream = response.is_success() && fields::is_stream(&fields);
        let left = if is_stream {
            self.watch.hand_over();
            drop(body);
            Some(Undivided::Indivisible)
        } else {
            self.read(body.into_reader(), &mut response)?
        };
        self.metrics.duration.observe_duration(began.elapsed());
        match left {
            None => Ok(Reply::Whole(response)),
            Some(why) => self.hand_over(response, why),
        }
    }

    /// Reads the body, as far as it is to be held and there is room for it; why that is not all of it.
    fn read(&self, mut reader: impl Read, response: &mut Response) -> Result<Option<Undivided>, Fault> {
        let length = self.watch.watched().length();
        let length = length.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let is_large = length.is_some_and(|length| length > BATCH_ANSWER_BYTES);
        if is_large || length.is_some_and(|length| !response.held.grow(length)) {
            self.watch.hand_over();
            return Ok(Some(Undivided::of_size(is_large)));
        }
        response.body = memory::buffer(length.map_or(0, |length| length + 1));
        loop {
            let at = response.body.len();
            if response.body.capacity() < at + READ_BYTES && length.is_none() {
                memory::reserve(&mut response.body, 2 * at + READ_BYTES);
            }
            response.body.resize(at + length.map_or(READ_BYTES, |length| length - at + 1).min(READ_BYTES), 0);
            let read = loop {
                match reader.read(&mut response.body[at..]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    result => break result.map_err(|error| fault_of_body(Error::from(error)))?,
                }
            };
            response.body.truncate(at + read);
            if read == 0 {
                return Ok(None);
            }
            let is_large = response.body.len() > BATCH_ANSWER_BYTES;
            if is_large || (length.is_none() && !response.held.grow(read)) {
                self.watch.hand_over();
                return Ok(Some(Undivided::of_size(is_large)));
            }
        }
    }

    /// Takes the connection over from ureq, which has given it up.
    fn hand_over(&self, mut response: Response, why: Undivided) -> Result<Reply, Fault> {
        let Some((connection, data)) = self.watch.rest() else {
            // What was read last was the end of it, so that ureq has kept the connection.
            return if self.watch.watched().has_ended() { Ok(Reply::Whole(response)) } else { Err(Fault::Internal) };
        };
        response.body.extend_from_slice(&data);
        Ok(Reply::Streamed(Box::new(Streamed { response, connection }), why))
    }
}

/// What a call has come back with.
#[derive(Debug)]
pub(super) enum Reply {
    /// The whole response.
    Whole(Response),
    /// A response that goes on as it comes; what that means for several requests.
    Streamed(Box<Streamed>, Undivided),
}

impl Undivided {
    /// Of an answer that is not held: larger than any that is, or than the room that was left.
    fn of_size(is_large: bool) -> Self {
        // Fewer requests may have one that can be held.
        if is_large { Self::Refused } else { Self::NoRoom }
    }
}

/// A name for a batch: a UUID of version 4.
pub(super) fn batch_id() -> [u8; 36] {
    let mut text = [0; 36];
    random::uuid().hyphenated().encode_lower(&mut text);
    text
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Timeout(Timeout::Connect) => Fault::ConnectTimeout,
        Error::Timeout(_) => Fault::ResponseTimeout,
        Error::Io(error) if is_exhausted(&error) => Fault::Exhausted,
        Error::Io(error) if is_of_connecting(&error) => Fault::Connect(error.kind()),
        Error::Io(_) => Fault::NoResponse,
        Error::ConnectionFailed => Fault::Connect(ErrorKind::NotConnected),
        Error::LargeResponseHeader(..) => Fault::ResponseHead(HeadError::TooLarge),
        _ => Fault::ResponseHead(HeadError::Malformed("it breaks HTTP/1.1")),
    }
}

/// The head had come.
fn fault_of_body(error: Error) -> Fault {
    match fault(error) {
        Fault::NoResponse => Fault::ResponseBody(BodyError::Truncated),
        Fault::ResponseHead(_) => Fault::ResponseBody(BodyError::Malformed("it breaks HTTP/1.1")),
        fault => fault,
    }
}

fn is_of_connecting(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    [AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable].contains(&error.kind())
}

/// The one address there is: nothing is looked up.
struct Known(SocketAddr);

impl Resolver for Known {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut found = self.empty();
        found.push(self.0);
        Ok(found)
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
