//! What the agent was told to do, and every limit it keeps.
//!
//! A [`Config`] is whole and valid: text was turned into these types once, in [`crate::cli`], and nothing
//! downstream parses or checks again. The constants are the limits that no flag changes, each with its reason.
//!
//! Not here: flag names, parsing, the environment.

mod fetch;
mod logger;
mod marshal;
mod models;
mod puller;
mod storage;

pub use self::fetch::*;
pub use self::logger::*;
pub use self::marshal::*;
pub use self::models::*;
pub use self::puller::*;
pub use self::storage::*;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// Everything the command line and the environment say (SPEC F, E).
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Port the agent listens on, every interface.
    pub port: NonZeroU16,
    /// Port of the model server on 127.0.0.1.
    pub component_port: NonZeroU16,
    /// Port of the Prometheus metrics; `None` turns them off.
    pub metrics_port: Option<NonZeroU16>,
    /// Loopback port of the status page; `None` turns it off.
    pub admin_port: Option<NonZeroU16>,
    /// The proxy's threads and limits.
    pub proxy: ProxyConfig,
    /// How the model server's readiness is checked.
    pub probe: ContainerProbe,
    /// The request batcher, if it is on.
    pub batcher: Option<BatcherConfig>,
    /// The payload logger, if it is on.
    pub logger: Option<LoggerConfig>,
    /// The model puller, if it is on.
    pub puller: Option<PullerConfig>,
    /// The least important of the agent's own messages that is written.
    pub log_level: log::LevelFilter,
}

/// Threads, connections and waits of the data plane.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyConfig {
    /// Worker threads; `None`: the processors this process may use, at most [`THREADS_DEFAULT_MAX`].
    pub threads: Option<NonZeroUsize>,
    /// Whether each worker stays on one processor.
    pub pin: Pin,
    /// Client connections at most; `None`: what `RLIMIT_NOFILE` allows.
    pub max_connections: Option<NonZeroUsize>,
    /// Longest wait for the first byte of a response; `None`: no limit.
    pub upstream_timeout: Option<Duration>,
    /// Window over which a client must keep moving, in both directions: [`PROGRESS_RATE`].
    pub body_timeout: Duration,
    /// Time without a proxied request before the agent shuts down (SPEC D2).
    pub drain_period: Duration,
}

/// `--pin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Pin when the process has whole processors of its own (a cpuset smaller than the machine, no quota below it).
    Auto,
    /// Always pin.
    On,
    /// Never pin.
    Off,
}

/// The readiness probe of the model server's container (SPEC E1, H3), from `SERVING_READINESS_PROBE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerProbe {
    /// No probe was given, or only `exec` probes, which the agent can't run.
    AlwaysReady,
    /// Every one of these must pass; one unless `ENABLE_MULTI_CONTAINER_PROBES` is set.
    All(Vec<Probe>),
}

/// One Kubernetes probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is tried.
    pub check: Check,
    /// Limit of one try.
    pub timeout: Duration,
    /// `periodSeconds` 0: retry every 50 ms with a 100 ms limit for up to 10 s, as Knative does.
    pub aggressive: bool,
    /// Successes in a row that an aggressive probe needs.
    pub success_threshold: NonZeroU32,
}

/// What a probe tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// GET answered with a status of 200 to 399.
    Http {
        /// `true` for scheme HTTPS; the certificate is not verified, as the kubelet does not.
        tls: bool,
        /// Host name or address.
        host: String,
        /// TCP port.
        port: NonZeroU16,
        /// Path and query, starting with `/`.
        path: String,
        /// Request headers, in order.
        headers: Vec<(String, String)>,
    },
    /// A connection that opens.
    Tcp {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: NonZeroU16,
    },
    /// `grpc.health.v1.Health/Check` that answers SERVING.
    Grpc {
        /// TCP port on 127.0.0.1.
        port: NonZeroU16,
        /// Name of the service asked for; empty: the server as a whole.
        service: String,
    },
}

/// The request batcher (SPEC B).
#[derive(Debug, Clone, PartialEq)]
pub struct BatcherConfig {
    /// Instances in one batch at most.
    pub max_batch_size: NonZeroUsize,
    /// Longest wait of a request for its batch.
    pub max_latency: Duration,
    /// When a batch leaves.
    pub policy: BatchPolicy,
    /// Batches in flight at most; `None`: the policy's own number (SPEC B7).
    pub concurrency: Option<NonZeroUsize>,
    /// Requests that may wait.
    pub queue: NonZeroUsize,
    /// Request headers, in lower case, that must be equal inside a batch.
    pub key_headers: Vec<String>,
}

/// `--batch-policy` (SPEC B6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchPolicy {
    /// Leave when full, or when the oldest request has waited long enough.
    Window,
    /// Leave at once while the server has room, else with all that has queued.
    Eager,
    /// Wait only while waiting shortens the mean latency.
    Adaptive,
}

/// The model puller (SPEC M).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullerConfig {
    /// Folder with `models.json`.
    pub config_dir: PathBuf,
    /// Folder that models are pulled into.
    pub model_dir: PathBuf,
    /// Folder that local models may lie in (SPEC M14).
    pub source_dir: PathBuf,
    /// What becomes of a model's old version while the new one comes.
    pub update: ModelUpdate,
    /// Longest answer of the server to a load.
    pub load_timeout: Duration,
}

/// `--model-update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModelUpdate {
    /// The old version serves until the new one is whole, or goes where there is no room for both.
    #[default]
    Auto,
    /// The old version serves until the new one is whole.
    Keep,
    /// The old version is unloaded and deleted before the new one is pulled, as by the Go agent.
    Replace,
}

/// Worker threads that `--threads 0` starts at most: one forwards about 50 000 requests/s, and a sidecar leaves the
/// rest of the processors to the model server.
pub const THREADS_DEFAULT_MAX: usize = 4;

/// Worker threads that can be asked for; more never helped a proxy on the loopback.
pub const THREADS_MAX: usize = 256;

/// Largest count or number of milliseconds of a flag that nothing else bounds: what a 32-bit Go `int` holds, so more
/// than any manifest asks for, and as milliseconds (24 days) too little to overflow a deadline.
pub const COUNT_MAX: usize = 2_147_483_647;

/// Connections, and requests that may wait, at most: Linux gives a process no more descriptors than this unless
/// `fs.nr_open` is raised.
pub const CONNECTIONS_MAX: usize = 1_048_576;

/// Batches in flight that can be asked for; each holds a forwarder thread.
pub const BATCH_CONCURRENCY_MAX: usize = 256;

/// Bytes of a request or response head: what Envoy (60 KiB) and ureq (64 KiB) allow, over it 431 or 502.
pub const HEAD_BYTES: usize = 64 * 1024;

/// Fields in one head or trailer section: hyper, Envoy and Apache stop at 100, HAProxy at 101.
pub const HEAD_FIELDS: usize = 128;
/// Fields of a response head: servers that put tracing, cookies and rate limits into fields send more than clients do, and
/// nobody can ask them to send fewer.
pub const RESPONSE_FIELDS: usize = 512;

/// Bytes of a request line; RFC 9112 §3 recommends at least 8000. Over it 414.
pub const REQUEST_LINE_BYTES: usize = 16 * 1024;

/// Empty lines skipped before a request line (RFC 9112 §2.2 asks for at least one).
pub const LEADING_EMPTY_LINES: usize = 4;

/// Options in `Connection` besides the well-known ones; each costs a comparison per field.
pub const CONNECTION_OPTIONS: usize = 32;

/// Bytes of an `X-Forwarded-*` value that `Forwarded` is made from; each node grows by five bytes or more in it.
pub const FORWARDED_BYTES: usize = 4 * 1024;

/// Bytes of one chunk-size line with its extensions.
pub const CHUNK_LINE_BYTES: usize = 4 * 1024;

/// Bytes of chunk extensions in one message, as hyper's limit (RFC 9112 §7.1.1 asks for one).
pub const CHUNK_EXTENSION_BYTES: u64 = 16 * 1024;

/// Bytes of a trailer section, as hyper's limit.
pub const TRAILER_BYTES: usize = 16 * 1024;

/// Interim (1xx) responses before the final one; a server has no use for more.
pub const INTERIM_RESPONSES: u8 = 32;

/// Time in which a request head must be complete, from its first byte or, on a new connection, from the accept.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a client connection may wait for its next request, as the Go agent's.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(180);

/// Bytes a second that a client must send of its body, or take of its response, over `--request-body-timeout`: Kestrel's
/// minimum data rate. A pause in between is no fault: live audio and models that think have them.
pub const PROGRESS_RATE: u64 = 240;

/// Time that an idle connection to the model server is kept at most: below the 5 s of common Python servers; linkerd uses 3. Less
/// is learnt of the server.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Idle time below which a server that closes a connection does not do so because it was idle: no server's keep-alive time is
/// as short, but one that ends closes them all.
pub const UPSTREAM_IDLE_LEAST: Duration = Duration::from_millis(100);

/// Time in which the model server's kernel must take a connection: a full backlog drops the first two SYNs (1 s, 3 s).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a server's kernel sends the reset that belongs to its end (`proxy::resend`): on the loopback it comes
/// with the write, or when a thread of the server that was put aside in its `close` has had its turn again.
pub const RESET_TIMEOUT: Duration = Duration::from_millis(100);

/// Time that a connection closed on an error stays to read what the client still sends, so that the answer is not
/// lost to a reset (RFC 9112 §9.6).
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that a tunnel may be silent in both directions.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Time spent on finishing once the quiet time is over (SPEC D2).
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(8);

/// Time that a client's request goes on after the client has closed its side: one that only shut down its sending half
/// still gets an answer that is about to come, one that has left does not keep the server busy.
pub const LEAVE_TIMEOUT: Duration = Duration::from_millis(300);

/// Time in which the log gets one line of each kind of failure: often enough for whoever reads it as it happens, and a
/// day of failing is no more than 9 000 lines.
pub const NOTICE_PERIOD: Duration = Duration::from_secs(10);

/// Bytes read from a socket at once, and so the most that waits in one direction of one connection.
pub const READ_BYTES: usize = 96 * 1024;

/// A request up to this size is kept until the first byte of its response, so that it can be sent again (SPEC P9).
pub const REPLAY_BYTES: usize = 16 * 1024;

/// A request that is not idempotent is sent again only up to this size, less than any server reads at once (Go's
/// buffer, the smallest of the common ones): it has read all of it or nothing (SPEC P9, `proxy::resend`).
pub const REPLAY_UNSEEN_BYTES: usize = 4 * 1024;

/// Longest wait for the rest of a request that is short enough to be sent again, so that it leaves in one write. Clients
/// that send head and body one after the other (Python's http.client, h11) do so within microseconds.
pub const GATHER_TIMEOUT: Duration = Duration::from_millis(10);

/// Bytes of free buffers that a worker keeps for its connections.
pub const POOL_BYTES: usize = 1024 * 1024;

/// Probes that may wait for the container probe's result; one more fails at once.
pub const PROBES_WAITING: usize = 1024;

/// Bytes that are held for the batcher at most: heads and bodies of requests that are collected, that wait, and whose
/// answer has not come.
pub const BATCH_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a request that is batched at most, an eighth of what all may hold, so that no client can hold it for the
/// others. A larger one passes as it comes; there is nothing to gain from a batch for it.
pub const BATCH_REQUEST_BYTES: usize = BATCH_BODY_BYTES / 8;

/// Bytes of answers that are held at once: those that forwarders read, and those that clients have not taken to the end. Half
/// of what requests may hold: most answers are taken at once, and where there is no room they are streamed.
pub const BATCH_ANSWERS_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of one answer that is held. A larger one is streamed to its client; one to several requests is asked for again in
/// halves. As many as of a request: a model answers with about as much as it is asked.
pub const BATCH_ANSWER_BYTES: usize = BATCH_REQUEST_BYTES;

/// Time that a client may hold a part of the batcher's bytes before it makes way for others in need of them, if it is the
/// slowest: 8 MiB take 64 ms at 1 Gbit/s.
pub const BATCH_RELIEF_AFTER: Duration = Duration::from_millis(250);

/// Bytes of an answer that are copied behind its head, so that both leave in one write. More are sent from where they lie.
pub const BATCH_COPY_BYTES: usize = 16 * 1024;

/// Batches in flight in `window`: what the Go agent's users have in front of servers that do several things at once.
pub const BATCH_CALLS_WINDOW: usize = 32;

/// Batches in flight in `eager` and `adaptive`: one that the server works on and one that is ready when it is done.
pub const BATCH_CALLS_EAGER: usize = 2;

/// Longest time that `eager` gathers behind a return while another batch runs: two hops between threads and a round trip
/// on the loopback take about 0.1 ms.
pub const BATCH_GATHER_MAX: Duration = Duration::from_micros(200);

/// Bytes of the buffer in each direction of a forwarder's connection: a head must fit, [`HEAD_BYTES`] and what is added to
/// it. Bodies pass through it piece by piece; pages that nothing was written to take no memory.
pub const BATCH_CALL_BUFFER_BYTES: usize = 128 * 1024;

/// Keys whose arrivals `adaptive` remembers while nothing of theirs waits.
pub const BATCH_LANES_KEPT: usize = 64;

/// Bytes of such a key: a path, some header fields and short parameters; longer ones are forgotten.
pub const BATCH_KEY_KEPT_BYTES: usize = 4 * 1024;

/// Calls that one request with more instances than a batch may have is sent in: with the default batch 131 072 instances. One with more
/// passes whole.
pub const BATCH_PARTS_MAX: usize = 4096;

/// Bytes of copies of what stands outside its instances that a request in parts is sent with, such as `parameters`: as many
/// as two large requests. One with more passes whole.
pub const BATCH_PARTS_BYTES: usize = 2 * BATCH_REQUEST_BYTES;

/// Messages that the batcher takes before batches leave: those that came together leave together.
pub const BATCH_MESSAGES_AT_ONCE: usize = 1024;

/// Lists and objects inside each other in a JSON body: what Go's `encoding/json` takes.
pub const JSON_DEPTH: usize = 10_000;

/// Batches of one key in a row whose answers could not be divided, though each request alone is answered well, after which
/// its requests are sent one by one.
pub const BATCH_SINGLES_AFTER: u32 = 3;

/// Time that they are sent one by one; then merging is tried again, as the model may have been changed.
pub const BATCH_SINGLES_FOR: Duration = Duration::from_secs(60);

/// Keys of which is remembered that their answers could not be divided: a pod serves a few models.
pub const BATCH_KEYS_WATCHED: usize = 64;

/// Time after which a thread for a batch is tried again that could not be made.
pub const BATCH_THREAD_RETRY: Duration = Duration::from_secs(1);

/// Tensors in one V2 body that is merged: Triton's largest ensembles have a few dozen. One with more passes alone.
pub const BATCH_TENSORS_MAX: usize = 256;

/// Dimensions of a tensor in a V2 body that is merged: as many as numpy had until version 2. One with more passes alone.
pub const BATCH_TENSOR_RANK_MAX: usize = 32;

/// Time after which a connection without a first byte may make way for another: its request is no more on the way.
pub const EVICTION_AFTER: Duration = Duration::from_millis(250);

/// Connections whose request has not come that are looked at for one without a first byte, when one must make way.
pub const EVICTION_LOOKS: usize = 64;

/// Connections to `--metrics-port` and `--admin-port`, apart from those of clients: a few scrapers, and a browser's six.
/// When there are as many, the oldest makes room.
pub const OPERATOR_CONNECTIONS: usize = 16;
