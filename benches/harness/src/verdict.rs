//! Whether this run can be believed. Pure.

use serde::Serialize;

use crate::model::{AGENT, DIRECT, Kind, Measured};
use crate::parts::trust::{AGAIN, FAULTY, ID, SLOWED};

/// What one rule found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    pub(crate) is_fine: bool,
    pub(crate) text: String,
}

/// How far the quartiles of the server's own requests/s may lie apart.
const MOST_SPREAD: f64 = 0.15;
/// How far the agent's ratio to itself may be off.
const MOST_OFF: f64 = 0.05;
/// What the slowed agent may seem slowed by, in microseconds: half and twice the truth.
const SLOWED_BY: (f64, f64) = (10.0, 40.0);
/// Share of the processors that others may use before the run.
const MOST_BUSY: f64 = 0.10;

/// One finding for each rule that has something to look at. If one is not fine, the machine was too noisy.
pub(crate) fn findings(measured: &Measured) -> Vec<Finding> {
    let busy = measured.machine.busy_before;
    let mut findings = vec![Finding {
        is_fine: busy <= MOST_BUSY,
        text: format!(
            "before the run others used {:.0} % of the processors (at most {:.0})",
            busy * 100.0,
            MOST_BUSY * 100.0
        ),
    }];
    for scenario in ["c64", "c1", ID] {
        if let Some(spread) = measured.spread(scenario, DIRECT, Kind::Rate) {
            findings.push(Finding {
                is_fine: spread.relative() <= MOST_SPREAD,
                text: format!(
                    "{}: the quartiles of the server's own requests/s lie {:.1} % apart (at most {:.0})",
                    title(measured, scenario),
                    spread.relative() * 100.0,
                    MOST_SPREAD * 100.0
                ),
            });
        }
    }
    for (kind, what) in [(Kind::Rate, "requests/s"), (Kind::Cpu, "processor time per request")] {
        if let Some(ratio) = measured.ratio(ID, kind, AGAIN, AGENT) {
            findings.push(Finding {
                is_fine: (ratio.median - 1.0).abs() <= MOST_OFF,
                text: format!(
                    "the agent over itself, {what}: {:.3}, quartiles {:.3} to {:.3} (within {:.0} % of 1)",
                    ratio.median,
                    ratio.low,
                    ratio.high,
                    MOST_OFF * 100.0
                ),
            });
        }
    }
    if let Some(slower) = measured.difference(ID, Kind::Cpu, SLOWED, FAULTY) {
        findings.push(Finding {
            is_fine: (SLOWED_BY.0..=SLOWED_BY.1).contains(&slower.median),
            text: format!(
                "the agent slowed by 20 µs per request is seen to take {:.1} µs more, quartiles {:.1} to {:.1} ({} to {})",
                slower.median, slower.low, slower.high, SLOWED_BY.0, SLOWED_BY.1
            ),
        });
    }
    findings
}

fn title<'m>(measured: &'m Measured, id: &str) -> &'m str {
    measured.scenarios.iter().find(|scenario| scenario.id == id).map_or("", |scenario| &scenario.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(runs: &[(&str, Kind, &[f64])]) -> Vec<bool> {
        let mut measured = Measured::default();
        for (peer, kind, values) in runs {
            for value in *values {
                measured.add(ID, peer, *kind, *value);
            }
        }
        findings(&measured).iter().skip(1).map(|finding| finding.is_fine).collect()
    }

    #[test]
    fn the_agent_must_equal_itself() {
        assert_eq!(with(&[(AGENT, Kind::Cpu, &[10.0, 11.0, 10.0]), (AGAIN, Kind::Cpu, &[10.1, 11.0, 9.9])]), [true]);
        assert_eq!(with(&[(AGENT, Kind::Rate, &[10.0, 11.0, 10.0]), (AGAIN, Kind::Rate, &[9.0, 10.0, 9.0])]), [false]);
    }

    #[test]
    fn the_slowed_agent_must_not() {
        assert_eq!(with(&[(FAULTY, Kind::Cpu, &[13.0]), (SLOWED, Kind::Cpu, &[33.5])]), [true]);
        assert_eq!(with(&[(FAULTY, Kind::Cpu, &[13.0]), (SLOWED, Kind::Cpu, &[15.0])]), [false]);
    }

    #[test]
    fn a_server_that_is_now_fast_now_slow_is_noise() {
        assert_eq!(with(&[(DIRECT, Kind::Rate, &[100.0, 101.0, 99.0, 100.0])]), [true]);
        assert_eq!(with(&[(DIRECT, Kind::Rate, &[100.0, 150.0, 99.0, 160.0])]), [false]);
    }
}
