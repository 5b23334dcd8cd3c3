//! The report as one page without anything from elsewhere. Pure.

use std::fmt::Write;

use crate::model::{AGENT, Group, Kind, Measured, Scenario};
use crate::plots::Plot;
use crate::promises::{Row, Verdict};
use crate::stats::{Spread, show};
use crate::verdict::Finding;

/// The whole page.
pub(crate) fn page(measured: &Measured, rows: &[Row], findings: &[Finding], plots: &[Plot]) -> String {
    let mut page = String::from(include_str!("page.head.html"));
    summary(&mut page, measured, rows, findings);
    promises(&mut page, rows);
    for group in Group::ALL {
        let scenarios: Vec<&Scenario> = measured.scenarios.iter().filter(|one| one.group == group).collect();
        if scenarios.is_empty() {
            continue;
        }
        add(&mut page, format_args!("<section><h2>{}</h2>", escape(group.title())));
        add(&mut page, format_args!("<p>{}</p>", escape(note(group))));
        for plot in plots.iter().filter(|plot| plot.group == group) {
            add(&mut page, format_args!("<figure>{}</figure>", plot.svg));
        }
        // A link to one of them opens them.
        page.push_str("<details><summary>All figures</summary>");
        for scenario in scenarios {
            table(&mut page, measured, scenario);
        }
        page.push_str("</details></section>");
    }
    left_out(&mut page, measured);
    page.push_str("</main></body></html>\n");
    page
}

fn summary(page: &mut String, measured: &Measured, rows: &[Row], findings: &[Finding]) {
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    add(
        page,
        format_args!(
            "<p class=\"counts\"><b class=\"held\">{} held</b> <b class=\"too_close\">{} within the noise</b> \
             <b class=\"falls_short\">{} fall short</b> <b class=\"not_measured\">{} not measured</b></p>",
            count(Verdict::Held),
            count(Verdict::TooClose),
            count(Verdict::FallsShort),
            count(Verdict::NotMeasured)
        ),
    );
    let is_noisy = findings.iter().any(|finding| !finding.is_fine);
    let (class, text) = if is_noisy {
        ("falls_short", "This machine was too noisy for a verdict: look at the lines marked below, and run it again.")
    } else {
        ("held", "This machine was quiet enough: the harness could tell the same from the different.")
    };
    add(page, format_args!("<div class=\"noise {class}\"><b>{text}</b><ul>"));
    for finding in findings {
        let mark = if finding.is_fine { "✓" } else { "✗" };
        add(page, format_args!("<li>{mark} {}</li>", escape(&finding.text)));
    }
    page.push_str("</ul></div><dl>");
    for (name, value) in &measured.machine.facts {
        add(page, format_args!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value)));
    }
    page.push_str("</dl>");
}

fn promises(page: &mut String, rows: &[Row]) {
    page.push_str(
        "<section><h2>What is promised</h2><p>A verdict is by the median of the rounds; where the bound lies between \
         their quartiles, or the medians say otherwise, it is within the noise. Ratios are of runs of the same round. The Go agent's figures were \
         recorded on another day; they are set in proportion to what the server or a peer had then and has in this run.</p>\
         <table class=\"promises\"><thead><tr><th>promise</th><th>number</th><th class=\"n\">bound</th><th class=\"n\">measured</th>\
         <th>verdict</th></tr></thead><tbody>",
    );
    let mut before = "";
    for row in rows {
        let what = if row.what == before { "" } else { &row.what };
        before = &row.what;
        let number = if row.measured.is_some() {
            format!("<a href=\"#{}\">{}</a>", row.scenario, escape(&row.number))
        } else {
            escape(&row.number)
        };
        let class = class(row.verdict);
        add(
            page,
            format_args!(
                "<tr{}><td>{}</td><td>{number}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td><b class=\"{class}\">{}</b></td></tr>",
                if what.is_empty() { " class=\"more\"" } else { "" },
                escape(what),
                row.bound,
                row.measured.map(cell).unwrap_or_default(),
                row.verdict.text()
            ),
        );
    }
    page.push_str("</tbody></table></section>");
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Held => "held",
        Verdict::FallsShort => "falls_short",
        Verdict::TooClose => "too_close",
        Verdict::NotMeasured => "not_measured",
    }
}

/// Rows are peers, columns are figures; the last ones say what the agent takes of a peer's.
fn table(page: &mut String, measured: &Measured, scenario: &Scenario) {
    let id = &scenario.id;
    let kinds = measured.kinds(id);
    let compared: Vec<Kind> = [Kind::Rate, Kind::Cpu]
        .into_iter()
        .filter(|kind| kinds.contains(kind) && !measured.runs(id, AGENT, *kind).is_empty())
        .collect();
    add(page, format_args!("<h3 id=\"{}\">{}</h3><table><thead><tr><th></th>", escape(id), escape(&scenario.title)));
    for kind in &kinds {
        add(page, format_args!("<th class=\"n\">{}</th>", escape(kind.label())));
    }
    for kind in &compared {
        let label = if *kind == Kind::Rate { "requests/s" } else { "CPU" };
        add(page, format_args!("<th class=\"n ratio\">agent’s {label} over it</th>"));
    }
    page.push_str("</tr></thead><tbody>");
    for peer in measured.peers(id) {
        let mark = if peer == AGENT { " class=\"ours\"" } else { "" };
        add(page, format_args!("<tr{mark}><td>{}</td>", escape(peer)));
        for kind in &kinds {
            let shown = measured.spread(id, peer, *kind).map(cell).unwrap_or_default();
            add(page, format_args!("<td class=\"n\">{shown}</td>"));
        }
        for kind in &compared {
            let ratio = measured.ratio(id, *kind, AGENT, peer).filter(|_| peer != AGENT);
            add(page, format_args!("<td class=\"n ratio\">{}</td>", ratio.map(cell).unwrap_or_default()));
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table>");
}

/// The median, and the quartiles where they do not look the same.
fn cell(spread: Spread) -> String {
    let (median, low, high) = (show(spread.median), show(spread.low), show(spread.high));
    if low == high { median } else { format!("{median}<i>{low} – {high}</i>") }
}

fn left_out(page: &mut String, measured: &Measured) {
    if measured.left_out.is_empty() {
        return;
    }
    page.push_str("<section><h2>What to know of this run</h2><ul>");
    for what in &measured.left_out {
        add(page, format_args!("<li>{}</li>", escape(what)));
    }
    page.push_str("</ul></section>");
}

fn note(group: Group) -> &'static str {
    match group {
        Group::Connections => {
            "wrk, one thread, a closed loop: a connection sends when it has its answer. Every proxy has one worker \
             thread (tiny_http + ureq: one blocking worker per processor); “direct” is the server, whose processor time \
             is its own. Latencies of a closed loop flatter a proxy that stalls; those at fixed rates do not."
        }
        Group::Single => {
            "A client of the harness's own with one connection, which keeps the nanoseconds of each request; every 25 ms \
             it is another peer's turn, so that a machine that is now fast, now slow is so to all. “Added” is over the \
             server's own percentile in the same round. Everyone is kept on a processor, as a request through any proxy \
             takes twice as long when it wakes sleeping processors on its way: on one together, which leaves nothing but \
             work, and with the client apart, which each request and each answer has to wake."
        }
        Group::Rates => {
            "h2load, an open loop: requests are begun at their times whether or not earlier ones were answered, by \
             clients that ask 50 times a second each and begin one after another."
        }
        Group::Bodies => "GB/s are of bodies. Memory per stream is how much the process grew at most, by connection.",
        Group::Footprint => {
            "Resident memory of the process that serves (nginx: the worker). nginx and haproxy were told to take as many \
             connections as there are and 200 more; haproxy's idle memory is mostly that."
        }
        Group::Batcher => {
            "Batches of at most 32 instances, one instance per request. Each policy has a server of its own; the agent's \
             number of threads is its own choice."
        }
        Group::Kserve => "One process, one server for all policies. A window of 20 ms.",
        Group::Payload => {
            "Every request and every answer becomes a CloudEvent that is posted to a sink: a healthy one, which answers at \
             once, a slow one, which takes a second for each answer, and a dead one, where nobody listens. Sinks count \
             what they get. The sink, the agent, the server and the load share this machine's processors."
        }
        Group::Faults => {
            "One connection each to three agents in turn, as above on one processor together: one without a payload log, one \
             with a healthy sink, and one whose sink fails, which 64 connections loaded for a second before: tens of \
             thousands of events wait, and come again. Memory is that of the loading."
        }
        Group::Quota => {
            "The proxy alone is held to the quota, by its control group; the server and the load have the rest."
        }
        Group::Trust => {
            "Two processes of one binary must give the same figures. A test build that spins for 20 µs when a request \
             asks for it must not."
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn add(page: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = page.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promise_that_was_measured_leads_to_its_figures() {
        let mut measured = Measured::default();
        measured.open("c64", "64 connections", Group::Connections);
        for peer in [AGENT, crate::model::NGINX] {
            measured.add("c64", peer, Kind::Cpu, 10.0);
        }
        let page = page(&measured, &crate::promises::rows(&measured), &[], &[]);
        assert!(page.contains("href=\"#c64\"") && page.contains("id=\"c64\""));
        assert!(!page.contains("href=\"#close\""));
        assert!(!page.contains("src=") && !page.contains("<script"));
    }

    #[test]
    fn what_peers_are_called_does_not_become_markup() {
        assert_eq!(escape("<a b=\"&\">"), "&lt;a b=&quot;&amp;&quot;&gt;");
    }
}
