//! A model that is on a volume of the pod already (SPEC M9): `file:///path` and `pvc://claim/path`.
//!
//! It is copied: the model server has the agent's volume, not this one, so a link would lead it nowhere. Links are
//! followed within the volume, as mounted ConfigMaps and the Hub's caches are made of them: one that leads elsewhere, as to
//! the agent's own environment or its token, would give it to whoever reads the model. One file that is an archive is
//! unpacked, as KServe's storage initializer does.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::scratch::{clear, failed, make_folder};
use super::source::{Progress, Stop};
use super::web::unpack_file;
use crate::config::{ARCHIVE_ENTRIES, LOCAL_DEPTH, PULLER_OWN_PREFIX, PULLER_PIECE_BYTES};
use crate::storage::{Failure, is_path};

/// The path that a URI names: `None` if it is neither of the two schemes.
pub(super) fn path_of(scheme: &str, rest: &str) -> Option<Result<PathBuf, String>> {
    match scheme {
        "file" => Some(match rest.strip_prefix('/') {
            Some(path) if SYSTEM.iter().any(|system| path.starts_with(system)) => {
                Err(format!("no model is below /{}", SYSTEM.join(", /")))
            }
            Some(path) if is_path(path.trim_end_matches('/')) => Ok(PathBuf::from(rest)),
            _ => Err("a local model is file:///path, without . and ..".to_owned()),
        }),
        "pvc" => Some(claim(rest, Path::new(CLAIMS))),
        _ => None,
    }
}

/// KServe mounts one claim, at this very path; more than one can only be below it by their names.
fn claim(rest: &str, mounted: &Path) -> Result<PathBuf, String> {
    let rest = rest.trim_end_matches('/');
    if !is_path(rest) {
        return Err("a model of a claim is pvc://claim/path, without . and ..".to_owned());
    }
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let own = mounted.join(name);
    Ok(if own.is_dir() { own.join(path) } else { mounted.join(path) })
}

/// Copies it, or unpacks it.
pub(super) fn fetch(path: &Path, folder: &Path, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
    clear(folder)?;
    progress.begin(0);
    let found = fs::metadata(path).map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
    let name = path.file_name().unwrap_or_default();
    if found.is_file() && Archive::is_named(&name.to_string_lossy()) {
        return unpack_file(path, folder, stop);
    }
    let mut copy = Copy { progress, stop, volume: found.dev(), entries: 0 };
    if found.is_dir() {
        return copy.folder(path, folder, LOCAL_DEPTH);
    }
    progress.expect(found.len());
    copy.file(path, &folder.join(name))
}

struct Copy<'c> {
    progress: &'c Progress,
    stop: &'c Stop,
    /// The device that all of it lies on.
    volume: u64,
    /// So far.
    entries: u64,
}

impl Copy<'_> {
    fn folder(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), Failure> {
        if depth == 0 {
            let text =
                format!("{}: more than {LOCAL_DEPTH} folders in each other, or a link to one above", from.display());
            return Err(Failure::refused(text));
        }
        for entry in fs::read_dir(from).map_err(|error| failed(from, &error))? {
            self.stop.check()?;
            let from = entry.map_err(|error| failed(from, &error))?.path();
            let to = to.join(from.file_name().unwrap_or_default());
            let found = self.enter(&from)?;
            if found.is_dir() {
                make_folder(&to)?;
                self.folder(&from, &to, depth - 1)?;
            } else {
                self.file(&from, &to)?;
            }
        }
        Ok(())
    }

    /// What there is, if it can be a part of the model.
    fn enter(&mut self, from: &Path) -> Result<Metadata, Failure> {
        let refused = |why: String| Failure::refused(format!("{}: {why}", from.display()));
        self.entries += 1;
        if self.entries > ARCHIVE_ENTRIES {
            return Err(refused(format!("more than {ARCHIVE_ENTRIES} files and folders, links among them")));
        }
        let name = from.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(PULLER_OWN_PREFIX.as_bytes()) {
            return Err(refused("a name that is the agent's own".to_owned()));
        }
        let is_link = fs::symlink_metadata(from).map_err(|error| failed(from, &error))?.is_symlink();
        let found = fs::metadata(from).map_err(|error| failed(from, &error))?;
        if is_link && found.dev() != self.volume {
            return Err(refused("a link that leads out of the volume".to_owned()));
        }
        Ok(found)
    }

    fn file(&self, from: &Path, to: &Path) -> Result<(), Failure> {
        let found = fs::metadata(from).map_err(|error| failed(from, &error))?;
        // Reading a pipe or a device would wait for ever.
        if !found.is_file() {
            return Err(Failure::refused(format!("{}: it is no file and no folder", from.display())));
        }
        let mode = 0o644 | (found.permissions().mode() & 0o111);
        let mut source = File::open(from).map_err(|error| failed(from, &error))?;
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
}

/// What a container's system has there: the agent's own environment, devices, and the tokens of its service account.
const SYSTEM: [&str; 5] = ["proc/", "sys/", "dev/", "run/", "var/run/"];

/// Where KServe mounts a claim (`PvcSourceMountPath`).
const CLAIMS: &str = "/mnt/pvc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_tricks() {
        let path = |scheme, rest| path_of(scheme, rest).unwrap();
        assert_eq!(path("file", "/mnt/m/iris/"), Ok(PathBuf::from("/mnt/m/iris/")));
        for rest in ["", "mnt/m", "//m", "/a/../b", "/", "/proc/self/environ", "/var/run/secrets"] {
            assert!(path("file", rest).is_err(), "{rest}");
        }
        for rest in ["", "/m", "a/../b"] {
            assert!(path("pvc", rest).is_err(), "{rest}");
        }
        assert_eq!(path_of("ftp", "h/x"), None);
    }

    #[test]
    fn a_claim_is_the_one_that_is_mounted_or_one_of_several() {
        let mounted = std::env::temp_dir().join(format!("kserve-agent-claims-{}", std::process::id()));
        fs::create_dir_all(mounted.join("one")).unwrap();
        let paths = ["one/m/x", "one", "other/m", "other"].map(|rest| claim(rest, &mounted).unwrap());
        fs::remove_dir_all(&mounted).unwrap();
        assert_eq!(paths, ["one/m/x", "one/", "m", ""].map(|path| mounted.join(path)));
    }
}
