//! The limits of the model puller's list, disk and calls of the model server.

use std::time::Duration;

/// Bytes of `models.json`: eight times what a ConfigMap may have.
pub const MODELS_LIST_BYTES: u64 = 8 * 1024 * 1024;

/// Models in the list. KServe's own controller shards at far fewer; each has a folder, and at most one operation.
pub const MODELS_MAX: usize = 10_000;

/// Bytes of a model's name: a folder's may have 255, and that of a model on its way has a dot and 64 digits more.
pub const MODEL_NAME_BYTES: usize = 190;

/// Time after which list and model server are looked at without a sign of a change: a notice can be lost, and a server
/// that was started anew knows no models.
pub const MODELS_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Downloads at once; each has threads of its own besides.
pub const MODEL_DOWNLOADS: usize = 4;

/// Loads at once, beside the downloads, which may take hours: a model server loads one after the other.
pub const MODEL_LOADS: usize = 2;

/// Unloads and deletions at once, which must not wait for loads that take minutes.
pub const MODEL_REMOVALS: usize = 1;

/// Wait before a failed operation is tried again; it doubles with every failure.
pub const MODEL_RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest wait before it is tried again. There is no end of trying (SPEC M5).
pub const MODEL_RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Longest wait that whoever has a model may ask for by `Retry-After`: an hour is what services set their quotas anew by,
/// and one that says days must not keep a model away for so long.
pub const MODEL_RETRY_ASKED: Duration = Duration::from_secs(3600);

/// Attempts to unload a model that is not wanted any more, with a wait of a minute in all, before it is deleted all the same: a
/// server that fails at it must not keep its files for ever.
pub const MODEL_UNLOADS: u32 = 6;

/// Time that the model server has to say which models are ready.
pub const MODEL_INDEX_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of such an answer: a line of 200 bytes for each of as many models as there may be, and more.
pub const MODEL_ANSWER_BYTES: u64 = 8 * 1024 * 1024;
