//! Metrics as a scraper reads them.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::{Agent, Message, Wire, until};

/// A request for them.
pub(crate) const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
/// What every name of the agent's own begins with, and nothing here repeats.
const PREFIX: &str = "kserve_agent_";
/// The payload log's names are those that KServe's users know; here they are written whole.
const LOGGER: &str = "kserve_logger_";

/// Counters that grow with every byte, and with every connection by which a test looks or waits.
const ALWAYS: [&str; 4] =
    ["received_bytes_total", "sent_bytes_total", "connections_accepted_total", "upstream_connections_opened_total"];

/// Waits until these gauges are 0, and then expects exactly these counters to have grown, but for [`ALWAYS`]; returns the
/// metrics as they are then.
#[track_caller]
pub(crate) fn assert_counted(agent: &Agent, before: &Metrics, idle: &[&str], wanted: &[(&str, u64)]) -> Metrics {
    let mut now = agent.metrics();
    until("nothing is under way", || {
        now = agent.metrics();
        idle.iter().all(|gauge| now.count(gauge) == 0)
    });
    let mut grown = now.since(before);
    grown.retain(|name, _| !ALWAYS.contains(&name.as_str()));
    let wanted = wanted.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    assert_eq!(grown, wanted, "{}", agent.log());
    now
}

/// Values as text by name and labels, both as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, String>);

impl Metrics {
    /// Asks for them over a connection of its own.
    #[track_caller]
    pub(crate) fn read(port: u16) -> Self {
        let mut client = Wire::connect(port);
        client.send(SCRAPE);
        Self::of(&client.response())
    }

    #[track_caller]
    pub(crate) fn of(answer: &Message) -> Self {
        assert_eq!(answer.status(), 200, "{answer:?}");
        let text = answer.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| line.rsplit_once(' ').unwrap());
        Self(samples.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[track_caller]
    fn value<T: FromStr>(&self, name: &str) -> T {
        let name = full(name);
        // What was never there is a mistake of the test's.
        let value = self.0.get(&name).unwrap_or_else(|| panic!("no {name} in {:#?}", self.0.keys()));
        value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
    }

    /// One count.
    #[track_caller]
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.value(name)
    }

    /// One measure.
    #[track_caller]
    pub(crate) fn measure(&self, name: &str) -> f64 {
        self.value(name)
    }

    /// The sum of a family's counts.
    pub(crate) fn sum(&self, family: &str) -> u64 {
        let plain = full(family);
        let labelled = format!("{plain}{{");
        let of_family = |name: &str| name == plain || name.starts_with(&labelled);
        self.0.iter().filter(|(name, _)| of_family(name)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    /// Which of the agent's own counters have grown since, and by how much; none of them falls.
    #[track_caller]
    pub(crate) fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let of_log = |name: &str| name.starts_with(LOGGER);
        let own = self.0.keys().filter_map(|name| name.strip_prefix(PREFIX).or(of_log(name).then_some(name)));
        let own = own.filter(|name| name.contains("_total"));
        let grown = own.map(|name| {
            let [before, now] = [before, self].map(|metrics| metrics.count(name));
            (name.to_owned(), now.checked_sub(before).unwrap_or_else(|| panic!("{name} fell from {before} to {now}")))
        });
        grown.filter(|(_, grown)| *grown > 0).collect()
    }
}

fn full(name: &str) -> String {
    if name.starts_with(LOGGER) { name.to_owned() } else { format!("{PREFIX}{name}") }
}
