//! What was measured, as data: figures by scenario and peer. Pure.

use serde::{Deserialize, Serialize};

use crate::stats::{Spread, paired};

/// The server without a proxy.
pub(crate) const DIRECT: &str = "direct";
pub(crate) const AGENT: &str = "kserve-agent";
pub(crate) const BASELINE: &str = "tiny_http + ureq";
pub(crate) const NGINX: &str = "nginx";
pub(crate) const HAPROXY: &str = "haproxy";
pub(crate) const HAPROXY_TCP: &str = "haproxy, TCP";

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Rate,
    Cpu,
    P50,
    P90,
    P99,
    P999,
    AddedP50,
    AddedP99,
    Bandwidth,
    Errors,
    Peak,
    PerStream,
    Idle,
    PerIdle,
    PerActive,
    Listening,
    FirstAnswer,
    Binary,
    Image,
    Calls,
    Polls,
    PerCall,
    Share,
    WakeUps,
    Call,
    Throttled,
    Lost,
    Lag,
    Accepted,
    Sent,
    Failed,
    Dropped,
}

impl Kind {
    pub(crate) const LATENCIES: [Self; 4] = [Self::P50, Self::P90, Self::P99, Self::P999];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Rate => "requests/s",
            Self::Cpu => "CPU per request, µs",
            Self::P50 => "p50, µs",
            Self::P90 => "p90, µs",
            Self::P99 => "p99, µs",
            Self::P999 => "p99.9, µs",
            Self::AddedP50 => "p50 added, µs",
            Self::AddedP99 => "p99 added, µs",
            Self::Bandwidth => "GB/s",
            Self::Errors => "errors",
            Self::Peak => "resident peak, MiB",
            Self::PerStream => "growth per stream, KiB",
            Self::Idle => "resident when idle, MiB",
            Self::PerIdle => "memory per idle connection, bytes",
            Self::PerActive => "memory per active connection, bytes",
            Self::Listening => "start to listening, ms",
            Self::FirstAnswer => "start to first answer, ms",
            Self::Binary => "binary, MB",
            Self::Image => "image, MB",
            Self::Calls => "socket calls per request",
            Self::Polls => "epoll calls per request",
            Self::PerCall => "instances per call",
            Self::Share => "share of full batches posted straight, %",
            Self::WakeUps => "wake-ups in 3 s of idleness",
            Self::Call => "time of one call, ms",
            Self::Lost => "events lost",
            Self::Lag => "last event after the load, s",
            Self::Accepted => "events accepted",
            Self::Sent => "events sent",
            Self::Failed => "events given up",
            Self::Dropped => "events without room",
            Self::Throttled => "periods that used up the quota, %",
        }
    }
}

/// One figure of one peer in one scenario: a value per round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) scenario: String,
    pub(crate) peer: String,
    pub(crate) kind: Kind,
    pub(crate) runs: Vec<f64>,
}

/// A group of peers under the same load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) group: Group,
}

/// Parts of a run and of its report, in the report's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Group {
    Connections,
    Single,
    Rates,
    Bodies,
    Footprint,
    Batcher,
    Kserve,
    Payload,
    Faults,
    Quota,
    Trust,
}

impl Group {
    pub(crate) const ALL: [Self; 11] = [
        Self::Connections,
        Self::Single,
        Self::Rates,
        Self::Bodies,
        Self::Footprint,
        Self::Batcher,
        Self::Kserve,
        Self::Payload,
        Self::Faults,
        Self::Quota,
        Self::Trust,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Connections => "Small predict requests, as fast as they go",
            Self::Single => "What a proxy adds to one request",
            Self::Rates => "Latency at fixed rates",
            Self::Bodies => "Large bodies",
            Self::Footprint => "Memory, start and size",
            Self::Batcher => "The batcher in front of servers with a known cost",
            Self::Kserve => "The batcher in front of the KServe SDK's own server",
            Self::Payload => "The payload log",
            Self::Faults => "The payload log when its sink fails",
            Self::Quota => "Under a processor quota",
            Self::Trust => "The harness measures itself",
        }
    }
}

/// Latencies of one peer, all rounds together: percent and microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) scenario: String,
    pub(crate) peer: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Distribution {
    /// Where one is drawn: even steps of the number of nines.
    pub(crate) const PERCENTS: [f64; 19] = [
        0.0, 10.0, 25.0, 40.0, 50.0, 60.0, 70.0, 80.0, 85.0, 90.0, 93.0, 95.0, 97.0, 98.0, 99.0, 99.5, 99.8, 99.9,
        99.95,
    ];
}

/// Where and when it ran.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Name and value, as they are shown.
    pub(crate) facts: Vec<(String, String)>,
    /// Share of the processors that others used before the first run.
    pub(crate) busy_before: f64,
}

/// All of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) machine: Machine,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) distributions: Vec<Distribution>,
    /// What could not be measured, and why.
    pub(crate) left_out: Vec<String>,
}

impl Measured {
    pub(crate) fn open(&mut self, id: &str, title: &str, group: Group) {
        self.scenarios.push(Scenario { id: id.to_owned(), title: title.to_owned(), group });
    }

    /// One more run.
    pub(crate) fn add(&mut self, scenario: &str, peer: &str, kind: Kind, value: f64) {
        let same = |figure: &&mut Figure| figure.scenario == scenario && figure.peer == peer && figure.kind == kind;
        match self.figures.iter_mut().find(same) {
            Some(figure) => figure.runs.push(value),
            None => self.figures.push(Figure {
                scenario: scenario.to_owned(),
                peer: peer.to_owned(),
                kind,
                runs: vec![value],
            }),
        }
    }

    pub(crate) fn runs(&self, scenario: &str, peer: &str, kind: Kind) -> &[f64] {
        let same = |figure: &&Figure| figure.scenario == scenario && figure.peer == peer && figure.kind == kind;
        self.figures.iter().find(same).map_or(&[], |figure| &figure.runs)
    }

    pub(crate) fn spread(&self, scenario: &str, peer: &str, kind: Kind) -> Option<Spread> {
        Spread::of(self.runs(scenario, peer, kind))
    }

    /// `of` over `to`, round by round.
    pub(crate) fn ratio(&self, scenario: &str, kind: Kind, of: &str, to: &str) -> Option<Spread> {
        Spread::of(&paired(self.runs(scenario, of, kind), self.runs(scenario, to, kind), |of, to| of / to))
    }

    pub(crate) fn difference(&self, scenario: &str, kind: Kind, of: &str, to: &str) -> Option<Spread> {
        Spread::of(&paired(self.runs(scenario, of, kind), self.runs(scenario, to, kind), |of, to| of - to))
    }

    /// Peers of a scenario, in the order in which they ran.
    pub(crate) fn peers(&self, scenario: &str) -> Vec<&str> {
        let mut peers = Vec::new();
        for figure in self.figures.iter().filter(|figure| figure.scenario == scenario) {
            if !peers.contains(&figure.peer.as_str()) {
                peers.push(figure.peer.as_str());
            }
        }
        peers
    }

    /// Kinds of figures of a scenario, in their order of appearance.
    pub(crate) fn kinds(&self, scenario: &str) -> Vec<Kind> {
        let mut kinds = Vec::new();
        for figure in self.figures.iter().filter(|figure| figure.scenario == scenario) {
            let is_shown = figure.kind != Kind::Errors || figure.runs.iter().any(|count| *count > 0.0);
            if is_shown && !kinds.contains(&figure.kind) {
                kinds.push(figure.kind);
            }
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        let mut measured = Measured::default();
        for (peer, runs) in [("a", [10.0, 20.0, 30.0]), ("b", [5.0, 10.0, 10.0])] {
            for run in runs {
                measured.add("s", peer, Kind::Rate, run);
                measured.add("s", peer, Kind::Errors, 0.0);
            }
        }
        measured
    }

    #[test]
    fn a_ratio_is_of_runs_of_the_same_round() {
        let ratio = measured().ratio("s", Kind::Rate, "a", "b");
        assert_eq!(ratio.map(|ratio| (ratio.least, ratio.median, ratio.most)), Some((2.0, 2.0, 3.0)));
        assert_eq!(measured().ratio("s", Kind::Rate, "a", "c"), None);
    }

    #[test]
    fn errors_are_shown_where_there_were_some() {
        let mut measured = measured();
        assert_eq!(measured.kinds("s"), [Kind::Rate]);
        measured.add("s", "a", Kind::Errors, 1.0);
        assert_eq!(measured.kinds("s"), [Kind::Rate, Kind::Errors]);
        assert_eq!(measured.peers("s"), ["a", "b"]);
    }
}
