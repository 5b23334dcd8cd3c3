//! The object-store clients from a shell: `store put URL KEY FILE`, `store list URL`, `store get URL [PATH START END]`.
//!
//! What `tests/stores` drives against real stores, and what shows an operator whether credentials work. A failure is a
//! line on standard error that says whether another attempt is worth it, and the exit status is 1.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a shell")]

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;

use kserve_agent::storage::{Failure, Kind, Object, Store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let open = |url: &str| Store::open(url, &|name| std::env::var(name).ok());
    match arguments {
        ["put", url, key, file] => {
            let opened = File::open(file).and_then(|opened| Ok((opened.metadata()?.len(), opened)));
            let (length, mut opened) = opened.map_err(|error| format!("{file}: {error}"))?;
            open(url)?.put(key, "application/json", length, &mut opened).map_err(|failure| line(&failure))
        }
        ["list", url] => {
            let store = open(url)?;
            let mut listing = store.list();
            while let Some(page) = listing.page().map_err(|failure| line(&failure))? {
                page.into_iter().for_each(show);
            }
            Ok(())
        }
        ["get", url] => {
            let store = open(url)?;
            list(&store)?.iter().try_for_each(|object| copy(&store, object, 0..object.size))
        }
        ["get", url, path, start, end] => {
            let store = open(url)?;
            let object = list(&store)?.into_iter().find(|object| object.path == *path).ok_or("no such object")?;
            let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
            copy(&store, &object, number(start)?..number(end)?)
        }
        _ => Err("usage: store put URL KEY FILE | store list URL | store get URL [PATH START END]".to_owned()),
    }
}

fn show(Object { path, size, version, crc32c, .. }: Object) {
    println!("{size}\t{path:?}\t{}\t{}", version.unwrap_or_default(), crc32c.unwrap_or_default());
}

fn list(store: &Store) -> Result<Vec<Object>, String> {
    let mut listing = store.list();
    let mut objects = Vec::new();
    while let Some(page) = listing.page().map_err(|failure| line(&failure))? {
        objects.extend(page);
    }
    Ok(objects)
}

/// To standard output, in ranges. What breaks goes on at the byte where it broke.
fn copy(store: &Store, object: &Object, range: Range<u64>) -> Result<(), String> {
    let end = range.end.min(object.size);
    let (mut at, mut failed) = (range.start, 0);
    while at < end {
        let before = at;
        match copy_range(store, object, at..end.min(at + RANGE), &mut at) {
            Ok(()) => failed = 0,
            Err(failure) if matches!(failure.kind, Kind::Transient { .. }) && failed < RETRIES => {
                eprintln!("{}; {} bytes came", line(&failure), at - before);
                failed += 1;
            }
            Err(failure) => return Err(line(&failure)),
        }
    }
    Ok(())
}

fn copy_range(store: &Store, object: &Object, range: Range<u64>, at: &mut u64) -> Result<(), Failure> {
    let mut content = store.read(object, range)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        // Who does not want the rest ends the program by that.
        let _ = std::io::stdout().write_all(&buffer[..count]);
        *at += count as u64;
    }
}

/// What to do about a failure, and why it failed.
fn line(failure: &Failure) -> String {
    let kind = match failure.kind {
        Kind::Transient { after: None } => "transient".to_owned(),
        Kind::Transient { after: Some(after) } => format!("transient, after {} s", after.as_secs()),
        Kind::Changed => "changed".to_owned(),
        Kind::Refused => "refused".to_owned(),
    };
    format!("{kind}: {failure}")
}

const RANGE: u64 = 1024 * 1024;
const RETRIES: usize = 2;
