//! What came of a model, kept beside it, so that a restart goes on where the last process was killed.
//!
//! Records are appended, each when the bytes it speaks of are synced, and are not synced themselves: what is not there
//! after a crash is fetched again, what is there is true.
//!
//! Not here: their format ([`super::record`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};

use super::disk::{Disk, failed};
use super::plan::{Piece, Plan};
use super::record::{Came, HEAD, JOURNAL, RECORD, Record, resume};
use crate::storage::Failure;

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens it, and says how far each piece came.
    pub(super) fn open(disk: Disk<'_>, plan: &Plan) -> Result<(Self, Vec<Came>), Failure> {
        Self::try_open(disk, plan).map_err(|error| failed(JOURNAL, &error))
    }

    fn try_open(disk: Disk<'_>, plan: &Plan) -> io::Result<(Self, Vec<Came>)> {
        let path = disk.path(JOURNAL);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut records = Records { bytes: BufReader::new(&file), failed: None, good: 0 };
        let came = if records.has_head()? {
            resume(plan, &mut records, |object| disk.has(object))
        } else {
            vec![Came::default(); plan.pieces.len()]
        };
        let Records { failed, good, .. } = records;
        if let Some(error) = failed {
            return Err(error);
        }
        // What a crash cut would put all later records out of step.
        file.set_len(good)?;
        if good == 0 {
            file.write_all(HEAD)?;
        }
        Ok((Self { file }, came))
    }

    /// Notes how far a piece came.
    pub(super) fn note(&mut self, plan: &Plan, piece: &Piece, came: Came) -> Result<(), Failure> {
        let Some(record) = Record::of(plan, piece, came) else { return Ok(()) };
        self.file.write_all(&record.to_bytes()).map_err(|error| failed(JOURNAL, &error))
    }

    /// Takes it away: the model is whole.
    pub(super) fn remove(self, disk: Disk<'_>) -> Result<(), Failure> {
        fs::remove_file(disk.path(JOURNAL)).map_err(|error| failed(JOURNAL, &error))
    }
}

/// Records up to the first that is none.
struct Records<'f> {
    bytes: BufReader<&'f File>,
    failed: Option<io::Error>,
    /// Bytes of the journal that can be believed.
    good: u64,
}

impl Records<'_> {
    fn has_head(&mut self) -> io::Result<bool> {
        let mut head = [0; HEAD.len()];
        match self.bytes.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            read => read?,
        }
        let is_ours = head == *HEAD;
        self.good = if is_ours { HEAD.len() as u64 } else { 0 };
        Ok(is_ours)
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let mut bytes = [0; RECORD];
        if let Err(error) = self.bytes.read_exact(&mut bytes) {
            self.failed = Some(error).filter(|error| error.kind() != ErrorKind::UnexpectedEof);
            return None;
        }
        let record = Record::from_bytes(&bytes)?;
        self.good += RECORD as u64;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::object;
    use super::*;
    use crate::config::FETCH_PIECE_BYTES;

    /// A folder of this test's own, gone with it.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("kserve-agent-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn plan() -> Plan {
        Plan::of(vec![object("a", 5), object("b", FETCH_PIECE_BYTES + 1)]).unwrap()
    }

    fn came(bytes: u64) -> Came {
        Came { bytes, sum: 7 }
    }

    #[test]
    fn what_was_noted_is_known_after_a_restart() {
        let folder = Folder::new("journal");
        let (disk, plan) = (Disk::at(&folder.0), plan());
        let (mut journal, first) = Journal::open(disk, &plan).unwrap();
        assert_eq!(first, vec![Came::default(); 3]);
        disk.open(&plan.objects[0]).unwrap();
        journal.note(&plan, &plan.pieces[0], came(2)).unwrap();
        journal.note(&plan, &plan.pieces[1], came(9)).unwrap();
        let expected = [came(2), Came::default(), Came::default()];
        assert_eq!(Journal::open(disk, &plan).unwrap().1, expected, "the other file is not there");
        disk.open(&plan.objects[1]).unwrap();
        assert_eq!(Journal::open(disk, &plan).unwrap().1, [came(2), came(9), Came::default()]);
        Journal::open(disk, &plan).unwrap().0.remove(disk).unwrap();
        assert_eq!(Journal::open(disk, &plan).unwrap().1, vec![Came::default(); 3]);
    }

    #[test]
    fn a_torn_journal_is_believed_as_far_as_it_is_whole_and_goes_on_there() {
        let folder = Folder::new("torn");
        let (disk, plan) = (Disk::at(&folder.0), plan());
        disk.open(&plan.objects[0]).unwrap();
        disk.open(&plan.objects[1]).unwrap();
        let (mut journal, _) = Journal::open(disk, &plan).unwrap();
        journal.note(&plan, &plan.pieces[0], came(2)).unwrap();
        journal.note(&plan, &plan.pieces[1], came(9)).unwrap();
        let whole = fs::read(disk.path(JOURNAL)).unwrap();
        for length in 0..whole.len() {
            fs::write(disk.path(JOURNAL), &whole[..length]).unwrap();
            let (mut journal, first) = Journal::open(disk, &plan).unwrap();
            let is_first = length >= HEAD.len() + RECORD;
            assert_eq!(first[0], if is_first { came(2) } else { Came::default() }, "{length} bytes");
            assert_eq!(first[1], Came::default());
            journal.note(&plan, &plan.pieces[2], came(1)).unwrap();
            assert_eq!(Journal::open(disk, &plan).unwrap().1, [first[0], first[1], came(1)]);
        }
    }

    #[test]
    fn a_foreign_file_is_no_journal() {
        let folder = Folder::new("foreign");
        let (disk, plan) = (Disk::at(&folder.0), plan());
        disk.open(&plan.objects[0]).unwrap();
        for text in ["{}", "kserve-agent-f0\n and more than that, so that it could be a record"] {
            fs::write(disk.path(JOURNAL), text).unwrap();
            let (mut journal, first) = Journal::open(disk, &plan).unwrap();
            assert_eq!(first, vec![Came::default(); 3]);
            journal.note(&plan, &plan.pieces[0], came(1)).unwrap();
            assert_eq!(Journal::open(disk, &plan).unwrap().1[0], came(1));
        }
    }
}
