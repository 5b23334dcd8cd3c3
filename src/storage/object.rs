//! An object of a listing, and where in a folder it belongs.

use super::failure::Failure;
use crate::config::STORE_KEY_BYTES;

/// An object as it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name in the bucket.
    pub key: String,
    /// Its place below the folder that was listed, the last part of its key if it was asked for alone.
    ///
    /// INVARIANT: segments that name something, divided by single slashes: none is empty, `.` or `..`, and no character
    /// is a control, so that joined to a folder it stays in there.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// What tells it from an object of the same name that came later: the entity tag of S3 and Azure, Google's
    /// generation. A store that has neither can't be asked for one version.
    pub version: Option<String>,
    /// Its checksum by Google, CRC-32C.
    pub crc32c: Option<u32>,
}

/// What a store says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) version: Option<String>,
    pub(super) crc32c: Option<u32>,
}

impl Entry {
    /// The object at `path`, if that is one below a folder.
    pub(super) fn at(self, path: &str) -> Result<Object, Failure> {
        check_length(&self.key)?;
        // Keys with empty segments come of prefixes that ended in a slash. No folder has a name for one.
        let path = path.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/");
        if !is_path(&path) {
            return Err(Failure::refused(format!("the object {} can't be a file in a folder", shown(&self.key))));
        }
        Ok(Object { path, key: self.key, size: self.size, version: self.version, crc32c: self.crc32c })
    }
}

/// Whether a key or a part of one is a path without tricks. A URL can't even name others: its `..` is not sent.
pub(crate) fn is_path(text: &str) -> bool {
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..");
    text.split('/').all(is_segment) && !text.contains(char::is_control)
}

/// Whether all that stands between slashes could be a name, or is nothing, as a store lets it be.
pub(super) fn is_key(text: &str) -> bool {
    text.split('/').all(|segment| segment.is_empty() || is_path(segment))
}

/// A key that can be stored under.
pub(super) fn check_key(key: &str) -> Result<(), Failure> {
    check_length(key)?;
    if !is_key(key) {
        return Err(Failure::refused(format!(
            "{} is not a key: it has . or .. between slashes, or a control",
            shown(key)
        )));
    }
    Ok(())
}

fn check_length(key: &str) -> Result<(), Failure> {
    if key.len() > STORE_KEY_BYTES {
        return Err(Failure::refused(format!("a key of {} bytes, {STORE_KEY_BYTES} are allowed", key.len())));
    }
    Ok(())
}

/// A key in a message: quoted, controls escaped, bounded.
pub(crate) fn shown(key: &str) -> String {
    const CHARS: usize = 200;
    match key.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{:?}…", &key[..end]),
        None => format!("{key:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_stay_in_a_folder_are_paths() {
        for key in ["a", "a/b.c/d e", "ü/..x/...", "-", "a\\b", "con"] {
            assert!(is_path(key), "{key:?}");
        }
        for key in ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a\0b", "a\nb", "\u{7f}", "\u{85}"]
        {
            assert!(!is_path(key), "{key:?}");
        }
    }

    #[test]
    fn a_key_that_no_store_has_is_not_taken_from_a_listing() {
        let at = |length| Entry { key: "k".repeat(length), size: 1, version: None, crc32c: None }.at("k");
        assert!(at(STORE_KEY_BYTES).is_ok());
        assert_eq!(at(STORE_KEY_BYTES + 1).unwrap_err().reason, "a key of 1025 bytes, 1024 are allowed");
    }

    #[test]
    fn a_key_that_no_store_takes_is_refused_before_it_is_sent() {
        assert!(check_key(&"k".repeat(STORE_KEY_BYTES)).is_ok());
        let failure = check_key(&"k".repeat(STORE_KEY_BYTES + 1)).unwrap_err();
        assert_eq!(failure.reason, "a key of 1025 bytes, 1024 are allowed");
        let failure = check_key("../other/\n").unwrap_err();
        assert_eq!(failure.reason, "\"../other/\\n\" is not a key: it has . or .. between slashes, or a control");
    }
}
