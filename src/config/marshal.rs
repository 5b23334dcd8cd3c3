//! The limits of what is made of payload records for an object store.

use std::time::Duration;

/// `--log-marshaller-url` as it is when nobody says otherwise: records are marshalled in process then.
pub const LOG_MARSHALLER_URL: &str = "http://localhost:9083/marshal";

/// Bytes of a request's id in an object's key: a trace id has 55, and with the folders a key has its place in the 1024
/// bytes that the stores allow.
pub const OBJECT_ID_BYTES: usize = 128;

/// Bytes of payloads that complete a batch whatever its number of records: half of the default queue, so that others can
/// wait while one is stored. With the one that completes it, an object has less than 64 MiB of them.
pub const LOG_OBJECT_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of a request to the marshaller service: one payload of 32 MiB in base64 and what is known about it.
pub const MARSHAL_BODY_BYTES: usize = 48 * 1024 * 1024;

/// Commas and opening brackets in such a request, of which a record has about fifty; payloads have none. A record of one
/// short header takes fifty times its bytes, so this is what bounds the memory of reading them: 100 MB.
pub const MARSHAL_VALUES: usize = 256 * 1024;

/// Bytes that all requests to the marshaller service and its answers hold together; beyond it 503. Two large ones fit.
pub const MARSHAL_HELD_BYTES: usize = 2 * MARSHAL_BODY_BYTES;

/// Connections to the marshaller service. When there are as many, the oldest makes room.
pub const MARSHAL_CONNECTIONS: usize = 16;

/// Time in which a request to the marshaller service must be complete, and as much for taking the answer: on the loopback
/// the largest takes less than a second.
pub const MARSHAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait before the marshaller service accepts again when it could not, as there was no descriptor.
pub const MARSHAL_ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Bytes of the file that another marshaller may make of a batch.
pub const MARSHAL_ANSWER_BYTES: u64 = 128 * 1024 * 1024;

/// Bytes of the extension that another marshaller gives its files: `parquet.zstd` has 12.
pub const MARSHAL_EXTENSION_BYTES: usize = 16;
