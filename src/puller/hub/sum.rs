//! Whether a file is the one that a commit has.

use std::fmt::Write as _;
use std::io::{self, Read};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::list::{Digest, Entry};
use crate::config::PULLER_PIECE_BYTES;
use crate::puller::source::Stop;

/// The sum of what has come of a file.
pub(super) struct Sum<'e> {
    expected: &'e str,
    context: Context,
}

impl<'e> Sum<'e> {
    pub(super) fn new(entry: &'e Entry) -> Self {
        match &entry.digest {
            Digest::Sha256(expected) => Self { expected, context: Context::new(&SHA256) },
            Digest::Git(expected) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {}\0", entry.size).as_bytes());
                Self { expected, context }
            }
        }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// All of what came before; a download that is stopped is not waited for.
    pub(super) fn read(&mut self, have: &mut impl Read, stop: &Stop) -> io::Result<()> {
        let mut piece = vec![0; PULLER_PIECE_BYTES];
        loop {
            match have.read(&mut piece)? {
                0 => return Ok(()),
                _ if stop.is_over() => return Ok(()),
                count => self.update(&piece[..count]),
            }
        }
    }

    pub(super) fn matches(self) -> bool {
        hex(self.context.finish().as_ref()) == self.expected
    }
}

/// A file's name for what comes at this path with this digest, whatever characters the path has.
pub(super) fn name(path: &str, of: &Digest) -> String {
    let (Digest::Sha256(content) | Digest::Git(content)) = of;
    hex(digest(&SHA256, format!("{content} {path}").as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(digest: Digest, content: &[u8]) -> bool {
        let entry = Entry { path: "a".to_owned(), size: content.len() as u64, digest };
        let mut sum = Sum::new(&entry);
        content.chunks(2).for_each(|piece| sum.update(piece));
        sum.matches()
    }

    #[test]
    fn content_is_known_by_its_digest() {
        // `git hash-object`, `sha256sum`
        let git = || Digest::Git("ce013625030ba8dba906f756967f9e9ca394464a".to_owned());
        let sha256 = || Digest::Sha256("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".to_owned());
        assert!(matches(git(), b"hello\n") && matches(sha256(), b"hello\n"));
        assert!(!matches(git(), b"hello!") && !matches(sha256(), b"hello!"));
    }

    #[test]
    fn the_same_content_at_two_paths_comes_to_two_files() {
        let digest = Digest::Git("0".to_owned());
        assert_ne!(name("a", &digest), name("b", &digest));
        assert_eq!(name("a", &digest).len(), 64);
    }
}
