//! A time as text (RFC 3339), checked and never calculated with.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known;

/// A point in time, as RFC 3339 writes it. The default is that of Go, a moment in the year 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rfc3339(String);

/// What stands for nothing in a Go program.
const ZERO: &str = "0001-01-01T00:00:00Z";

impl Rfc3339 {
    /// `None`: that is no such time.
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &well_known::Rfc3339).ok().map(|_| Self(text.to_owned()))
    }
}

impl Default for Rfc3339 {
    fn default() -> Self {
        Self(ZERO.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_rfc_3339_are_taken_as_they_are() {
        for text in [ZERO, "2026-12-31T23:59:59.123456789+14:00", "2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05-00:30"]
        {
            assert_eq!(Rfc3339::parse(text).map(|time| time.0), Some(text.to_owned()));
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-13-02T03:04:05Z",
            "2026-02-30T03:04:05Z",
            "2026-01-02T24:04:05Z",
            "2026-01-02T03:04:05+1:00",
            "2026-01-02T03:04:0éZ",
            "2026-01-02T03:04:05Z\n",
            "2026-01-02T03:04:05Z\", \"id\":\"",
        ] {
            assert_eq!(Rfc3339::parse(text), None, "{text:?}");
        }
    }
}
