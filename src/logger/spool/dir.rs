//! The folder of the queue on disk: only the agent's own user may look into it, and nothing in it leads elsewhere.
//!
//! Payloads are personal data, and volumes are shared: files are made with 0600 in a folder of 0700, and are opened below
//! the folder that was opened at the start, never through a symbolic link that another container has put there.
//!
//! ```text
//!   lock                              held while the folder is used
//!   NUMBER-MARK.events                a segment
//!   NUMBER-MARK.corrupt               what was damaged in it
//! ```
//!
//! Not here: what is in the files ([`super::segment`]).

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, open, openat, unlinkat};

use crate::config::LOG_CORRUPT_BYTES;

/// An open folder.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    folder: OwnedFd,
    /// Held as long as the folder is used.
    _lock: File,
    /// Bytes of what was set aside.
    corrupt: AtomicU64,
}

/// A segment that an earlier run has left.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Left {
    pub(super) number: u64,
    pub(super) mark: u64,
    pub(super) bytes: u64,
}

const SUFFIX: &str = "events";
const CORRUPT: &str = "corrupt";
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);
/// No agent has come so far; from there on is room for the segments to come.
const LAST: u64 = u64::MAX / 2;

impl Dir {
    /// Takes the folder, and the segments that an earlier run has left, oldest first.
    ///
    /// # Errors
    /// When it can't be written, or another process uses it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Left>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty())?;
        make_private(path, &folder);
        let lock = open_in(&folder, "lock", OFlags::RDWR | OFlags::CREATE)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process uses this folder"))?;
        let mut left = Vec::new();
        let mut corrupt = 0;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let path = entry.path();
            let Some((number, mark, suffix)) = parse(&path) else { continue };
            if !entry.file_type()?.is_file() {
                log::warn!("{} is no file, and stays", path.display());
                continue;
            }
            let bytes = entry.metadata()?.len();
            if suffix == CORRUPT {
                corrupt += bytes;
            } else {
                left.push(Left { number, mark, bytes });
            }
        }
        left.sort_unstable();
        let corrupt = AtomicU64::new(corrupt);
        Ok((Self { path: path.to_owned(), folder, _lock: lock, corrupt }, left))
    }

    /// Makes a segment.
    pub(super) fn create(&self, number: u64, mark: u64) -> io::Result<File> {
        self.open_file(&name(number, mark, SUFFIX), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a segment, for reading alone if it can't be written.
    pub(super) fn open_segment(&self, number: u64, mark: u64) -> io::Result<File> {
        let name = name(number, mark, SUFFIX);
        let file = self.open_file(&name, OFlags::RDWR).or_else(|_| self.open_file(&name, OFlags::RDONLY))?;
        // Those of another umask or version; whoever may not change it can't help it.
        let _ = fchmod(&file, PRIVATE);
        Ok(file)
    }

    /// Deletes a segment. If that can't be done its events are looked at again at the next start.
    pub(super) fn remove(&self, number: u64, mark: u64) {
        let _ = unlinkat(&self.folder, name(number, mark, SUFFIX), AtFlags::empty());
    }

    /// Keeps what is damaged, as far as there is room for such things.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn set_aside(&self, number: u64, mark: u64, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if self.corrupt.load(Ordering::Relaxed).saturating_add(length) > LOG_CORRUPT_BYTES {
            return Ok(());
        }
        self.corrupt.fetch_add(length, Ordering::Relaxed);
        let name = name(number, mark, CORRUPT);
        self.open_file(&name, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)?.write_all(bytes)
    }

    /// Where a segment lies.
    pub(super) fn path_of(&self, number: u64, mark: u64) -> PathBuf {
        self.path.join(name(number, mark, SUFFIX))
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        open_in(&self.folder, name, flags)
    }
}

/// Opens a file in the folder; a symbolic link is an error, and a pipe does not make anybody wait.
fn open_in(folder: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(openat(folder, name, flags, PRIVATE)?))
}

/// A folder that others may look into is closed to them, if it is the agent's.
fn make_private(path: &Path, folder: &OwnedFd) {
    let is_open = fs::metadata(path).is_ok_and(|of| of.permissions().mode() & 0o077 != 0);
    if is_open && fchmod(folder, Mode::RWXU).is_err() {
        log::warn!("--log-spool-dir {}: others may look into it, and it is not the agent's to close", path.display());
    }
}

fn name(number: u64, mark: u64, suffix: &str) -> String {
    format!("{number:020}-{mark:016x}.{suffix}")
}

/// Number, mark and suffix of what is the agent's.
fn parse(path: &Path) -> Option<(u64, u64, &'static str)> {
    let suffix = path.extension()?.to_str()?;
    let suffix = [SUFFIX, CORRUPT].into_iter().find(|known| *known == suffix)?;
    let (number, mark) = path.file_stem()?.to_str()?.split_once('-')?;
    let is_number = number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_mark = mark.len() == 16 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = number.parse().ok().filter(|number| is_number && *number <= LAST)?;
    let mark = u64::from_str_radix(mark, 16).ok().filter(|_| is_mark)?;
    Some((number, mark, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_agent_are_segments() {
        assert_eq!(parse(Path::new(&name(7, 0xab, SUFFIX))), Some((7, 0xab, SUFFIX)));
        for other in ["7-ab.events", "notes.events", "00000000000000000007.events", "lock"] {
            assert_eq!(parse(Path::new(other)), None, "{other}");
        }
        assert_eq!(parse(Path::new(&name(u64::MAX, 1, SUFFIX))), None);
    }
}
