//! What the proxy counts (SPEC O1), and whose fault a failure is.
//!
//! Architecture Invariant: a worker's counters are written by that worker alone and lie on lines of their own.
//!
//! Not here: when something is counted ([`super::account`]).

use std::sync::Arc;

use super::load::Loads;
use crate::batcher::metrics::{GOES_SINGLY, NO_THREAD};
use crate::fault::{Reason, UpstreamError};
use crate::ops::metrics::family::{Family, Reading, Source};
use crate::ops::metrics::{Counter, DURATION, Histogram, Label, Labelled, label};

label! {
    /// The class of an answer's status.
    pub(crate) Code as "code" {
        /// A switch of protocols.
        Switch = "1xx",
        /// Success.
        Success = "2xx",
        /// Redirection.
        Redirection = "3xx",
        /// The client's fault.
        Client = "4xx",
        /// The server's fault, or the agent's.
        Server = "5xx",
        /// There was none: the client left before.
        None = "none",
    }
}

/// One worker's counters.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct WorkerMetrics {
    pub(crate) requests: Labelled<Code>,
    /// Requests that were read whole as far as the head.
    pub(crate) begun: Counter,
    /// Those of them that are over.
    pub(crate) ended: Counter,
    pub(crate) duration: Histogram,
    pub(crate) upstream_duration: Histogram,
    pub(crate) rejected: Labelled<Reason>,
    pub(crate) upstream_errors: Labelled<UpstreamError>,
    pub(crate) upstream_retries: Counter,
    pub(crate) connections: Counter,
    pub(crate) evicted: Counter,
    pub(crate) upstream_opened: Counter,
    pub(crate) upstream_closed: Counter,
    pub(crate) tunnels_opened: Counter,
    pub(crate) tunnels_closed: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) probes: Labelled<Code>,
}

/// The whole proxy's.
#[derive(Debug)]
pub(crate) struct ProxyMetrics {
    workers: Vec<Arc<WorkerMetrics>>,
    loads: Arc<Loads>,
}

impl Code {
    /// The class of a status; 0 is that of no answer.
    pub(crate) fn of(status: u16) -> Self {
        match status {
            0 => Self::None,
            1..200 => Self::Switch,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::Client,
            500.. => Self::Server,
        }
    }
}

/// The name of the kind of line in the log that has this number.
pub(crate) fn name_of_kind(kind: usize) -> &'static str {
    match kind {
        GOES_SINGLY => return "batch_singles",
        NO_THREAD => return "no_thread",
        _ => {}
    }
    let named = Reason::VALUES.iter().chain(UpstreamError::VALUES).chain(&OTHER_KINDS);
    named.copied().nth(kind).unwrap_or_default()
}

/// The kinds behind those of reasons and errors: a bug of the agent's, and the two below.
const OTHER_KINDS: [&str; 3] = ["agent", "recovered", "evicted"];
/// The kind of the line that says that the model server answers again.
pub(crate) const RECOVERED: usize = Reason::VALUES.len() + UpstreamError::VALUES.len() + 1;
/// The kind of the line that says that an idle connection had to go.
pub(crate) const EVICTED: usize = RECOVERED + 1;

const _: () = assert!(EVICTED < GOES_SINGLY, "each kind has its own quiet time");

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            requests: Labelled::default(),
            begun: Counter::default(),
            ended: Counter::default(),
            duration: Histogram::new(&DURATION),
            upstream_duration: Histogram::new(&DURATION),
            rejected: Labelled::default(),
            upstream_errors: Labelled::default(),
            upstream_retries: Counter::default(),
            connections: Counter::default(),
            evicted: Counter::default(),
            upstream_opened: Counter::default(),
            upstream_closed: Counter::default(),
            tunnels_opened: Counter::default(),
            tunnels_closed: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            probes: Labelled::default(),
        }
    }
}

impl ProxyMetrics {
    /// For so many workers.
    pub(crate) fn new(workers: usize, loads: Arc<Loads>) -> Self {
        let workers = (0..workers).map(|_| Arc::default()).collect();
        Self { workers, loads }
    }

    /// One worker's.
    pub(crate) fn of(&self, worker: usize) -> Arc<WorkerMetrics> {
        Arc::clone(&self.workers[worker])
    }

    fn sum(&self, counter: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| counter(worker).read()).sum()
    }

    /// Of two counters the first of which counts what came and the second what went.
    fn open(&self, came: impl Fn(&WorkerMetrics) -> &Counter, went: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
        // What went is read first, so that it is not more than what came.
        let went = self.sum(went);
        self.sum(came).saturating_sub(went)
    }

    fn labelled<L: Label + 'static>(&self, of: impl Fn(&WorkerMetrics) -> &Labelled<L>) -> Vec<(&'static str, u64)> {
        let mut counts: Vec<(&str, u64)> = L::VALUES.iter().map(|value| (*value, 0)).collect();
        for worker in &self.workers {
            counts.iter_mut().zip(of(worker).read()).for_each(|(sum, (_, count))| sum.1 += count);
        }
        counts
    }

    fn reading(&self, of: impl Fn(&WorkerMetrics) -> &Histogram) -> Reading {
        Reading::all(self.workers.iter().map(|worker| of(worker).read()))
    }

    fn of_requests(&self) -> Vec<Family> {
        let rejected = self.labelled(|worker| &worker.rejected);
        let errors = self.labelled(|worker| &worker.upstream_errors);
        vec![
            Family::counters(
                "kserve_agent_requests_total",
                "Requests by status class of their answer; none: the client left before it. Probes are not counted.",
                Code::NAME,
                self.labelled(|worker| &worker.requests),
            ),
            Family::gauge(
                "kserve_agent_requests_in_flight",
                "Requests that were read and have no complete answer yet.",
                self.open(|worker| &worker.begun, |worker| &worker.ended),
            ),
            Family::histogram(
                "kserve_agent_request_duration_seconds",
                "From the end of a request's head to the end of its answer.",
                self.reading(|worker| &worker.duration),
            ),
            Family::histogram(
                "kserve_agent_upstream_duration_seconds",
                "From the first byte sent to the model server to the head of its response, calls of the batcher apart.",
                self.reading(|worker| &worker.upstream_duration),
            ),
            Family::counters(
                "kserve_agent_requests_rejected_total",
                "Requests and connections that the agent itself turned away.",
                Reason::NAME,
                rejected,
            ),
            Family::counters(
                "kserve_agent_upstream_errors_total",
                "Requests that failed for the model server's fault.",
                UpstreamError::NAME,
                errors,
            ),
            Family::counter(
                "kserve_agent_upstream_retries_total",
                "Requests sent a second time, as their reused connection had been closed.",
                self.sum(|worker| &worker.upstream_retries),
            ),
            Family::counters(
                "kserve_agent_probes_total",
                "Probes by status class of their answer.",
                Code::NAME,
                self.labelled(|worker| &worker.probes)
                    .into_iter()
                    .filter(|(code, _)| ["2xx", "4xx", "5xx"].contains(code)),
            ),
        ]
    }

    fn of_connections(&self) -> Vec<Family> {
        let loads = &self.loads;
        vec![
            Family::gauge("kserve_agent_connections", "Open client connections.", loads.connections() as u64),
            Family::counter(
                "kserve_agent_connections_accepted_total",
                "Client connections accepted.",
                self.sum(|worker| &worker.connections),
            ),
            Family::counter(
                "kserve_agent_connections_evicted_total",
                "Idle connections closed to make room at the limit.",
                self.sum(|worker| &worker.evicted),
            ),
            Family::gauge(
                "kserve_agent_connections_limit",
                "Client connections at most.",
                loads.max_connections() as u64,
            ),
            Family::gauge(
                "kserve_agent_upstream_connections",
                "Open connections to the model server, the batcher's apart.",
                self.open(|worker| &worker.upstream_opened, |worker| &worker.upstream_closed),
            ),
            Family::counter(
                "kserve_agent_upstream_connections_opened_total",
                "Connections opened to the model server.",
                self.sum(|worker| &worker.upstream_opened),
            ),
            Family::gauge(
                "kserve_agent_tunnels",
                "Open tunnels (WebSocket, gRPC).",
                self.open(|worker| &worker.tunnels_opened, |worker| &worker.tunnels_closed),
            ),
            Family::counter(
                "kserve_agent_tunnels_opened_total",
                "Tunnels opened.",
                self.sum(|worker| &worker.tunnels_opened),
            ),
            Family::counter(
                "kserve_agent_received_bytes_total",
                "Bytes from clients.",
                self.sum(|worker| &worker.received),
            ),
            Family::counter("kserve_agent_sent_bytes_total", "Bytes to clients.", self.sum(|worker| &worker.sent)),
        ]
    }
}

impl Source for ProxyMetrics {
    fn families(&self) -> Vec<Family> {
        [self.of_requests(), self.of_connections()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Blame;

    #[test]
    fn a_status_has_its_class() {
        for (status, code) in [(0, "none"), (101, "1xx"), (204, "2xx"), (304, "3xx"), (499, "4xx"), (599, "5xx")] {
            assert_eq!(Code::VALUES[Code::of(status).index()], code);
        }
    }

    #[test]
    fn workers_are_added_up() {
        let metrics = ProxyMetrics::new(2, Arc::new(Loads::new(2, 10)));
        for worker in 0..2 {
            metrics.of(worker).requests.count(Code::Success);
            metrics.of(worker).begun.add(2);
            metrics.of(worker).ended.count();
            metrics.of(worker).rejected.count(Reason::OutOfDescriptors);
            metrics.of(worker).duration.observe(1);
        }
        let text = crate::ops::metrics::text::Format::Prometheus.write(&metrics.families());
        for line in [
            "kserve_agent_requests_total{code=\"2xx\"} 2\n",
            "kserve_agent_requests_in_flight 2\n",
            "kserve_agent_requests_rejected_total{reason=\"out_of_descriptors\"} 2\n",
            "kserve_agent_request_duration_seconds_count 2\n",
            "kserve_agent_connections_limit 10\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn each_kind_of_line_has_its_own_number_and_name() {
        assert_eq!(name_of_kind(Blame::Rejected(Reason::BatchLate).kind()), "batch_late");
        assert_eq!(name_of_kind(Blame::Upstream(UpstreamError::Connect).kind()), "connect");
        let all = [Blame::Rejected(Reason::BatchLate).kind(), Blame::Upstream(UpstreamError::Connect).kind()];
        assert_eq!((name_of_kind(RECOVERED), name_of_kind(EVICTED)), ("recovered", "evicted"));
        assert!(all[0] < all[1] && all[1] < Blame::Agent.kind() && Blame::Agent.kind() < RECOVERED);
    }
}
