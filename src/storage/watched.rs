//! A file of credentials or certificates, read again when it changes (SPEC M11, L7): a rotated key is used by the next
//! request.
//!
//! A change is another inode, size or time of modification, behind whatever symbolic links lead to the file: Kubernetes
//! swaps a link of the folder, an editor replaces the file, a shell rewrites it in place.
//!
//! Not here: what is in the file.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::CREDENTIAL_FILE_BYTES;

/// What was read from files, and is read again when one of them has changed.
pub(super) struct Watched<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    last: Mutex<Last<T>>,
}

struct Last<T> {
    stamps: Vec<Stamp>,
    content: Arc<T>,
    /// How often other content was read.
    changes: u64,
}

/// Tells a version of a file from the next one; `None`: there is no file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl<T> Watched<T> {
    /// Reads what the files hold now.
    pub(super) fn open(
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        // Before the content: a change in between is noticed the next time.
        let stamps = stamps(&files);
        let content = Arc::new(read()?);
        Ok(Self { files, read: Box::new(read), last: Mutex::new(Last { stamps, content, changes: 0 }) })
    }

    /// Returns what the files hold. If it can't be used, a line of the log says so and what they held before is returned.
    pub(super) fn current(&self) -> Arc<T> {
        self.refresh();
        Arc::clone(&self.lock().content)
    }

    /// Returns how often the files have changed to something that can be used.
    pub(super) fn changes(&self) -> u64 {
        self.refresh();
        self.lock().changes
    }

    /// Reads the files if they have changed; outside the lock, others use the former content meanwhile.
    fn refresh(&self) {
        let stamps = stamps(&self.files);
        {
            let mut last = self.lock();
            if last.stamps == stamps {
                return;
            }
            last.stamps = stamps;
        }
        match (self.read)() {
            Ok(content) => {
                let mut last = self.lock();
                last.content = Arc::new(content);
                last.changes += 1;
            }
            Err(why) => log::warn!("a file has changed and can't be used: {why}; the former content is used"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last<T>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.files).finish()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let meta = fs::metadata(file).ok()?;
        Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    files.iter().map(stamp).collect()
}

/// Reads a credential file's text. The error names the file and quotes none of it.
pub(super) fn text(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(CREDENTIAL_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("{}: {error}", file.display()))?;
    if bytes.len() as u64 > CREDENTIAL_FILE_BYTES {
        return Err(format!("{}: over {CREDENTIAL_FILE_BYTES} bytes", file.display()));
    }
    String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own for a test, removed at its end.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("kserve-agent-watched-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn watch(file: &Path) -> Result<Watched<String>, String> {
        let path = file.to_owned();
        Watched::open(vec![file.to_owned()], move || {
            let text = text(&path)?;
            if text.starts_with("bad") { Err("no key".to_owned()) } else { Ok(text) }
        })
    }

    #[test]
    fn a_file_that_is_rewritten_or_replaced_is_read_again() {
        let folder = folder("replaced");
        let file = folder.0.join("key");
        fs::write(&file, "one").unwrap();
        let watched = watch(&file).unwrap();
        assert_eq!(*watched.current(), "one");
        fs::write(&file, "second").unwrap();
        assert_eq!(*watched.current(), "second");
        fs::write(folder.0.join("new"), "thirds").unwrap();
        fs::rename(folder.0.join("new"), &file).unwrap();
        assert_eq!(*watched.current(), "thirds");
    }

    #[test]
    fn a_mounted_secret_whose_folder_is_swapped_is_read_again() {
        let folder = folder("swapped");
        let path = |name: &str| folder.0.join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("key"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key", path("key")).unwrap();
        let watched = watch(&path("key")).unwrap();
        assert_eq!(*watched.current(), "one");
        std::os::unix::fs::symlink("..2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert_eq!(*watched.current(), "two");
    }

    #[test]
    fn what_cant_be_used_leaves_the_former_content_until_it_can() {
        let folder = folder("bad");
        let file = folder.0.join("key");
        assert!(watch(&file).unwrap_err().contains("No such file"));
        fs::write(&file, "one").unwrap();
        let watched = watch(&file).unwrap();
        fs::write(&file, "bad one").unwrap();
        assert_eq!(*watched.current(), "one");
        fs::remove_file(&file).unwrap();
        assert_eq!(*watched.current(), "one");
        fs::write(&file, "good").unwrap();
        assert_eq!(*watched.current(), "good");
    }
}
