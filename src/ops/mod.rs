//! What keeps the agent running in a pod: the container probe, and the limits of the process.

mod grpc_health;
pub(crate) mod limits;
pub(crate) mod probe;
