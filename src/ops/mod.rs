//! What keeps the agent running in a pod: the container probe, metrics, the status page, and the limits of the process.

pub(crate) mod backoff;
pub(crate) mod budget;
pub(crate) mod build;
pub(crate) mod client;
mod grpc_health;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod notice;
pub(crate) mod page;
pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod reload;
pub(crate) mod retry_after;
pub(crate) mod server;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod trust;
