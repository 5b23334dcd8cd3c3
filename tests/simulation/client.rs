//! One simulated client: sends its requests, reads the answers strictly, and knows which of them it must get.

use super::reader::{self, Message, Unread};
use super::request::Cut;
use super::response::Fate;
use super::rng::Rng;
use super::server::{Book, Entry, nonce};

/// Bytes that lie between a client and the agent at most.
const SOCKET_BYTES: usize = 200 * 1024;

/// What clients have met with, to see that a run meets with everything.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) exchanges: usize,
    /// Exchanges that opened no connection to the server.
    pub(crate) reuses: usize,
    /// Whole responses of the server.
    pub(crate) whole: usize,
    /// … to requests that had not ended.
    pub(crate) early: usize,
    pub(crate) interims: usize,
    /// Answers of the agent's own, for the client's fault.
    pub(crate) refused: usize,
    /// … for the server's.
    pub(crate) replaced: usize,
    /// Connections that were cut in the middle of a response, in an orderly way …
    pub(crate) cut: usize,
    /// … or with a reset.
    pub(crate) reset: usize,
    /// Requests that the server closed a used connection on …
    pub(crate) stale: usize,
    /// … of those, sent again with success.
    pub(crate) resent: usize,
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            exchanges: self.exchanges + other.exchanges,
            reuses: self.reuses + other.reuses,
            whole: self.whole + other.whole,
            early: self.early + other.early,
            interims: self.interims + other.interims,
            refused: self.refused + other.refused,
            replaced: self.replaced + other.replaced,
            cut: self.cut + other.cut,
            reset: self.reset + other.reset,
            stale: self.stale + other.stale,
            resent: self.resent + other.resent,
        }
    }
}

pub(crate) struct Peer {
    pub(crate) tally: Tally,
    requests: Vec<u64>,
    /// The request that it sends, and how much of it is sent.
    sending: (usize, usize),
    answered: usize,
    pipelines: bool,
    /// Bytes that it sends at once at most.
    pace: usize,
    /// The server wants the body, or the client has waited long enough.
    may_send_body: bool,
    /// It sends nothing more.
    is_stopped: bool,
    /// On the way to the agent.
    pub(crate) up: Vec<u8>,
    pub(crate) up_ended: Option<Cut>,
    inbox: Vec<u8>,
    /// The agent has said that it closes.
    was_told: bool,
    pub(crate) is_over: bool,
}

impl Peer {
    pub(crate) fn new(requests: Vec<u64>, pipelines: bool, pace: usize) -> Self {
        Self {
            tally: Tally::default(),
            requests,
            sending: (0, 0),
            answered: 0,
            pipelines,
            pace,
            may_send_body: false,
            is_stopped: false,
            up: Vec::new(),
            up_ended: None,
            inbox: Vec::new(),
            was_told: false,
            is_over: false,
        }
    }

    /// Sends some bytes; `false`: it can't.
    pub(crate) fn send(&mut self, book: &Book, rng: &mut Rng) -> bool {
        let (index, sent) = self.sending;
        let may_begin = self.pipelines || index <= self.answered;
        if self.is_stopped || index >= self.requests.len() || !may_begin || self.up.len() >= SOCKET_BYTES {
            return false;
        }
        let request = &book[&self.requests[index]].request;
        let holds_back = request.expects && !self.may_send_body;
        let all = request.sent();
        let end = if holds_back { all.len().min(request.head) } else { all.len() };
        if sent < end {
            let count = rng.piece(end - sent).min(if all.len() > 5000 { usize::MAX } else { self.pace });
            self.up.extend_from_slice(&all[sent..sent + count]);
            self.sending.1 += count;
        } else if sent < all.len() {
            return false;
        }
        if self.sending.1 == all.len() {
            self.sending = (index + 1, 0);
            self.may_send_body = false;
            self.is_stopped = request.is_wrong || request.cut.is_some();
            self.up_ended = request.cut.map(|cut| cut.1);
        }
        true
    }

    /// It has waited long enough for the server to want the body; `false`: it does not wait.
    pub(crate) fn gives_up_waiting(&mut self, book: &Book) -> bool {
        let (index, sent) = self.sending;
        let Some(nonce) = self.requests.get(index) else { return false };
        let request = &book[nonce].request;
        let waits = !self.is_stopped && !self.may_send_body && request.expects && sent == request.head;
        self.may_send_body |= waits;
        waits
    }

    /// Bytes from the agent, and whether its connection has ended in an orderly way behind them.
    pub(crate) fn take(&mut self, bytes: &[u8], closed: bool, book: &Book) {
        self.inbox.extend_from_slice(bytes);
        while !self.inbox.is_empty() {
            assert!(!self.was_told, "more after the last answer: {}", self.inbox.escape_ascii());
            let nonce = self.requests.get(self.answered).expect("an answer that nobody asked for");
            let entry = &book[nonce];
            match reader::response(&self.inbox, entry.request.method == "HEAD", closed) {
                Ok((message, length)) => {
                    self.inbox.drain(..length);
                    self.read(&message, entry);
                }
                Err(Unread::More) => return,
                Err(Unread::Bad(why)) => panic!("client can't read it: {why}: {}", self.inbox.escape_ascii()),
            }
        }
    }

    fn read(&mut self, message: &Message, entry: &Entry) {
        let request = &entry.request;
        let from = nonce(message);
        assert!(from.is_none_or(|nonce| nonce == request.nonce), "the answer of another request");
        if message.status < 200 {
            assert!(!request.is_http10, "HTTP/1.0 knows no interim responses");
            assert!(from.is_some());
            self.tally.interims += 1;
            self.may_send_body |= message.status == 100 && self.sending.0 == self.answered;
            return;
        }
        match from {
            Some(_) => self.check_servers(message, entry),
            None => self.check_agents(message, entry),
        }
        let keeps =
            if message.minor_version == 1 { !message.has_option("close") } else { message.has_option("keep-alive") };
        self.was_told = !keeps;
        assert!(!(keeps && request.closes), "it was asked to close");
        assert!(!keeps || self.sending.0 > self.answered, "kept, though the request has not ended");
        self.answered += 1;
        // Another time it might go on sending; nobody would read it.
        self.is_stopped |= self.was_told;
    }

    fn check_servers(&mut self, message: &Message, entry: &Entry) {
        let (request, response) = (&entry.request, &entry.response);
        assert_eq!(response.fate, Fate::Whole, "a response that was not whole looks like it");
        self.tally.whole += 1;
        self.tally.early += usize::from(self.sending.0 <= self.answered);
        self.tally.resent += usize::from(entry.was_stale);
        let is_whole = !request.is_wrong && request.cut.is_none();
        assert!(is_whole || response.is_early, "an answer to what was no request");
        assert_eq!(message.status, response.status);
        let has_body = request.method != "HEAD" && !matches!(response.status, 204 | 304);
        let body: &[u8] = if has_body { &response.body } else { b"" };
        assert!(message.body == body, "the body of {:016x} has changed", request.nonce);
        if request.is_http10 {
            assert_eq!((message.minor_version, message.value("transfer-encoding")), (0, None));
            assert!(message.trailers.is_empty());
        } else {
            assert_eq!((message.minor_version, &message.trailers), (1, &response.trailers));
        }
        assert!(message.fields.iter().all(|(_, value)| value != b"secret"), "a field for one hop passed");
    }

    /// The agent answers itself only when it must.
    fn check_agents(&mut self, message: &Message, entry: &Entry) {
        let Entry { request, response, was_stale, .. } = entry;
        let is_clients = request.is_wrong || request.cut.is_some();
        let is_servers = response.fate == Fate::Replaced || *was_stale;
        self.tally.refused += usize::from(message.status < 500);
        self.tally.replaced += usize::from(message.status > 501);
        match message.status {
            400 | 408 | 417 | 431 | 501 => assert!(is_clients, "refused with {}", message.status),
            502 | 504 => assert!(is_servers, "answered with {}", message.status),
            status => panic!("answered with {status}"),
        }
    }

    /// The agent has closed or cut the connection, and everything that came before was taken.
    pub(crate) fn end(&mut self, was_reset: bool, book: &Book) {
        self.is_over = true;
        if !was_reset {
            self.take(b"", true, book);
        }
        let Some(nonce) = self.requests.get(self.answered) else { return };
        let Entry { request, response, was_stale, .. } = &book[nonce];
        let is_ours = request.is_wrong || request.cut.is_some();
        let is_servers = response.fate == Fate::Broken || *was_stale;
        assert!(self.was_told || is_ours || is_servers, "no answer to {:016x}, and no reason why", request.nonce);
        if response.fate == Fate::Broken && !self.was_told {
            self.tally.cut += usize::from(!was_reset);
            self.tally.reset += usize::from(was_reset);
        }
        assert!(self.inbox.is_empty() || is_ours || response.fate == Fate::Broken, "half an answer");
    }

    /// It goes away itself.
    pub(crate) fn leave(&mut self) {
        self.is_over = true;
    }

    /// Whether it has had all its answers.
    pub(crate) fn is_content(&self) -> bool {
        self.answered == self.requests.len()
    }

    /// Whether it has left off in the middle of a request.
    pub(crate) fn is_silent(&self) -> bool {
        self.up_ended == Some(Cut::Silence)
    }
}
