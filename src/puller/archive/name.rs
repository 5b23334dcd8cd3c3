//! Names of entries and targets of links, as bytes of an archive, made into places below its folder.
//!
//! Not here: what there is at such a place.

use crate::config::{ARCHIVE_NAME_BYTES, ARCHIVE_SEGMENT_BYTES, PULLER_OWN_PREFIX};

/// A place below the folder; empty for the folder itself.
///
/// INVARIANT: segments that name something, divided by single slashes: none is empty, `.` or `..`, and no character is a
/// control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    /// Of an entry's name. The error is what is wrong with it.
    pub(super) fn of(name: &[u8]) -> Result<Self, &'static str> {
        let name = text(name)?;
        let segments: Vec<&str> = segments(name)?.collect();
        if segments.contains(&"..") {
            return Err("leads out of the folder");
        }
        if segments.first().is_some_and(|first| first.starts_with(PULLER_OWN_PREFIX)) {
            return Err("is a name of the agent's own");
        }
        Ok(Self(segments.join("/")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders above it, below the archive's own.
    fn depth(&self) -> usize {
        self.0.matches('/').count()
    }
}

/// The target of a symbolic link at `place`, if it stays in the folder.
///
/// A target climbs at its start only, and no further than the folder: the folders that the link itself is in are no
/// links, so it climbs where it seems to. Behind a name that is a link, `..` would be above wherever that one points to.
pub(super) fn target(target: &[u8], place: &Place) -> Result<String, &'static str> {
    let target = text(target)?;
    let segments: Vec<&str> = segments(target)?.collect();
    let climbs = segments.iter().take_while(|segment| **segment == "..").count();
    if climbs > place.depth() || segments[climbs..].contains(&"..") {
        return Err("leads out of the folder");
    }
    match segments.join("/") {
        here if here.is_empty() => Ok(".".to_owned()),
        path => Ok(path),
    }
}

fn text(name: &[u8]) -> Result<&str, &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "is not UTF-8")?;
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > ARCHIVE_NAME_BYTES {
        return Err("is longer than 1024 bytes");
    }
    if name.contains(char::is_control) {
        return Err("holds a control character");
    }
    Ok(name)
}

/// Those that mean something: archives of folders call them `./` and `./name/`.
fn segments(name: &str) -> Result<impl Iterator<Item = &str>, &'static str> {
    if name.starts_with('/') {
        return Err("is absolute");
    }
    if name.split('/').any(|segment| segment.len() > ARCHIVE_SEGMENT_BYTES) {
        return Err("has more than 255 bytes between two slashes");
    }
    Ok(name.split('/').filter(|segment| !matches!(*segment, "" | ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_entries_are_places_below_the_folder() {
        for (name, place) in [
            ("model.bin", "model.bin"),
            ("./", ""),
            (".", ""),
            ("./a//b/./c/", "a/b/c"),
            ("..a/b../...", "..a/b../..."),
            ("a\\..\\b", "a\\..\\b"),
            ("größe/模型", "größe/模型"),
        ] {
            assert_eq!(Place::of(name.as_bytes()), Ok(Place(place.to_owned())), "{name}");
        }
    }

    #[test]
    fn names_with_tricks_are_not() {
        for (name, reason) in [
            (&b""[..], "is empty"),
            (b"/etc/passwd", "is absolute"),
            (b"//a", "is absolute"),
            (b"..", "leads out of the folder"),
            (b"a/../../b", "leads out of the folder"),
            (b"a/..", "leads out of the folder"),
            (b"a\nb", "holds a control character"),
            (b"a\0b", "holds a control character"),
            (b"a\x1b[2J", "holds a control character"),
            (b"a\xffb", "is not UTF-8"),
            (b"./.kserve-agent-part", "is a name of the agent's own"),
        ] {
            assert_eq!(Place::of(name), Err(reason), "{}", name.escape_ascii());
        }
        assert_eq!(Place::of(&[b'a'; 256]), Err("has more than 255 bytes between two slashes"));
        assert!(Place::of(&[b'a'; 255]).is_ok());
        assert_eq!(Place::of(&b"a/".repeat(513)), Err("is longer than 1024 bytes"));
        assert!(Place::of(&b"a/".repeat(512)).is_ok());
    }

    #[test]
    fn a_link_may_point_to_wherever_in_the_folder_it_climbs_from() {
        for (place, to) in
            [("l", "a"), ("l", "a/b"), ("a/b/l", "../../c"), ("a/l", "../a/./x"), ("a/l", ".."), ("l", ".")]
        {
            assert_eq!(target(to.as_bytes(), &Place(place.to_owned())), Ok(to.replace("./x", "x")), "{place} -> {to}");
        }
    }

    #[test]
    fn a_link_may_not_point_outside() {
        for (place, to) in [("l", ".."), ("l", "../x"), ("a/l", "../../x"), ("a/b/l", "x/.."), ("a/l", "../b/../c")] {
            let error = target(to.as_bytes(), &Place(place.to_owned()));
            assert_eq!(error, Err("leads out of the folder"), "{place} -> {to}");
        }
        assert_eq!(target(b"/etc", &Place("l".to_owned())), Err("is absolute"));
        assert_eq!(target(b"", &Place("l".to_owned())), Err("is empty"));
    }
}
