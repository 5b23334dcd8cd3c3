//! The data plane: one worker per processor, each with its own connections; the first accepts for all.
//!
//! | module | what |
//! |---|---|
//! | `worker` | a worker's thread: where it waits, and who gets what happened |
//! | `listener` | every listener, and what waits at them |
//! | `inbox` | what other threads tell a worker |
//! | `receive`, `relay`, `tunnel`, `closing` | the phases of a connection |
//! | `batch`, `collect`, `batch_heads` | requests to be batched: collected, handed over, answered |
//! | `parked` | requests that wait for a probe's result or for room in the payload log |
//! | `resend` | which requests are sent a second time |
//! | `admit` | a connection comes to its worker |
//! | `account`, `metrics` | what is counted, and when |
//! | `operator` | `--metrics-port`, `--admin-port` |
//! | `waiting` | deadlines: which one holds, what follows when it passes |
//! | `load` | how loaded the workers are, and who gets a new connection |
//! | `plane` | what a worker owns |
//! | `pool` | its connections to the model server |
//! | `connection` | a connection's state |
//! | [`exchange`] | one request and its response, pure |
//! | [`ends`] | what becomes of its two connections |
//! | [`headers`] | the heads that the agent writes |
//! | `socket`, `buffer`, `timers` | what they are made of |

mod account;
mod admit;
mod batch;
mod batch_heads;
mod buffer;
mod closing;
mod collect;
pub(crate) mod connection;
pub mod ends;
pub mod exchange;
pub mod headers;
pub(crate) mod inbox;
#[cfg(feature = "fault-injection")]
mod injected;
pub(crate) mod listener;
pub(crate) mod load;
pub(crate) mod metrics;
mod operator;
mod parked;
pub(crate) mod plane;
mod pool;
mod receive;
mod relay;
mod resend;
mod socket;
mod timers;
mod tunnel;
mod waiting;
pub(crate) mod worker;
