//! One logged payload as an object store gets it (SPEC L8, L9), pure.
//!
//! A [`Record`] borrows all that it says: files are as large as the queue, and nothing of an event is copied on the way into
//! one. What the flags say is the same in all records of an agent ([`Common`]).
//!
//! Not here: where a record comes from, the files' formats (`marshal`), and reading, which nothing needs.

mod key;
mod url;

use jiff::Timestamp;

pub(crate) use self::key::fnv1a;
pub use self::key::object_key;
pub use self::url::Url;

/// What all records of a payload log say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Common {
    /// Where it is logged to (`--log-url`).
    pub url: Url,
    /// `--source-uri`.
    pub source_uri: Url,
    /// `--inference-service`.
    pub inference_service: String,
    /// `--namespace`.
    pub namespace: String,
    /// `--component`.
    pub component: String,
    /// `--endpoint`.
    pub endpoint: String,
    /// `--metadata-annotations`, a JSON object.
    pub annotations: String,
    /// `--logger-ca-cert-file`, as given.
    pub cert_name: String,
    /// `--logger-tls-skip-verify`.
    pub tls_skip_verify: bool,
}

/// A request's or a response's payload and what is known about it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'r> {
    /// What others say as well.
    pub common: &'r Common,
    /// The payload, whatever bytes it has.
    pub bytes: &'r [u8],
    /// Its `Content-Type`.
    pub content_type: &'r str,
    /// The CloudEvents type, such as `org.kubeflow.serving.inference.request`.
    pub req_type: &'r str,
    /// The request's id, the same for its response. A client may have chosen it.
    pub id: &'r str,
    /// Request headers of `--metadata-headers` and the lists of their values, a JSON object.
    pub metadata: &'r str,
    /// When the request had been read, or the response had ended.
    pub occurred_at: Timestamp,
}
