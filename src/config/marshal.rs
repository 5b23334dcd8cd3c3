//! The limits of what is made of payload records for an object store.

/// `--log-marshaller-url` as it is when nobody says otherwise: records are marshalled in process then.
pub const LOG_MARSHALLER_URL: &str = "http://localhost:9083/marshal";

/// Bytes of a request's id in an object's key: a trace id has 55, and with the folders a key has its place in the 1024
/// bytes that the stores allow.
pub const OBJECT_ID_BYTES: usize = 128;

/// Bytes of payloads that complete a batch whatever its number of records: half of the default queue, so that others can
/// wait while one is stored. With the one that completes it, an object has less than 64 MiB of them.
pub const LOG_OBJECT_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of the file that another marshaller may make of a batch.
pub const MARSHAL_ANSWER_BYTES: u64 = 128 * 1024 * 1024;

/// Bytes of the extension that another marshaller gives its files: `parquet.zstd` has 12.
pub const MARSHAL_EXTENSION_BYTES: usize = 16;
