//! The agent's own HTTP requests by ureq, with ureq's own ideas turned off: no proxy from the environment, no redirects, no
//! status that is an error, no coding that nobody asked for.
//!
//! Not here: limits, which differ from part to part, and proxies, which only some parts use (`proxy`).

use ureq::config::{Config, ConfigBuilder};
use ureq::typestate::AgentScope;

/// What all of them begin with.
pub(crate) fn config() -> ConfigBuilder<AgentScope> {
    Config::builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .accept_encoding("")
}
