//! kserve-agent.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking"))]
pub mod agent;
pub mod cli;
pub mod config;
pub mod http1;
mod ops;
pub mod proxy;
