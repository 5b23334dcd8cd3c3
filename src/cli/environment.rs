//! The environment besides the probe: the log level, and variables that only have to be well-formed (SPEC E2, E3).

use super::forms::Given;
use super::report::{Report, quoted};
use super::value::{self, word};
use log::LevelFilter;
use std::num::NonZeroU16;

/// Holds the array switch of the probes, see `probe`.
pub(super) const MULTI_CONTAINER_PROBES: &str = "ENABLE_MULTI_CONTAINER_PROBES";

/// Integers that the Go agent insists on where they are set, empty included, and so what is not one is an error here.
const INTEGERS: [&str; 4] = ["CONTAINER_CONCURRENCY", "QUEUE_SERVING_PORT", "USER_PORT", "REVISION_TIMEOUT_SECONDS"];

/// The same for booleans.
const BOOLEANS: [&str; 2] = ["ENABLE_HTTP2_AUTO_DETECTION", MULTI_CONTAINER_PROBES];

/// Reports variables that are set to what they can't be; none of the values is used here.
pub(super) fn check(env: &dyn Fn(&str) -> Option<String>, report: &mut Report) {
    for name in INTEGERS {
        let integer = |text: &str| value::integer(text).ok_or_else(|| "an integer".to_owned());
        env(name).and_then(|text| report.runtime(name, &text, integer));
    }
    for name in BOOLEANS {
        let boolean = |text: &str| value::boolean(text).ok_or_else(|| value::BOOLEANS.to_owned());
        env(name).and_then(|text| report.runtime(name, &text, boolean));
    }
}

/// Where Knative's queue-proxy, which shares the pod's ports with the agent, has its own metrics (Knative Serving,
/// `networking.AutoscalingQueueMetricsPort`). KServe gives the agent that container's environment.
pub(super) fn queue_proxy_port(env: &dyn Fn(&str) -> Option<String>) -> Option<NonZeroU16> {
    env("QUEUE_SERVING_PORT").and(NonZeroU16::new(9090))
}

/// `--log-level`, else `SERVING_LOGGING_LEVEL`, else the flag's default.
pub(super) fn log_level(
    flag: &str,
    given: &Given,
    env: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Option<LevelFilter> {
    let default = report.usage("--log-level", flag, word(&LEVELS));
    let level = env("SERVING_LOGGING_LEVEL").filter(|text| !text.is_empty());
    match level {
        Some(level) if !given.has("log-level") => Some(zap_level(&level, report)),
        _ => default,
    }
}

/// A level by zap's names, which Knative's configuration uses; those above error are all errors here.
fn zap_level(text: &str, report: &mut Report) -> LevelFilter {
    match text.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::Debug,
        "info" => LevelFilter::Info,
        "warn" | "warning" => LevelFilter::Warn,
        "error" | "dpanic" | "panic" | "fatal" => LevelFilter::Error,
        _ => {
            report.warn(format!(
                "SERVING_LOGGING_LEVEL: {} is not known, info is used: \
                 one of debug, info, warn, error, dpanic, panic, fatal",
                quoted(text)
            ));
            LevelFilter::Info
        }
    }
}

const LEVELS: [(&str, LevelFilter); 5] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{run_in, usage_in};

    #[test]
    fn knatives_integers_are_taken_and_not_used() {
        for name in INTEGERS {
            let without = ["--admin-port=0"];
            assert_eq!(run_in(&without, &[(name, "-10")]), run_in(&without, &[]), "{name}");
        }
    }

    #[test]
    fn an_integer_that_is_none_exits_1() {
        for name in INTEGERS {
            for text in ["ten", "", "1.5", "1 "] {
                let (errors, exit_code) = usage_in(&[], &[(name, text)]);
                let line = format!("{name}: {text:?} is not allowed: an integer");
                assert_eq!((errors, exit_code), (vec![line], 1));
            }
        }
    }

    #[test]
    fn a_boolean_that_is_none_exits_1() {
        for name in BOOLEANS {
            run_in(&[], &[(name, "True")]);
            let (errors, exit_code) = usage_in(&[], &[(name, "yes")]);
            assert_eq!((errors.len(), exit_code), (1, 1));
            assert!(errors[0].starts_with(&format!("{name}: \"yes\"")), "{errors:?}");
        }
    }

    #[test]
    fn zaps_levels_are_mapped() {
        for (text, level) in [
            ("debug", LevelFilter::Debug),
            ("info", LevelFilter::Info),
            ("warn", LevelFilter::Warn),
            ("ERROR", LevelFilter::Error),
            ("dpanic", LevelFilter::Error),
            ("panic", LevelFilter::Error),
            ("fatal", LevelFilter::Error),
            ("", LevelFilter::Info),
        ] {
            let (config, warnings) = run_in(&[], &[("SERVING_LOGGING_LEVEL", text)]);
            assert_eq!((config.log_level, warnings), (level, vec![]), "{text}");
        }
    }

    #[test]
    fn a_level_that_zap_does_not_have_is_a_warning_and_info() {
        let (config, warnings) = run_in(&[], &[("SERVING_LOGGING_LEVEL", "loud")]);
        assert_eq!(config.log_level, LevelFilter::Info);
        assert!(warnings.len() == 1 && warnings[0].contains("\"loud\""), "{warnings:?}");
    }

    #[test]
    fn the_flag_wins_over_the_variable() {
        let env = [("SERVING_LOGGING_LEVEL", "debug")];
        assert_eq!(run_in(&["--log-level=info"], &env).0.log_level, LevelFilter::Info);
        assert_eq!(run_in(&[], &env).0.log_level, LevelFilter::Debug);
    }

    #[test]
    fn other_variables_of_knative_are_tolerated() {
        let env = [("SERVING_LOGGING_CONFIG", "{"), ("SERVING_ENABLE_REQUEST_LOG", "maybe")];
        assert_eq!(run_in(&[], &env), run_in(&[], &[]));
    }
}
