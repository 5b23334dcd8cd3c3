//! Whether a file has changed since it was read: mounted certificates and secrets are rotated while the agent runs
//! (SPEC L7).
//!
//! The kubelet swaps the folder that a mounted file's link leads to, so the inode changes; others write in place, so time
//! and length do.
//!
//! Not here: what is in the file.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Identity and state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of the last change of anything, its name and rights included.
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of the file at this path, or `None` if there is none.
    ///
    /// # Errors
    /// When nobody can tell.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(of) => Ok(Some(Self {
                device: of.dev(),
                inode: of.ino(),
                bytes: of.size(),
                modified: (of.mtime(), of.mtime_nsec()),
                changed: (of.ctime(), of.ctime_nsec()),
            })),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_swapped_or_written_again_has_another_stamp() {
        let folder = std::env::temp_dir().join(format!("kserve-agent-reload-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (path, other) = (folder.join("file"), folder.join("other"));
        assert_eq!(Stamp::of(&path).unwrap(), None);
        assert_eq!(Stamp::of(&path.join("below")).unwrap(), None);
        fs::write(&path, "one").unwrap();
        let first = Stamp::of(&path).unwrap();
        assert!(first.is_some() && Stamp::of(&path).unwrap() == first);
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        let swapped = Stamp::of(&path).unwrap();
        assert_ne!(swapped, first);
        fs::write(&path, "longer").unwrap();
        assert_ne!(Stamp::of(&path).unwrap(), swapped);
        fs::remove_dir_all(&folder).unwrap();
    }
}
