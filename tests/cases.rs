//! Every case of `tests/http1/`, and ours, against the codec and the exchange, without a socket (SPEC P10).
//!
//! `tests/http1/check.py` runs the same cases against a proxy that listens; the judgement is the same, here in
//! `cases/table.rs`. Here each case runs in one piece, byte by byte and cut in two at every place, and must come out
//! the same each time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "cases/limits.rs"]
mod limits;
#[path = "cases/ours.rs"]
mod ours;
#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "simulation/owner.rs"]
mod owner;
#[path = "cases/prefixes.rs"]
mod prefixes;
#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "simulation/reader.rs"]
mod reader;
#[path = "cases/run.rs"]
mod run;
#[path = "cases/table.rs"]
mod table;

use table::{Case, Outcome, latin1};

const REQUESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http1/requests.json");
const RESPONSES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http1/responses.json");

/// Messages up to this length are cut at every place.
const CUT_EVERYWHERE: usize = 2048;
/// Longer ones are cut at each of so many first and last places, where heads and framing begin and end …
const CUT_ENDS: usize = 300;
/// … and at so many places between them.
const CUT_BETWEEN: usize = 32;

fn places(length: usize) -> Vec<usize> {
    if length <= CUT_EVERYWHERE {
        return (1..length).collect();
    }
    let step = (length - 2 * CUT_ENDS) / CUT_BETWEEN;
    let between = (1..=CUT_BETWEEN).map(|index| CUT_ENDS + index * step - 1);
    (1..=CUT_ENDS).chain(between).chain(length - CUT_ENDS..length).collect()
}

/// Runs a message in every way; all must please `judge` and give the same verdict.
fn in_every_way(
    raw: &[u8],
    method: &str,
    run: impl Fn(&[usize]) -> Outcome,
    judge: impl Fn(&Outcome) -> Result<(), String>,
) -> Result<(), String> {
    let whole = run(&[]);
    judge(&whole).map_err(|why| format!("in one piece: {why}"))?;
    let verdict = whole.verdict(method);
    let bytes: Vec<usize> = (1..raw.len()).collect();
    let ways = std::iter::once(bytes).chain(places(raw.len()).into_iter().map(|place| vec![place]));
    for cuts in ways {
        let way = if cuts.len() == 1 { format!("cut at {}", cuts[0]) } else { "byte by byte".to_owned() };
        let outcome = run(&cuts);
        judge(&outcome).map_err(|why| format!("{way}: {why}"))?;
        let other = outcome.verdict(method);
        if other != verdict {
            return Err(format!("{way}: {other:?}, but in one piece {verdict:?}"));
        }
    }
    Ok(())
}

fn report(failures: &[String], count: usize) {
    assert!(failures.is_empty(), "{} of {count} cases fail:\n{}", failures.len(), failures.join("\n"));
}

fn failures(cases: &[Case], check: impl Fn(&Case) -> Result<(), String>) -> Vec<String> {
    cases.iter().filter_map(|case| check(case).err().map(|why| format!("{}: {why}", case.name))).collect()
}

// BUG 1 (`rl_space_in_target`, `rl_leading_garbage`), BUG 2 (`rl_target_70k`): the status depends on the pieces.
#[test]
fn every_request_case_holds_however_its_bytes_come() {
    let cases = table::load(REQUESTS);
    assert!(cases.len() >= 202);
    let failures = failures(&cases, |case| {
        let (raw, method) = (latin1(&case.raw), case.raw.split(' ').next().unwrap());
        let run = |cuts: &[usize]| Outcome { may_wait: case.incomplete, ..run::request(&raw, case.half_close, cuts) };
        in_every_way(&raw, method, run, |outcome| table::judge_request(case, outcome))
    });
    report(&failures, cases.len());
}

#[test]
fn every_response_case_holds_however_its_bytes_come() {
    let cases = table::load(RESPONSES);
    assert!(cases.len() >= 27);
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let failures = failures(&cases, |case| {
            let raw = latin1(&case.raw);
            let run = |cuts: &[usize]| run::response(case, version, cuts);
            in_every_way(&raw, &case.request_method, run, |outcome| table::judge_response(case, outcome))
        });
        report(&failures, cases.len());
    }
}
