//! The limits of the object stores' clients.

use std::time::Duration;

/// Time in which a store's kernel must take a connection, and both must agree on TLS. Looking up its name is not in it,
/// the resolver has limits of its own.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which one more byte must come or go: one that hangs is not waited for, however large the object is.
pub const STORE_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time of waiting in which [`STORE_PACE_BYTES`] must come, so that one that sends a byte now and then does not hold a
/// request for ever. Twice the time in which one byte must, as an answer may begin with as much silence.
pub const STORE_PACE_TIME: Duration = Duration::from_secs(60);

/// Bytes that must come in that time, about 1 KB/s: a model of 1 MB would take a quarter of an hour.
pub const STORE_PACE_BYTES: usize = 64 * 1024;

/// Connections that are kept for the next request: as many as there may be threads with requests at once.
pub const STORE_IDLE_CONNECTIONS: usize = 64;

/// Time that such a connection is kept: S3 closes its side after 20 s or more.
pub const STORE_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Objects that are asked for with one page of a listing, as many as S3 gives at most.
pub const STORE_PAGE_OBJECTS: usize = 1000;

/// Bytes of such a page: a thousand keys of 1024 bytes, each byte in three as `%2F`, and about 500 bytes of other things.
pub const STORE_PAGE_BYTES: u64 = 4 * 1024 * 1024;

/// Pages of one listing, ten million objects: a store that says for ever that there is more is not believed.
pub const STORE_PAGES: usize = 10_000;

/// Bytes of a key, the limit of S3 and of Google; Azure's is 1024 characters.
pub const STORE_KEY_BYTES: usize = 1024;

/// Bytes of an answer that holds no object and no page: tokens, errors, what a store says about an object it has stored.
pub const STORE_ANSWER_BYTES: u64 = 64 * 1024;

/// Characters of a reason that a store gives for a failure that are passed on.
pub const STORE_REASON_CHARS: usize = 300;

/// Time before its end that a token is renewed, as Google's libraries do: it must outlive the request that it is for.
pub const STORE_TOKEN_RESERVE: Duration = Duration::from_secs(225);

/// Longest life of a token that is believed, whatever a server says: no service gives one for more than a day.
pub const STORE_TOKEN_LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// First wait after a failed fetch of a token; the next ones double.
pub const STORE_TOKEN_BACKOFF: Duration = Duration::from_secs(1);

/// Longest wait while the present token is valid: as the SDK of AWS, which waits 5 to 10 minutes. The
/// token's end ends the wait too.
pub const STORE_TOKEN_BACKOFF_MAX: Duration = Duration::from_secs(5 * 60);

/// Longest wait without a valid token: every request fails until then, so a service that is back is noticed soon.
pub const STORE_TOKEN_BACKOFF_MAX_WITHOUT: Duration = Duration::from_secs(10);

/// Time in which a metadata server or a node's agent must take a connection: it is on the same machine, and where there is
/// none the first request waits this long.
pub const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time in which one more byte of a metadata server's answer must come: AWS's SDK waits 5 s.
pub const METADATA_STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a credential file: the largest, a service account's key, has 2.5 KB, shared files of hundreds of profiles 100 KB.
pub const CREDENTIAL_FILE_BYTES: u64 = 1024 * 1024;

/// Time that a signature by a key is good for: AWS takes clocks that are 15 minutes apart.
pub const STORE_SIGNATURE_LIFE: Duration = Duration::from_secs(15 * 60);

/// Time after which a metadata server is looked for again where there was none, or where it gave no credentials.
pub const STORE_METADATA_RETRY: Duration = Duration::from_secs(60);
