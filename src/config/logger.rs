//! The payload logger's part of the configuration, and the limits it keeps.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// The payload logger (SPEC L).
#[derive(Debug, Clone, PartialEq)]
pub struct LoggerConfig {
    /// Where events go, as given; the scheme was checked.
    pub url: String,
    /// Delivery threads.
    pub workers: NonZeroUsize,
    /// CloudEvents `source`.
    pub source_uri: String,
    /// Which payloads are logged.
    pub mode: LogMode,
    /// Object storage, when `--log-store-path` is set.
    pub store: Option<StoreConfig>,
    /// `Ce-Inferenceservicename`.
    pub inference_service: String,
    /// `Ce-Namespace`.
    pub namespace: String,
    /// `Ce-Endpoint`.
    pub endpoint: String,
    /// `Ce-Component`.
    pub component: String,
    /// Request headers copied into events.
    pub metadata_headers: Vec<String>,
    /// Annotations copied into events, sorted by key.
    pub metadata_annotations: Vec<(String, String)>,
    /// File that https sinks are verified against; the system's roots when it does not exist.
    pub ca_cert_file: PathBuf,
    /// Skip that verification.
    pub tls_skip_verify: bool,
    /// Also log responses whose status is not 200.
    pub all_responses: bool,
    /// Limit of one delivery attempt.
    pub client_timeout: Duration,
    /// How long an event is retried, from its first attempt; `None`: for ever.
    pub retry_for: Option<Duration>,
    /// File of header fields for the sink; `None`: no such fields.
    pub headers_file: Option<PathBuf>,
    /// Bytes of events that may wait in memory.
    pub queue_bytes: NonZeroUsize,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
    /// Folder of the on-disk queue; `None`: memory only.
    pub spool_dir: Option<PathBuf>,
    /// Bytes that this folder may hold.
    pub spool_bytes: u64,
    /// Share of requests logged, over 0 and up to 1.
    pub sample: f64,
}

/// `--log-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogMode {
    /// Requests and responses.
    All,
    /// Requests only.
    Request,
    /// Responses only.
    Response,
}

/// `--log-when-full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Count the event and drop it.
    Drop,
    /// Make the request wait.
    Block,
}

/// Payload records in an object store (SPEC L8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Path inside the bucket.
    pub path: String,
    /// Format of an object; `None`: one that only another marshaller knows.
    pub format: Option<StoreFormat>,
    /// Records in one object.
    pub batch_size: NonZeroUsize,
    /// Longest wait before a partial object is stored; `None`: no limit.
    pub batch_interval: Option<Duration>,
    /// Who turns records into a file.
    pub marshaller_url: String,
}

/// `--log-store-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFormat {
    /// One JSON value.
    Json,
    /// CSV with a header row.
    Csv,
    /// Apache Parquet.
    Parquet,
}

/// Where KServe mounts the file of the certificate authority for log sinks.
pub const LOG_CA_CERT_DIR: &str = "/etc/tls/logger";

/// Payload delivery threads that can be asked for; more only queue up before one sink.
pub const LOG_WORKERS_MAX: usize = 256;

/// Bytes of waiting events that can be asked for: 1 TiB, more memory than a node has.
pub const LOG_QUEUE_BYTES_MAX: usize = 1 << 40;

/// Bytes of the queue on disk that can be asked for: 1 PiB, more than a node's disks have.
pub const LOG_SPOOL_BYTES_MAX: usize = 1 << 50;

/// How long a store that answers 403 is asked again: changes of permissions spread within seconds, AWS says, and a minute is
/// enough for all but the slowest.
pub const LOG_FORBIDDEN_FOR: Duration = Duration::from_secs(60);

/// First wait before a spool's folder that can't be used is tried again; it doubles.
pub const LOG_SPOOL_RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest of them: a volume that is mended is in use within half a minute.
pub const LOG_SPOOL_RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Bytes of one payload: a longer one is counted as `too_large` and not sent (SPEC L3).
pub const LOG_PAYLOAD_BYTES: usize = 32 * 1024 * 1024;

/// What an event counts for in the queue beyond its payload and text: the structure, its place in the queue and in the
/// heap of retries, and what the allocator adds.
pub const LOG_EVENT_BYTES: usize = 512;

/// Wait before an event is sent again (SPEC L5); it doubles with every attempt.
pub const LOG_RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest wait before an event is sent again.
pub const LOG_RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Longest `Retry-After` that an event without an end of its time obeys: a day. More is a mistake of the sink.
pub const LOG_RETRY_AFTER_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Attempts in a row that the delivery threads make with nothing taken or refused for good, before it leaves the sink alone for a
/// while: as many as a few bad events may need that come one after the other. While fewer events than that wait to be sent
/// again, a failed attempt tells no more of the sink than of them.
pub const LOG_FAILED_ATTEMPTS: u32 = 8;

/// Pause in which a delivery thread looks whether another thread's trial of a failing sink has ended: short beside the
/// shortest wait, and a handful of wake-ups a second at most.
pub const LOG_BREAKER_LOOK: Duration = Duration::from_millis(250);

/// Time after which an event in memory that was not delivered is given up, from its first attempt (`--log-retry-for`).
pub const LOG_RETRY_FOR: Duration = Duration::from_secs(300);

/// Time beyond [`super::FINISH_TIMEOUT`] in which what the last requests left is still delivered.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a worker's events wait for others: unnoticed where they go, and 200 wake-ups of a delivery thread a second
/// instead of one for each.
pub const LOG_GATHER: Duration = Duration::from_millis(5);

/// Events that fly to the sink together at most: beyond it the calls that are saved are few, and a connection that breaks
/// would repeat many.
pub const LOG_FLIGHT_EVENTS: usize = 64;

/// Bytes of payloads that fly together at most, so that they fit into the sockets' buffers; a longer one flies alone.
pub const LOG_FLIGHT_BYTES: usize = 64 * 1024;

/// Time in which a sink answers all events that fly together, for more to fly next time.
pub const LOG_FLIGHT_FAST: Duration = Duration::from_millis(50);

/// Answers that a connection must have brought before several events are sent over it together: a sink that closes its
/// connection after each answer, or after the first, never gets that far.
pub const LOG_PIPELINE_AFTER: u32 = 2;

/// Time that the first two events sent together may take between their answers, beyond four times the first answer's: a
/// sink that forgets the second costs one thread this once. Long beside a pause of a sink's garbage collector.
pub const LOG_PIPELINE_PATIENCE: Duration = Duration::from_millis(500);

/// Connections in a row that bring one answer and then nothing, before each event gets a connection of its own.
pub const LOG_SILENT_CONNECTIONS: u32 = 2;

/// Time after which pipelining, or the reuse of connections, is tried again with a sink that was seen not to work with
/// it: one that can't is asked seldom, and one that had a pause is not slow for ever.
pub const LOG_PIPELINE_AGAIN: Duration = Duration::from_secs(600);

/// Bytes after which a segment of the queue on disk is followed by the next, for these of `--log-spool-bytes`. A segment
/// takes its place until its last event is done, and a file descriptor as long as one of them is in memory: a sixty-fourth
/// bounds both.
#[must_use]
pub fn log_segment_bytes(spool: u64) -> u64 {
    (spool / 64).clamp(64 * 1024, 16 * 1024 * 1024)
}

/// Bytes of damaged entries that are kept in the folder of the queue on disk, beside what `--log-spool-bytes` bounds: enough
/// to look at, and no reason for a full disk.
pub const LOG_CORRUPT_BYTES: u64 = 16 * 1024 * 1024;

/// Wait before the next attempt from which on an event with a copy on disk leaves memory: the fourth, after which it is
/// rather the event that fails than the moment.
pub const LOG_PARK_AFTER: Duration = Duration::from_secs(2);

/// Time for which events that have failed leave memory when the breaker opens, so that others come in with which the sink
/// is tried: events that it refuses must not keep those from it that it would take.
pub const LOG_PARK_FOR: Duration = Duration::from_secs(5);

/// Events that wait so at most, 64 bytes of memory each; with more the first of them are tried sooner.
pub const LOG_PARKED_EVENTS: usize = 100_000;

/// Bytes of an event on disk: a payload, and what a head can say.
pub const LOG_RECORD_BYTES: usize = LOG_PAYLOAD_BYTES + 4 * super::HEAD_BYTES;

/// Redirects (307, 308) that an event follows in one attempt: curl and Go allow 50 and 10; a sink behind a gateway needs
/// one or two.
pub const LOG_REDIRECTS: usize = 5;

/// Time after which a connection to a sink is replaced, give or take a tenth, so that a sink that has scaled out gets its
/// share. Envoy calls it `max_connection_duration`.
pub const LOG_CONNECTION_AGE: Duration = Duration::from_secs(300);

/// Bytes of `--log-headers-file`: more than any server takes as a head.
pub const LOG_HEADERS_BYTES: u64 = 64 * 1024;

/// Bytes of a sink's answer that are read, so that its connection can be used again; a sink that says more gets a new one.
pub const LOG_ANSWER_BYTES: usize = 64 * 1024;
