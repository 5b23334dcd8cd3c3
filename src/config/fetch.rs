//! The limits of fetching a model from an object store (SPEC M6–M8), and of what any model may be.

use std::time::Duration;

/// Connections that one model is fetched by at once: stores limit each of them. On the loopback, where nothing does, one to
/// eight took the same time within noise (`benches/fetch`), so there are no more than a model server next door can spare.
pub const FETCH_THREADS: usize = 4;

/// Bytes of a piece of a large file: few enough that all threads end at about the same time and little is lost by a
/// kill, many enough that a request is nothing beside it.
pub const FETCH_PIECE_BYTES: u64 = 32 * 1024 * 1024;

/// Bytes that are read at once, by each connection. A quarter or four times as many made no difference that could be
/// measured.
pub const FETCH_READ_BYTES: usize = 128 * 1024;

/// Files of one model. Large ones have some hundreds; what is known of each stays in memory while they are fetched.
pub const FETCH_OBJECTS: usize = 100_000;

/// Bytes of all their keys or paths, which are in memory, a store's keys twice: 160 for each of so many.
pub const FETCH_KEY_BYTES: usize = 16 * 1024 * 1024;

/// Attempts in a row that bring next to nothing, after the first and at once, before a failure is told: they are for a
/// connection that was cut, and a store that is down is left alone by whoever waits longer.
pub const FETCH_RETRIES: u32 = 3;

/// First wait for a store that is overloaded, as the payload log's for its sink; it doubles.
pub const FETCH_OVERLOAD_WAIT: Duration = Duration::from_millis(500);

/// The longest of them, and the longest that a store may ask for: beyond it the model is tried again as a whole.
pub const FETCH_OVERLOAD_LONGEST: Duration = Duration::from_secs(10);

/// Such waits in a row for one request: half a minute.
pub const FETCH_OVERLOADS: u32 = 6;

/// Bytes that make an attempt worth it, so that it does not count as one of those.
pub const FETCH_WORTH_BYTES: u64 = 1024 * 1024;

/// Bytes of one model, as many as one file of ext4: no node has room for them, and a list of more pieces would be large.
pub const FETCH_BYTES: u64 = 16 * 1024 * 1024 * 1024 * 1024;
