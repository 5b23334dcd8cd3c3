//! The memory that a worker moves bytes through.
//!
//! A worker reads into one large buffer and works there; only what can't be used or sent yet is kept with its
//! connection, in a buffer from the [`Pool`]. An idle connection owns none.
//!
//! Not here: sockets.

use crate::config::{POOL_BYTES, READ_BYTES};
use crate::http1::chunk::{CHUNK_HEADROOM, CHUNK_TAILROOM};

/// One worker's buffers.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// What was read last: `READ_BYTES` from [`READ_AT`], with room for a chunk's frame around them.
    pub(crate) read: Box<[u8]>,
    /// A head, and what of the body is there, on their way out.
    pub(crate) out: Vec<u8>,
    /// Buffers for what has to wait.
    pub(crate) pool: Pool,
}

/// Where reading starts in [`Buffers::read`].
pub(crate) const READ_AT: usize = CHUNK_HEADROOM;
/// Where reading ends.
pub(crate) const READ_END: usize = READ_AT + READ_BYTES;

impl Buffers {
    pub(crate) fn new() -> Self {
        let read = vec![0; READ_END + CHUNK_TAILROOM].into_boxed_slice();
        Self { read, out: Vec::new(), pool: Pool::default() }
    }
}

/// Puts what was kept of a connection back in front of where its next read goes; returns where that is.
pub(crate) fn restore(read: &mut [u8], pool: &mut Pool, kept: &mut Vec<u8>) -> usize {
    let end = READ_AT + kept.len();
    read[READ_AT..end].copy_from_slice(kept);
    pool.put(kept);
    end
}

/// Free buffers, at most [`POOL_BYTES`] of them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// Appends `bytes` to `kept`, which gets a buffer if it has none.
    pub(crate) fn keep(&mut self, kept: &mut Vec<u8>, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if kept.capacity() == 0
            && let Some(buffer) = self.free.pop()
        {
            self.bytes -= buffer.capacity();
            *kept = buffer;
        }
        kept.extend_from_slice(bytes);
    }

    /// Takes the buffer back and leaves `kept` empty.
    pub(crate) fn put(&mut self, kept: &mut Vec<u8>) {
        let mut buffer = std::mem::take(kept);
        if buffer.capacity() > 0 && self.bytes + buffer.capacity() <= POOL_BYTES {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.free.push(buffer);
        }
    }
}

/// Bytes that a socket would not take yet.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
}

impl Unsent {
    /// Whether everything has gone out.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is to be sent next.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Appends bytes that have to wait.
    pub(crate) fn keep(&mut self, bytes: &[u8], pool: &mut Pool) {
        pool.keep(&mut self.bytes, bytes);
    }

    /// The socket took so many bytes.
    pub(crate) fn advance(&mut self, sent: usize, pool: &mut Pool) {
        self.sent += sent;
        if self.sent == self.bytes.len() {
            self.clear(pool);
        }
    }

    /// Gives up what is left.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.sent = 0;
        pool.put(&mut self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_is_used_again() {
        let mut pool = Pool::default();
        let mut kept = Vec::new();
        pool.keep(&mut kept, b"abc");
        let at = kept.as_ptr();
        pool.put(&mut kept);
        assert_eq!((kept.capacity(), pool.bytes > 0), (0, true));
        pool.keep(&mut kept, b"x");
        assert_eq!((kept.as_ptr(), &kept[..], pool.bytes), (at, &b"x"[..], 0));
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit() {
        let mut pool = Pool::default();
        for _ in 0..3 {
            pool.put(&mut Vec::with_capacity(POOL_BYTES / 2));
        }
        assert_eq!((pool.free.len(), pool.bytes), (2, POOL_BYTES));
    }

    #[test]
    fn what_was_kept_is_in_front_of_the_next_read() {
        let mut buffers = Buffers::new();
        let mut kept = b"GET / HT".to_vec();
        let end = restore(&mut buffers.read, &mut buffers.pool, &mut kept);
        assert_eq!((&buffers.read[READ_AT..end], kept.is_empty()), (&b"GET / HT"[..], true));
    }
}
