//! Pieces on their way from the store to the disk, several at once.
//!
//! The calling thread hands them out and keeps the journal; each of its threads has one connection. They end when there
//! is no piece left, at the first failure of any of them, or when nobody wants the model any more: within a read, which
//! the store may hold up for as long as `STORE_PACE_TIME` allows.
//!
//! Not here: what the pieces are, and which failures are worth another attempt at once.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::disk::{Disk, failed};
use super::journal::Journal;
use super::patience::Patience;
use super::plan::{Piece, Plan};
use super::record::Came;
use super::throttle::Throttle;
use crate::config::{FETCH_READ_BYTES, FETCH_THREADS};
use crate::ops::random::share;
use crate::puller::source::{Progress, Stop, unwanted};
use crate::storage::{Failure, Object, Store};

/// All that the threads share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer<'a> {
    pub(super) store: &'a Store,
    pub(super) disk: Disk<'a>,
    pub(super) plan: &'a Plan,
    pub(super) progress: &'a Progress,
    pub(super) stop: &'a Stop,
    pub(super) throttle: &'a Throttle,
}

/// A piece and how far it came before.
#[derive(Debug)]
struct Task {
    piece: usize,
    came: Came,
}

/// What became of one.
#[derive(Debug)]
struct Report {
    piece: usize,
    /// Synced bytes.
    came: Came,
    result: Result<(), Failure>,
}

/// Why a piece did not come whole.
#[derive(Debug)]
enum Broken {
    /// By the store or on the way from it: another attempt can go on.
    Store(Failure),
    /// By the disk, or by whoever stops it.
    Here(Failure),
}

impl Transfer<'_> {
    /// Brings what is missing, and notes what came.
    pub(super) fn run(self, came: &mut [Came], journal: &mut Journal) -> Result<(), Failure> {
        let missing = self.plan.pieces.iter().zip(&*came).enumerate();
        let missing = missing.filter(|(_, (piece, came))| came.bytes < piece.length());
        let tasks: Vec<_> = missing.map(|(at, (_, came))| Task { piece: at, came: *came }).collect();
        let threads = FETCH_THREADS.min(tasks.len());
        let (give, take) = bounded(tasks.len());
        // There is room for all of them.
        tasks.into_iter().for_each(|task| drop(give.send(task)));
        drop(give);
        let (report, reports) = bounded(FETCH_THREADS);
        // Dropped when one has failed.
        let (going_on, end) = bounded(0);
        let end = Stop::new(end);
        thread::scope(|scope| {
            for number in 0..threads {
                let (take, report, end) = (take.clone(), report.clone(), &end);
                let thread = thread::Builder::new().name(format!("fetch-{number}"));
                let started = thread.spawn_scoped(scope, move || self.bring_all(&take, &report, end));
                if let Err(error) = started {
                    // One is enough.
                    if number == 0 {
                        return Err(no_thread(&error));
                    }
                    log::warn!("no thread fetch-{number}: {error}");
                }
            }
            drop(report);
            self.note_all(&reports, going_on, came, journal)
        })
    }

    /// The calling thread's part. The first failure is told, the others are of its making.
    fn note_all(
        self,
        reports: &Receiver<Report>,
        going_on: Sender<Infallible>,
        came: &mut [Came],
        journal: &mut Journal,
    ) -> Result<(), Failure> {
        let mut going_on = Some(going_on);
        let mut result = Ok(());
        for report in reports {
            let noted = if report.came == came[report.piece] {
                Ok(())
            } else {
                came[report.piece] = report.came;
                journal.note(self.plan, &self.plan.pieces[report.piece], report.came)
            };
            let outcome = report.result.and(noted);
            if outcome.is_err() && going_on.take().is_some() {
                result = outcome;
            }
        }
        result
    }

    /// A thread's part.
    fn bring_all(self, tasks: &Receiver<Task>, reports: &Sender<Report>, end: &Stop) {
        let mut buffer = vec![0; FETCH_READ_BYTES];
        for Task { piece, came } in tasks {
            let is_over = || end.is_over() || self.stop.is_over();
            let report = self.bring(piece, came, &mut buffer, &is_over);
            let has_failed = report.result.is_err();
            if reports.send(report).is_err() || has_failed {
                return;
            }
        }
    }

    /// Brings what is missing of a piece, and syncs it.
    fn bring(self, at: usize, before: Came, buffer: &mut [u8], is_over: &dyn Fn() -> bool) -> Report {
        let piece = &self.plan.pieces[at];
        let object = &self.plan.objects[piece.object];
        let nothing = |failure| Report { piece: at, came: before, result: Err(failure) };
        let file = match self.disk.open(object) {
            Ok(file) => file,
            Err(failure) => return nothing(failure),
        };
        let mut came = before;
        let result = self.pull(&file, piece, &mut came, buffer, is_over);
        if came != before
            && let Err(error) = file.sync_all()
        {
            return nothing(failed(&object.path, &error));
        }
        Report { piece: at, came, result }
    }

    /// Asks for what is missing of a piece until it is whole or patience ends.
    fn pull(
        self,
        file: &File,
        piece: &Piece,
        came: &mut Came,
        buffer: &mut [u8],
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let object = &self.plan.objects[piece.object];
        let mut patience = Patience::new();
        loop {
            let before = came.bytes;
            let Some(permit) = self.throttle.enter(is_over) else { return Err(unwanted()) };
            let failure = match self.copy(file, object, piece, came, buffer, is_over) {
                Ok(()) => {
                    self.throttle.speed_up();
                    return Ok(());
                }
                Err(Broken::Here(failure)) => return Err(failure),
                Err(Broken::Store(failure)) => failure,
            };
            let Some(wait) = patience.wait(&failure, came.bytes - before, share()) else { return Err(failure) };
            log::debug!("{failure}; {} bytes came, going on there in {wait:?}", came.bytes);
            if failure.is_overload() {
                self.throttle.slow_down(wait);
            }
            drop(permit);
        }
    }

    /// Copies what one answer of the store brings.
    fn copy(
        self,
        file: &File,
        object: &Object,
        piece: &Piece,
        came: &mut Came,
        buffer: &mut [u8],
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), Broken> {
        let missing = piece.range.start + came.bytes..piece.range.end;
        let mut content = self.store.read(object, missing).map_err(Broken::Store)?;
        loop {
            if is_over() {
                return Err(Broken::Here(unwanted()));
            }
            let count = content.read(buffer).map_err(Broken::Store)?;
            if count == 0 {
                return Ok(());
            }
            let bytes = &buffer[..count];
            let written = file.write_all_at(bytes, piece.range.start + came.bytes);
            written.map_err(|error| Broken::Here(failed(&object.path, &error)))?;
            if object.crc32c.is_some() {
                came.sum = crc32c::crc32c_append(came.sum, bytes);
            }
            came.bytes += count as u64;
            self.progress.add(count as u64);
        }
    }
}

fn no_thread(error: &io::Error) -> Failure {
    Failure::transient(format!("no thread to fetch with: {error}"))
}
