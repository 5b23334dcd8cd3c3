//! What there is to be of a model: files, the folders they are in, and the pieces they come in. Pure.
//!
//! A piece is a small file, or a range of a large one, so that one large file comes by several connections as many
//! small ones do. A piece always begins and ends at the same byte, so that those that came are known after a restart.

use std::collections::BTreeSet;
use std::ops::Range;

use super::record::JOURNAL;
use crate::config::FETCH_PIECE_BYTES;
use crate::puller::extent;
use crate::storage::{Failure, Object, shown};

/// A listing that can be a folder.
#[derive(Debug)]
pub(super) struct Plan {
    /// INVARIANT: in the order of their paths, no two of which are the same.
    pub(super) objects: Vec<Object>,
    /// Paths below the model's folder, each after the one that it is in; none is a file's.
    pub(super) folders: BTreeSet<String>,
    /// In the order of the objects. One that is empty has none.
    pub(super) pieces: Vec<Piece>,
    /// Of all files.
    pub(super) bytes: u64,
}

/// What is asked for at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its place in the plan.
    pub(super) object: usize,
    /// Of the object's pieces it is this one.
    pub(super) number: u32,
    /// Bytes of the object.
    pub(super) range: Range<u64>,
}

impl Plan {
    /// A plan for these objects.
    ///
    /// # Errors
    /// When a folder can't hold them all; the text names one.
    pub(super) fn of(mut objects: Vec<Object>) -> Result<Self, Failure> {
        objects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        if let Some([one, other]) = objects.array_windows().find(|[a, b]| a.path == b.path) {
            return Err(match one.key == other.key {
                true => Failure::transient(format!("the listing has {:?} twice", one.path)),
                false => Failure::refused(format!("{:?} and {:?} would be the same file", one.key, other.key)),
            });
        }
        let folders = folders_of(&objects)?;
        // Nothing, called as a folder of others is: tools on Azure store folders so.
        objects.retain(|object| object.size > 0 || !folders.contains(&object.path));
        let bytes = extent::sum(objects.iter().map(|object| object.size))?;
        let mut plan = Self { objects, folders, pieces: Vec::new(), bytes };
        if let Some(both) = plan.folders.iter().find(|folder| plan.file(folder).is_some()) {
            return Err(Failure::refused(format!("{both:?} can't be both a file and a folder of other files")));
        }
        if plan.file(JOURNAL).is_some() || plan.folders.contains(JOURNAL) {
            return Err(Failure::refused(format!("no file of a model can be called {JOURNAL:?}, the agent uses it")));
        }
        plan.pieces = plan.objects.iter().enumerate().flat_map(|(at, object)| pieces_of(at, object)).collect();
        Ok(plan)
    }

    /// The place of the file at this path.
    pub(super) fn file(&self, path: &str) -> Option<usize> {
        self.objects.binary_search_by(|object| object.path.as_str().cmp(path)).ok()
    }
}

impl Piece {
    /// Bytes.
    pub(super) fn length(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Whether a file comes in more than one piece.
pub(super) fn is_large(object: &Object) -> bool {
    object.size > FETCH_PIECE_BYTES
}

/// The folders that files are in. Each has its whole path, so that a few keys of slashes could be folders of gigabytes:
/// they have the limits that files have.
fn folders_of(objects: &[Object]) -> Result<BTreeSet<String>, Failure> {
    let (mut folders, mut bytes) = (BTreeSet::new(), 0);
    for Object { path, .. } in objects {
        // From the innermost: one that is known is in folders that are.
        for (end, _) in path.rmatch_indices('/') {
            if folders.contains(&path[..end]) {
                break;
            }
            bytes += end;
            extent::check_files(folders.len() + 1, bytes)
                .map_err(|failure| failure.of(format_args!("the folders of {}", shown(path))))?;
            folders.insert(path[..end].to_owned());
        }
    }
    Ok(folders)
}

fn pieces_of(at: usize, object: &Object) -> impl Iterator<Item = Piece> {
    // A model's bytes have a limit, so this does not saturate.
    let count = u32::try_from(object.size.div_ceil(FETCH_PIECE_BYTES)).unwrap_or(u32::MAX);
    (0..count).map(move |number| {
        let start = u64::from(number) * FETCH_PIECE_BYTES;
        Piece { object: at, number, range: start..object.size.min(start + FETCH_PIECE_BYTES) }
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::storage::Kind;

    pub(in crate::puller::fetch) fn object(path: &str, size: u64) -> Object {
        Object { key: format!("m/{path}"), path: path.to_owned(), size, version: Some("v".to_owned()), crc32c: None }
    }

    fn plan(files: &[(&str, u64)]) -> Result<Plan, Failure> {
        Plan::of(files.iter().map(|(path, size)| object(path, *size)).collect())
    }

    #[test]
    fn a_small_file_is_one_piece_and_an_empty_one_none() {
        let plan = plan(&[("b", FETCH_PIECE_BYTES), ("a", 1), ("c", 0)]).unwrap();
        let expected =
            [Piece { object: 0, number: 0, range: 0..1 }, Piece { object: 1, number: 0, range: 0..FETCH_PIECE_BYTES }];
        assert_eq!(plan.pieces, expected);
        assert_eq!((plan.bytes, plan.file("c"), plan.file("d")), (FETCH_PIECE_BYTES + 1, Some(2), None));
    }

    #[test]
    fn the_pieces_of_a_large_file_are_the_whole_of_it_once() {
        for size in [FETCH_PIECE_BYTES + 1, 2 * FETCH_PIECE_BYTES, 5 * FETCH_PIECE_BYTES - 1] {
            let pieces = plan(&[("a", size)]).unwrap().pieces;
            let end = pieces.iter().enumerate().fold(0, |end, (at, piece)| {
                assert_eq!((piece.number as usize, piece.range.start), (at, end));
                assert!((1..=FETCH_PIECE_BYTES).contains(&piece.length()));
                piece.range.end
            });
            assert_eq!(end, size);
        }
    }

    #[test]
    fn an_empty_object_called_as_a_folder_is_that_folder() {
        let plan = plan(&[("1", 0), ("1/variables", 0), ("1/variables/v", 1), ("1/empty", 0)]).unwrap();
        assert_eq!(
            plan.objects.iter().map(|object| object.path.as_str()).collect::<Vec<_>>(),
            ["1/empty", "1/variables/v"]
        );
    }

    #[test]
    fn folders_come_after_those_they_are_in() {
        let plan = plan(&[("a/b/c/d", 1), ("a/x", 1), ("z", 1), ("a.b/c", 1)]).unwrap();
        assert_eq!(plan.folders.into_iter().collect::<Vec<_>>(), ["a", "a.b", "a/b", "a/b/c"]);
    }

    #[test]
    fn folders_within_folders_have_the_limits_of_files() {
        // 16 MB of keys of 1024 bytes, whose folders have 4 GB.
        let keys = (0..16_000).map(|number| object(&format!("{number:05}{}", "/a".repeat(509)), 1));
        let failure = Plan::of(keys.collect()).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.reason.contains(": more files than a model may have: 100000, and 16777216 bytes"), "{failure}");
        let shared = (0..1000).map(|number| object(&format!("{}{number}", "a/".repeat(500)), 1));
        assert_eq!(Plan::of(shared.collect()).unwrap().folders.len(), 500);
    }

    #[test]
    fn what_no_folder_can_hold_is_refused_with_its_name() {
        let failure = plan(&[("a/b", 1), ("a", 1), ("a.b", 1)]).unwrap_err();
        assert_eq!(failure.reason, "\"a\" can't be both a file and a folder of other files");
        assert_eq!(plan(&[("a", 1), ("a", 2)]).unwrap_err().kind, Kind::Transient { after: None });
        let mut same = [object("a", 1), object("a", 1)];
        same[1].key = "m//a".to_owned();
        assert_eq!(Plan::of(same.into()).unwrap_err().reason, "\"m/a\" and \"m//a\" would be the same file");
        for path in [JOURNAL.to_owned(), format!("{JOURNAL}/a")] {
            assert!(plan(&[(&path, 1)]).unwrap_err().reason.starts_with("no file of a model can be called"));
        }
        let failure = plan(&[("a", u64::MAX), ("b", 1)]).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.reason.starts_with("its files have 18446744073709551615 bytes, "), "{failure}");
    }
}
