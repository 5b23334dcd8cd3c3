//! A sidecar that stands in front of a model server in a Kubernetes pod: the KServe agent, thread-per-core.
//!
//! Every request enters on `--port` and goes on to `127.0.0.1:<component-port>`; what it does, clause by clause, is in
//! the README, which also says where it differs from KServe's Go agent.
//!
//! # Reading order
//!
//! | module | what |
//! |---|---|
//! | [`agent`] | the composition root: every channel and thread, start and shutdown |
//! | [`cli`] | flags and environment to [`config::Config`], all errors at once |
//! | [`proxy`] | the data plane: listeners, workers, exchanges, tunnels |
//! | [`batcher`] | small predict requests made into batches: queue, merging and splitting, forwarders |
//! | `puller` | models on disk and in the server as the list says: fetched, placed, loaded, removed |
//! | `logger` | payloads as CloudEvents: captured as they pass, delivered with retries |
//! | [`storage`] | object stores: S3, Google Cloud Storage, Azure Blob |
//! | `ops` | the container probe, metrics, the status page, lines of the log, the limits of the process |
//! | [`fault`] | what can go wrong with a request, its status and text |
//! | [`http1`] | the HTTP/1.1 codec, pure |
//! | [`config`] | what the agent was told, and every limit it keeps |
//!
//! A module uses only those below it; a test keeps that true (`tests/architecture.rs`).
//!
//! # Threads
//!
//! | name | count | owns | inbox | ends when |
//! |---|---|---|---|---|
//! | main | 1 | signals, drain | – | last |
//! | `worker-N` | one per processor, at most 4 by default | the first one the listeners; client connections, idle connections to the server, deadlines, buffers | new connections, probe results, drain | drained |
//! | `batcher` | 0 or 1 | every open batch | requests of which at most `--batch-queue` wait, receipts of the forwarders | the workers are gone |
//! | `forward-N` | made on demand, as many as batches may run | one call of the model server | batches | the batcher is gone |
//! | `log-N` | 0 or `--workers` | one connection to the log sink, and what it could not take yet | events, bounded in bytes from their first captured byte | the workers are gone and nothing is left, or at the deadline |
//! | `log-batch` | 0 or 1 | the open batch of records for an object store | events | the workers are gone |
//! | `log-spool` | 0 or 1 | the segments of `--log-spool-dir` | events on their way to the couriers, those that have failed | the workers are gone and nothing is left, or at the deadline |
//! | `log-lookup` | up to one for each `log-N` | one look-up of the sink's name | – | it has an answer; nobody joins it |
//! | `puller` | 0 or 1 | what is known of every model | changes of the list from `watch`, results of the steps | with the process |
//! | `pull-N` | 0 or 8 | one step for one model | steps | with the process |
//! | `fetch-N` | up to 4 in a step that fetches from an object store | one connection to the store | pieces of files | with the step |
//! | `prober` | 0 or 1 | the container probe | probe requests, answered together | the workers are gone |
//!
//! A worker blocks in one place, its poll, and shares nothing on the request path: no lock, no channel between two
//! workers, no allocation in the steady state. The first worker accepts, and gives a new
//! connection to the one that has fewest.
//!
//! # Life of a request
//!
//! ```text
//!  accept ─▶ worker ─▶ read into the worker's one buffer ─▶ head parsed in place
//!                         ├─ on an operator's port ─▶ answered with what all parts have counted, or the status page
//!                         ├─ a probe ─▶ answered, or parked until the prober's result
//!                         ├─ HTTP/2 preface ─▶ tunnel
//!                         ├─ to be batched ─▶ body collected, instances found ─▶ batcher
//!                         └─ exchange: head rewritten behind which the body is put ─▶ one write to an idle connection,
//!                              once a short body is whole, or 10 ms after its head
//!  server ─▶ read ─▶ head rewritten behind which the body is put ─▶ one write to the client ─▶ keep or close
//! ```
//!
//! Four socket calls: read, write, read, write. Both sockets are registered with the poll once, edge-triggered, for
//! both directions, so there is no further call for them. What can't be sent or used yet waits in a pooled buffer that
//! belongs to the connection; an idle connection has none. One read per direction waits at most, and then that side is
//! not read: this is the whole of back-pressure.
//!
//! # Life of a batch
//!
//! ```text
//!  worker ─ request ─▶ batcher: lane of its key ─ full, due or a place free ─▶ forwarder: one body spliced out of all
//!     ▲                    ▲                                                       │ one call (ureq)
//!     │                    └── two halves ◀── the answer can't be divided ─────────┤
//!     ├──────────────── answer: a range of the one response ◀──────────────────────┤
//!     └──────────────── connection, in the middle of a large response ◀────────────┘
//! ```
//!
//! A request's body is one buffer that moves from worker to batcher to forwarder. Where its instances lie is found by
//! one walk over the bytes as they come; no document is built, so no number, escape or key can change. The response is
//! shared by the members of the batch until the last byte has gone. What is too large to be kept is not: a large request
//! passes, and a large response is relayed by the worker, to whom the forwarder hands its connection.
//!
//! # Life of an event
//!
//! ```text
//!  worker: bytes that pass ─▶ tap: a copy of them, as far as there is room ─ whole ─▶ queue ─▶ courier ─▶ sink
//!                                                                                   retries ◀──┘
//! ```
//!
//! A request's bytes are captured behind the write that sends them on, and a worker hands over what one wake-up brought
//! in one message. A courier sends what has gathered in one write and reads the answers in order (pipelining), as long as
//! the sink is fast. A request for each event by ureq, measured (64 clients, nginx as server and as sink, 2 cores) delivered a
//! quarter of the events at a third of the throughput without a log, this way delivers all at more than half of it.
//!
//! Architecture Invariant: every request that was handed over gets exactly one answer: a member leaves its batch with its
//! answer, and what is left when the batch is dropped, be it by a panic, is answered then.
//!
//! Architecture Invariant: [`http1`] and [`proxy::exchange`] know no socket, clock, thread or log. Bytes go in, bytes
//! and decisions come out, so every split point of every message is a unit test, and a seeded simulation drives the
//! very code that serves.
//!
//! Architecture Invariant: a counter has one writer. A part counts in its own memory, a relaxed load and store, and
//! whoever scrapes adds up; nothing that is counted makes two threads share a cache line.
//!
//! Architecture Invariant: time comes in. A worker reads the clock once per wake-up.
//!
//! Architecture Invariant: a closed channel is the stop signal; there is no stop flag.
//!
//! # What is deliberately not here
//!
//! No async runtime (the workers are one), no TLS towards clients (the mesh or queue-proxy does that), no HTTP/2 beyond
//! the tunnel, no retry of what may have been applied, no configuration file.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking"))]

pub mod agent;
pub mod batcher;
pub mod cli;
pub mod config;
pub mod fault;
pub mod http1;
pub mod logger;
mod ops;
pub mod proxy;
pub mod puller;
pub mod storage;
