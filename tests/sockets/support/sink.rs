//! A log sink that does as a test tells it, and what the agent says has become of its events.
//!
//! Not here: what the sink answers; a test scripts that as it scripts a model server.

use super::agent::{Setup, free_port};
use super::server::Peer;
use super::{Agent, Message, Server, until};

/// What a sink says that has taken an event.
pub(crate) const TAKEN: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

/// A sink of CloudEvents, which records each whole request. Dropping it closes it and its connections.
pub(crate) struct Sink(Server);

/// An event as it came.
#[derive(Debug, Clone)]
pub(crate) struct Event(Message);

/// What the agent counts of its payload log, both types together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Books {
    pub(crate) accepted: u64,
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) dropped: u64,
    pub(crate) waiting: u64,
}

impl Sink {
    /// Takes everything.
    pub(crate) fn good() -> Self {
        Self(Server::answering(TAKEN))
    }

    /// Answers each event with what `answer` makes of it.
    pub(crate) fn with(answer: impl Fn(&Event) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self(Server::with(move |request| answer(&Event(request.clone()))))
    }

    /// Serves each connection with `serve`.
    pub(crate) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self(Server::start(serve))
    }

    /// Takes everything, on this port.
    pub(crate) fn good_on(port: u16) -> Self {
        Self(Server::start_on(port, |mut peer| while peer.request().is_some() && peer.wire.try_send(TAKEN).is_ok() {}))
    }

    /// The flag that makes an agent send its events here.
    pub(crate) fn flag(&self) -> String {
        flag_of(self.0.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// Ends as a killed process does.
    pub(crate) fn kill(self) {
        self.0.kill();
    }

    pub(crate) fn connections(&self) -> usize {
        self.0.connections()
    }

    /// The events that were read whole so far, in order of their ends.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.seen().into_iter().map(Event).collect()
    }

    /// Waits until exactly these many events have come.
    #[track_caller]
    pub(crate) fn await_events(&self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        until("the sink has the events", || {
            events = self.events();
            events.len() >= count
        });
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// The one request's events: what the client sent, and what it got.
    #[track_caller]
    pub(crate) fn await_pair(&self) -> (Event, Event) {
        pair(self.await_events(2))
    }
}

/// The flag that makes an agent send its events to this port.
pub(crate) fn flag_of(port: u16) -> String {
    format!("--log-url=http://127.0.0.1:{port}/events")
}

/// A flag that names a sink which nobody listens on.
pub(crate) fn dead_flag() -> (u16, String) {
    let port = free_port();
    (port, flag_of(port))
}

/// An agent with one worker, whose metrics say what has been done before they are asked for.
pub(crate) fn logging(server: &Server, sink: &Sink, flags: &[&str]) -> Agent {
    setup(server, &sink.flag()).flags(flags).start()
}

/// The same, not started.
pub(crate) fn setup(server: &Server, flag: &str) -> Setup {
    Agent::setup(server.port).flags(&["--threads=1", flag]).watched()
}

/// The request's event and the response's, which come over any connection and so in any order.
#[track_caller]
pub(crate) fn pair(events: Vec<Event>) -> (Event, Event) {
    let (mut requests, mut responses): (Vec<Event>, Vec<Event>) = events.into_iter().partition(Event::is_request);
    assert_eq!((requests.len(), responses.len()), (1, 1), "{requests:?} {responses:?}");
    (requests.remove(0), responses.remove(0))
}

impl Event {
    /// A field of the request that brought it, whose name may not be there twice.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let fields = self.0.fields();
        let named = fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).count();
        assert!(named <= 1, "{name} {named} times: {:?}", self.0);
        self.0.field(name)
    }

    /// All fields, their names in lower case.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        self.0.fields().into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
    }

    #[track_caller]
    pub(crate) fn id(&self) -> String {
        self.field("ce-id").unwrap_or_default()
    }

    pub(crate) fn is_request(&self) -> bool {
        match self.field("ce-type").as_deref() {
            Some("org.kubeflow.serving.inference.request") => true,
            Some("org.kubeflow.serving.inference.response") => false,
            other => panic!("type {other:?} of {:?}", self.0),
        }
    }

    pub(crate) fn line(&self) -> String {
        self.0.line()
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.0.body
    }

    pub(crate) fn text(&self) -> String {
        self.0.text()
    }

    /// The sink's connection that it came over.
    pub(crate) fn connection(&self) -> usize {
        self.0.connection
    }
}

impl Books {
    #[track_caller]
    pub(crate) fn of(agent: &Agent) -> Self {
        let metrics = agent.metrics();
        let sum = |name: &str| metrics.sum(&format!("kserve_logger_{name}"));
        Self {
            accepted: sum("events_accepted_total"),
            sent: sum("events_sent_total"),
            failed: sum("events_failed_total"),
            dropped: sum("events_dropped_total"),
            waiting: sum("work_queue_depth"),
        }
    }

    /// Waits until nothing waits any more; what was accepted was then sent or given up, and holds no room.
    #[track_caller]
    pub(crate) fn settled(agent: &Agent) -> Self {
        let mut books = Self::of(agent);
        until("no event waits", || {
            books = Self::of(agent);
            books.waiting == 0
        });
        assert_eq!(books.accepted, books.sent + books.failed, "{books:?}");
        until("no event holds room", || agent.metrics().count("kserve_logger_queue_bytes") == 0);
        books
    }

    /// So many accepted and all of them sent, none dropped.
    pub(crate) fn all_sent(count: u64) -> Self {
        Self { accepted: count, sent: count, ..Self::default() }
    }
}
