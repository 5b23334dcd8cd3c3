//! The payload logger's part of the configuration, and the limits it keeps.

use std::num::{NonZeroU16, NonZeroUsize};
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
    /// Bytes of events that may wait.
    pub queue_bytes: NonZeroUsize,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
    /// Folder of the on-disk queue; `None`: memory only.
    pub spool_dir: Option<PathBuf>,
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
    /// Format of an object.
    pub format: StoreFormat,
    /// Records in one object.
    pub batch_size: NonZeroUsize,
    /// Longest wait before a partial object is stored; `None`: no limit.
    pub batch_interval: Option<Duration>,
    /// Who turns records into a file.
    pub marshaller_url: String,
    /// Loopback port of the built-in marshaller.
    pub marshaller_port: NonZeroU16,
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

/// Bytes of one payload: a longer one is counted as `too_large` and not sent (SPEC L3).
pub const LOG_PAYLOAD_BYTES: usize = 32 * 1024 * 1024;

/// What an event counts for in the queue beyond its payload and text: the structure, its place in the queue and in the
/// heap of retries, and what the allocator adds.
pub const LOG_EVENT_BYTES: usize = 512;

/// Wait before an event is sent again (SPEC L5); it doubles with every attempt.
pub const LOG_RETRY_FIRST: Duration = Duration::from_millis(500);

/// Longest wait before an event is sent again.
pub const LOG_RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Attempts in a row that a delivery thread makes with nothing taken or refused for good, before it leaves the sink alone for a
/// while: as many as a few bad events may need that come one after the other. While fewer events than that wait to be sent
/// again, a failed attempt tells no more of the sink than of them.
pub const LOG_FAILED_ATTEMPTS: u32 = 8;

/// Time after which an event that was not delivered is given up, from its first attempt.
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

/// Time after which several events are sent together again to a sink that has answered the first of them alone: one that
/// can't, which takes a whole `--log-client-timeout` to notice, is asked seldom, and one that had a pause is not slow for
/// ever.
pub const LOG_PIPELINE_AGAIN: Duration = Duration::from_secs(600);

/// Bytes after which a segment of the queue on disk is followed by the next: what is sent again after a crash, though it was
/// delivered, is less than that.
pub const LOG_SEGMENT_BYTES: usize = 1024 * 1024;

/// The queue on disk may have so many times the bytes of `--log-queue-bytes`: besides events that wait it holds those that
/// were delivered beside them.
const LOG_SPOOL_TIMES: u64 = 4;

/// Bytes of the queue on disk, for these of `--log-queue-bytes`.
#[must_use]
pub fn log_spool_bytes(queue: usize) -> u64 {
    (queue as u64).saturating_mul(LOG_SPOOL_TIMES)
}

/// Bytes of an event on disk: a payload, and what a head can say.
pub const LOG_RECORD_BYTES: usize = LOG_PAYLOAD_BYTES + 4 * super::HEAD_BYTES;

/// Bytes of a sink's answer that are read, so that its connection can be used again; a sink that says more gets a new one.
pub const LOG_ANSWER_BYTES: usize = 64 * 1024;
