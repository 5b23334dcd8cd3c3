//! Fetches a model from a shell: `fetch URI FOLDER`.
//!
//! What `tests/stores` and `benches/fetch` drive, and what shows an operator whether a model can be had. It ends with a
//! line of what came, or on standard error with one that says why it did not and whether another attempt is worth it.
//! A line on its standard input stops it, as its owner in the agent may.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a shell")]

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use crossbeam_channel::Sender;
use kserve_agent::puller::source::{Progress, Source, Stop};
use kserve_agent::storage::Failure;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, folder] = arguments.as_slice() else {
        eprintln!("usage: fetch URI FOLDER");
        return ExitCode::FAILURE;
    };
    match fetch(uri, Path::new(folder)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

fn fetch(uri: &str, folder: &Path) -> Result<String, String> {
    let source = Source::of(uri, &|name| std::env::var(name).ok())?;
    let (owner, end) = crossbeam_channel::bounded(0);
    thread::spawn(move || hold_until_told(owner));
    let progress = Progress::default();
    let result = source.fetch(folder, &progress, &Stop::new(end));
    let (done, total) = progress.read();
    match result {
        Ok(()) => Ok(format!("{done} of {total} bytes")),
        Err(Failure { kind, reason, .. }) => Err(format!("{kind:?}: {reason}; {done} of {total} bytes")),
    }
}

/// Until a line comes, if one ever does.
fn hold_until_told(owner: Sender<Infallible>) {
    if io::stdin().lines().next().is_none() {
        thread::park();
    }
    drop(owner);
}
