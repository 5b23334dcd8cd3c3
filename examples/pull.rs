//! A model from a shell, once: `pull URI FOLDER`. What an attempt before has left in the folder is gone on with.
//!
//! What `tests/puller`, `tests/stores` and `benches/fetch` drive, and what shows an operator whether a `storageUri` works. A
//! failure is a line on standard error that says whether another attempt is worth it, and the exit status is 1. A line on
//! its standard input stops it, as the agent stops a download that nobody wants any more. `MODEL_SOURCE_DIR` is the folder
//! that local models lie in.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a shell")]

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use crossbeam_channel::Sender;
use kserve_agent::puller::pull;
use kserve_agent::storage::Kind;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, folder] = arguments.as_slice() else {
        eprintln!("usage: pull URI FOLDER");
        return ExitCode::from(2);
    };
    let (owner, end) = crossbeam_channel::bounded(0);
    thread::spawn(move || hold_until_told(owner));
    let env = |name: &str| std::env::var(name).ok();
    let local = env("MODEL_SOURCE_DIR").unwrap_or_else(|| "/mnt/pvc".to_owned());
    let ((done, total), result) = pull(uri, Path::new(folder), Path::new(&local), &env, end);
    println!("{done} of {total} bytes");
    let Err(failure) = result else { return ExitCode::SUCCESS };
    let kind = match failure.kind {
        Kind::Transient { .. } => "transient",
        Kind::Changed => "changed",
        Kind::Refused => "refused",
    };
    eprintln!("{kind}: {failure}");
    ExitCode::FAILURE
}

/// Until a line comes, if one ever does.
fn hold_until_told(owner: Sender<Infallible>) {
    if io::stdin().lines().next().is_none() {
        thread::park();
    }
    drop(owner);
}
