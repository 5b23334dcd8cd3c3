//! What was built: name, version, target.

use std::env::consts::{ARCH, OS};

/// The program's name.
pub(crate) const NAME: &str = env!("CARGO_PKG_NAME");
/// Its version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
const LIBC: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };

/// The target triple.
pub(crate) fn target() -> String {
    format!("{ARCH}-unknown-{OS}-{LIBC}")
}
