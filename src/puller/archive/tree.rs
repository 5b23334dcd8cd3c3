//! The folder that an archive is unpacked into, and what may be written there.
//!
//! Architecture Invariant: nothing is written through a link. The folders above an entry are looked at one by one, and
//! what is made is made new, which follows no link either; nobody else writes here.
//!
//! Not here: syncing, which is done once for the whole model.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::broken;
use super::name::{Place, target};
use crate::config::{ARCHIVE_BYTES, ARCHIVE_ENTRIES, ARCHIVE_HEAD_START, ARCHIVE_RATIO, PULLER_PIECE_BYTES};
use crate::puller::source::Stop;
use crate::storage::{Failure, shown};

/// The folder, and how much of what is allowed has been taken.
pub(crate) struct Tree<'t> {
    folder: &'t Path,
    stop: &'t Stop,
    entries: u64,
    bytes: u64,
    most: u64,
    /// Of an archive that is still coming: bytes that have come, whatever length was announced.
    came: Option<&'t Cell<u64>>,
    /// Bytes that have been unpacked.
    unpacked: u64,
    /// The folder above the last entry, which is none that is reached by a link.
    parent: PathBuf,
    piece: Vec<u8>,
}

impl<'t> Tree<'t> {
    /// For an archive of this size.
    pub(crate) fn new(folder: &'t Path, packed: u64, stop: &'t Stop) -> Self {
        let most = packed.saturating_mul(ARCHIVE_RATIO).min(ARCHIVE_BYTES);
        let piece = vec![0; PULLER_PIECE_BYTES];
        Self { folder, stop, entries: 0, bytes: 0, most, came: None, unpacked: 0, parent: folder.to_owned(), piece }
    }

    /// The same for an archive that is unpacked while it comes: `came` is how much of it has been read.
    pub(crate) fn while_it_comes(self, came: &'t Cell<u64>) -> Self {
        Self { came: Some(came), ..self }
    }

    /// So many entries and bytes are to come, says the archive.
    pub(super) fn announce(&self, entries: u64, bytes: u64) -> Result<(), Failure> {
        if self.entries.saturating_add(entries) > ARCHIVE_ENTRIES {
            return Err(Failure::refused(format!("the archive has more than {ARCHIVE_ENTRIES} entries")));
        }
        if self.bytes.saturating_add(bytes) > self.most {
            let text = format!(
                "the archive unpacks to more than {} bytes: {ARCHIVE_RATIO} times its size and {} GiB are allowed",
                self.most,
                ARCHIVE_BYTES >> 30
            );
            return Err(Failure::refused(text));
        }
        Ok(())
    }

    pub(super) fn folder(&mut self, name: &[u8]) -> Result<(), Failure> {
        let place = self.begin(name, 0)?;
        self.above(name, &place)?;
        self.make_folder(&self.folder.join(place.as_str())).map_err(|error| refused(name, &error))
    }

    /// A file of `size` bytes. Of its mode only who may execute it is kept.
    pub(super) fn file(&mut self, name: &[u8], size: u64, mode: u32, content: &mut dyn Read) -> Result<(), Failure> {
        let place = self.begin(name, size)?;
        let path = self.vacate(name, &place)?;
        let mode = 0o644 | (mode & 0o111);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let mut file = file.map_err(|error| failed(name, &error))?;
        // Whatever the process's mask is: any user of the model server reads it.
        file.set_permissions(Permissions::from_mode(mode)).map_err(|error| failed(name, &error))?;
        self.copy(name, size, content, &mut file)
    }

    pub(super) fn symlink(&mut self, name: &[u8], to: &[u8]) -> Result<(), Failure> {
        let place = self.begin(name, 0)?;
        let to =
            target(to, &place).map_err(|reason| wrong(name, &format!("the link's target {} {reason}", quoted(to))))?;
        let path = self.vacate(name, &place)?;
        std::os::unix::fs::symlink(to, path).map_err(|error| failed(name, &error))
    }

    /// Another name for a file that was unpacked before.
    pub(super) fn hard_link(&mut self, name: &[u8], to: &[u8]) -> Result<(), Failure> {
        let place = self.begin(name, 0)?;
        let bad = |reason: &str| wrong(name, &format!("the link's target {} {reason}", quoted(to)));
        let source = Place::of(to).map_err(bad)?;
        self.above(to, &source)?;
        let source = self.folder.join(source.as_str());
        let is_file = fs::symlink_metadata(&source).is_ok_and(|found| found.is_file());
        if !is_file {
            return Err(bad("is no file of the archive before it"));
        }
        if source == self.folder.join(place.as_str()) {
            return Ok(());
        }
        let path = self.vacate(name, &place)?;
        fs::hard_link(source, path).map_err(|error| failed(name, &error))
    }

    /// Bytes that are read and not kept.
    pub(super) fn pass(&mut self, content: &mut dyn Read) -> Result<(), Failure> {
        loop {
            match content.read(&mut self.piece).map_err(|error| broken(&error))? {
                0 => return Ok(()),
                count => {
                    self.take(0, count as u64)?;
                    self.has_unpacked(count as u64)?;
                }
            }
        }
    }

    /// A length that is announced proves nothing, and a hole in a tar's file takes no byte of the tar: what has come by
    /// now bounds what it may have become.
    fn has_unpacked(&mut self, bytes: u64) -> Result<(), Failure> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        let Some(came) = self.came.map(Cell::get) else { return Ok(()) };
        if self.unpacked > came.saturating_add(ARCHIVE_HEAD_START).saturating_mul(ARCHIVE_RATIO) {
            let text =
                format!("the archive unpacks to more than {ARCHIVE_RATIO} times what has come of it, {came} bytes");
            return Err(Failure::refused(text));
        }
        Ok(())
    }

    fn take(&mut self, entries: u64, bytes: u64) -> Result<(), Failure> {
        self.announce(entries, bytes)?;
        self.entries += entries;
        self.bytes += bytes;
        self.stop.check()
    }

    fn begin(&mut self, name: &[u8], size: u64) -> Result<Place, Failure> {
        self.take(1, size).map_err(|failure| failure.of(format_args!("the entry {}", quoted(name))))?;
        Place::of(name).map_err(|reason| wrong(name, &format!("the name {reason}")))
    }

    /// Makes the folders above a place that are not there, and none that are there is a link.
    fn above(&mut self, name: &[u8], place: &Place) -> Result<(), Failure> {
        let parent = place.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let whole = self.folder.join(parent);
        if whole == self.parent {
            return Ok(());
        }
        let mut path = self.folder.to_owned();
        for segment in parent.split('/').filter(|segment| !segment.is_empty()) {
            path.push(segment);
            self.make_folder(&path).map_err(|error| refused(name, &error))?;
        }
        self.parent = whole;
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        if path == self.folder {
            return Ok(());
        }
        match DirBuilder::new().mode(0o755).create(path) {
            Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match fs::symlink_metadata(path)?.is_dir() {
                true => Ok(()),
                false => Err(ErrorKind::NotADirectory.into()),
            },
            Err(error) => Err(error),
        }
    }

    /// The path of a place at which there is nothing. A later entry of the same name takes the earlier one's place, as tar
    /// appends what has changed.
    fn vacate(&mut self, name: &[u8], place: &Place) -> Result<PathBuf, Failure> {
        self.above(name, place)?;
        let path = self.folder.join(place.as_str());
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => return Err(wrong(name, "it is a folder already")),
            Ok(_) => fs::remove_file(&path).map_err(|error| failed(name, &error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(name, &error)),
        }
        Ok(path)
    }

    fn copy(&mut self, name: &[u8], size: u64, content: &mut dyn Read, file: &mut File) -> Result<(), Failure> {
        let mut left = size;
        while left > 0 {
            self.stop.check()?;
            let most = self.piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = content.read(&mut self.piece[..most]);
            let count = count.map_err(|error| broken(&error).of(format_args!("the entry {}", quoted(name))))?;
            if count == 0 {
                return Err(wrong(name, &format!("it ends {left} bytes early")));
            }
            file.write_all(&self.piece[..count]).map_err(|error| failed(name, &error))?;
            left -= count as u64;
            let bounded = self.has_unpacked(count as u64);
            bounded.map_err(|failure| failure.of(format_args!("the entry {}", quoted(name))))?;
        }
        Ok(())
    }
}

/// An entry that can't be taken, by its name.
pub(super) fn wrong(name: &[u8], reason: &str) -> Failure {
    Failure::refused(format!("the entry {}: {reason}", quoted(name)))
}

/// A name in a message: escaped, bounded.
fn quoted(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => shown(text),
        Err(_) => format!("\"{}\"", name[..name.len().min(200)].escape_ascii()),
    }
}

/// The disk did not take it, which is not the archive's fault.
fn failed(name: &[u8], error: &io::Error) -> Failure {
    Failure::transient(format!("writing the entry {}: {error}", quoted(name)))
}

fn refused(name: &[u8], error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotADirectory => wrong(name, "it is below a file or a link"),
        _ => failed(name, error),
    }
}
