//! Models that come as an archive: zip, tar, tar.gz (SPEC M10).
//!
//! A tar is unpacked while it streams. A zip is read by the directory at its end, so it has to be a file: a local header
//! may leave sizes to what follows the data, which can't be told from data, and may name entries that the directory has
//! not got.
//!
//! Whatever an archive says, memory is bounded, and nothing is written outside of its folder: names are checked by
//! [`name`], and [`tree`] goes through no link. Of what an archive can hold only files, folders and links are taken, with
//! contents, names and execute bits; owners, times and attributes are not.
//!
//! Not here: where the bytes come from, and whether a file is an archive to be unpacked or a model that happens to be one.

mod name;
mod tar;
mod tree;
mod zip;

use std::fs::File;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

pub(crate) use self::tree::Tree;
use crate::storage::{Failure, readable};

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Archive {
    Zip,
    Tar,
    TarGz,
}

impl Archive {
    /// Whether a file of this name is an archive to be unpacked.
    pub(crate) fn is_named(name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        [".zip", ".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end))
    }

    /// The archive that begins so; of a tar that is its first header.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            [0x1f, 0x8b, ..] => Some(Self::TarGz),
            _ if head.len() >= HEAD_BYTES && tar::is_header(&head[..HEAD_BYTES]) => Some(Self::Tar),
            _ => None,
        }
    }

    /// Whether it can be unpacked while it comes.
    pub(crate) fn is_stream(self) -> bool {
        self != Self::Zip
    }

    /// Unpacks what `stream` gives. Must not be asked of a zip that is no file.
    pub(crate) fn unpack(self, packed: Packed<'_>, tree: &mut Tree<'_>) -> Result<(), Failure> {
        match (self, packed) {
            (Self::Zip, Packed::File(file)) => zip::unpack(file, tree),
            (Self::Zip, Packed::Stream(_)) => Err(Failure::refused("a zip is read from a file")),
            (Self::Tar, mut packed) => tar::unpack(packed.reader(), false, tree),
            (Self::TarGz, mut packed) => tar::unpack(&mut MultiGzDecoder::new(packed.reader()), true, tree),
        }
    }
}

/// The bytes of an archive.
pub(crate) enum Packed<'p> {
    Stream(&'p mut dyn Read),
    File(&'p File),
}

impl<'p> Packed<'p> {
    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Self::Stream(stream) => *stream,
            Self::File(file) => file,
        }
    }
}

/// Bytes at the start of a file by which an archive is known.
pub(crate) const HEAD_BYTES: usize = 512;

/// What is packed can't be read.
fn broken(error: &io::Error) -> Failure {
    Failure::refused(format!("the archive can't be read: {}", readable(&error.to_string())))
}

#[cfg(test)]
mod tests;
