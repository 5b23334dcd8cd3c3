//! The central directory of a zip (APPNOTE 4.3.6 to 4.5.3), of which one entry at a time is in memory.
//!
//! Not here: archives in several parts, and those with a program in front of them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use super::{broken, label};
use crate::storage::Failure;

/// Where the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) entries: u64,
    offset: u64,
    bytes: u64,
}

/// An entry of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) is_encrypted: bool,
    pub(super) method: u16,
    pub(super) crc32: u32,
    pub(super) size: u64,
    packed: u64,
    /// Of its local header.
    offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Symlink,
    Other,
}

impl Directory {
    /// By the record at the very end of the file, behind which there may be a comment.
    pub(super) fn find(file: &File) -> Result<Self, Failure> {
        let length = file.metadata().map_err(|error| broken(&error))?.len();
        let start = length.saturating_sub(END_BYTES as u64 + u64::from(u16::MAX));
        let mut tail = Vec::new();
        At { file, at: start, end: length }.read_to_end(&mut tail).map_err(|error| broken(&error))?;
        let at = (0..=tail.len().saturating_sub(END_BYTES)).rev().find(|at| {
            // Not a comment that looks like one: its own comment ends with the file.
            let record = &tail[*at..];
            record.starts_with(b"PK\x05\x06")
                && u16_at(record, 20).is_some_and(|c| END_BYTES + usize::from(c) == record.len())
        });
        let at = at.ok_or_else(|| damaged("no directory at its end: a part of it is missing"))?;
        let record = &tail[at..];
        let number = |at| u16_at(record, at).map(u64::from);
        let long = |at| u32_at(record, at).map(u64::from);
        let found = (|| Some([number(4)?, number(6)?, number(8)?, number(10)?, long(12)?, long(16)?]))();
        let [disk, disk_of_directory, here, entries, bytes, offset] = found.ok_or_else(|| damaged("its end is cut"))?;
        let is_long = [here, entries].contains(&0xffff) || [bytes, offset].contains(&0xffff_ffff);
        let directory = Self { entries, offset, bytes };
        let (directory, end) = match Self::long(file, start + at as u64)? {
            Some(found) if is_long => found,
            _ if disk != 0 || disk_of_directory != 0 || here != entries => return Err(in_parts()),
            _ => (directory, start + at as u64),
        };
        match directory.offset.checked_add(directory.bytes) {
            Some(after) if after <= end => Ok(directory),
            _ => Err(damaged("its directory is not in it")),
        }
    }

    /// The same of an archive too large for that record, if there is one before it; and where it stands (4.3.14).
    fn long(file: &File, end: u64) -> Result<Option<(Self, u64)>, Failure> {
        let Some(at) = end.checked_sub(LOCATOR_BYTES as u64) else { return Ok(None) };
        let locator: [u8; LOCATOR_BYTES] = read_at(file, at)?;
        if !locator.starts_with(b"PK\x06\x07") {
            return Ok(None);
        }
        let at = u64_at(&locator, 8).unwrap_or_default();
        let record: [u8; LONG_END_BYTES] = read_at(file, at)?;
        let found = (|| {
            let disks = [u32_at(&record, 16)?, u32_at(&record, 20)?];
            Some((disks, [u64_at(&record, 24)?, u64_at(&record, 32)?, u64_at(&record, 40)?, u64_at(&record, 48)?]))
        })();
        match found {
            Some((disks, [here, entries, bytes, offset])) if record.starts_with(b"PK\x06\x06") => {
                if disks != [0, 0] || here != entries {
                    Err(in_parts())
                } else {
                    Ok(Some((Self { entries, offset, bytes }, at)))
                }
            }
            _ => Err(damaged("its directory is not where it says")),
        }
    }

    /// All entries to the directory's end, however many it says that there are.
    pub(super) fn members(self, file: &File) -> impl Iterator<Item = Result<Member, Failure>> {
        let directory = At { file, at: self.offset, end: self.offset + self.bytes };
        let mut directory = BufReader::new(directory);
        std::iter::from_fn(move || match directory.fill_buf() {
            Ok([]) => None,
            Ok(_) => Some(Member::read(&mut directory)),
            Err(error) => Some(Err(broken(&error))),
        })
    }
}

impl Member {
    fn read(directory: &mut impl Read) -> Result<Self, Failure> {
        let mut head = [0; MEMBER_BYTES];
        directory.read_exact(&mut head).map_err(|error| broken(&error))?;
        if !head.starts_with(b"PK\x01\x02") {
            return Err(damaged("its directory holds something else"));
        }
        let number = |at| u16_at(&head, at).unwrap_or_default();
        let long = |at| u32_at(&head, at).unwrap_or_default();
        let mut bytes = |length: u16| {
            let mut bytes = vec![0; usize::from(length)];
            directory.read_exact(&mut bytes).map(|()| bytes).map_err(|error| broken(&error))
        };
        let (name, extra, _comment) = (bytes(number(28))?, bytes(number(30))?, bytes(number(32))?);
        let name = label::name(name, number(4), number(8));
        let mut sizes = [long(24), long(20), long(42)].map(u64::from);
        long_sizes(&extra, &mut sizes)?;
        let [size, packed, offset] = sizes;
        // Unix and macOS say what it is, others only that it is a folder, by its name.
        let mode = if matches!(number(4) >> 8, 3 | 19) { long(38) >> 16 } else { 0 };
        let kind = match mode & 0o170_000 {
            _ if name.ends_with(b"/") => Kind::Folder,
            0 | 0o100_000 => Kind::File,
            0o040_000 => Kind::Folder,
            0o120_000 => Kind::Symlink,
            _ => Kind::Other,
        };
        let is_encrypted = number(8) & 1 != 0;
        Ok(Self { name, kind, mode, is_encrypted, method: number(10), crc32: long(16), size, packed, offset })
    }

    /// Its data, behind a local header of which only the length is of interest.
    pub(super) fn packed<'f>(&self, file: &'f File) -> Result<impl Read + use<'f>, Failure> {
        let head: [u8; LOCAL_BYTES] = read_at(file, self.offset)?;
        if !head.starts_with(b"PK\x03\x04") {
            return Err(damaged("an entry is not where its directory says"));
        }
        let lengths = [26, 28].map(|at| u64::from(u16_at(&head, at).unwrap_or_default()));
        let at = lengths.iter().fold(self.offset.saturating_add(LOCAL_BYTES as u64), |sum, n| sum.saturating_add(*n));
        Ok(At { file, at, end: at.saturating_add(self.packed) })
    }
}

/// Puts the numbers that were too long for their own fields there: of size, packed size and offset, in this order, those
/// that are all ones (4.5.3).
fn long_sizes(mut extra: &[u8], sizes: &mut [u64; 3]) -> Result<(), Failure> {
    const LONG: u16 = 1;
    while let (Some(id), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some(field) = extra.get(4..4 + usize::from(length)) else { break };
        if id == LONG {
            let mut numbers = field.chunks_exact(8);
            for size in sizes.iter_mut().filter(|size| **size == u64::from(u32::MAX)) {
                let number = numbers.next().and_then(|number| u64_at(number, 0));
                *size = number.ok_or_else(|| damaged("an entry without its size"))?;
            }
            break;
        }
        extra = &extra[4 + usize::from(length)..];
    }
    Ok(())
}

/// A part of a file.
struct At<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn read_at<const N: usize>(file: &File, at: u64) -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).map(|()| bytes).map_err(|error| broken(&error))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn damaged(what: &str) -> Failure {
    Failure::refused(format!("the archive can't be read: {what}"))
}

fn in_parts() -> Failure {
    Failure::refused("the archive is one part of several")
}

const END_BYTES: usize = 22;
const LOCATOR_BYTES: usize = 20;
const LONG_END_BYTES: usize = 56;
const MEMBER_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
