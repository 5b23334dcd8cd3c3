//! Where and when the run was made.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::Machine;
use crate::options::Options;
use crate::process::machine_time;

/// Looks around, for a second: nothing of the run has begun.
pub(crate) fn describe(options: &Options) -> Machine {
    let before = machine_time();
    thread::sleep(Duration::from_secs(1));
    let busy_before = match (before, machine_time()) {
        (Some(before), Some(after)) if after.1 > before.1 => (after.0 - before.0) / (after.1 - before.1),
        _ => 0.0,
    };
    let agent = options.agent.display().to_string();
    let versions = [
        ("kserve-agent", first_line(&agent, &["--version"])),
        ("nginx", first_line("nginx", &["-v"])),
        ("haproxy", first_line("haproxy", &["-v"])),
        ("wrk", first_line("wrk", &["-v"])),
        ("h2load", first_line("h2load", &["--version"])),
    ];
    let mut facts = vec![
        ("date".to_owned(), date()),
        ("processors".to_owned(), processors()),
        ("kernel".to_owned(), file("/proc/sys/kernel/osrelease")),
        ("memory".to_owned(), memory()),
    ];
    facts.extend(versions.into_iter().filter_map(|(name, version)| Some((name.to_owned(), version?))));
    Machine { facts, busy_before }
}

/// Its own wording, without what follows the version.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let path = crate::peer::find(program).unwrap_or_else(|| program.into());
    let output = Command::new(path).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&text).lines().next()?.to_owned();
    Some(line.split(" Copyright").next()?.split(" - https").next()?.to_owned())
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn processors() -> String {
    let count = thread::available_parallelism().map_or(1, usize::from);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, name)| name);
    format!("{count} × {name}")
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or_else(String::new, |kib| format!("{:.1} GiB", kib / f64::from(1 << 20)))
}

/// Today in UTC, by the calendar of Howard Hinnant's `civil_from_days`.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }
}
