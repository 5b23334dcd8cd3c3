//! Which pictures a run gives.

use crate::chart::Scale::{Linear, Log, Nines};
use crate::chart::{Axes, Bar, Line, Scale, bars, height, lines, picture};
use crate::failure::Failure;
use crate::model::{Group, Kind, Measured};
use crate::parts::footprint::{ACTIVE, IDLE, START};
use crate::parts::kserve::SWEEP;
use crate::parts::quota::{HALF, TENTH};
use crate::parts::single::{APART, TOGETHER};
use crate::parts::{payload, trust};

/// A picture, where it stands in the report and what its file in `docs` is called.
pub(crate) struct Plot {
    pub(crate) group: Group,
    pub(crate) file: Option<&'static str>,
    pub(crate) svg: String,
}

const WIDE: (u32, u32) = (860, 360);
const CONNECTIONS: [f64; 5] = [1.0, 16.0, 64.0, 256.0, 1000.0];
const CLIENTS: [f64; 4] = [1.0, 32.0, 128.0, 512.0];

pub(crate) fn all(measured: &Measured) -> Result<Vec<Plot>, Failure> {
    let mut plots = Vec::new();
    let mut add = |group, file, svg: Option<String>| plots.extend(svg.map(|svg| Plot { group, file, svg }));

    let throughput =
        over(measured, "c", &CONNECTIONS, (Kind::Rate, Linear), "Throughput over connections", "connections")?;
    add(Group::Connections, None, throughput);
    let cost = over(
        measured,
        "c",
        &CONNECTIONS,
        (Kind::Cpu, Linear),
        "Processor time of the proxy per request",
        "connections",
    )?;
    add(Group::Connections, Some("cost.svg"), cost);
    let close = ("A new connection per request, 32 clients", "close", Kind::Cpu);
    add(Group::Connections, None, bar_chart(measured, close)?);
    for (title, id, kind) in [
        ("Added to half of the requests, all on one processor", TOGETHER, Kind::AddedP50),
        ("The same, the client apart", APART, Kind::AddedP50),
    ] {
        add(Group::Single, None, bar_chart(measured, (title, id, kind))?);
    }
    let title = "one connection, all on one processor";
    add(Group::Single, None, distribution(measured, TOGETHER, title)?);
    for scenario in measured.scenarios.iter().filter(|scenario| scenario.group == Group::Rates) {
        let file = (scenario.id == "r5000").then_some("latency.svg");
        add(Group::Rates, file, distribution(measured, &scenario.id, &scenario.title)?);
    }
    for (title, id) in [("1 MiB up, 8 connections", "up-1m"), ("10 MiB down, 8 connections", "down-10m")] {
        add(Group::Bodies, None, bar_chart(measured, (title, id, Kind::Bandwidth))?);
    }
    for chart in [
        ("Resident memory when idle", IDLE, Kind::Idle),
        ("Memory per idle connection", IDLE, Kind::PerIdle),
        ("Memory per connection with a request in flight", ACTIVE, Kind::PerActive),
        ("From start to the first answer", START, Kind::FirstAnswer),
    ] {
        add(Group::Footprint, None, bar_chart(measured, chart)?);
    }
    for (id, title, scale) in [
        ("batcher-a-", "A server that answers at once", Linear),
        ("batcher-b-", "One call at a time, 5 ms and 0.1 ms per instance", Linear),
        // From hundreds to tens of thousands.
        ("batcher-c-", "The same cost, any number of calls at a time", Log),
    ] {
        add(Group::Batcher, None, over(measured, id, &CLIENTS, (Kind::Rate, scale), title, "clients")?);
    }
    let iris = over(measured, "kserve-", &[8.0, 32.0, 64.0], (Kind::Rate, Linear), "iris, scikit-learn", "clients")?;
    add(Group::Kserve, None, iris);
    add(Group::Kserve, Some("batching.svg"), sweep(measured)?);
    for (title, id, kind) in [
        ("Throughput at 64 connections", payload::FULL, Kind::Rate),
        ("Median latency at 1 000 requests/s", payload::CALM, Kind::P50),
        ("Memory at 64 connections", payload::FULL, Kind::Peak),
    ] {
        add(Group::Payload, None, bar_chart(measured, (title, id, kind))?);
    }
    for (title, id) in [("With a tenth of a processor", TENTH), ("With half a processor", HALF)] {
        add(Group::Quota, None, bar_chart(measured, (title, id, Kind::Rate))?);
    }
    add(Group::Trust, None, bar_chart(measured, ("The agent beside itself, 64 connections", trust::ID, Kind::Cpu))?);
    Ok(plots)
}

/// A line per peer over scenarios that differ in a number, which ends their names.
fn over(
    measured: &Measured,
    prefix: &str,
    numbers: &[f64],
    (kind, scale): (Kind, Scale),
    title: &str,
    x: &str,
) -> Result<Option<String>, Failure> {
    let mut drawn: Vec<Line> = Vec::new();
    for number in numbers {
        let id = format!("{prefix}{number}");
        for peer in measured.peers(&id) {
            let Some(spread) = measured.spread(&id, peer, kind) else { continue };
            let point = (*number, spread.median);
            match drawn.iter_mut().find(|line| line.name == peer) {
                Some(line) => line.points.push(point),
                None => drawn.push(Line { name: peer.to_owned(), points: vec![point] }),
            }
        }
    }
    drawn.retain(|line| line.points.len() > 1);
    if drawn.is_empty() {
        return Ok(None);
    }
    for line in &mut drawn {
        // A legend has room for so much.
        if line.name.starts_with("full") {
            line.name = "full batches".to_owned();
        }
    }
    let axes = Axes { title, x: (x, Log), y: (kind.label(), scale), ticks: numbers };
    picture(WIDE, |area| lines(area, &axes, &drawn)).map(Some)
}

fn distribution(measured: &Measured, id: &str, title: &str) -> Result<Option<String>, Failure> {
    let of = measured.distributions.iter().filter(|one| one.scenario == id);
    let drawn: Vec<Line> = of.map(|one| Line { name: one.peer.clone(), points: one.points.clone() }).collect();
    if drawn.is_empty() {
        return Ok(None);
    }
    let title = format!("Latency at {title}");
    let axes =
        Axes { title: &title, x: ("share of the requests that took no longer", Nines), y: ("µs", Log), ticks: &[] };
    picture(WIDE, |area| lines(area, &axes, &drawn)).map(Some)
}

fn bar_chart(measured: &Measured, (title, id, kind): (&str, &str, Kind)) -> Result<Option<String>, Failure> {
    let of = measured.peers(id).into_iter().filter_map(|peer| Some((peer, measured.spread(id, peer, kind)?)));
    let drawn: Vec<Bar> = of
        .map(|(peer, spread)| Bar { name: peer.to_owned(), value: spread.median, between: (spread.low, spread.high) })
        .collect();
    if drawn.is_empty() {
        return Ok(None);
    }
    picture((560, height(drawn.len())), |area| bars(area, (title, kind.label()), &drawn)).map(Some)
}

/// What batching gains: time of a call and instances/s over the batch size, side by side.
fn sweep(measured: &Measured) -> Result<Option<String>, Failure> {
    let sizes: Vec<f64> = measured.peers(SWEEP).into_iter().filter_map(|size| size.parse().ok()).collect();
    if sizes.len() < 2 {
        return Ok(None);
    }
    let line = |name: &str, kind| {
        let points =
            sizes.iter().filter_map(|size| Some((*size, measured.spread(SWEEP, &size.to_string(), kind)?.median)));
        [Line { name: name.to_owned(), points: points.collect() }]
    };
    picture((860, 320), |area| {
        let (left, right) = area.split_horizontally(430);
        for (panel, title, unit, line) in [
            (left, "Time of one call", "ms", line("eager", Kind::Call)),
            (right, "Throughput, one call at a time", "instances/s", line("haproxy", Kind::Rate)),
        ] {
            let axes = Axes { title, x: ("instances in the call", Log), y: (unit, Linear), ticks: &sizes };
            lines(&panel, &axes, &line)?;
        }
        Ok(())
    })
    .map(Some)
}
