//! The data plane: one worker per processor, each with its own connections, and the thread that accepts for them.
//!
//! | module | what |
//! |---|---|
//! | `listener` | the accept thread |
//! | `worker` | a worker's thread: poll, inbox, deadlines |
//! | `receive`, `relay`, `tunnel`, `closing` | the phases of a connection |
//! | `waiting` | deadlines: which one holds, what follows when it passes |
//! | `plane` | what a worker owns |
//! | `connection` | a connection's state |
//! | [`exchange`] | one request and its response, pure |
//! | [`headers`] | the heads that the agent writes |
//! | [`fault`] | what can go wrong, and its status |
//! | `socket`, `buffer`, `timers` | what they are made of |

mod buffer;
mod closing;
mod connection;
pub mod exchange;
pub mod fault;
pub mod headers;
pub(crate) mod listener;
pub(crate) mod plane;
mod receive;
mod relay;
mod socket;
mod timers;
mod tunnel;
mod waiting;
pub(crate) mod worker;
