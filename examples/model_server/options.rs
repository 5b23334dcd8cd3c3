//! The command line: `--port N --cost-ms A --cost-per-instance-ms B --serial`. Every error is
//! reported before anything is bound.

use std::time::Duration;

use crate::iris::Cost;

/// Longest cost that may be asked for, per call and per instance.
const MAX_COST_MS: f64 = 60_000.0;

const USAGE: &str = "usage: model_server [--port N] [--cost-ms A] [--cost-per-instance-ms B] [--serial]
  --port N                  port on 127.0.0.1 (default 8080; 0 = chosen by the system)
  --cost-ms A               each call takes A milliseconds longer (default 0)
  --cost-per-instance-ms B  and B milliseconds more per instance (default 0)
  --serial                  one call at a time, like a model that owns the one accelerator";

/// What the server was started with.
pub(crate) struct Options {
    /// 0 lets the system choose.
    pub(crate) port: u16,
    pub(crate) cost: Cost,
}

impl Options {
    /// Reads `--flag value` and `--flag=value`; the last of a flag wins.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { port: 8080, cost: Cost::default() };
        while let Some(word) = words.next() {
            let (flag, mut inline) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let mut value = || {
                let value = inline.take().or_else(|| words.next());
                value.ok_or_else(|| format!("{flag} needs a value\n{USAGE}"))
            };
            match flag {
                "--port" => options.port = port(&value()?)?,
                "--cost-ms" => options.cost.per_call = milliseconds(flag, &value()?)?,
                "--cost-per-instance-ms" => {
                    options.cost.per_instance = milliseconds(flag, &value()?)?;
                }
                "--serial" => options.cost.serial = true,
                _ => return Err(format!("{word} is not a flag of this server\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("--port {text}: a number from 0 to 65535"))
}

fn milliseconds(flag: &str, text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=MAX_COST_MS).contains(&value) => Ok(Duration::from_secs_f64(value / 1000.0)),
        _ => Err(format!("{flag} {text}: milliseconds from 0 to {MAX_COST_MS}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_take_their_value_in_both_forms() -> Result<(), String> {
        let options = parse("--port=0 --cost-ms 5 --cost-per-instance-ms=0.1 --serial")?;
        assert_eq!(options.port, 0);
        assert_eq!(options.cost.per_call, Duration::from_millis(5));
        assert_eq!(options.cost.per_instance, Duration::from_micros(100));
        assert!(options.cost.serial);
        Ok(())
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        for line in ["--port 70000", "--cost-ms -1", "--cost-ms nan", "--port", "--prot 1"] {
            let flag = line.split_whitespace().next().unwrap_or_default();
            assert!(parse(line).is_err_and(|reason| reason.contains(flag)), "{line}");
        }
    }
}
