//! Buffers for large bodies, whose memory goes back to the system when they are freed.
//!
//! glibc keeps what is freed for the next who asks: once a buffer of some MiB has been freed, others of its size come from an
//! arena of their thread, which gives back what is free at its end only. Beside 32 forwarders that was 70 MiB that nobody
//! used. A buffer of more than 32 MiB is always a mapping of its own (`DEFAULT_MMAP_THRESHOLD_MAX`, mallopt(3)), so a large
//! body gets one of which it touches as much as it needs.
//!
//! Not here: how many bytes may be held ([`super::budget`]).

/// A body of so many bytes has a mapping of its own.
const LARGE: usize = 1024 * 1024;
/// Address space of such a mapping.
const MAPPED: usize = 33 * 1024 * 1024;

/// An empty buffer for so many bytes.
pub(crate) fn buffer(bytes: usize) -> Vec<u8> {
    Vec::with_capacity(room_for(bytes))
}

/// Makes room for so many bytes in all.
pub(crate) fn reserve(buffer: &mut Vec<u8>, bytes: usize) {
    buffer.reserve_exact(room_for(bytes).saturating_sub(buffer.len()));
}

fn room_for(bytes: usize) -> usize {
    if bytes < LARGE { bytes } else { bytes.max(MAPPED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_has_what_it_needs_and_a_large_one_a_mapping() {
        assert_eq!(buffer(1000).capacity(), 1000);
        let mut large = buffer(0);
        large.extend_from_slice(b"abc");
        reserve(&mut large, 2 * LARGE);
        assert_eq!((&large[..], large.capacity()), (&b"abc"[..], MAPPED));
        assert_eq!(buffer(2 * MAPPED).capacity(), 2 * MAPPED);
    }
}
