//! What `--help` and `--version` print (SPEC F5).

use super::flags::{self, Flag};
use crate::ops::build::{NAME, VERSION, target};

/// Every flag, in groups, with its default and meaning.
pub(super) fn help() -> String {
    let mut text = format!(
        "{NAME} {VERSION}: the sidecar in front of a KServe model server\n\n\
         Usage: {NAME} [--flag=value | --flag value | --switch]...\n"
    );
    for group in flags::groups() {
        text.push_str(&format!("\n{}:\n", group.title));
        group.flags.iter().for_each(|flag| text.push_str(&line(flag)));
    }
    text.push_str(REST);
    text
}

/// Name, version and target triple.
pub(super) fn version() -> String {
    format!("{NAME} {VERSION} {}\n", target())
}

fn line(flag: &Flag) -> String {
    let default = if flag.default.is_empty() { "\"\"" } else { flag.default };
    format!("  --{:<24} {} [default: {default}]\n", flag.name, flag.meaning)
}

const REST: &str = "
Other:
  --help                     print this and exit
  --version                  print name, version and target and exit

Environment:
  SERVING_READINESS_PROBE        Kubernetes probe of the model server, in JSON; empty: always ready
  ENABLE_MULTI_CONTAINER_PROBES  true: that variable holds an array of probes
  SERVING_LOGGING_LEVEL          the log level where --log-level is not given

A duration is a number with a unit (ns, us, ms, s, m, h), or several: 500ms, 1m30s.
Exit status: 0 drained, 1 a value or a variable that can't be used or a failure at run time, 2 usage.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_come_in_reading_order() {
        let text = help();
        let titles = ["Proxy", "Batcher", "Payload logger", "Object storage", "Model puller"];
        let titles = titles.iter().chain(&["Probes and drain", "Operations", "Environment"]);
        let at: Vec<_> = titles.map(|title| text.find(&format!("\n{title}:\n"))).collect();
        assert!(at.iter().all(Option::is_some), "{at:?}\n{text}");
        assert!(at.is_sorted(), "{at:?}");
    }

    #[test]
    fn every_flag_has_one_line() {
        let text = help();
        for flag in flags::groups().iter().flat_map(|group| &group.flags) {
            assert!(!flag.meaning.is_empty(), "{}", flag.name);
            assert_eq!(text.matches(&line(flag)).count(), 1, "{}", flag.name);
        }
    }

    #[test]
    fn version_says_name_version_and_target() {
        let text = version();
        let parts: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(parts[..2], ["kserve-agent", VERSION]);
        assert_eq!(parts[2].split('-').count(), 4, "{text}");
    }
}
