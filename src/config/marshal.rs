//! The limits of what is made of payload records for an object store.

/// `--log-marshaller-url` as it is when nobody says otherwise: records are marshalled in process then.
pub const LOG_MARSHALLER_URL: &str = "http://localhost:9083/marshal";

/// Bytes of a request's id in an object's key: a trace id has 55, and with the folders a key has its place in the 1024
/// bytes that the stores allow.
pub const OBJECT_ID_BYTES: usize = 128;
