//! What the command line promises, clause by clause, through [`parse`].

#![allow(clippy::panic, reason = "a test fails by panicking")]

use super::{Outcome, parse};
use crate::config::{Config, LoggerConfig};

/// Reads arguments with a list as the environment.
pub(super) fn outcome(args: &[&str], env: &[(&str, &str)]) -> Outcome {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let lookup = |name: &str| env.iter().find(|(known, _)| *known == name).map(|&(_, value)| value.to_owned());
    parse(&args, &lookup)
}

pub(super) fn run_in(args: &[&str], env: &[(&str, &str)]) -> (Config, Vec<String>) {
    match outcome(args, env) {
        Outcome::Run { config, warnings } => (*config, warnings),
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

pub(super) fn usage_in(args: &[&str], env: &[(&str, &str)]) -> (Vec<String>, u8) {
    match outcome(args, env) {
        Outcome::Usage { errors, exit_code, .. } => (errors, exit_code),
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

pub(super) fn run_with_warnings(args: &[&str]) -> (Config, Vec<String>) {
    run_in(args, &[])
}

pub(super) fn run(args: &[&str]) -> Config {
    run_in(args, &[]).0
}

pub(super) fn usage(args: &[&str]) -> (Vec<String>, u8) {
    usage_in(args, &[])
}

pub(super) fn logger(args: &[&str]) -> LoggerConfig {
    let args = [&["--log-url=http://sink"], args].concat();
    run(&args).logger.unwrap_or_else(|| panic!("{args:?}: no logger"))
}

#[test]
fn help_and_version_are_printed_whatever_else_is_wrong() {
    for flag in ["--help", "-h", "--version", "--help=true"] {
        let outcome = outcome(&["--port=0", "--nonsense", flag], &[("USER_PORT", "x")]);
        let Outcome::Print(text) = outcome else { panic!("{flag}: {outcome:?}") };
        assert!(text.starts_with("kserve-agent ") && text.ends_with('\n'), "{text}");
    }
}

#[test]
fn the_last_of_a_repeated_flag_wins() {
    assert_eq!(run(&["--port=1", "--port", "2"]).port.get(), 2);
    assert!(run(&["--enable-batcher", "--enable-batcher=false"]).batcher.is_none());
    assert!(run(&["--enable-batcher=false", "--enable-batcher"]).batcher.is_some());
    assert_eq!(run(&["--port=nonsense", "--port=2"]).port.get(), 2);
}

#[test]
fn list_flags_append_and_split() {
    let logger = logger(&[
        "--metadata-headers=X-Tenant, X-Other",
        "--metadata-headers",
        "X-Third,x-tenant,",
        "--metadata-annotations=team=a,owner=b",
        "--metadata-annotations=team=c=d, \"list=1,2\"",
    ]);
    assert_eq!(logger.metadata_headers, ["X-Tenant", "X-Other", "X-Third"]);
    let expected = [("list", "1,2"), ("owner", "b"), ("team", "c=d")];
    assert_eq!(logger.metadata_annotations, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn every_boolean_word_of_go_is_taken() {
    for word in ["1", "t", "T", "TRUE", "true", "True"] {
        assert!(run(&[&format!("--enable-puller={word}")]).puller.is_some(), "{word}");
    }
    for word in ["0", "f", "F", "FALSE", "false", "False"] {
        assert!(run(&[&format!("--enable-puller={word}")]).puller.is_none(), "{word}");
    }
}

#[test]
fn the_controllers_skip_verify_false_as_two_arguments_is_false() {
    assert!(!logger(&["--logger-tls-skip-verify", "false"]).tls_skip_verify);
    assert!(logger(&["--logger-tls-skip-verify", "true"]).tls_skip_verify);
    assert!(logger(&["--logger-tls-skip-verify"]).tls_skip_verify);
}

#[test]
fn an_unknown_flag_is_a_warning_that_names_it() {
    for (args, name) in [
        (vec!["--timeout=60", "--port=7"], "--timeout"),
        (vec!["--timeout", "60", "--port=7"], "--timeout"),
        (vec!["--timeout", "--port=7"], "--timeout"),
        (vec!["-v", "--port=7"], "-v"),
        (vec!["-port=8", "--port=7"], "--port with two dashes"),
    ] {
        let (config, warnings) = run_with_warnings(&args);
        assert_eq!(config.port.get(), 7, "{args:?}");
        assert_eq!(warnings.len(), 1, "{args:?} {warnings:?}");
        assert!(warnings[0].contains(name), "{args:?} {warnings:?}");
    }
}

#[test]
fn an_argument_that_is_neither_flag_nor_value_is_an_error() {
    for token in ["--=x", "---port=7"] {
        let (errors, exit_code) = usage(&[token]);
        assert_eq!((errors.len(), exit_code), (1, 2), "{errors:?}");
        assert!(errors[0].contains(token), "{errors:?}");
    }
}

/// A value that can't be used, a part of what is allowed, the exit code.
const REFUSED: [(&str, &str, &str, u8); 48] = [
    ("port", "0", "a port from 1 to 65535", 1),
    ("port", "70000", "a port from 1 to 65535", 1),
    ("port", "http", "a port from 1 to 65535", 1),
    ("port", "", "a port from 1 to 65535", 1),
    ("component-port", "0", "a port from 1 to 65535", 2),
    ("component-port", "0x1F90", "a port from 1 to 65535", 2),
    ("metrics-port", "65536", "or 0 to turn it off", 2),
    ("admin-port", "-1", "or 0 to turn it off", 2),
    ("max-batchsize", "0", "instances from 1 to 2147483647", 1),
    ("max-batchsize", "-3", "instances from 1 to 2147483647", 1),
    ("max-batchsize", "2147483648", "instances from 1 to 2147483647", 1),
    ("max-latency", "abc", "milliseconds from 1 to", 1),
    ("max-latency", "0", "milliseconds from 1 to", 1),
    ("max-latency", "50ms", "milliseconds from 1 to", 1),
    ("enable-batcher", "yes", "true or false", 2),
    ("logger-tls-skip-verify", "", "true or false", 2),
    ("batch-policy", "greedy", "one of window, eager, adaptive", 2),
    ("batch-concurrency", "257", "batches from 0", 2),
    ("batch-queue", "0", "requests from 1 to", 2),
    ("batch-key-headers", "a b", "header names", 2),
    ("log-url", "sink", "a URL as http://host/path", 2),
    ("log-url", "ftp://sink", "a URL as http://host/path", 2),
    ("log-url", "http://", "a URL as http://host/path", 2),
    ("workers", "0", "threads from 1 to 256", 2),
    ("workers", "five", "threads from 1 to 256", 2),
    ("log-mode", "both", "one of all, request, response", 2),
    ("log-marshaller-url", "s3://b", "a URL as http://host:port/path", 2),
    ("log-marshaller-port", "x", "a whole number", 2),
    ("log-batch-size", "0", "records from 1 to", 2),
    ("log-batch-interval", "5", "a duration from 0, as 300ms", 2),
    ("log-batch-interval", "-1s", "a duration from 0, as 300ms", 2),
    ("log-client-timeout", "0s", "a duration over 0", 2),
    ("log-queue-bytes", "0", "bytes from 1 to", 2),
    ("log-when-full", "wait", "one of drop, block", 2),
    ("log-sample", "0", "a number over 0 and up to 1", 2),
    ("log-sample", "1.01", "a number over 0 and up to 1", 2),
    ("metadata-annotations", "team", "list of key=value", 2),
    ("metadata-headers", "\"a", "a comma-separated list", 2),
    ("threads", "257", "threads from 0", 2),
    ("pin", "yes", "one of auto, on, off", 2),
    ("max-connections", "-1", "connections from 0", 2),
    ("upstream-timeout", "1d", "a duration from 0", 2),
    ("request-body-timeout", "0", "a duration over 0", 2),
    ("model-update", "never", "one of auto, keep, replace", 2),
    ("model-load-timeout", "0s", "a duration over 0", 2),
    ("drain-period", "soon", "a duration from 0", 2),
    ("probe-period", "often", "a duration, as", 2),
    ("log-level", "verbose", "one of error, warn, info, debug, trace", 2),
];

#[test]
fn an_error_names_flag_value_and_what_is_allowed() {
    for (name, value, allowed, code) in REFUSED {
        let (errors, exit_code) = usage(&[&format!("--{name}={value}")]);
        assert_eq!(errors.len(), 1, "{name} {value}: {errors:?}");
        let start = format!("--{name}: {value:?} is not allowed: ");
        assert!(errors[0].starts_with(&start), "{errors:?}");
        assert!(errors[0].contains(allowed), "{errors:?}");
        assert_eq!(exit_code, code, "{errors:?}");
    }
}

#[test]
fn all_errors_come_at_once() {
    let mut last: Vec<(&str, &str)> = REFUSED.iter().map(|row| (row.0, row.1)).collect();
    last.dedup_by_key(|row| row.0);
    let args: Vec<String> = last.iter().map(|(name, value)| format!("--{name}={value}")).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let env = [("USER_PORT", "x"), ("SERVING_READINESS_PROBE", "{")];
    let (errors, exit_code) = usage_in(&args, &env);
    assert_eq!(exit_code, 2);
    for name in last.iter().map(|(name, _)| format!("--{name}: ")) {
        assert!(errors.iter().any(|line| line.starts_with(&name)), "{name}{errors:#?}");
    }
    assert_eq!(errors.len(), last.len() + env.len(), "{errors:#?}");
    assert!(errors.iter().all(|line| !line.contains('\n')), "{errors:#?}");
}

#[test]
fn errors_that_the_go_agent_exits_1_on_stay_1_together() {
    let (errors, exit_code) = usage_in(
        &["--port=0", "--max-batchsize=0", "--max-latency=abc"],
        &[("USER_PORT", "x"), ("ENABLE_HTTP2_AUTO_DETECTION", "maybe")],
    );
    assert_eq!((errors.len(), exit_code), (5, 1), "{errors:?}");
    let (_, exit_code) = usage(&["--port=0", "--workers=0"]);
    assert_eq!(exit_code, 2);
}
