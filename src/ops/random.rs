//! What nobody can guess: names of batches and events, the status page's word.
//!
//! By the system call. The `getrandom` crate looks for libc's function by its name, which a static program does not have,
//! and then opens `/dev/urandom`, which an empty root folder does not have.

use rustix::rand::{GetRandomFlags, getrandom};
use uuid::{Builder, Uuid};

/// A UUID of version 4.
pub(crate) fn uuid() -> Uuid {
    Builder::from_random_bytes(bytes()).into_uuid()
}

/// From 0 up to 1.
pub(crate) fn share() -> f64 {
    let [first, second, third, fourth, ..] = bytes();
    f64::from(u32::from_ne_bytes([first, second, third, fourth])) / f64::from(u32::MAX)
}

fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // A kernel without it, or a filter of system calls: names must still differ.
            Err(_) => return by_std(),
        }
    }
    bytes
}

/// Of the keys with which the standard library seeds each of its hash maps.
fn by_std() -> [u8; 16] {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(0).to_ne_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half());
    bytes[8..].copy_from_slice(&half());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same() {
        assert_ne!(uuid(), uuid());
        assert_eq!(uuid().get_version_num(), 4);
        assert_ne!(by_std(), by_std());
    }
}
