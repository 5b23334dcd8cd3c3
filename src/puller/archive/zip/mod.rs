//! Unpacking of a zip that is a file, by the directory at its end.
//!
//! The `zip` crate was weighed: it holds the whole directory in memory, whose length the archive chooses.

mod directory;
mod label;

use std::fs::File;
use std::io::{self, Read};

use crc32fast::Hasher;
use flate2::read::DeflateDecoder;

use self::directory::{Directory, Kind, Member, damaged};
use super::broken;
use super::tree::{Tree, wrong};
use crate::config::ARCHIVE_NAME_BYTES;
use crate::storage::Failure;

pub(super) fn unpack(file: &File, tree: &mut Tree<'_>) -> Result<(), Failure> {
    let directory = Directory::find(file)?;
    tree.announce(directory.entries, 0)?;
    // What all of it is to unpack to is known before anything is written.
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    for member in directory.members(file) {
        entries += 1;
        bytes = bytes.saturating_add(member?.size);
        tree.announce(entries, bytes)?;
    }
    if entries != directory.entries {
        return Err(damaged(&format!("its directory has {entries} entries and says {}", directory.entries)));
    }
    directory.members(file).try_for_each(|member| write(file, &member?, tree))
}

fn write(file: &File, member: &Member, tree: &mut Tree<'_>) -> Result<(), Failure> {
    let name = &member.name;
    if member.is_encrypted {
        return Err(wrong(name, "it is encrypted"));
    }
    match member.kind {
        Kind::Folder => return tree.folder(name),
        Kind::File | Kind::Symlink => {}
        Kind::Other => return Err(wrong(name, "it is no file, folder or link")),
    }
    let packed = member.packed(file)?;
    let mut content = match member.method {
        0 => Content::Stored(packed),
        8 => Content::Deflated(Box::new(DeflateDecoder::new(packed))),
        other => return Err(wrong(name, &format!("it is packed by method {other}, 0 and 8 are known"))),
    };
    let mut summed = Summed { content: &mut content, sum: Hasher::new() };
    if member.kind == Kind::File {
        tree.file(name, member.size, member.mode, &mut summed)?;
    } else {
        let mut target = Vec::new();
        summed.by_ref().take(ARCHIVE_NAME_BYTES as u64 + 1).read_to_end(&mut target).map_err(|error| broken(&error))?;
        tree.symlink(name, &target)?;
    }
    if summed.read(&mut [0]).map_err(|error| broken(&error))? != 0 {
        return Err(wrong(name, "it is longer than the directory says"));
    }
    if summed.sum.finalize() != member.crc32 {
        return Err(wrong(name, "its checksum is wrong"));
    }
    Ok(())
}

/// What is packed, unpacked.
enum Content<R> {
    Stored(R),
    Deflated(Box<DeflateDecoder<R>>),
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stored(stored) => stored.read(buffer),
            Self::Deflated(deflated) => deflated.read(buffer),
        }
    }
}

struct Summed<'s, R> {
    content: &'s mut Content<R>,
    sum: Hasher,
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.sum.update(&buffer[..count]);
        Ok(count)
    }
}
