//! Unpacking of a tar from a stream: what the `tar` crate reads, with bounds of our own.

use std::cell::Cell;
use std::io::{self, Read};

use ::tar::{Archive, Entry, EntryType, Header};

use super::broken;
use super::tree::{Tree, wrong};
use crate::config::ARCHIVE_HEADER_BYTES;
use crate::storage::Failure;

/// Whether 512 bytes are the header of an entry.
pub(super) fn is_header(block: &[u8]) -> bool {
    let mut header = Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    // The sum of all bytes, with blanks in its own place.
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    header.cksum().is_ok_and(|given| given == sum)
}

/// Unpacks to the end of the stream: what is behind the archive is read too, so that gzip's checksum is looked at. `is_whole`:
/// the stream itself tells when a part of it is missing, so that the archive need not have its own end, as for GNU tar.
pub(super) fn unpack(stream: &mut dyn Read, is_whole: bool, tree: &mut Tree<'_>) -> Result<(), Failure> {
    let (left, has_ended) = (Cell::new(0), Cell::new(false));
    let mut archive = Archive::new(Metered { stream, left: &left, has_ended: &has_ended });
    let mut entries = archive.entries().map_err(|error| broken(&error))?;
    loop {
        left.set(ARCHIVE_HEADER_BYTES);
        let next = entries.next().transpose().map_err(|error| broken(&error))?;
        left.set(u64::MAX);
        let Some(mut entry) = next else { break };
        write(&mut entry, tree)?;
        // Here and not on the way to the next header, where it would count as one.
        tree.pass(&mut entry)?;
    }
    if has_ended.get() && !is_whole {
        return Err(Failure::refused("the archive has no end: a part of it is missing"));
    }
    tree.pass(&mut archive.into_inner())
}

fn write<R: Read>(entry: &mut Entry<'_, R>, tree: &mut Tree<'_>) -> Result<(), Failure> {
    let name = entry.path_bytes().into_owned();
    let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
    let kind = entry.header().entry_type();
    if is_sparse(entry)? {
        return Err(wrong(&name, "it is a sparse file of a kind that can't be unpacked"));
    }
    match kind {
        // Before there was a type for folders, a slash at the end said it.
        EntryType::Regular if name.ends_with(b"/") => tree.folder(&name),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mode = entry.header().mode().unwrap_or_default();
            tree.file(&name, entry.size(), mode, entry)
        }
        EntryType::Directory => tree.folder(&name),
        EntryType::Symlink => tree.symlink(&name, &target),
        EntryType::Link => tree.hard_link(&name, &target),
        EntryType::XGlobalHeader => Ok(()),
        EntryType::Char | EntryType::Block => Err(wrong(&name, "it is a device")),
        EntryType::Fifo => Err(wrong(&name, "it is a named pipe")),
        other => Err(wrong(&name, &format!("its type is {:?}", char::from(other.as_byte())))),
    }
}

/// Whether its content is a map of a file with holes in a form that looks like a file (PAX, 0.0 to 1.0).
fn is_sparse<R: Read>(entry: &mut Entry<'_, R>) -> Result<bool, Failure> {
    let extensions = entry.pax_extensions().map_err(|error| broken(&error))?;
    Ok(extensions
        .is_some_and(|mut all| all.any(|one| one.is_ok_and(|one| one.key_bytes().starts_with(b"GNU.sparse.")))))
}

/// The stream as the `tar` crate reads it: it holds what stands before an entry's content in memory, however much it is.
struct Metered<'m> {
    stream: &'m mut dyn Read,
    /// Bytes that may be read now.
    left: &'m Cell<u64>,
    /// The stream is at its end, which no archive has before its own.
    has_ended: &'m Cell<bool>,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other(format!("headers of over {ARCHIVE_HEADER_BYTES} bytes")));
        }
        let most = buffer.len().min(usize::try_from(self.left.get()).unwrap_or(usize::MAX));
        let count = self.stream.read(&mut buffer[..most])?;
        self.has_ended.set(self.has_ended.get() || (count == 0 && most > 0));
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}
