//! A model that is on a volume of the pod already (SPEC M9, M14): `file:///path` and `pvc://claim/path`.
//!
//! It is copied: the model server has the agent's volume, not this one, so a link would lead it nowhere. Who may write the
//! list of models is not to read the agent's secrets by it, so one folder alone is a source, `--model-source-dir`, and
//! everything is opened from its descriptor in a way that can't leave it (openat2(2), `RESOLVE_BENEATH`). Links within it are
//! followed, as mounted ConfigMaps and the Hub's caches are made of them. One file that is an archive is unpacked, as KServe's
//! storage initializer does.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::archive::Archive;
use super::scratch::{clear, failed, make_folder};
use super::source::{Progress, Stop};
use super::web::unpack_file;
use crate::config::{ARCHIVE_ENTRIES, LOCAL_DEPTH, PULLER_OWN_PREFIX, PULLER_PIECE_BYTES};
use crate::storage::{Failure, is_path};

/// A file or a folder below the folder that models may lie in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Local {
    root: PathBuf,
    /// Empty for the root itself.
    path: PathBuf,
}

impl Local {
    /// What a URI names: `None` if it is neither of the two schemes. `root`: the one folder that models may lie in.
    pub(super) fn of(scheme: &str, rest: &str, root: &Path) -> Option<Result<Self, String>> {
        match scheme {
            "file" => Some(file(rest, root)),
            "pvc" => Some(claim(rest, root)),
            _ => None,
        }
    }

    /// Copies it, or unpacks it.
    pub(super) fn fetch(&self, folder: &Path, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
        clear(folder)?;
        progress.begin(0);
        let root = openat(CWD, &self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = File::from(root.map_err(|error| failed(&self.root, &error.into()))?);
        let mut copy = Copy { source: self, root, progress, stop, entries: 0 };
        let found = copy.open(&self.path)?;
        let meta = found.metadata().map_err(|error| failed(&self.path, &error))?;
        if meta.is_dir() {
            return copy.folder(&found, &self.path, folder, LOCAL_DEPTH);
        }
        let name = self.path.file_name().unwrap_or_default();
        if meta.is_file() && Archive::is_named(&name.to_string_lossy()) {
            if meta.permissions().mode() & 0o004 == 0 {
                return Err(copy.refused(&self.path, "an archive that others may not read is not unpacked for them"));
            }
            return unpack_file(found, &self.path, folder, stop);
        }
        progress.expect(meta.len());
        copy.file(found, &self.path, &folder.join(name))
    }
}

fn file(rest: &str, root: &Path) -> Result<Local, String> {
    let path = rest.strip_prefix('/').map(|path| path.trim_end_matches('/'));
    if !path.is_some_and(is_path) {
        return Err("a local model is file:///path, without . and ..".to_owned());
    }
    let below = Path::new(rest).strip_prefix(root);
    let path =
        below.map_err(|_| format!("a local model lies below --model-source-dir, which is {}", root.display()))?;
    Ok(Local { root: root.to_owned(), path: path.to_owned() })
}

/// KServe mounts one claim, at this very path; more than one can only be below it by their names.
fn claim(rest: &str, root: &Path) -> Result<Local, String> {
    let rest = rest.trim_end_matches('/');
    if !is_path(rest) {
        return Err("a model of a claim is pvc://claim/path, without . and ..".to_owned());
    }
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = if root.join(name).is_dir() { Path::new(name).join(path) } else { PathBuf::from(path) };
    Ok(Local { root: root.to_owned(), path })
}

struct Copy<'c> {
    source: &'c Local,
    root: File,
    progress: &'c Progress,
    stop: &'c Stop,
    /// So far.
    entries: u64,
}

impl Copy<'_> {
    fn folder(&mut self, found: &File, from: &Path, to: &Path, depth: usize) -> Result<(), Failure> {
        if depth == 0 {
            return Err(
                self.refused(from, &format!("more than {LOCAL_DEPTH} folders in each other, or a link to one above"))
            );
        }
        for entry in Dir::read_from(found).map_err(|error| self.failed(from, error))? {
            self.stop.check()?;
            let entry = entry.map_err(|error| self.failed(from, error))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let (from, to) = (from.join(name), to.join(name));
            let found = self.enter(name, &from)?;
            if found.metadata().map_err(|error| failed(&from, &error))?.is_dir() {
                make_folder(&to)?;
                self.folder(&found, &from, &to, depth - 1)?;
            } else {
                self.file(found, &from, &to)?;
            }
        }
        Ok(())
    }

    /// Opens what there is, if it can be a part of the model.
    fn enter(&mut self, name: &OsStr, from: &Path) -> Result<File, Failure> {
        self.entries += 1;
        if self.entries > ARCHIVE_ENTRIES {
            return Err(self.refused(from, &format!("more than {ARCHIVE_ENTRIES} files and folders, links among them")));
        }
        if name.as_bytes().starts_with(PULLER_OWN_PREFIX.as_bytes()) {
            return Err(self.refused(from, "a name that is the agent's own"));
        }
        self.open(from)
    }

    /// Opens a path from the root, whatever links it is made of, unless they lead out of it.
    fn open(&self, path: &Path) -> Result<File, Failure> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // One that would wait for a writer does not.
        let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = openat2(&self.root, path, how, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS);
        opened.map(File::from).map_err(|error| match error {
            Errno::XDEV => self.refused(path, "a link that leads out of --model-source-dir"),
            Errno::NOSYS => self.refused(path, "local models need Linux 5.6 (openat2)"),
            Errno::NXIO => self.refused(path, NO_FILE),
            Errno::NOENT | Errno::ACCESS | Errno::LOOP => self.refused(path, &io::Error::from(error).to_string()),
            error => self.failed(path, error),
        })
    }

    fn file(&self, mut source: File, from: &Path, to: &Path) -> Result<(), Failure> {
        let found = source.metadata().map_err(|error| failed(from, &error))?;
        // Reading a pipe or a device would wait for ever.
        if !found.is_file() {
            return Err(self.refused(from, NO_FILE));
        }
        // What others may not read is not made readable.
        let mode = 0o600 | (found.permissions().mode() & 0o155);
        let target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to);
        let mut target = target.map_err(|error| failed(to, &error))?;
        target.set_permissions(fs::Permissions::from_mode(mode)).map_err(|error| failed(to, &error))?;
        let mut piece = vec![0; PULLER_PIECE_BYTES];
        loop {
            self.stop.check()?;
            let count = source.read(&mut piece).map_err(|error| failed(from, &error))?;
            if count == 0 {
                return Ok(());
            }
            target.write_all(&piece[..count]).map_err(|error| failed(to, &error))?;
            self.progress.add(count as u64);
        }
    }

    fn refused(&self, path: &Path, why: &str) -> Failure {
        Failure::refused(format!("{}: {why}", self.source.root.join(path).display()))
    }

    fn failed(&self, path: &Path, error: Errno) -> Failure {
        failed(&self.source.root.join(path), &error.into())
    }
}

const NO_FILE: &str = "it is no file and no folder";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_below_the_root_and_has_no_tricks() {
        let path = |scheme, rest| Local::of(scheme, rest, Path::new("/mnt")).unwrap().map(|local| local.path);
        assert_eq!(path("file", "/mnt/m/iris/"), Ok(PathBuf::from("m/iris/")));
        assert_eq!(path("file", "/mnt/"), Ok(PathBuf::new()));
        for rest in ["", "mnt/m", "//m", "/mnt/../b", "/", "/mnt2/m", "/proc/self/environ", "/var/run/secrets"] {
            assert!(path("file", rest).is_err(), "{rest}");
        }
        for rest in ["", "/m", "a/../b"] {
            assert!(path("pvc", rest).is_err(), "{rest}");
        }
        assert_eq!(Local::of("ftp", "h/x", Path::new("/mnt")), None);
    }

    #[test]
    fn a_claim_is_the_one_that_is_mounted_or_one_of_several() {
        let mounted = std::env::temp_dir().join(format!("kserve-agent-claims-{}", std::process::id()));
        fs::create_dir_all(mounted.join("one")).unwrap();
        let paths = ["one/m/x", "one", "other/m", "other"].map(|rest| claim(rest, &mounted).unwrap().path);
        fs::remove_dir_all(&mounted).unwrap();
        assert_eq!(paths, ["one/m/x", "one/", "m", ""].map(PathBuf::from));
    }
}
