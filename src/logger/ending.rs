//! How the logger's threads learn that the agent ends.
//!
//! Not here: what they do then ([`super::deliver`], [`super::spool`]).

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crossbeam_channel::Receiver;

/// The end, to come.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// Closed when that begins.
    pub(super) begins: Receiver<Infallible>,
    /// When it must be over; set before it begins.
    pub(super) ends_at: Arc<OnceLock<Instant>>,
}
