//! Segments: files that events are appended to, each deleted when the last of its events is done.
//!
//! A segment belongs to its events: each holds it, and it goes with the last of them. What a crash leaves is there at the
//! next start, and is sent again as a whole, so an event that was delivered before the crash may be delivered twice.
//!
//! Nothing is synced: what was written survives the death of the process, however it dies, and not that of the node.
//!
//! Not here: who writes and reads ([`super`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::entry::{self, Entry, PREFIX};

/// A file with events that are not all done.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    bytes: AtomicU64,
    /// It is left for the next start.
    stays: AtomicBool,
    /// Of all segments.
    total: Arc<AtomicU64>,
}

/// The folder.
pub(super) struct Folder {
    path: PathBuf,
    /// Held as long as the folder is used.
    _lock: File,
    /// The number of the next segment.
    next: u64,
    /// Bytes in all segments.
    pub(super) total: Arc<AtomicU64>,
}

/// A segment that is written.
pub(super) struct Writer {
    pub(super) segment: Arc<Segment>,
    file: File,
}

/// A segment that is read.
pub(super) struct Reader {
    pub(super) segment: Arc<Segment>,
    file: BufReader<File>,
    left: u64,
}

/// What reading has found.
pub(super) enum Found {
    Event(Box<Entry>),
    /// The rest, so many bytes, is no events: a crash has cut the last, or the disk has changed one.
    Torn(u64),
    End,
}

const SUFFIX: &str = "events";
/// No agent has come so far; from there on is room for the segments to come.
const LAST: u64 = u64::MAX / 2;

impl Folder {
    /// Takes the folder, and the segments that an earlier run has left, oldest first.
    ///
    /// # Errors
    /// When it can't be written, or another process uses it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Arc<Segment>>)> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process uses this folder"))?;
        let total = Arc::new(AtomicU64::new(0));
        let mut numbers = Vec::new();
        let mut next = 0;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let path = entry.path();
            let Some(number) = number(&path) else { continue };
            next = next.max(number + 1);
            if entry.file_type()?.is_file() {
                numbers.push((number, path));
            } else {
                log::warn!("{} is no file, and stays", path.display());
            }
        }
        numbers.sort_unstable();
        let segment = |(_, path): (u64, PathBuf)| {
            let bytes = fs::metadata(&path)?.len();
            total.fetch_add(bytes, Ordering::Relaxed);
            let total = Arc::clone(&total);
            // Until it was read, nobody knows what is in it.
            Ok(Arc::new(Segment { path, bytes: AtomicU64::new(bytes), stays: AtomicBool::new(true), total }))
        };
        let segments = numbers.into_iter().map(segment).collect::<io::Result<_>>()?;
        Ok((Self { path: path.to_owned(), _lock: lock, next, total }, segments))
    }

    /// A new segment.
    pub(super) fn begin(&mut self) -> io::Result<Writer> {
        let path = self.path.join(format!("{:020}.{SUFFIX}", self.next));
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        self.next += 1;
        let total = Arc::clone(&self.total);
        let segment = Segment { path, bytes: AtomicU64::new(0), stays: AtomicBool::new(false), total };
        Ok(Writer { segment: Arc::new(segment), file })
    }
}

/// Of a segment with this name; `None`: it is none.
fn number(path: &Path) -> Option<u64> {
    let stem = path.file_stem().filter(|_| path.extension().is_some_and(|suffix| suffix == SUFFIX))?;
    let digits = stem.to_str().filter(|stem| stem.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|number| *number <= LAST)
}

impl Writer {
    /// Appends entries.
    pub(super) fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        self.file.write_all(entries)?;
        let bytes = entries.len() as u64;
        self.segment.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.segment.total.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segment.bytes.load(Ordering::Relaxed)
    }
}

impl Segment {
    /// It is needed at the next start: an event in it was not delivered.
    pub(crate) fn stay(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// It is needed no longer than its events are.
    pub(super) fn may_go(&self) {
        self.stays.store(false, Ordering::Relaxed);
    }

    pub(super) fn name(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    pub(super) fn read(self: &Arc<Self>) -> io::Result<Reader> {
        let file = File::open(&self.path)?;
        let left = file.metadata()?.len();
        Ok(Reader { segment: Arc::clone(self), file: BufReader::new(file), left })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !*self.stays.get_mut() {
            // If it can't be deleted its events are sent again at the next start.
            let _ = fs::remove_file(&self.path);
            self.total.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        }
    }
}

impl Reader {
    /// The next event.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        if self.left == 0 {
            return Ok(Found::End);
        }
        if self.left < PREFIX as u64 {
            return Ok(Found::Torn(self.left));
        }
        let mut prefix = [0; PREFIX];
        self.file.read_exact(&mut prefix)?;
        let body = self.left - PREFIX as u64;
        let Some((length, sum)) = entry::prefix(prefix).filter(|(length, _)| *length as u64 <= body) else {
            return Ok(Found::Torn(self.left));
        };
        let mut content = vec![0; length];
        self.file.read_exact(&mut content)?;
        let Some(entry) = entry::read(&content, sum) else { return Ok(Found::Torn(self.left)) };
        self.left = body - length as u64;
        Ok(Found::Event(Box::new(entry)))
    }
}
