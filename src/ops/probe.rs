//! The prober: one thread that runs the container probe and answers all who wait for its result (SPEC H3).
//!
//! Requests that arrive while a probe runs share its result, so a burst of them costs the model server one try.
//!
//! Not here, on purpose: the status and text of the answer (the worker's), the probe's JSON (`cli`), a timer (nothing
//! runs unless asked), the count of failures that makes a pod unready (the kubelet's). A host that is a name is looked
//! up without a limit of ours: the C library's own, some seconds, may make that try late.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::panic::catch_unwind;
use std::time::{Duration, Instant};
use std::{fmt, io, io::Read};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{info, warn};
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, config::Config, tls::TlsConfig};

use super::grpc_health::{self, HealthError, USER_AGENT};
use crate::config::{Check, Probe};

/// Answers the requests in `inbox` until all its senders are gone; `answer` gets each, and whether all `probes` passed.
/// Requests unanswered when the senders go, be it in the middle of a probe's retries, are dropped.
pub(crate) fn run<T>(probes: &[Probe], inbox: &Receiver<T>, answer: impl FnMut(T, bool)) {
    Prober::new(probes, Pace::KNATIVE, inbox, answer).run();
}

/// How an aggressive probe retries: from start to start, with this limit of one try, and of all of them.
#[derive(Debug, Clone, Copy)]
struct Pace {
    every: Duration,
    timeout: Duration,
    total: Duration,
}

impl Pace {
    /// The numbers of Knative's readiness probe.
    const KNATIVE: Self =
        Self { every: Duration::from_millis(50), timeout: Duration::from_millis(100), total: Duration::from_secs(10) };
}

/// Why a round of probes ended before all had passed: one failed, or nobody is left to answer to.
enum Stop<'a> {
    Failed(&'a Check, Failure),
    InboxClosed,
}

struct Prober<'a, T, A> {
    /// Each probe with its successes in a row, which go on from one round to the next, as Knative's do.
    probes: Vec<(&'a Probe, u32)>,
    pace: Pace,
    inbox: &'a Receiver<T>,
    answer: A,
    /// Requests that share the result to come. INVARIANT: at most [`WAITING`].
    waiting: Vec<T>,
    passing: Option<bool>,
}

impl<'a, T, A: FnMut(T, bool)> Prober<'a, T, A> {
    fn new(probes: &'a [Probe], pace: Pace, inbox: &'a Receiver<T>, answer: A) -> Self {
        Self {
            probes: probes.iter().map(|probe| (probe, 0)).collect(),
            pace,
            inbox,
            answer,
            waiting: Vec::new(),
            passing: None,
        }
    }

    fn run(mut self) {
        while let Ok(request) = self.inbox.recv() {
            self.waiting.push(request);
            let result = (0..self.probes.len()).try_for_each(|index| self.check(index));
            if matches!(result, Err(Stop::InboxClosed)) {
                return;
            }
            self.report(&result);
            let arrived = self.inbox.len();
            let arrived = self.inbox.try_iter().take(arrived);
            for request in self.waiting.drain(..).chain(arrived) {
                (self.answer)(request, result.is_ok());
            }
        }
    }

    /// Tries until the probe has passed often enough, or no further try would end in time.
    fn check(&mut self, index: usize) -> Result<(), Stop<'a>> {
        let (probe, row) = self.probes[index];
        let (needed, timeout, total) = match probe.aggressive {
            true => (probe.success_threshold.get(), self.pace.timeout, self.pace.total),
            false => (1, probe.timeout, Duration::ZERO),
        };
        let mut row = row;
        let end = Instant::now() + total;
        loop {
            let next = Instant::now() + self.pace.every;
            let result = try_once(&probe.check, timeout);
            row = if result.is_ok() { row.saturating_add(1) } else { 0 };
            self.probes[index].1 = row;
            if row >= needed {
                return Ok(());
            }
            if next + timeout > end {
                let failure = result.err().unwrap_or(Failure::ShortRow(row));
                return Err(Stop::Failed(&probe.check, failure));
            }
            self.wait_until(next)?;
        }
    }

    /// Takes in requests meanwhile: that is how the end of the inbox is noticed. One too many is told "not ready" at once.
    fn wait_until(&mut self, next: Instant) -> Result<(), Stop<'a>> {
        loop {
            match self.inbox.recv_deadline(next) {
                Ok(request) if self.waiting.len() < WAITING => self.waiting.push(request),
                Ok(request) => (self.answer)(request, false),
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Stop::InboxClosed),
            }
        }
    }

    /// One line per change of state, none per request.
    fn report(&mut self, result: &Result<(), Stop<'a>>) {
        if self.passing.replace(result.is_ok()) == Some(result.is_ok()) {
            return;
        }
        match result {
            Err(Stop::Failed(check, why)) => warn!("container probe {} fails: {why}", url(check)),
            _ => info!("container probe passes"),
        }
    }
}

/// One try. A panic, which takes a fault in a library, fails the try and not the prober.
fn try_once(check: &Check, limit: Duration) -> Result<(), Failure> {
    let tried = catch_unwind(|| match check {
        Check::Http { headers, .. } => http(&url(check), headers, limit),
        Check::Tcp { host, port } => tcp(&format!("{}:{port}", bracketed(host)), limit),
        Check::Grpc { port, service } => grpc_health::check(*port, service, limit).map_err(Failure::Grpc),
    });
    match tried.unwrap_or(Err(Failure::Panicked)) {
        Err(failure) if failure.is_timeout() => Err(Failure::TimedOut(limit)),
        result => result,
    }
}

fn url(check: &Check) -> String {
    match check {
        Check::Http { tls, host, port, path, .. } => {
            let scheme = if *tls { "https" } else { "http" };
            format!("{scheme}://{}:{port}{path}", bracketed(host))
        }
        Check::Tcp { host, port } => format!("tcp://{}:{port}", bracketed(host)),
        Check::Grpc { port, service } => format!("grpc://127.0.0.1:{port}/{service}"),
    }
}

/// The host as a URL has it: a bare IPv6 address gets its brackets.
fn bracketed(host: &str) -> String {
    let bare = host.contains(':') && !host.starts_with('[');
    if bare { format!("[{host}]") } else { host.to_owned() }
}

/// The status alone decides; of the body enough is read that the server is not cut off in it.
fn http(url: &str, headers: &[(String, String)], limit: Duration) -> Result<(), Failure> {
    let mut request = Request::get(url);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        request = request.header("connection", "close");
    }
    for (name, value) in headers {
        request = request.header(name, value.as_bytes());
    }
    let request = request.body(()).map_err(ureq::Error::from).map_err(Failure::Net)?;
    let response = agent(limit).run(request).map_err(Failure::Net)?;
    let status = response.status().as_u16();
    let mut body = response.into_body().into_reader().take(BODY_BYTES);
    let _ = io::copy(&mut body, &mut io::sink());
    if (200..400).contains(&status) { Ok(()) } else { Err(Failure::Status(status)) }
}

/// A client with ureq's own ideas turned off, made anew so that no connection outlives its try.
fn agent(limit: Duration) -> Agent {
    let config = Config::builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .accept_encoding("")
        .user_agent(USER_AGENT)
        .timeout_global(Some(limit))
        .tls_config(TlsConfig::builder().disable_verification(true).build()) // As the kubelet.
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Lookup)
}

/// Looks names up in this thread. ureq's own starts a thread for each request, and panics if it can't.
#[derive(Debug)]
struct Lookup;

impl Resolver for Lookup {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let mut found = self.empty();
        addresses(authority)?.into_iter().for_each(|address| found.push(address));
        Ok(found)
    }
}

fn addresses(authority: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(authority.to_socket_addrs()?.take(ADDRESSES).collect())
}

/// Tries each address, for an equal share of the time.
fn tcp(authority: &str, limit: Duration) -> Result<(), Failure> {
    let end = Instant::now() + limit;
    let addresses = addresses(authority).map_err(|error| Failure::Net(error.into()))?;
    let left = end.saturating_duration_since(Instant::now());
    let share = left / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut result = Err(Failure::TimedOut(limit));
    for address in addresses.iter().filter(|_| !share.is_zero()) {
        result = match TcpStream::connect_timeout(address, share) {
            Ok(_) => return Ok(()),
            Err(error) => Err(Failure::Net(error.into())),
        };
    }
    result
}

/// Why one probe did not pass.
#[derive(Debug)]
enum Failure {
    TimedOut(Duration),
    Status(u16),
    /// The request can't be made of the probe; no connection, or it broke; or the answer is not HTTP.
    Net(ureq::Error),
    Grpc(HealthError),
    /// Only so many successes in a row when the time was up.
    ShortRow(u32),
    Panicked,
}

impl Failure {
    fn is_timeout(&self) -> bool {
        let error = match self {
            Self::Net(ureq::Error::Io(error)) | Self::Grpc(HealthError::Io(error)) => error,
            other => return matches!(other, Self::Net(ureq::Error::Timeout(_))),
        };
        matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => write!(f, "timed out after {limit:?}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Net(ureq::Error::Io(error)) => error.fmt(f),
            Self::Net(error) => error.fmt(f),
            Self::Grpc(error) => error.fmt(f),
            Self::ShortRow(row) => write!(f, "only {row} successes in a row"),
            Self::Panicked => f.write_str("internal error"),
        }
    }
}

const WAITING: usize = 1024; // Through one round of retries: far more than one pod has probers.
const BODY_BYTES: u64 = 10 * 1024; // Of an HTTP answer, as the kubelet.
const ADDRESSES: usize = 16; // Of one host; ureq takes no more.

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::num::{NonZeroU16, NonZeroU32};

    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    const LONG: Duration = Duration::from_secs(10);
    const QUICK: Pace = Pace {
        every: Duration::from_millis(1),
        timeout: Duration::from_millis(500),
        total: Duration::from_millis(900),
    };

    /// Answers the n-th connection with `reply(n)`; the heads of the requests come out of the channel.
    fn serve(mut reply: impl FnMut(usize) -> &'static str + Send + 'static) -> (Check, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = get(listener.local_addr().unwrap().port(), &[]);
        let (heads, seen) = unbounded();
        std::thread::spawn(move || {
            for (n, connection) in listener.incoming().flatten().enumerate() {
                let lines = BufReader::new(&connection).lines().map_while(Result::ok);
                let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                heads.send(head.join("\n")).unwrap();
                let _ = (&connection).write_all(reply(n).as_bytes());
            }
        });
        (check, seen)
    }

    fn get(port: u16, headers: &[(&str, &str)]) -> Check {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Check::Http {
            tls: false,
            host: "127.0.0.1".into(),
            port: NonZeroU16::new(port).unwrap(),
            path: "/ready?x=1".into(),
            headers: headers.collect(),
        }
    }

    fn aggressive(check: Check, in_a_row: u32) -> Probe {
        let success_threshold = NonZeroU32::new(in_a_row).unwrap();
        Probe { check, timeout: LONG, aggressive: true, success_threshold }
    }
}
