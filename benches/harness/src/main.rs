//! The agent measured beside its peers: starts them, drives them, judges what it promises, writes a report.
//!
//! Reading order: [`parts`] say what is measured; [`load`], [`client`] and [`peer`] do it; [`model`] holds the figures;
//! [`promises`] and [`verdict`] judge them; [`html`], [`markdown`] and [`plots`] show them. From [`model`] on all is pure.
//!
//! Deliberately not here: generators of load for many connections (wrk and h2load are), statistics beyond medians and quartiles, and any
//! comparison with an earlier run: figures of two days on two machines say nothing of each other.

mod chart;
mod client;
mod failure;
mod html;
mod load;
mod machine;
mod markdown;
mod model;
mod options;
mod parse;
mod parts;
mod peer;
mod place;
mod plots;
mod process;
mod progress;
mod promises;
mod recipes;
mod sink;

mod stats;
mod verdict;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use failure::Failure;
use model::{Group, Measured};
use options::Options;
use parts::{Bench, batcher, faults, footprint, kserve, payload, quota, single, traffic, trust};
use progress::Progress;
use promises::{Row, Verdict};
use verdict::Finding;

fn main() -> ExitCode {
    match run(&argh::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // With standard error gone as well there is nobody left to tell.
            let _ = writeln!(io::stderr(), "\nharness: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let Some(path) = &options.again else {
        let (measured, progress) = measure(options)?;
        return write(options, &measured, &progress);
    };
    let mut report: serde_json::Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    write(options, &serde_json::from_value(report["measured"].take())?, &Progress::new(0, 0.0))
}

fn measure(options: &Options) -> Result<(Measured, Progress), Failure> {
    for tool in ["wrk", "h2load"] {
        peer::find(tool)
            .ok_or_else(|| Failure::new(format!("{tool} is not installed, and nothing else makes the load")))?;
    }
    let parts = Group::chosen(options.only.as_deref(), options.quick)?;
    let folder = Scratch::new()?;
    let (runs, seconds) = plan(options, &parts);
    let measured = Measured { machine: machine::describe(options), ..Measured::default() };
    let progress = Progress::new(runs, seconds);
    let mut bench = Bench { options, folder: folder.0.clone(), measured, progress };
    for part in &parts {
        match part {
            Group::Trust => trust::run(&mut bench)?,
            Group::Single => single::run(&mut bench)?,
            Group::Footprint => footprint::run(&mut bench)?,
            Group::Batcher => batcher::run(&mut bench)?,
            Group::Kserve => kserve::run(&mut bench)?,
            Group::Payload => payload::run(&mut bench)?,
            Group::Faults => faults::run(&mut bench)?,
            Group::Quota => quota::run(&mut bench)?,
            // These three share their peers, and run with the first of them.
            Group::Connections | Group::Rates | Group::Bodies => {
                if parts.iter().find(|one| is_traffic(**one)) == Some(part) {
                    traffic::run(&mut bench, &parts)?;
                }
            }
        }
    }
    let took = bench.progress.took();
    bench.measured.machine.facts.push(("took".to_owned(), format!("{took} min")));
    Ok((bench.measured, bench.progress))
}

fn is_traffic(part: Group) -> bool {
    matches!(part, Group::Connections | Group::Rates | Group::Bodies)
}

/// Runs and seconds of all parts.
fn plan(options: &Options, parts: &[Group]) -> (usize, f64) {
    let others = parts.iter().map(|part| match part {
        Group::Trust => trust::plan(options),
        Group::Single => single::plan(options),
        Group::Footprint => footprint::plan(options),
        Group::Batcher => batcher::plan(options),
        Group::Kserve => kserve::plan(options),
        Group::Payload => payload::plan(options),
        Group::Faults => faults::plan(options),
        Group::Quota => quota::plan(options),
        Group::Connections | Group::Rates | Group::Bodies => (0, 0.0),
    });
    others.chain([traffic::plan(options, parts)]).fold((0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

/// All that `report.json` has.
#[derive(Serialize)]
struct Report<'r> {
    measured: &'r Measured,
    promises: &'r [Row],
    noise: &'r [Finding],
}

fn write(options: &Options, measured: &Measured, progress: &Progress) -> Result<(), Failure> {
    fs::create_dir_all(&options.out)?;
    let (promises, noise) = (promises::rows(measured), verdict::findings(measured));
    let plots = plots::all(measured)?;
    let out = |name: &str| options.out.join(name);
    let report = Report { measured, promises: &promises, noise: &noise };
    fs::write(out("report.json"), serde_json::to_string_pretty(&report)? + "\n")?;
    fs::write(out("report.md"), markdown::report(measured, &promises, &noise))?;
    fs::write(out("report.html"), html::page(measured, &promises, &noise, &plots))?;
    if let Some(folder) = &options.pictures {
        for plot in &plots {
            if let Some(file) = plot.file {
                fs::write(folder.join(file), &plot.svg)?;
            }
        }
    }
    for row in promises.iter().filter(|row| matches!(row.verdict, Verdict::FallsShort)) {
        let measured = row.measured.map_or_else(String::new, |spread| stats::show(spread.median));
        progress.say(&format!("falls short: {}: {}: {measured}, promised {}", row.what, row.number, row.bound));
    }
    for finding in noise.iter().filter(|finding| !finding.is_fine) {
        progress.say(&format!("too noisy: {}", finding.text));
    }
    progress.say(&format!("{} in {}", out("report.html").display(), progress.took()));
    Ok(())
}

/// A folder for configurations and logs. Dropping it removes it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("kserve-agent-bench-{}", std::process::id()));
        fs::create_dir(&path)?;
        open_to_all(&path)?;
        Ok(Self(path))
    }
}

/// nginx's worker is another user.
fn open_to_all(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays in the folder for temporary files harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}
