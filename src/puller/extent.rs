//! How much a model may be, wherever it comes from. Pure.

use crate::config::{FETCH_BYTES, FETCH_KEY_BYTES, FETCH_OBJECTS};
use crate::storage::Failure;

/// So many files, whose names have so many bytes in all, are to be known at once.
pub(super) fn check_files(files: usize, name_bytes: usize) -> Result<(), Failure> {
    if files <= FETCH_OBJECTS && name_bytes <= FETCH_KEY_BYTES {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "more files than a model may have: {FETCH_OBJECTS}, and {FETCH_KEY_BYTES} bytes of all their names"
    )))
}

/// The sum of its files' sizes, which are what somebody says that they are.
pub(super) fn sum(sizes: impl Iterator<Item = u64>) -> Result<u64, Failure> {
    let bytes = sizes.fold(0, u64::saturating_add);
    if bytes > FETCH_BYTES {
        return Err(Failure::refused(format!("its files have {bytes} bytes, {FETCH_BYTES} are allowed")));
    }
    Ok(bytes)
}
