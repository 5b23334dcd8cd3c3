//! The running program over real sockets, judged by SPEC alone: what enters one end, what leaves the other, and what
//! becomes of both when something fails.
//!
//! One crate, so that it is linked once. Every wait has a deadline and no port is fixed, so the tests run side by
//! side; those that need the processors to themselves take turns ([`support::alone`]). What takes long because the
//! contract says so (30 s for a head) runs in one test, all of it at the same time ([`deadlines`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says on standard error what it could not try"
)]

mod abstract_socket;
mod admin;
mod batcher_alone;
mod batcher_budget;
mod batcher_bytes;
mod batcher_connections;
mod batcher_crosstalk;
mod batcher_drain;
mod batcher_failures;
mod batcher_json;
mod batcher_keys;
mod batcher_limits;
mod batcher_messages;
mod batcher_policies;
mod batcher_responses;
mod batcher_support;
mod batcher_upstream;
mod batcher_v2;
mod cost;
mod deadlines;
mod drain;
mod faults;
mod idle_close;
mod logger_answers;
mod logger_choice;
mod logger_end;
mod logger_events;
mod logger_failures;
mod logger_payloads;
mod logger_room;
mod logger_store;
mod logger_support;
mod logger_tls;
mod metrics;
mod metrics_batcher;
mod metrics_port;
mod notices;
#[cfg(feature = "fault-injection")]
mod panics;
mod probes;
mod proxy_failures;
mod proxy_headers;
mod proxy_lenient;
mod proxy_limits;
mod proxy_messages;
mod proxy_retry;
mod proxy_streaming;
mod proxy_tunnel;
mod proxy_upload;
mod puller_crash;
mod puller_failures;
mod puller_life;
mod puller_support;
mod sink_endings;
mod sink_moves;
mod spool;
mod spool_damage;
mod spool_kills;
mod spool_support;
mod support;
mod turns;
