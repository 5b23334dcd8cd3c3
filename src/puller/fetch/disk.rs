//! A model's folder on the disk: made as the plan says, written to at any place, synced in the end.
//!
//! Everybody may read what is in it, as the model server runs as another user (SPEC M2). No file is opened that was not
//! planned, and what else is found in the folder is removed: it is left from an attempt at another listing.
//!
//! Not here: what goes where, and the model's name, which it gets when all is done.

use std::fs::{self, DirEntry, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::iter;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::plan::{self, Plan};
use super::record::JOURNAL;
use crate::puller::scratch::Room;
use crate::storage::{Failure, Object};

/// The folder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk<'f> {
    folder: &'f Path,
}

/// The bits of a mode that say who may do what.
const ACCESS: u32 = 0o777;
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

impl<'f> Disk<'f> {
    pub(super) fn at(folder: &'f Path) -> Self {
        Self { folder }
    }

    pub(super) fn path(self, below: &str) -> PathBuf {
        if below.is_empty() { self.folder.to_owned() } else { self.folder.join(below) }
    }

    /// Makes all folders and removes what is in the way or not planned.
    pub(super) fn make_folders(self, plan: &Plan) -> Result<(), Failure> {
        for below in iter::once("").chain(plan.folders.iter().map(String::as_str)) {
            let path = self.path(below);
            match fs::read_dir(&path) {
                Ok(entries) => entries.into_iter().try_for_each(|entry| tidy(plan, below, &entry?)),
                Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(&path),
                Err(error) => Err(error),
            }
            .and_then(|()| open_to_all(&path, FOLDER_MODE))
            .map_err(|error| failed(below, &error))?;
        }
        Ok(())
    }

    /// Whether a file is there in its full length, as every file is from when it is opened first.
    pub(super) fn has(self, object: &Object) -> bool {
        fs::symlink_metadata(self.path(&object.path)).is_ok_and(|found| found.is_file() && found.len() == object.size)
    }

    /// Whether the volume has room for what is not there yet.
    pub(super) fn check_space(self, plan: &Plan) -> Result<(), Failure> {
        let Some(room) = Room::of(self.folder).map_err(|error| failed("", &error))? else { return Ok(()) };
        let missing = plan.objects.iter().map(|object| self.missing(object, room.block));
        room.check(missing.fold(0, u64::saturating_add))
    }

    /// Bytes that a file still takes, in whole blocks.
    fn missing(self, object: &Object, block: u64) -> u64 {
        let found = fs::symlink_metadata(self.path(&object.path)).map_or(0, |found| found.blocks() * STAT_BLOCK);
        object.size.div_ceil(block).saturating_mul(block).saturating_sub(found)
    }

    /// Makes the files that come in pieces or not at all; for the former the room is kept.
    pub(super) fn make_files(self, plan: &Plan) -> Result<(), Failure> {
        for object in plan.objects.iter().filter(|object| plan::is_large(object) || object.size == 0) {
            let file = self.open(object)?;
            if object.size > 0 {
                reserve(&file, object.size).map_err(|error| failed(&object.path, &error))?;
            }
        }
        Ok(())
    }

    /// Opens a file for writing; one that is not there, or was left by something else, gets its length.
    pub(super) fn open(self, object: &Object) -> Result<File, Failure> {
        self.try_open(object).map_err(|error| failed(&object.path, &error))
    }

    fn try_open(self, object: &Object) -> io::Result<File> {
        let path = self.path(&object.path);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        let found = file.metadata()?;
        if found.len() != object.size {
            file.set_len(object.size)?;
        }
        if found.mode() & ACCESS != FILE_MODE {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        }
        Ok(file)
    }

    /// Syncs the names of everything; contents were synced as they came.
    pub(super) fn sync_folders(self, plan: &Plan) -> Result<(), Failure> {
        // A folder's own name is in the one that it is in.
        for below in plan.folders.iter().rev().map(String::as_str).chain(iter::once("")) {
            let synced = File::open(self.path(below)).and_then(|folder| folder.sync_all());
            synced.map_err(|error| failed(below, &error))?;
        }
        Ok(())
    }
}

/// What `st_blocks` counts.
const STAT_BLOCK: u64 = 512;

/// Removes what is found in a folder and not planned to be there.
fn tidy(plan: &Plan, below: &str, entry: &DirEntry) -> io::Result<()> {
    let kind = entry.file_type()?;
    let name = entry.file_name();
    let path = name.to_str().map(|name| if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") });
    let is_planned = path.is_some_and(|path| {
        if kind.is_dir() {
            plan.folders.contains(&path)
        } else {
            kind.is_file() && (path == JOURNAL || plan.file(&path).is_some())
        }
    });
    match (is_planned, kind.is_dir()) {
        (true, _) => Ok(()),
        (false, true) => fs::remove_dir_all(entry.path()),
        (false, false) => fs::remove_file(entry.path()),
    }
}

/// Whatever the process's umask is. A bit that gives files the folder's group, as `fsGroup` sets it, stays.
fn open_to_all(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.mode();
    if found & ACCESS == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(found & !ACCESS | mode))
}

/// Keeps a file's room, so that others can't take it while the file comes; not every file system can.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A disk that is full may have room once another model is gone; what the name or the folder does not allow, it never
/// will.
pub(super) fn failed(path: &str, error: &io::Error) -> Failure {
    let reason =
        if path.is_empty() { format!("the model's folder: {error}") } else { format!("the file {path:?}: {error}") };
    match error.kind() {
        ErrorKind::InvalidFilename | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Failure::refused(reason)
        }
        _ => Failure::transient(reason),
    }
}
