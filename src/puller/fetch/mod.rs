//! A model's way from an object store into a folder (SPEC M6 to M8).
//!
//! ```text
//!   listing ─▶ plan ─▶ journal: what is there already ─▶ room? ─▶ pieces, several at once ─▶ sums ─▶ synced
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`transfer`] | the threads, and one piece from the store to the disk |
//! | [`journal`] | what came, for the next attempt or process |
//! | [`disk`] | files and folders |
//! | [`record`] | the journal's format, and where each piece goes on; pure |
//! | [`plan`] | files, folders and pieces of a listing; pure |
//! | [`patience`] | which failures are tried again, and when; pure |
//! | [`throttle`] | how many requests run at once |
//!
//! Architecture Invariant: a record is written after the bytes it speaks of are synced, so at every instant of a crash
//! the journal says no more than there is.
//!
//! Not here: waiting before another attempt, and giving the folder its name.

mod disk;
mod journal;
mod patience;
mod plan;
mod record;
mod throttle;
mod transfer;

use std::fs::{self, File};
use std::path::Path;

use self::disk::Disk;
use self::journal::Journal;
use self::patience::Patience;
use self::plan::Plan;
use self::record::{Came, sum_of};
use self::throttle::Throttle;
use self::transfer::Transfer;
use super::archive::Archive;
use super::extent;
use super::scratch::{self, clear};
use super::source::{Progress, Stop};
use super::web::unpack_file;
use crate::config::FETCH_THREADS;
use crate::ops::random::share;
use crate::storage::{Failure, Kind, Object, Store};

/// Fetches all objects of a store's folder, or its one object.
///
/// # Errors
/// When not all came. The journal says what did, and the next call goes on there.
pub(super) fn fetch(store: &Store, folder: &Path, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
    match fetch_listed(store, folder, progress, stop) {
        Err(failure) if failure.kind == Kind::Changed => {
            log::info!("{}: {failure}; listing again", store.name());
            fetch_listed(store, folder, progress, stop).map_err(|failure| match failure.kind {
                Kind::Changed => Failure::transient(failure.reason),
                _ => failure,
            })
        }
        result => result,
    }
}

fn fetch_listed(store: &Store, folder: &Path, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
    let mut objects = list(store, stop)?;
    let is_archive = packed(store, &mut objects);
    let plan = Plan::of(objects)?;
    let disk = Disk::at(folder);
    disk.make_folders(&plan)?;
    let (mut journal, mut came) = Journal::open(disk, &plan)?;
    progress.expect(plan.bytes);
    progress.begin(came.iter().map(|came| came.bytes).sum());
    disk.check_space(&plan)?;
    disk.make_files(&plan)?;
    let throttle = Throttle::new(FETCH_THREADS);
    Transfer { store, disk, plan: &plan, progress, stop, throttle: &throttle }.run(&mut came, &mut journal)?;
    check_sums(&plan, &came, &mut journal)?;
    if is_archive {
        // Of an attempt that broke off while it unpacked.
        clear(folder)?;
        let archive = folder.join(ARCHIVE);
        let file = File::open(&archive).map_err(|error| scratch::failed(&archive, &error))?;
        unpack_file(file, &archive, folder, stop)?;
        fs::remove_file(&archive).map_err(|error| scratch::failed(&archive, &error))?;
    }
    journal.remove(disk)?;
    disk.sync_folders(&plan)
}

/// Whether it is one archive that was asked for, which comes under a name of the agent's own, so that none in it is the same
/// (SPEC M13).
fn packed(store: &Store, objects: &mut [Object]) -> bool {
    let [object] = objects else { return false };
    let is_archive = store.is_of_name(object) && Archive::is_named(&object.path);
    if is_archive {
        ARCHIVE.clone_into(&mut object.path);
    }
    is_archive
}

/// The name of an archive that is to be unpacked.
const ARCHIVE: &str = ".kserve-agent-archive";

fn list(store: &Store, stop: &Stop) -> Result<Vec<Object>, Failure> {
    let (mut listing, mut patience) = (store.list(), Patience::new());
    let (mut objects, mut key_bytes) = (Vec::new(), 0);
    loop {
        stop.check()?;
        let page = match listing.page() {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(objects),
            Err(failure) => match patience.wait(&failure, 0, share()) {
                Some(wait) => {
                    stop.pause(wait)?;
                    continue;
                }
                None => return Err(failure),
            },
        };
        patience = Patience::new();
        key_bytes += page.iter().map(|object| object.key.len()).sum::<usize>();
        objects.extend(page);
        extent::check_files(objects.len(), key_bytes)?;
    }
}

/// Compares the sums of all files of which the store gives one. A file that is not what was stored is fetched anew by
/// the next attempt, the others are not.
fn check_sums(plan: &Plan, came: &[Came], journal: &mut Journal) -> Result<(), Failure> {
    let mut wrong = None;
    let mut first = 0;
    for pieces in plan.pieces.chunk_by(|a, b| a.object == b.object) {
        let (object, came) = (&plan.objects[pieces[0].object], &came[first..first + pieces.len()]);
        first += pieces.len();
        let (Some(stored), sum) = (object.crc32c, sum_of(pieces, came)) else { continue };
        if sum != stored {
            for piece in pieces {
                journal.note(plan, piece, Came::default())?;
            }
            let Object { path, .. } = object;
            wrong.get_or_insert(format!(
                "the file {path:?} came with the CRC-32C {sum:08x}, the store has {stored:08x}"
            ));
        }
    }
    wrong.map_or(Ok(()), |reason| Err(Failure::transient(reason)))
}
