//! Watches the list of models: a thread that waits for a change of its folder (SPEC M1).
//!
//! A ConfigMap is changed by a rename of the link `..data` in its folder, a plain file by a write; inotify tells both. A
//! slow look at the file itself is the safety net: where inotify has no more watches, or the folder comes later.
//!
//! Not here: what the list says ([`super::list`]).

use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::config::{MODELS_CHECK_INTERVAL, MODELS_LIST_BYTES};

/// What the file is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Text(Vec<u8>),
    /// It can't be read.
    Nothing(String),
}

/// The thread.
pub(super) struct Watch {
    folder: PathBuf,
    inotify: Option<OwnedFd>,
    /// The folder is watched.
    is_watched: bool,
    last: Option<Seen>,
    changes: Sender<Seen>,
}

const FILE: &str = "models.json";

impl Watch {
    pub(super) fn new(folder: &Path, changes: Sender<Seen>) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.map_err(|error| log::warn!("--config-dir is looked at every 30 s only: {error}")).ok();
        Self { folder: folder.to_owned(), inotify, is_watched: false, last: None, changes }
    }

    /// Watches until nobody wants to hear of it.
    pub(super) fn run(mut self) {
        loop {
            // Before the file is read: a change after that is told.
            self.watch();
            let seen = look(&self.folder.join(FILE));
            if self.last.as_ref() != Some(&seen) {
                self.last = Some(seen.clone());
                if self.changes.send(seen).is_err() {
                    return;
                }
            }
            self.wait();
        }
    }

    fn watch(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        if !self.is_watched {
            let flags = WatchFlags::CREATE
                | WatchFlags::MOVED_TO
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::DELETE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            self.is_watched = inotify::add_watch(inotify, &self.folder, flags).is_ok();
        }
    }

    /// Until something has changed, or it is time to look.
    fn wait(&mut self) {
        let timeout = Timespec::try_from(MODELS_CHECK_INTERVAL).ok();
        match &self.inotify {
            Some(inotify) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN)], timeout.as_ref());
                // The folder itself may be another one now.
                self.is_watched &= !is_gone(inotify);
            }
            None => std::thread::sleep(MODELS_CHECK_INTERVAL),
        }
    }
}

/// Takes what inotify tells; whether the folder is no longer the one that was watched.
fn is_gone(inotify: &OwnedFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let mut is_gone = false;
    while let Ok(event) = reader.next() {
        let gone = inotify::ReadFlags::DELETE_SELF | inotify::ReadFlags::MOVE_SELF | inotify::ReadFlags::IGNORED;
        is_gone |= event.events().intersects(gone);
    }
    is_gone
}

fn look(path: &Path) -> Seen {
    match read(path) {
        Ok(text) => Seen::Text(text),
        Err(error) => Seen::Nothing(format!("{}: {error}", path.display())),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MODELS_LIST_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MODELS_LIST_BYTES {
        return Err(io::Error::other(format!("it has more than {MODELS_LIST_BYTES} bytes")));
    }
    Ok(text)
}
