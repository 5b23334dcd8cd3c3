//! The spellings that Go's pflag takes, turned into flag and value (SPEC F1–F3).
//!
//! `--flag value`, `--flag=value`, `--switch`, `--switch=false`, `--switch false`; a value may begin with a dash; `--`
//! ends the flags; everything else is a positional, and none is used. Values are not looked at here.

use super::flags::{self, Flag, Kind};
use super::report::{Report, quoted};
use std::collections::HashMap;
use std::slice::Iter;

/// What the arguments ask for.
pub(super) enum Request {
    /// The list of flags.
    Help,
    /// Name and version.
    Version,
    /// To run, with this.
    Run(Given),
}

/// The values that were given, in order; flags that were not are absent.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: HashMap<&'static str, Vec<String>>,
}

impl Given {
    /// Every value of a flag, named without dashes.
    pub(super) fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value that wins.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.all(name).last().map(String::as_str)
    }

    /// Whether the flag was there at all.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// Reads the arguments. An unknown flag is a warning: a newer controller must not crash a pod.
pub(super) fn read(args: &[String], report: &mut Report) -> Request {
    let known: HashMap<&str, Flag> =
        flags::groups().into_iter().flat_map(|group| group.flags).map(|f| (f.name, f)).collect();
    let mut given = Given::default();
    let mut rest = args.iter();
    while let Some(token) = rest.next() {
        match Token::of(token) {
            Token::Positional => {}
            Token::End => break,
            Token::Malformed => {
                report.usage_error(format!("{}: is not allowed: a flag is --name or --name=value", quoted(token)))
            }
            Token::Long { name: "help", .. } | Token::Short("h") => return Request::Help,
            Token::Long { name: "version", .. } => return Request::Version,
            Token::Short(name) => report.warn(unknown_short(name, &known)),
            Token::Long { name, value } => match known.get(name) {
                Some(flag) => given.take(flag, value, &mut rest, report),
                None => report.warn(format!("unknown flag --{} is ignored", plain(name))),
            },
        }
    }
    Request::Run(given)
}

/// One argument that is not the value of the one before it.
enum Token<'a> {
    Positional,
    End,
    Malformed,
    Short(&'a str),
    Long { name: &'a str, value: Option<&'a str> },
}

impl<'a> Token<'a> {
    fn of(text: &'a str) -> Self {
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            return match name {
                "" if value.is_none() => Self::End,
                "" => Self::Malformed,
                _ if name.starts_with('-') => Self::Malformed,
                _ => Self::Long { name, value },
            };
        }
        match text.strip_prefix('-') {
            None | Some("") => Self::Positional,
            Some(short) => Self::Short(short),
        }
    }
}

impl Given {
    fn take(&mut self, flag: &Flag, inline: Option<&str>, rest: &mut Iter<'_, String>, report: &mut Report) {
        let value = match (inline, flag.kind) {
            (Some(value), _) => Some(value),
            (None, Kind::Switch) => Some(lone_boolean(rest).unwrap_or("true")),
            (None, Kind::Value | Kind::List) => rest.next().map(String::as_str),
        };
        match value {
            Some(value) => self.values.entry(flag.name).or_default().push(value.to_owned()),
            None => {
                report.usage_error(format!("--{0}: no value is not allowed: --{0} value or --{0}=value", flag.name))
            }
        }
    }
}

/// SPEC F2: the KServe controller writes `--logger-tls-skip-verify false` as two arguments. Only words, not the digits
/// and letters of `--flag=1`, so that a stray positional is not taken for a value.
fn lone_boolean<'a>(rest: &mut Iter<'a, String>) -> Option<&'a str> {
    let next = rest.as_slice().first()?;
    let word = matches!(next.as_str(), "true" | "True" | "TRUE" | "false" | "False" | "FALSE");
    word.then(|| rest.next().map(String::as_str)).flatten()
}

fn unknown_short(name: &str, known: &HashMap<&str, Flag>) -> String {
    let long = name.split_once('=').map_or(name, |(long, _)| long);
    if known.contains_key(long) {
        format!("unknown flag -{0} is ignored; it is --{0} with two dashes", plain(long))
    } else {
        format!("unknown flag -{} is ignored", plain(long))
    }
}

/// A name for a message: on one line and not endless, like a value, but without quotes.
fn plain(name: &str) -> String {
    quoted(name).replace('"', "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    fn given(args: &[&str]) -> (Given, Report) {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut report = Report::default();
        match read(&args, &mut report) {
            Request::Run(given) => (given, report),
            _ => panic!("not a run: {args:?}"),
        }
    }

    #[test]
    fn a_value_follows_as_its_own_argument_or_after_an_equals_sign() {
        assert_eq!(given(&["--port", "1"]).0.last("port"), Some("1"));
        assert_eq!(given(&["--port=1"]).0.last("port"), Some("1"));
        assert_eq!(given(&["--log-url=http://h/?a=b"]).0.last("log-url"), Some("http://h/?a=b"));
        assert_eq!(given(&["--log-url="]).0.last("log-url"), Some(""));
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        let (given, _) = given(&["--probe-period", "-1", "--source-uri", "--port", "--port", "7"]);
        assert_eq!(given.last("probe-period"), Some("-1"));
        assert_eq!(given.last("source-uri"), Some("--port"));
        assert_eq!(given.last("port"), Some("7"));
    }

    #[test]
    fn help_as_a_value_is_a_value() {
        assert_eq!(given(&["--source-uri", "--help"]).0.last("source-uri"), Some("--help"));
    }

    #[test]
    fn two_dashes_end_the_flags() {
        let (given, _) = given(&["--port=1", "--", "--port=2", "--help"]);
        assert_eq!(given.all("port"), ["1"]);
    }

    #[test]
    fn a_switch_takes_a_lone_word_but_nothing_else() {
        let flag = "logger-tls-skip-verify";
        for (args, expected) in [
            (vec!["--logger-tls-skip-verify"], "true"),
            (vec!["--logger-tls-skip-verify", "false"], "false"),
            (vec!["--logger-tls-skip-verify", "true"], "true"),
            (vec!["--logger-tls-skip-verify", "0"], "true"),
            (vec!["--logger-tls-skip-verify", "falsey"], "true"),
            (vec!["--logger-tls-skip-verify=F"], "F"),
            (vec!["--logger-tls-skip-verify=true", "false"], "true"),
        ] {
            assert_eq!(given(&args).0.last(flag), Some(expected), "{args:?}");
        }
    }

    #[test]
    fn the_flag_after_a_switch_is_still_a_flag() {
        let (given, _) = given(&["--enable-batcher", "false", "--port", "7", "true"]);
        assert_eq!(given.last("enable-batcher"), Some("false"));
        assert_eq!(given.last("port"), Some("7"));
    }

    #[test]
    fn positionals_and_empty_arguments_are_passed_over() {
        let (given, report) = given(&["a", "", "-", "--port", "7", "b=c"]);
        assert_eq!(given.last("port"), Some("7"));
        assert!(matches!(report.outcome(None), super::super::Outcome::Usage { errors, warnings, .. }
            if errors.is_empty() && warnings.is_empty()));
    }
}
