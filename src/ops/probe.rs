//! The prober: one thread that runs the container probe and answers all who wait for its result (SPEC H3), so that a
//! burst of requests costs the model server one try.
//!
//! Not here, on purpose: the status and text of the answer (the worker's), the probe's JSON (`cli`), a timer, the count
//! of failures that makes a pod unready (the kubelet's). A host that is a name is looked up without a limit of ours:
//! the C library's own, some seconds, may make that try late.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::num::NonZeroU16;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use log::{info, warn};
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs as Addresses, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, config::Config};

use super::grpc_health::{HealthError, USER_AGENT, check as grpc};
use super::tls::unverified;
use crate::config::{Check, Probe};

/// Answers the requests in `inbox` until all its senders are gone; `answer` gets each, and whether all `probes` passed.
/// Requests unanswered when the senders go, be it in the middle of a probe's retries, are dropped.
pub(crate) fn run<T>(probes: &[Probe], inbox: &Receiver<T>, answer: impl FnMut(T, bool)) {
    Prober::new(probes, inbox, answer).run();
}

/// Why a round of probes ended before all had passed: one failed, or nobody is left to answer to.
enum Stop<'a> {
    Failed(&'a Check, Failure),
    InboxClosed,
}

struct Prober<'a, T, A> {
    /// Each probe with its successes in a row, which go on from one round to the next, as Knative's do.
    probes: Vec<(&'a Probe, u32)>,
    retry_timeout: Duration,
    retry_total: Duration,
    inbox: &'a Receiver<T>,
    answer: A,
    /// Requests that share the result to come. INVARIANT: at most [`WAITING`].
    waiting: Vec<T>,
    passing: Option<bool>,
}

impl<'a, T, A: FnMut(T, bool)> Prober<'a, T, A> {
    fn new(probes: &'a [Probe], inbox: &'a Receiver<T>, answer: A) -> Self {
        Self {
            probes: probes.iter().map(|probe| (probe, 0)).collect(),
            retry_timeout: RETRY_TIMEOUT,
            retry_total: RETRY_TOTAL,
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

    fn check(&mut self, index: usize) -> Result<(), Stop<'a>> {
        let Probe { check, timeout, .. } = self.probes[index].0;
        if self.probes[index].0.aggressive {
            return self.insist(index);
        }
        try_once(check, *timeout).map_err(|why| Stop::Failed(check, why))
    }

    /// Tries until the probe has passed often enough in a row, or no further try would end in time.
    fn insist(&mut self, index: usize) -> Result<(), Stop<'a>> {
        let end = Instant::now() + self.retry_total;
        loop {
            let next = Instant::now() + RETRY_EVERY;
            let (probe, row) = &mut self.probes[index];
            let result = try_once(&probe.check, self.retry_timeout);
            *row = result.as_ref().map_or(0, |()| row.saturating_add(1));
            if *row >= probe.success_threshold.get() {
                return Ok(());
            }
            if next + self.retry_timeout > end {
                let why = result.err().unwrap_or(Failure::ShortRow(*row));
                return Err(Stop::Failed(&probe.check, why));
            }
            self.wait_until(next)?;
        }
    }

    /// Takes in requests meanwhile, to notice the end of the inbox; one too many is told "not ready" at once.
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
        let before = self.passing.replace(result.is_ok());
        match result {
            _ if before == Some(result.is_ok()) => {}
            Err(Stop::Failed(check, why)) => warn!("container probe {} fails: {why}", url(check)),
            _ => info!("container probe passes"),
        }
    }
}

/// One try. A panic, which takes a fault in a library, fails the try and not the prober.
fn try_once(check: &Check, limit: Duration) -> Result<(), Failure> {
    let tried = catch_unwind(|| match check {
        Check::Http { headers, .. } => http(&url(check), headers, limit),
        Check::Tcp { host, port } => tcp(host, *port, limit).map_err(Failure::Net),
        Check::Grpc { port, service } => grpc(*port, service, limit).map_err(Failure::Grpc),
    });
    match tried.unwrap_or(Err(Failure::Panicked)) {
        Err(Failure::Net(ureq::Error::Timeout(_))) => Err(Failure::TimedOut(limit)),
        Err(Failure::Net(ureq::Error::Io(e)) | Failure::Grpc(HealthError::Io(e)))
            if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) =>
        {
            Err(Failure::TimedOut(limit))
        }
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
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// The status alone decides; of the body enough is read that the server is not cut off in it.
fn http(url: &str, headers: &[(String, String)], limit: Duration) -> Result<(), Failure> {
    let mut request = Request::get(url).header("connection", "close");
    for (name, value) in headers {
        request = request.header(name, value.as_bytes());
    }
    let request = request.body(()).map_err(|error| Failure::Net(error.into()))?;
    let response = agent(limit).run(request).map_err(Failure::Net)?;
    let status = response.status().as_u16();
    let mut body = response.into_body().into_reader().take(BODY_BYTES);
    let _ = io::copy(&mut body, &mut io::sink());
    match status {
        200..400 => Ok(()),
        _ => Err(Failure::Status(status)),
    }
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
        .tls_config(unverified()) // As the kubelet.
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Lookup)
}

/// Looks names up in this thread. ureq's own starts a thread for each request, and panics if it can't.
#[derive(Debug)]
struct Lookup;

impl Resolver for Lookup {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<Addresses, ureq::Error> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let mut found = self.empty();
        for address in authority.to_socket_addrs()?.take(ADDRESSES) {
            found.push(address);
        }
        Ok(found)
    }
}

/// Tries each address, for an equal share of the time.
fn tcp(host: &str, port: NonZeroU16, limit: Duration) -> Result<(), ureq::Error> {
    let addresses = format!("{}:{port}", bracketed(host)).to_socket_addrs()?;
    let addresses: Vec<_> = addresses.take(ADDRESSES).collect();
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut result = Err(ErrorKind::HostUnreachable.into());
    for address in addresses {
        result = TcpStream::connect_timeout(&address, share);
        if result.is_ok() {
            break;
        }
    }
    Ok(result.map(drop)?)
}

/// Why one probe did not pass.
#[derive(Debug)]
enum Failure {
    TimedOut(Duration),
    Status(u16),
    /// The request can't be made of the probe; no connection, or it broke; or the answer is not HTTP.
    Net(ureq::Error),
    Grpc(HealthError),
    ShortRow(u32),
    Panicked,
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

// From the start of one try to the next, limit of one, and of all: the numbers of Knative's readiness probe.
const RETRY_EVERY: Duration = Duration::from_millis(50);
const RETRY_TIMEOUT: Duration = Duration::from_millis(100);
const RETRY_TOTAL: Duration = Duration::from_secs(10);
const WAITING: usize = 1024; // Through one round of retries: far more than one pod has probers.
const BODY_BYTES: u64 = 10 * 1024; // Of an HTTP answer, as the kubelet.
const ADDRESSES: usize = 16; // Of one host; ureq takes no more.

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::num::NonZeroU32;

    const LONG: Duration = Duration::from_secs(10);
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

    fn listen() -> (TcpListener, NonZeroU16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = NonZeroU16::new(listener.local_addr().unwrap().port());
        (listener, port.unwrap())
    }

    /// Answers the n-th connection with `reply(n)`; the heads it read come out of the channel.
    fn serve(mut reply: impl FnMut(usize) -> &'static str + Send + 'static) -> (NonZeroU16, Receiver<String>) {
        let ((listener, port), (heads, seen)) = (listen(), unbounded());
        std::thread::spawn(move || {
            for (n, connection) in listener.incoming().flatten().enumerate() {
                let lines = BufReader::new(&connection).lines().map_while(Result::ok);
                let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
                heads.send(head.join("\n")).unwrap();
                let _ = (&connection).write_all(reply(n).as_bytes());
            }
        });
        (port, seen)
    }

    fn get(port: NonZeroU16, headers: &[(&str, &str)]) -> Check {
        let (tls, host, path) = (false, "127.0.0.1".to_owned(), "/ready?x=1".to_owned());
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Check::Http { tls, host, port, path, headers }
    }

    fn aggressive(check: Check, threshold: u32) -> [Probe; 1] {
        let success_threshold = NonZeroU32::new(threshold).unwrap();
        [Probe { check, timeout: LONG, aggressive: true, success_threshold }]
    }

    fn outcome(check: &Check, limit: Duration) -> String {
        try_once(check, limit).map_or_else(|why| why.to_string(), |()| "passed".into())
    }

    #[test]
    fn an_http_status_from_200_to_399_passes() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "passed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut", "passed"),
            ("HTTP/1.1 302 Found\r\nlocation: /other\r\n\r\n", "passed"),
            ("HTTP/1.0 399 Odd\r\n\r\nuntil the end", "passed"),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", "status 400"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
            ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "protocol"),
            ("", "disconnected"),
        ] {
            let (port, seen) = serve(move |_| answer);
            let outcome = outcome(&get(port, &[]), LONG);
            assert!(outcome.contains(expected), "{answer:?}: {outcome}");
            assert_eq!(seen.len(), 1, "a redirect is not followed");
        }
    }

    #[test]
    fn a_get_has_the_probes_headers_and_only_what_the_kubelet_adds() {
        let (port, seen) = serve(|_| OK);
        let given: &[_] = &[("Host", "m"), ("User-Agent", "me"), ("X-A", "1"), ("X-A", "2")];
        for (headers, expected) in [
            (&[][..], format!("user-agent: {USER_AGENT}\naccept: */*\nhost: 127.0.0.1:{port}\nconnection: close")),
            (given, "accept: */*\nconnection: close\nhost: m\nuser-agent: me\nx-a: 1\nx-a: 2".into()),
        ] {
            assert_eq!(outcome(&get(port, headers), LONG), "passed");
            assert_eq!(seen.recv().unwrap(), format!("GET /ready?x=1 HTTP/1.1\n{expected}"));
        }
        assert!(agent(LONG).config().proxy().is_none(), "nor the environment's proxy");
    }

    #[test]
    fn a_silent_or_absent_server_fails_and_an_open_port_passes_tcp() {
        let ((listener, port), limit) = (listen(), Duration::from_millis(50));
        let tcp = Check::Tcp { host: "127.0.0.1".into(), port };
        let grpc = Check::Grpc { port, service: String::new() };
        assert_eq!(outcome(&tcp, LONG), "passed");
        assert_eq!(outcome(&get(port, &[]), limit), "timed out after 50ms");
        assert_eq!(outcome(&grpc, limit), "timed out after 50ms");
        drop(listener);
        for check in [tcp, grpc, get(port, &[])] {
            assert!(outcome(&check, LONG).starts_with("Connection refused"));
        }
    }

    #[test]
    fn a_round_is_shared_by_all_who_come_before_its_end_and_needs_successes_in_a_row() {
        let (sender, inbox) = unbounded();
        (0..3).for_each(|n| sender.send(n).unwrap());
        let mut sender = Some(sender);
        let (port, seen) = serve(move |n| {
            sender.take_if(|sender| sender.send(n + 3).is_err() || n == 4);
            ["", OK, "HTTP/1.1 503 No\r\n\r\n", OK, OK][n]
        });
        let (probes, mut answers) = (aggressive(get(port, &[]), 2), Vec::new());
        let mut prober = Prober::new(&probes, &inbox, |n, passed| answers.push((n, passed)));
        (prober.retry_timeout, prober.retry_total) = (LONG, 3 * LONG);
        prober.run();
        assert_eq!(answers, [0, 1, 2, 3, 4, 5, 6, 7].map(|n| (n, true)));
        assert_eq!(seen.len(), 5, "tries");
    }

    #[test]
    fn one_probe_that_fails_until_the_limit_is_enough_and_the_next_is_not_tried() {
        let ((open, seen), (sender, inbox)) = (serve(|_| OK), unbounded());
        sender.send(()).unwrap();
        let (mut sender, mut answers) = (Some(sender), Vec::new());
        let [absent, present] = [listen().1, open].map(|port| aggressive(get(port, &[]), 1));
        let probes = [present.clone(), absent, present].concat();
        let mut prober = Prober::new(&probes, &inbox, |(), passed| answers.push((passed, sender.take().is_some())));
        prober.retry_total = 2 * RETRY_TIMEOUT;
        prober.run();
        assert_eq!((answers, seen.len()), (vec![(false, true)], 1));
    }

    #[test]
    fn retries_end_with_the_inbox() {
        let (sender, inbox) = unbounded();
        sender.send(()).unwrap();
        let mut sender = Some(sender);
        let (port, seen) = serve(move |_| sender.take().map_or("", |_| ""));
        run(&aggressive(get(port, &[]), 1), &inbox, |(), _| unreachable!("nobody is left to answer to"));
        assert!(seen.len() < 10, "far from the limit");
    }
}
