//! The folder that a model comes into: what of it is the model's, and what the agent's own, which goes in the end.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::statvfs;

use crate::config::PULLER_OWN_PREFIX;
use crate::storage::Failure;

/// Removes what an attempt before has made of a model, and keeps what it has fetched.
pub(super) fn clear(folder: &Path) -> Result<(), Failure> {
    let clear = || {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(PULLER_OWN_PREFIX.as_bytes()) {
                continue;
            }
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
        Ok(())
    };
    clear().map_err(|error| failed(folder, &error))
}

/// Makes a file that has come a part of the model, which any user may read.
pub(super) fn publish(part: &Path, path: &Path) -> Result<(), Failure> {
    let publish = || {
        fs::set_permissions(part, Permissions::from_mode(0o644))?;
        fs::rename(part, path)
    };
    publish().map_err(|error| failed(path, &error))
}

/// Makes the folders down to a file's, which any user may enter. `path` is below `folder`.
pub(super) fn make_parents(folder: &Path, path: &str) -> Result<(), Failure> {
    let mut above = folder.to_owned();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    for segment in parent.split('/').filter(|segment| !segment.is_empty()) {
        above.push(segment);
        make_folder(&above)?;
    }
    Ok(())
}

/// Makes a folder that any user may enter, if it is not there.
pub(super) fn make_folder(path: &Path) -> Result<(), Failure> {
    let make = || match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    };
    make().map_err(|error| failed(path, &error))
}

/// What a volume has left.
pub(super) struct Room {
    /// Bytes of a block: a file takes whole ones.
    pub(super) block: u64,
    free: u64,
}

impl Room {
    /// Of the volume that a folder is on; some network file systems don't know.
    pub(super) fn of(folder: &Path) -> io::Result<Option<Self>> {
        let volume = statvfs(folder)?;
        let free = volume.f_bavail.saturating_mul(volume.f_frsize);
        Ok((volume.f_blocks > 0).then_some(Self { block: volume.f_frsize.max(1), free }))
    }

    /// Whether so many bytes more find a place.
    pub(super) fn check(&self, needed: u64) -> Result<(), Failure> {
        if needed <= self.free {
            return Ok(());
        }
        let free = self.free;
        let text = format!("no space for the model: it needs {needed} bytes more, the volume has {free} free");
        Err(Failure::full(text))
    }
}

/// Whether a folder's volume has room for so many bytes more.
pub(super) fn check_room(folder: &Path, needed: u64) -> Result<(), Failure> {
    let room = Room::of(folder).map_err(|error| failed(folder, &error))?;
    room.map_or(Ok(()), |room| room.check(needed))
}

/// The disk did not do it.
pub(super) fn failed(path: &Path, error: &io::Error) -> Failure {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let text = format!("{}: {error}", path.display());
    if is_full { Failure::full(text) } else { Failure::transient(text) }
}
