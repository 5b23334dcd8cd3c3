//! Errors and warnings, collected until all text has been read (SPEC F4).
//!
//! Every check goes through a [`Report`], which writes the line and remembers the exit code; a check that failed gives
//! `None`, so a configuration can only be put together when none has.

use super::Outcome;
use crate::config::Config;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: Vec<String>,
    warnings: Vec<String>,
    /// One of the errors is of the kind that exits 2.
    usage: bool,
}

impl Report {
    /// Checks a value that the Go agent's flag library checks, or that only this agent has: exit code 2.
    ///
    /// `parse` fails with what is allowed.
    pub(super) fn usage<T>(
        &mut self,
        name: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text).map_err(|allowed| self.usage_error(not_allowed(name, text, &allowed))).ok()
    }

    /// Checks a value that the Go agent finds wrong by itself, after its flags were read: exit code 1.
    pub(super) fn runtime<T>(
        &mut self,
        name: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text).map_err(|allowed| self.runtime_error(not_allowed(name, text, &allowed))).ok()
    }

    /// Adds an error with exit code 2.
    pub(super) fn usage_error(&mut self, line: String) {
        self.usage = true;
        self.errors.push(line);
    }

    /// Adds an error with exit code 1.
    pub(super) fn runtime_error(&mut self, line: String) {
        self.errors.push(line);
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, line: String) {
        self.warnings.push(line);
    }

    /// The configuration, unless there was an error.
    pub(super) fn outcome(self, config: Option<Config>) -> Outcome {
        match config {
            Some(config) if self.errors.is_empty() => {
                Outcome::Run { config: Box::new(config), warnings: self.warnings }
            }
            _ => Outcome::Usage {
                errors: self.errors,
                warnings: self.warnings,
                exit_code: if self.usage { 2 } else { 1 },
            },
        }
    }
}

/// The line of a value that can't be used.
pub(super) fn not_allowed(name: &str, text: &str, allowed: &str) -> String {
    format!("{name}: {} is not allowed: {allowed}", quoted(text))
}

/// The line of a URL that can't be used, without what may be a secret in it.
pub(super) fn url_not_allowed(name: &str, text: &str, allowed: &str) -> String {
    not_allowed(name, &without_secrets(text), allowed)
}

/// A URL that can't be taken apart, without user, password, query and fragment. Where an `@` comes behind the first `?`
/// nobody knows which of them it belongs to, and only the scheme is left.
fn without_secrets(text: &str) -> String {
    let (start, rest) = text.find("://").map_or(("", text), |at| text.split_at(at + 3));
    let query_at = rest.find(['?', '#']).unwrap_or(rest.len());
    let query = if query_at < rest.len() { "?…" } else { "" };
    match rest.rfind('@') {
        None => format!("{start}{}{query}", &rest[..query_at]),
        Some(at) if at < query_at => format!("{start}…@{}{query}", &rest[at + 1..query_at]),
        Some(_) => format!("{start}…"),
    }
}

/// Text in quotes on one line, escaped, its end cut off if it is very long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Characters of a value that a message repeats: enough to find it in a manifest, too few to fill a log.
const QUOTED_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_one_line_and_short() {
        assert_eq!(not_allowed("--a", "b\n\"c", "d"), r#"--a: "b\n\"c" is not allowed: d"#);
        let long = quoted(&"é".repeat(1000));
        assert_eq!(long.chars().count(), QUOTED_CHARS + 3);
        assert!(long.ends_with("é\"…"));
    }

    #[test]
    fn a_url_is_repeated_without_its_secrets() {
        for (text, said) in [
            ("http://user:s3cret@sink/a b", "http://…@sink/a b"),
            ("http://user:s3/cr@et@sink:port/", "http://…@sink:port/"),
            ("http://sink/a b?token=s3cret", "http://sink/a b?…"),
            ("http://sink#s3cret", "http://sink?…"),
            ("user:s3cret@sink", "…@sink"),
            ("http://sink?to=a@s3cret", "http://…"),
            ("https://user:s3?cret@sink", "https://…"),
            ("ftp://sink/p", "ftp://sink/p"),
        ] {
            assert_eq!(without_secrets(text), said, "{text}");
        }
    }

    #[test]
    fn one_usage_error_among_others_makes_the_exit_code_2() {
        let mut report = Report::default();
        report.runtime_error("a".into());
        report.usage_error("b".into());
        report.runtime_error("c".into());
        assert!(matches!(report.outcome(None), Outcome::Usage { exit_code: 2, .. }));
    }
}
