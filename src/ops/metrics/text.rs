//! Metrics as text: Prometheus 0.0.4 and OpenMetrics 1.0, pure.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>
//!
//! Not here: timestamps, exemplars, `_created`: nobody reads them yet.

use std::fmt::Write as _;

use super::family::{Family, Kind, Reading, Sample, Value};

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a request's `Accept` likes better; Prometheus text where it does not say (RFC 9110 §12.5.1).
    pub(crate) fn accepted(accept: &str) -> Self {
        let weight = |media: &str| {
            let ranges = accept.split(',').map(str::trim);
            let matching = ranges.filter(|range| range.split(';').next().is_some_and(|name| name.trim() == media));
            matching.map(quality).fold(0, u32::max)
        };
        let plain = ["text/plain", "text/*", "*/*"].into_iter().map(weight).fold(0, u32::max);
        let open = weight("application/openmetrics-text");
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The families as text.
    pub(crate) fn write(self, families: &[Family]) -> String {
        let mut text = String::new();
        for family in families {
            self.family(family, &mut text);
        }
        if self == Self::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    fn family(self, family: &Family, text: &mut String) {
        let Family { name, help, kind, samples } = family;
        let name_of_family = self.name_of_family(name, *kind);
        let kind_as_text = match (self, kind) {
            (_, Kind::Counter) => "counter",
            (Self::Prometheus, Kind::Info) | (_, Kind::Gauge) => "gauge",
            (_, Kind::Histogram) => "histogram",
            (Self::OpenMetrics, Kind::Info) => "info",
        };
        // Writing to a string can't fail.
        let _ = writeln!(text, "# HELP {name_of_family} {help}");
        let _ = writeln!(text, "# TYPE {name_of_family} {kind_as_text}");
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name_of_family.ends_with(unit));
        if let (Self::OpenMetrics, Some(unit)) = (self, unit) {
            let _ = writeln!(text, "# UNIT {name_of_family} {unit}");
        }
        samples.iter().for_each(|sample| write_sample(name, sample, text));
    }

    /// In OpenMetrics a family's name is that of its samples without their suffix.
    fn name_of_family(self, name: &'static str, kind: Kind) -> &'static str {
        let suffix = match kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let bare = name.strip_suffix(suffix).unwrap_or(name);
        if self == Self::OpenMetrics { bare } else { name }
    }
}

/// A range's `q` in thousandths.
fn quality(range: &str) -> u32 {
    let mut parameters = range.split(';').filter_map(|parameter| parameter.trim().split_once('='));
    let given = parameters.find(|(name, _)| name.eq_ignore_ascii_case("q")).map(|(_, value)| value);
    let quality = given.map_or(1.0, |text| text.trim().parse::<f64>().unwrap_or(0.0));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1000")]
    let thousandths = (quality.clamp(0.0, 1.0) * 1000.0) as u32;
    thousandths
}

fn write_sample(name: &str, Sample { labels, value }: &Sample, text: &mut String) {
    match value {
        Value::Whole(value) => line(name, labels, &value.to_string(), text),
        Value::Real(value) => line(name, labels, &value.to_string(), text),
        Value::Distribution(reading) => write_histogram(name, labels, reading, text),
    }
}

/// Buckets are cumulative in both formats.
fn write_histogram(name: &str, labels: &[(&'static str, String)], reading: &Reading, text: &mut String) {
    let bounds = reading.bounds.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
    let mut below = 0;
    for (bound, count) in bounds.zip(&reading.counts) {
        below += count;
        let labels = [labels, &[("le", bound)]].concat();
        line(&format!("{name}_bucket"), &labels, &below.to_string(), text);
    }
    line(&format!("{name}_sum"), labels, &reading.sum.to_string(), text);
    line(&format!("{name}_count"), labels, &below.to_string(), text);
}

fn line(name: &str, labels: &[(&'static str, String)], value: &str, text: &mut String) {
    text.push_str(name);
    for (index, (label, of)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let _ = write!(text, "{before}{label}=\"{}\"", escaped(of));
    }
    text.push_str(if labels.is_empty() { " " } else { "} " });
    text.push_str(value);
    text.push('\n');
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn families() -> Vec<Family> {
        let info = Sample { labels: vec![("version", "a\"b\\c\nd".to_owned())], value: Value::Whole(1) };
        vec![
            Family::counters("x_total", "Counts.", "code", [("2xx", 3), ("none", 0)]),
            Family::gauge("y_bytes", "Measures.", 7),
            Family::histogram(
                "z_seconds",
                "Spreads.",
                Reading { bounds: vec![0.0001, 1.0], counts: vec![1, 2, 3], sum: 0.5 },
            ),
            Family { name: "b_info", help: "Says.", kind: Kind::Info, samples: vec![info] },
        ]
    }

    #[test]
    fn prometheus_text() {
        assert_eq!(
            Format::Prometheus.write(&families()),
            "# HELP x_total Counts.\n# TYPE x_total counter\nx_total{code=\"2xx\"} 3\nx_total{code=\"none\"} 0\n\
             # HELP y_bytes Measures.\n# TYPE y_bytes gauge\ny_bytes 7\n\
             # HELP z_seconds Spreads.\n# TYPE z_seconds histogram\nz_seconds_bucket{le=\"0.0001\"} 1\n\
             z_seconds_bucket{le=\"1.0\"} 3\nz_seconds_bucket{le=\"+Inf\"} 6\nz_seconds_sum 0.5\nz_seconds_count 6\n\
             # HELP b_info Says.\n# TYPE b_info gauge\nb_info{version=\"a\\\"b\\\\c\\nd\"} 1\n"
        );
    }

    #[test]
    fn openmetrics_names_families_without_suffix_and_ends() {
        let text = Format::OpenMetrics.write(&families());
        assert!(text.starts_with("# HELP x Counts.\n# TYPE x counter\nx_total{code=\"2xx\"} 3\n"), "{text}");
        assert!(text.contains("# TYPE y_bytes gauge\n# UNIT y_bytes bytes\ny_bytes 7\n"), "{text}");
        assert!(text.contains("# TYPE b info\nb_info{"), "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn the_format_is_what_the_client_likes_better() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html", Format::Prometheus),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; q=0.3, text/plain", Format::Prometheus),
            ("application/openmetrics-text; q=0", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }
}
