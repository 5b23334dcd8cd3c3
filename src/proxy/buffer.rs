//! The memory that a worker moves bytes through.
//!
//! A worker reads into one large buffer and works there; only what can't be used or sent yet is kept with its
//! connection, in a buffer from the [`Pool`]. An idle connection owns none.
//!
//! Not here: sockets.

use std::ops::Range;
use std::sync::Arc;

use crate::batcher::answer::Response;
use crate::config::{POOL_BYTES, READ_BYTES};
use crate::http1::chunk::{CHUNK_HEADROOM, CHUNK_TAILROOM};
use crate::ops::budget::Held;

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

/// Bytes that a socket would not take yet: some that were copied, then, perhaps, a body that is sent from where it lies.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
    /// INVARIANT: nothing is appended to `bytes` while there is one.
    body: Option<Box<LargeBody>>,
}

/// The body of an answer that is too large to be copied, and the few bytes behind it.
#[derive(Debug)]
pub(crate) struct LargeBody {
    source: Source,
    /// What is still to be sent of it.
    range: Range<usize>,
    /// What ends it.
    end: &'static [u8],
}

/// Whose bytes they are.
#[derive(Debug)]
pub(crate) enum Source {
    /// A response's that the members of a batch share. The last of them gives it back.
    Shared(Arc<Response>),
    /// The connection's own, which count until they are sent.
    Own {
        /// The bytes.
        bytes: Vec<u8>,
        /// What counts those that are still to be sent.
        held: Held,
    },
}

impl Source {
    /// All of the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(response) => &response.body,
            Self::Own { bytes, .. } => bytes,
        }
    }
}

impl LargeBody {
    pub(crate) fn new(source: Source, range: Range<usize>, end: &'static [u8]) -> Self {
        Self { source, range, end }
    }

    /// What is to be sent next.
    pub(crate) fn rest(&self) -> &[u8] {
        if self.range.is_empty() { self.end } else { &self.source.bytes()[self.range.clone()] }
    }

    /// What comes behind [`Self::rest`].
    pub(crate) fn end(&self) -> &[u8] {
        if self.range.is_empty() { b"" } else { self.end }
    }

    fn advance(&mut self, sent: usize) {
        if self.range.is_empty() {
            self.end = &self.end[sent..];
        } else {
            self.range.start += sent;
            if let Source::Own { held, .. } = &mut self.source {
                held.shrink_to(self.range.len());
            }
        }
    }

    /// Bytes still to be sent.
    pub(crate) fn len(&self) -> usize {
        self.range.len() + self.end.len()
    }
}

impl Unsent {
    /// Whether everything has gone out.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.body.is_none()
    }

    /// What is to be sent next.
    pub(crate) fn rest(&self) -> &[u8] {
        match &self.body {
            Some(body) if self.bytes.is_empty() => body.rest(),
            _ => &self.bytes[self.sent..],
        }
    }

    /// Appends bytes that have to wait.
    pub(crate) fn keep(&mut self, bytes: &[u8], pool: &mut Pool) {
        debug_assert!(bytes.is_empty() || self.body.is_none(), "nothing follows a large body");
        pool.keep(&mut self.bytes, bytes);
    }

    /// Sends a body behind what waits.
    pub(crate) fn keep_body(&mut self, body: LargeBody) {
        debug_assert!(self.body.is_none() && body.len() > 0, "nothing follows a large body");
        self.body = Some(Box::new(body));
    }

    /// Bytes of the large body that wait.
    pub(crate) fn large(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.len())
    }

    /// The socket took so many bytes.
    pub(crate) fn advance(&mut self, sent: usize, pool: &mut Pool) {
        if self.bytes.is_empty() {
            if let Some(body) = &mut self.body {
                body.advance(sent);
            }
            self.body.take_if(|body| body.len() == 0);
            return;
        }
        self.sent += sent;
        if self.sent == self.bytes.len() {
            self.sent = 0;
            pool.put(&mut self.bytes);
        }
    }

    /// Gives up what is left.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.sent = 0;
        self.body = None;
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
    fn a_large_body_is_sent_behind_what_waits_from_where_it_lies() {
        let (mut pool, mut unsent, mut sent) = (Pool::default(), Unsent::default(), Vec::new());
        unsent.keep(b"head", &mut pool);
        let source = Source::Own { bytes: b"a body".to_vec(), held: crate::ops::budget::Budget::new(1).hold() };
        unsent.keep_body(LargeBody::new(source, 2..6, b"!?"));
        assert_eq!(unsent.large(), 6);
        while !unsent.is_empty() {
            let step = unsent.rest().len().min(3);
            sent.extend_from_slice(&unsent.rest()[..step]);
            unsent.advance(step, &mut pool);
        }
        assert_eq!((&sent[..], unsent.rest()), (&b"headbody!?"[..], &b""[..]));
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
