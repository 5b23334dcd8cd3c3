//! Segments: files that events are appended to, each acknowledged in its place when its event is done, and deleted when
//! the last of them is.
//!
//! An event's acknowledgement is one write into its entry by the thread that has delivered it. So a crash repeats what
//! was under way, and nothing that was delivered before.
//!
//! Nothing is synced: what was written survives the death of the process, however it dies, and not that of the node.
//!
//! Not here: who writes and reads ([`super`]), and the folder ([`super::dir`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::dir::{Dir, Left};
use super::entry::{DONE, STATE_AT};
use crate::ops::random;

/// A file with events that are not all done.
#[derive(Debug)]
pub(crate) struct Segment {
    folder: Arc<Dir>,
    number: u64,
    pub(super) mark: u64,
    file: OnceLock<File>,
    bytes: AtomicU64,
    /// Events that are not done, and one for a writer, or for a reader that does not know all of them yet.
    open: AtomicUsize,
    /// An earlier run has written it.
    pub(super) is_old: bool,
    /// Of all segments.
    total: Arc<AtomicU64>,
}

/// Where an event lies.
#[derive(Debug)]
pub(crate) struct EntryRef {
    pub(super) segment: Arc<Segment>,
    pub(super) at: u64,
}

/// The folder, as a sequence of segments.
pub(super) struct Segments {
    folder: Arc<Dir>,
    /// The number of the next segment.
    next: u64,
    /// Bytes in all segments.
    pub(super) total: Arc<AtomicU64>,
}

/// A segment that is written.
pub(super) struct Writer {
    pub(super) segment: Arc<Segment>,
}

impl Segments {
    /// Takes the folder, and the segments that an earlier run has left, oldest first. `total`: counts what is in it.
    ///
    /// # Errors
    /// When it can't be written, or another process uses it.
    pub(super) fn open(path: &Path, total: &Arc<AtomicU64>) -> io::Result<(Self, Vec<Arc<Segment>>)> {
        let (folder, left) = Dir::open(path)?;
        let folder = Arc::new(folder);
        total.store(left.iter().map(|left| left.bytes).sum(), Ordering::Relaxed);
        let next = left.last().map_or(0, |left| left.number + 1);
        let segment = |Left { number, mark, bytes }| {
            Arc::new(Segment {
                folder: Arc::clone(&folder),
                number,
                mark,
                file: OnceLock::new(),
                bytes: AtomicU64::new(bytes),
                // Until it was read, nobody knows what is in it.
                open: AtomicUsize::new(1),
                is_old: true,
                total: Arc::clone(total),
            })
        };
        let segments = left.into_iter().map(segment).collect();
        Ok((Self { folder, next, total: Arc::clone(total) }, segments))
    }

    /// A new segment.
    pub(super) fn begin(&mut self) -> io::Result<Writer> {
        let mark = random::uuid().as_u64_pair().1;
        let file = self.folder.create(self.next, mark)?;
        let segment = Segment {
            folder: Arc::clone(&self.folder),
            number: self.next,
            mark,
            file: OnceLock::from(file),
            bytes: AtomicU64::new(0),
            open: AtomicUsize::new(1),
            is_old: false,
            total: Arc::clone(&self.total),
        };
        self.next += 1;
        Ok(Writer { segment: Arc::new(segment) })
    }
}

impl Writer {
    /// Appends entries, and behind them a payload that was not copied. Returns where they begin.
    ///
    /// # Errors
    /// When the disk does not take them; what it has taken is taken back.
    pub(super) fn append(&mut self, entries: &[u8], payload: &[u8], count: usize) -> io::Result<u64> {
        let segment = &self.segment;
        let at = segment.bytes();
        let file = segment.file()?;
        let written =
            file.write_all_at(entries, at).and_then(|()| file.write_all_at(payload, at + entries.len() as u64));
        if let Err(error) = written {
            let _ = file.set_len(at);
            return Err(error);
        }
        let bytes = (entries.len() + payload.len()) as u64;
        segment.open.fetch_add(count, Ordering::Relaxed);
        segment.bytes.fetch_add(bytes, Ordering::Relaxed);
        segment.total.fetch_add(bytes, Ordering::Relaxed);
        Ok(at)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.segment.release();
    }
}

impl Segment {
    /// Bytes that were written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Fills the buffer from this place on.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file()?.read_exact_at(buffer, at)
    }

    fn file(&self) -> io::Result<&File> {
        if self.file.get().is_none() {
            let file = self.folder.open_segment(self.number, self.mark)?;
            // Threads that come together: one of the files is kept.
            let _ = self.file.set(file);
        }
        self.file.get().ok_or_else(|| io::Error::other("no file"))
    }

    /// One more of an earlier run's events was found.
    pub(super) fn found(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A writer, a reader or an event needs it no longer.
    pub(super) fn release(&self) {
        let before = self.open.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "released more often than held");
    }

    /// Keeps what is damaged.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub(super) fn set_aside(&self, from: u64, to: u64) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(usize::MAX).min(bytes.len());
            self.read_at(&mut bytes[..length], at)?;
            self.folder.set_aside(self.number, self.mark, &bytes[..length])?;
            at += length as u64;
        }
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        self.folder.path_of(self.number, self.mark).display().to_string()
    }
}

impl EntryRef {
    /// The event is delivered or given up. If that can't be written it is sent again at the next start.
    pub(crate) fn acknowledge(self) {
        if let Ok(file) = self.segment.file() {
            let _ = file.write_all_at(&DONE, self.at + STATE_AT);
        }
        self.segment.release();
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if *self.open.get_mut() == 0 {
            self.folder.remove(self.number, self.mark);
            self.total.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        }
    }
}
