//! What the agent promises, as data, and whether a run shows it. Pure.
//!
//! A figure "of another day" was measured once on such a machine with a program that is not here (KServe's Go agent). It
//! is set in proportion to what another peer had in that run and has in this one, as machines differ by a factor of two; it
//! sets the size, and can't be held against the noise of this run. `--peer 'Go agent=…'` measures it beside the rest.

use serde::Serialize;

use crate::model::{AGENT, DIRECT, HAPROXY, HAPROXY_TCP, Kind, Measured, NGINX};
use crate::parts::batcher::{ADAPTIVE, EAGER, IDLE as BATCHER_IDLE, NO_BATCHER};
use crate::parts::faults::{
    BROKEN, BROKEN_ID, DEAD_ID, GARBAGE, GARBAGE_ID, SILENT, SILENT_ID, TOO_MANY, TOO_MANY_ID, TRICKLE, TRICKLE_ID,
};
use crate::parts::footprint::{ACTIVE, EVERYTHING, IDLE, START};
use crate::parts::payload::{CALM as LOG_CALM, DEAD, FULL as LOG_FULL, HEALTHY, NO_LOG, SLOW};
use crate::parts::single::{APART, TOGETHER};
use crate::stats::{Spread, paired, show};

/// How the number of a promise is made from figures of one scenario and kind.
#[derive(Debug, Clone, Copy)]
enum Number {
    Plain(&'static str),
    /// The first over the second.
    Ratio(&'static str, &'static str),
    /// The same after what the server takes by itself was taken off both.
    Added(&'static str, &'static str),
    /// The first less the second.
    More(&'static str, &'static str),
    /// Over a number of another day, when somebody else had so much.
    Recorded(&'static str, f64, Then),
    /// Over a number of another day, after what the server takes by itself was taken off the first.
    AddedRecorded(&'static str, f64),
}

/// What a peer that is here had in the run of another day, as the kind that is promised.
#[derive(Debug, Clone, Copy)]
struct Then {
    scenario: &'static str,
    peer: &'static str,
    figure: f64,
}

const fn then(scenario: &'static str, peer: &'static str, figure: f64) -> Then {
    Then { scenario, peer, figure }
}

/// The server without a proxy, at 64 connections.
const SERVER_RATE: Then = then("c64", DIRECT, 107_000.0);
const SERVER_CPU: Then = then("c64", DIRECT, 8.5);

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One number that is promised.
struct Promise {
    what: &'static str,
    scenario: &'static str,
    kind: Kind,
    number: Number,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Held,
    FallsShort,
    /// The bound lies between the quartiles of the rounds, or the number made of the medians lies on its other side.
    TooClose,
    NotMeasured,
}

impl Verdict {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::FallsShort => "falls short",
            Self::TooClose => "within the noise",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A promise beside what was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    /// Of what and over what.
    pub(crate) number: String,
    pub(crate) bound: String,
    pub(crate) measured: Option<Spread>,
    pub(crate) verdict: Verdict,
    /// The scenario that it is computed from.
    pub(crate) scenario: String,
    pub(crate) is_recorded: bool,
}

const fn promise(what: &'static str, from: (&'static str, Kind), number: Number, bound: Bound) -> Promise {
    Promise { what, scenario: from.0, kind: from.1, number, bound }
}

use Bound::{AtLeast, AtMost};
use Number::{Added, AddedRecorded, More, Plain, Ratio, Recorded};

const CPU: &str = "pass-through, CPU per request, 64 connections";
const RATE: &str = "pass-through, requests/s, 64 connections";
const LATENCY: &str = "latency added at one connection, all on one processor";
const LATENCY_APART: &str = "latency added at one connection, the client apart";
const UP: &str = "1 MiB up, 8 connections";
const DOWN: &str = "10 MiB down, 8 connections";
const CLOSE: &str = "new connection per request, 32 clients";
const MEMORY: &str = "resident memory";
const SERIAL: &str = "batcher, serial server, 128 clients: share of full batches posted straight, %";
const FREE: &str = "batcher, free server, 128 clients";
const IRIS: &str = "batcher, KServe SDK's server";
const LOG: &str = "payload log, healthy sink";
const LOG_MEMORY: &str = "payload log, memory at 64 connections";
const LOG_FAULT: &str = "payload log, requests while the sink fails";
const LOG_FAULT_MEMORY: &str = "payload log, memory while the sink fails";
const WINDOW: &str = "window, 10 ms";

const PROMISES: [Promise; 62] = [
    promise(CPU, ("c64", Kind::Cpu), Ratio(AGENT, NGINX), AtMost(0.9)),
    promise(CPU, ("c64", Kind::Cpu), Ratio(AGENT, HAPROXY), AtMost(0.9)),
    promise(CPU, ("c64", Kind::Cpu), Ratio(AGENT, HAPROXY_TCP), AtMost(1.0)),
    promise(CPU, ("c64", Kind::Cpu), Recorded(AGENT, 83.0, SERVER_CPU), AtMost(0.22)),
    promise(RATE, ("c64", Kind::Rate), Ratio(AGENT, NGINX), AtLeast(1.0)),
    promise(RATE, ("c64", Kind::Rate), Ratio(AGENT, HAPROXY), AtLeast(1.0)),
    promise(RATE, ("c64", Kind::Rate), Recorded(AGENT, 15_000.0, SERVER_RATE), AtLeast(3.2)),
    promise(LATENCY, (TOGETHER, Kind::P50), Added(AGENT, NGINX), AtMost(0.85)),
    promise(LATENCY, (TOGETHER, Kind::P99), Ratio(AGENT, NGINX), AtMost(1.0)),
    promise(LATENCY_APART, (APART, Kind::P50), Added(AGENT, NGINX), AtMost(0.85)),
    // 220 µs less the 84 of the server itself, that day.
    promise(LATENCY_APART, (APART, Kind::P50), AddedRecorded(AGENT, 136.0), AtMost(0.4)),
    promise(LATENCY_APART, (APART, Kind::P99), Ratio(AGENT, NGINX), AtMost(1.0)),
    promise(UP, ("up-1m", Kind::Rate), Ratio(AGENT, NGINX), AtLeast(1.0)),
    promise(UP, ("up-1m", Kind::Rate), Ratio(AGENT, HAPROXY), AtLeast(1.0)),
    promise(UP, ("up-1m", Kind::Rate), Recorded(AGENT, 1328.0, then("up-1m", NGINX, 1500.0)), AtLeast(1.0)),
    promise(UP, ("up-1m", Kind::PerStream), Plain(AGENT), AtMost(1000.0)),
    promise(DOWN, ("down-10m", Kind::Bandwidth), Ratio(AGENT, NGINX), AtLeast(1.0)),
    promise(DOWN, ("down-10m", Kind::Bandwidth), Ratio(AGENT, HAPROXY), AtLeast(1.0)),
    promise(DOWN, ("down-10m", Kind::Bandwidth), Recorded(AGENT, 1.27, then("down-10m", NGINX, 0.74)), AtLeast(1.0)),
    promise(DOWN, ("down-10m", Kind::PerStream), Plain(AGENT), AtMost(1000.0)),
    promise(CLOSE, ("close", Kind::Rate), Ratio(AGENT, NGINX), AtLeast(1.0)),
    promise(CLOSE, ("close", Kind::Rate), Ratio(AGENT, HAPROXY), AtLeast(1.0)),
    promise(CLOSE, ("close", Kind::Cpu), Ratio(AGENT, NGINX), AtMost(1.0)),
    promise(CLOSE, ("close", Kind::Cpu), Ratio(AGENT, HAPROXY), AtMost(1.0)),
    promise(MEMORY, (IDLE, Kind::Idle), Plain(EVERYTHING), AtMost(4.0)),
    promise(MEMORY, (IDLE, Kind::PerIdle), Plain(AGENT), AtMost(1024.0)),
    promise(MEMORY, (ACTIVE, Kind::PerActive), Plain(AGENT), AtMost(20_480.0)),
    promise("start to listening", (START, Kind::Listening), Plain(AGENT), AtMost(5.0)),
    promise("binary, static, stripped", (START, Kind::Binary), Plain(AGENT), AtMost(6.5)),
    promise("image", (START, Kind::Image), Plain(AGENT), AtMost(8.0)),
    promise("socket calls per request", ("calls", Kind::Calls), Plain(AGENT), AtMost(4.1)),
    promise(SERIAL, ("batcher-b-128", Kind::Share), Plain(WINDOW), AtLeast(97.0)),
    promise(SERIAL, ("batcher-b-128", Kind::Share), Plain(EAGER), AtLeast(97.0)),
    promise(SERIAL, ("batcher-b-128", Kind::Share), Plain(ADAPTIVE), AtLeast(97.0)),
    promise(FREE, ("batcher-a-128", Kind::Rate), Recorded(WINDOW, 27_000.0, SERVER_RATE), AtLeast(2.5)),
    promise(FREE, ("batcher-a-128", Kind::Cpu), Recorded(WINDOW, 46.0, SERVER_CPU), AtMost(0.3)),
    promise("batcher, idle", (BATCHER_IDLE, Kind::WakeUps), Plain(WINDOW), AtMost(0.0)),
    promise("batcher, idle", (BATCHER_IDLE, Kind::WakeUps), Plain(EAGER), AtMost(0.0)),
    promise("batcher, idle", (BATCHER_IDLE, Kind::WakeUps), Plain(ADAPTIVE), AtMost(0.0)),
    promise("batcher, free server, one client", ("batcher-a-1", Kind::P50), More(EAGER, NO_BATCHER), AtMost(60.0)),
    promise(IRIS, ("kserve-8", Kind::Rate), Ratio(EAGER, NO_BATCHER), AtLeast(3.0)),
    promise(
        IRIS,
        ("kserve-64", Kind::Rate),
        Recorded(EAGER, 15_428.0, then("kserve-64", NO_BATCHER, 1443.0)),
        AtLeast(1.3),
    ),
    promise(LOG, (LOG_FULL, Kind::Lost), Plain(HEALTHY), AtMost(0.0)),
    promise(LOG, (LOG_FULL, Kind::Rate), Ratio(HEALTHY, NO_LOG), AtLeast(0.5)),
    promise(LOG, (LOG_CALM, Kind::P50), More(HEALTHY, NO_LOG), AtMost(15.0)),
    // 80 MB.
    promise(LOG_MEMORY, (LOG_FULL, Kind::Peak), Plain(HEALTHY), AtMost(76.2)),
    promise(LOG_MEMORY, (LOG_FULL, Kind::Peak), Plain(SLOW), AtMost(76.2)),
    promise(LOG_MEMORY, (LOG_FULL, Kind::Peak), Plain(DEAD), AtMost(76.2)),
    promise(LOG_FAULT, (DEAD_ID, Kind::P99), Ratio(DEAD, HEALTHY), AtMost(1.05)),
    promise(LOG_FAULT, (TOO_MANY_ID, Kind::P99), Ratio(TOO_MANY, HEALTHY), AtMost(1.05)),
    promise(LOG_FAULT, (BROKEN_ID, Kind::P99), Ratio(BROKEN, HEALTHY), AtMost(1.05)),
    promise(LOG_FAULT, (GARBAGE_ID, Kind::P99), Ratio(GARBAGE, HEALTHY), AtMost(1.05)),
    promise(LOG_FAULT, (SILENT_ID, Kind::P99), Ratio(SILENT, HEALTHY), AtMost(1.05)),
    promise(LOG_FAULT, (TRICKLE_ID, Kind::P99), Ratio(TRICKLE, HEALTHY), AtMost(1.05)),
    promise(LOG_FAULT_MEMORY, (TOO_MANY_ID, Kind::Peak), Plain(TOO_MANY), AtMost(76.2)),
    promise(LOG_FAULT_MEMORY, (BROKEN_ID, Kind::Peak), Plain(BROKEN), AtMost(76.2)),
    promise(LOG_FAULT_MEMORY, (GARBAGE_ID, Kind::Peak), Plain(GARBAGE), AtMost(76.2)),
    promise(LOG_FAULT_MEMORY, (SILENT_ID, Kind::Peak), Plain(SILENT), AtMost(76.2)),
    promise(LOG_FAULT_MEMORY, (TRICKLE_ID, Kind::Peak), Plain(TRICKLE), AtMost(76.2)),
    promise("errors, 64 connections", ("c64", Kind::Errors), Plain(AGENT), AtMost(0.0)),
    promise("errors, 1 000 connections", ("c1000", Kind::Errors), Plain(AGENT), AtMost(0.0)),
    promise("errors, 20 000 requests/s", ("r20000", Kind::Errors), Plain(AGENT), AtMost(0.0)),
];

pub(crate) fn rows(measured: &Measured) -> Vec<Row> {
    PROMISES.iter().map(|promise| promise.row(measured)).collect()
}

impl Promise {
    fn row(&self, measured: &Measured) -> Row {
        let spread = self.measure(measured);
        let is_recorded = matches!(self.number, Recorded(..) | AddedRecorded(..));
        Row {
            what: self.what.to_owned(),
            number: self.describe(),
            bound: self.bound.text(),
            verdict: spread.map_or(Verdict::NotMeasured, |spread| {
                self.bound.judge(spread, self.of_medians(measured).unwrap_or(spread.median))
            }),
            measured: spread,
            scenario: self.scenario.to_owned(),
            is_recorded,
        }
    }

    fn measure(&self, measured: &Measured) -> Option<Spread> {
        let runs = |peer| measured.runs(self.scenario, peer, self.kind);
        match self.number {
            Plain(of) => Spread::of(runs(of)),
            Ratio(of, to) => measured.ratio(self.scenario, self.kind, of, to),
            More(of, to) => measured.difference(self.scenario, self.kind, of, to),
            Added(of, to) => {
                let over = |peer| paired(runs(peer), runs(DIRECT), |with, without| with - without);
                Spread::of(&paired(&over(of), &over(to), |of, to| of / to))
            }
            Recorded(of, day, then) => {
                let pace = measured.runs(then.scenario, then.peer, self.kind);
                Spread::of(&paired(runs(of), pace, |of, now| of / (day * now / then.figure)))
            }
            AddedRecorded(of, day) => {
                Spread::of(&paired(runs(of), runs(DIRECT), |with, without| (with - without) / day))
            }
        }
    }

    /// The same number of two peers made the other way round: of their medians, not the median of the rounds' numbers.
    fn of_medians(&self, measured: &Measured) -> Option<f64> {
        let median = |peer| measured.spread(self.scenario, peer, self.kind).map(|spread| spread.median);
        match self.number {
            Ratio(of, to) => Some(median(of)? / median(to)?),
            Recorded(of, day, then) => {
                let now = measured.spread(then.scenario, then.peer, self.kind)?.median;
                Some(median(of)? / (day * now / then.figure))
            }
            Added(of, to) => Some((median(of)? - median(DIRECT)?) / (median(to)? - median(DIRECT)?)),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        let label = self.kind.label();
        let who = |of| if of == AGENT { label.to_owned() } else { format!("{label}, {of}") };
        match self.number {
            Plain(AGENT) => label.to_owned(),
            Plain(of) => format!("{label}: {of}"),
            Added(AGENT, to) => format!("added {label}, over {to}'s"),
            Ratio(AGENT, to) => format!("{label}, over {to}'s"),
            Ratio(of, to) | Added(of, to) => format!("{label}, {of} over {to}"),
            More(of, to) => format!("{label}, {of} more than {to}"),
            Recorded(of, day, then) => {
                let (day, figure) = (show(day), show(then.figure));
                format!("{}, over the Go agent's: {day} of a day when {} had {figure}", who(of), then.peer)
            }
            AddedRecorded(of, day) => format!("{}, over the Go agent's {} of another day", who(of), show(day)),
        }
    }
}

impl Bound {
    fn text(self) -> String {
        let text = |bound: f64| if bound >= 1000.0 { show(bound) } else { bound.to_string() };
        match self {
            AtMost(bound) => format!("≤ {}", text(bound)),
            AtLeast(bound) => format!("≥ {}", text(bound)),
        }
    }

    fn judge(self, spread: Spread, of_medians: f64) -> Verdict {
        let (bound, keeps): (f64, fn(f64, f64) -> bool) = match self {
            AtMost(bound) => (bound, |value, bound| value <= bound),
            AtLeast(bound) => (bound, |value, bound| value >= bound),
        };
        let is_kept = keeps(spread.median, bound);
        if spread.straddles(bound) || keeps(of_medians, bound) != is_kept {
            Verdict::TooClose
        } else if is_kept {
            Verdict::Held
        } else {
            Verdict::FallsShort
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(of: &[f64], to: &[f64], bound: Bound) -> Verdict {
        let mut measured = Measured::default();
        for (peer, runs) in [(AGENT, of), (NGINX, to), (DIRECT, &[10.0; 3])] {
            for run in runs {
                measured.add("c1", peer, Kind::P50, *run);
            }
        }
        promise("", ("c1", Kind::P50), Added(AGENT, NGINX), bound).row(&measured).verdict
    }

    #[test]
    fn a_promise_is_judged_by_its_bound_and_the_noise() {
        assert_eq!(verdict(&[18.0; 3], &[20.0; 3], AtMost(0.85)), Verdict::Held);
        assert_eq!(verdict(&[19.0; 3], &[20.0; 3], AtMost(0.85)), Verdict::FallsShort);
        assert_eq!(verdict(&[17.0, 18.0, 19.5], &[20.0; 3], AtMost(0.85)), Verdict::TooClose);
        assert_eq!(verdict(&[19.0; 3], &[20.0; 3], AtLeast(0.85)), Verdict::Held);
        assert_eq!(verdict(&[], &[20.0; 3], AtLeast(0.85)), Verdict::NotMeasured);
    }

    #[test]
    fn two_ways_to_a_number_that_disagree_decide_nothing() {
        // Each round but one is in favour, the medians are not.
        let (of, to) = ([20.0, 30.0, 32.0, 52.0, 31.0], [21.0, 31.0, 33.0, 30.0, 30.0]);
        assert_eq!(verdict(&of, &to, AtMost(1.0)), Verdict::TooClose);
    }

    #[test]
    fn a_number_of_another_day_is_set_in_proportion_to_this_one() {
        let mut measured = Measured::default();
        // Half as fast as that day.
        measured.add("c64", DIRECT, Kind::Cpu, 17.0);
        measured.add("c64", AGENT, Kind::Cpu, 33.2);
        let number = Recorded(AGENT, 83.0, SERVER_CPU);
        let row = promise("", ("c64", Kind::Cpu), number, AtMost(0.22)).row(&measured);
        assert!(row.measured.is_some_and(|spread| (spread.median - 0.2).abs() < 1e-9), "{:?}", row.measured);
    }

    #[test]
    fn what_is_not_there_is_not_measured() {
        assert!(rows(&Measured::default()).iter().all(|row| row.verdict == Verdict::NotMeasured));
    }
}
