//! The README's tables. Pure.

use std::fmt::Write;

use crate::model::{AGENT, BASELINE, DIRECT, HAPROXY, HAPROXY_TCP, Kind, Measured, NGINX};
use crate::parts::footprint::{ACTIVE, IDLE, START};
use crate::parts::quota::{HALF, TENTH};
use crate::parts::single::{APART, TOGETHER};
use crate::promises::{Row, Verdict};
use crate::stats::show;
use crate::verdict::Finding;

const PEERS: [&str; 6] = [DIRECT, AGENT, NGINX, HAPROXY, HAPROXY_TCP, BASELINE];
const ROWS: [(&str, Kind); 23] = [
    ("c64", Kind::Rate),
    ("c64", Kind::Cpu),
    ("c64", Kind::P50),
    ("c64", Kind::P99),
    (TOGETHER, Kind::P50),
    (TOGETHER, Kind::P99),
    (APART, Kind::P50),
    (APART, Kind::P99),
    ("c1000", Kind::Rate),
    ("r5000", Kind::P50),
    ("r5000", Kind::P99),
    ("close", Kind::Rate),
    ("close", Kind::Cpu),
    ("up-1m", Kind::Bandwidth),
    ("down-10m", Kind::Bandwidth),
    ("calls", Kind::Calls),
    (TENTH, Kind::Rate),
    (HALF, Kind::Rate),
    (IDLE, Kind::Idle),
    (IDLE, Kind::PerIdle),
    (ACTIVE, Kind::PerActive),
    (START, Kind::Listening),
    (START, Kind::FirstAnswer),
];

/// The peers side by side, the promises, and what is to be known of the run.
pub(crate) fn report(measured: &Measured, rows: &[Row], findings: &[Finding]) -> String {
    [peers(measured), promises(rows), trust(measured, findings)].join("\n")
}

fn peers(measured: &Measured) -> String {
    let mut text = format!("| scenario | figure | {} |\n|---|---|{}\n", PEERS.join(" | "), "---|".repeat(PEERS.len()));
    for (id, kind) in ROWS {
        let Some(scenario) = measured.scenarios.iter().find(|scenario| scenario.id == id) else { continue };
        let cells = PEERS.map(|peer| measured.spread(id, peer, kind).map(|spread| show(spread.median)));
        if cells.iter().any(Option::is_some) {
            let cells = cells.map(Option::unwrap_or_default).join(" | ");
            line(&mut text, format_args!("| {} | {} | {cells} |", scenario.title, kind.label()));
        }
    }
    text
}

/// A line per promise, with all its numbers.
fn promises(rows: &[Row]) -> String {
    let mut text = String::from("| promise | measured (promised) |\n|---|---|\n");
    for same in rows.chunk_by(|one, next| one.what == next.what) {
        let numbers: Vec<String> = same.iter().map(number).collect();
        let what = same.first().map_or("", |row| &row.what);
        line(&mut text, format_args!("| {what} | {} |", numbers.join("; ")));
    }
    text
}

fn number(row: &Row) -> String {
    let verdict = match row.verdict {
        Verdict::Held => "",
        Verdict::FallsShort => ", **falls short**",
        Verdict::TooClose => ", within the noise",
        Verdict::NotMeasured => return format!("{}: not measured ({})", row.number, row.bound),
    };
    let measured = row.measured.map(|spread| show(spread.median)).unwrap_or_default();
    format!("{}: {measured} ({}{verdict})", row.number, row.bound)
}

fn trust(measured: &Measured, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        line(&mut text, format_args!("- {}{}", if finding.is_fine { "" } else { "**too noisy**: " }, finding.text));
    }
    for what in &measured.left_out {
        line(&mut text, format_args!("- not measured: {what}"));
    }
    let facts: Vec<String> = measured.machine.facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    line(&mut text, format_args!("\n{}", facts.join("; ")));
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Group;

    #[test]
    fn a_table_has_a_column_for_each_peer_and_only_measured_rows() {
        let mut measured = Measured::default();
        measured.open("c64", "64 connections", Group::Connections);
        measured.add("c64", AGENT, Kind::Rate, 60_000.0);
        let table = peers(&measured);
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|row| row.matches('|').count() == PEERS.len() + 3), "{table}");
        assert!(table.contains("60\u{202f}000"));
    }
}
