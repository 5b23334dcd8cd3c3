//! What the journal says: of which version of which file, which piece came how far. Pure.
//!
//! ```text
//!   journal: head, records
//!   record: file [u8; 16] | piece u32 | came u32 | sum u32 | CRC-32 of these u32
//! ```
//!
//! Numbers are little-endian, a later record of a piece takes the place of one before. A file is known by a digest of
//! its object's key, size and version, so that what came of an object stays good whatever else was changed, and is
//! worth nothing once it is another version. After a record that a crash cut or a disk has changed, none is believed.
//!
//! Not here: the file ([`super::journal`]).

use std::collections::HashMap;

use ring::digest;

use super::plan::{Piece, Plan};
use crate::config::FETCH_PIECE_BYTES;
use crate::storage::Object;

/// Its name in the model's folder.
pub(super) const JOURNAL: &str = ".kserve-agent-fetch";
/// What a journal begins with; another number for another format.
pub(super) const HEAD: &[u8; 16] = b"kserve-agent-f1\n";
/// Bytes of a record.
pub(super) const RECORD: usize = 32;

/// How far a piece came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Came {
    /// Bytes from its start.
    pub(super) bytes: u64,
    /// Their CRC-32C if the store gives one of the object, else 0.
    pub(super) sum: u32,
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// What tells this version of this object from all others.
    file: [u8; 16],
    piece: u32,
    came: Came,
}

impl Record {
    /// That this piece came so far; none of an object whose versions can't be told apart.
    pub(super) fn of(plan: &Plan, piece: &Piece, came: Came) -> Option<Self> {
        Some(Self { file: digest_of(&plan.objects[piece.object])?, piece: piece.number, came })
    }

    pub(super) fn to_bytes(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..16].copy_from_slice(&self.file);
        bytes[16..20].copy_from_slice(&self.piece.to_le_bytes());
        // No piece has so many.
        bytes[20..24].copy_from_slice(&u32::try_from(self.came.bytes).unwrap_or(0).to_le_bytes());
        bytes[24..28].copy_from_slice(&self.came.sum.to_le_bytes());
        let check = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// `None`: it is damaged.
    pub(super) fn from_bytes(bytes: &[u8; RECORD]) -> Option<Self> {
        let (file, numbers) = bytes.split_first_chunk::<16>()?;
        let (numbers, []) = numbers.as_chunks::<4>() else { return None };
        let &[piece, came, sum, check] = numbers else { return None };
        (crc32fast::hash(&bytes[..28]) == u32::from_le_bytes(check)).then(|| Self {
            file: *file,
            piece: u32::from_le_bytes(piece),
            came: Came { bytes: u32::from_le_bytes(came).into(), sum: u32::from_le_bytes(sum) },
        })
    }
}

/// How far each piece of a plan came by these records; those of other files, and of files that are not there as they
/// were left, say nothing.
pub(super) fn resume(
    plan: &Plan,
    records: impl Iterator<Item = Record>,
    is_there: impl Fn(&Object) -> bool,
) -> Vec<Came> {
    let mut came = vec![Came::default(); plan.pieces.len()];
    let mut firsts = HashMap::new();
    for (at, piece) in plan.pieces.iter().enumerate().filter(|(_, piece)| piece.number == 0) {
        let object = &plan.objects[piece.object];
        if let Some(digest) = digest_of(object).filter(|_| is_there(object)) {
            firsts.insert(digest, at);
        }
    }
    for record in records {
        let Some(at) = firsts.get(&record.file).and_then(|first| first.checked_add(record.piece as usize)) else {
            continue;
        };
        if let Some(piece) = plan.pieces.get(at)
            && piece.number == record.piece
            && record.came.bytes <= piece.length()
        {
            came[at] = record.came;
        }
    }
    came
}

/// CRC-32C of a file, of whose pieces each came whole.
pub(super) fn sum_of(pieces: &[Piece], came: &[Came]) -> u32 {
    pieces.iter().zip(came).fold(0, |sum, (piece, came)| {
        let length = usize::try_from(piece.length()).unwrap_or(usize::MAX);
        crc32c::crc32c_combine(sum, came.sum, length)
    })
}

/// `None`: what comes under this name later can't be told from this.
fn digest_of(object: &Object) -> Option<[u8; 16]> {
    let version = object.version.as_ref()?;
    let mut context = digest::Context::new(&digest::SHA256);
    for number in [FETCH_PIECE_BYTES, object.size, object.key.len() as u64] {
        context.update(&number.to_le_bytes());
    }
    context.update(object.key.as_bytes());
    context.update(version.as_bytes());
    context.finish().as_ref().first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::object;
    use super::*;

    const LARGE: u64 = 3 * FETCH_PIECE_BYTES + 1;

    fn plan() -> Plan {
        Plan::of(vec![object("a", 5), object("b", LARGE), object("c", 5)]).unwrap()
    }

    fn came(bytes: u64) -> Came {
        Came { bytes, sum: u32::try_from(bytes % 7).unwrap() }
    }

    fn record(plan: &Plan, at: usize, bytes: u64) -> Record {
        Record::of(plan, &plan.pieces[at], came(bytes)).unwrap()
    }

    #[test]
    fn a_record_is_read_as_it_was_written_or_not_at_all() {
        let plan = plan();
        let record = record(&plan, 3, FETCH_PIECE_BYTES);
        let bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes), Some(record));
        for bit in 0..RECORD * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::from_bytes(&changed), None, "bit {bit}");
        }
    }

    #[test]
    fn each_piece_goes_on_where_its_last_record_says() {
        let plan = plan();
        let records = [record(&plan, 0, 3), record(&plan, 4, 1), record(&plan, 2, 9), record(&plan, 2, 4)];
        let resumed = resume(&plan, records.into_iter(), |_| true);
        assert_eq!(resumed, [came(3), Came::default(), came(4), Came::default(), came(1), Came::default()]);
    }

    #[test]
    fn what_came_of_another_version_or_size_or_key_is_worth_nothing() {
        let plan = plan();
        let same = object("a", 5);
        let others = [
            Object { version: Some("w".to_owned()), ..same.clone() },
            Object { size: 6, ..same.clone() },
            Object { key: "n/a".to_owned(), ..same.clone() },
            Object { version: None, ..same.clone() },
        ];
        for other in others {
            let other = Plan::of(vec![other]).unwrap();
            let resumed = resume(&other, [record(&plan, 0, 3)].into_iter(), |_| true);
            assert_eq!(resumed, [Came::default()]);
        }
        let again = Plan::of(vec![same, object("0", 1)]).unwrap();
        assert_eq!(resume(&again, [record(&plan, 0, 3)].into_iter(), |_| true), [Came::default(), came(3)]);
    }

    #[test]
    fn an_object_without_a_version_leaves_no_record() {
        let plan = Plan::of(vec![Object { version: None, ..object("a", 5) }]).unwrap();
        assert_eq!(Record::of(&plan, &plan.pieces[0], came(1)), None);
    }

    #[test]
    fn what_came_of_a_file_that_is_gone_is_gone() {
        let plan = plan();
        let records = [record(&plan, 0, 3), record(&plan, 5, 3)];
        let resumed = resume(&plan, records.into_iter(), |object| object.path != "a");
        assert_eq!((resumed[0], resumed[5]), (Came::default(), came(3)));
    }

    #[test]
    fn a_record_that_no_piece_can_have_is_left_out() {
        let plan = plan();
        let too_long = record(&plan, 0, 6);
        let of_no_piece = Record { piece: 4, ..record(&plan, 1, 1) };
        let of_the_next_file = Record { piece: 1, ..record(&plan, 0, 1) };
        let resumed = resume(&plan, [too_long, of_no_piece, of_the_next_file].into_iter(), |_| true);
        assert_eq!(resumed, vec![Came::default(); 6]);
    }

    #[test]
    fn the_sum_of_a_file_is_that_of_its_pieces() {
        let bytes: Vec<u8> = (0..1000_u32).map(|number| (number % 251) as u8).collect();
        let piece = |range: std::ops::Range<usize>| {
            let came = Came { bytes: range.len() as u64, sum: crc32c::crc32c(&bytes[range.clone()]) };
            (Piece { object: 0, number: 0, range: range.start as u64..range.end as u64 }, came)
        };
        for cut in [1, 500, 999] {
            let (pieces, came): (Vec<_>, Vec<_>) = [piece(0..cut), piece(cut..1000)].into_iter().unzip();
            assert_eq!(sum_of(&pieces, &came), crc32c::crc32c(&bytes), "{cut}");
        }
        assert_eq!(sum_of(&[], &[]), 0, "of an empty file");
    }
}
