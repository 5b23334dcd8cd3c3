//! Text to [`Config`]: flags and environment in, a whole valid configuration out, or every error at once (SPEC F, E).
//!
//! ```text
//! args ─ forms ─> what was given ─ flags (argh) ─> text per flag ─┐
//!                                                                 ├─ settings, logger, ports ─> Config
//! env ───────────────────────────── environment, probe ───────────┘
//! ```
//!
//! [`argh`] declares the flags: name, kind, meaning and group come from its structs, and `forms` and `help` read them
//! from there. It can't take what pflag, the Go agent's flag library, takes (`--flag=value`, `--bool=false`, a flag given
//! twice, an unknown flag) and it stops at the first error. So `forms` turns those spellings into the one that argh takes,
//! argh hands every value on as text, and `settings` turns text into types, collecting the errors.
//!
//! Numbers are decimal, with a sign if need be and leading zeros allowed. pflag's other bases (`0x1F90`, octal `010`)
//! are not taken: no manifest of the KServe controller has them, and `010` is more often a ten than an eight.
//!
//! Not here: the process's own arguments and environment (they come in), printing, logging, exiting.

mod csv;
mod duration;
mod environment;
mod flags;
mod forms;
mod help;
mod logger;
mod ports;
mod probe;
mod report;
mod settings;
mod url;
mod value;

#[cfg(test)]
mod flag_table_tests;
#[cfg(test)]
mod probe_tests;
#[cfg(test)]
mod settings_tests;
#[cfg(test)]
mod tests;

use crate::config::Config;
use flags::Flags;
use forms::Request;
use report::Report;

/// What the command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// Start with this configuration.
    Run {
        /// Whole and valid.
        config: Box<Config>,
        /// To be logged once the log is up, each one line.
        warnings: Vec<String>,
    },
    /// Print this to standard output and exit 0 (`--help`, `--version`).
    Print(String),
    /// Print these to standard error, each on a line, and exit.
    Usage {
        /// Every error; each names the flag or variable, the value and what is allowed.
        errors: Vec<String>,
        /// What was noticed besides.
        warnings: Vec<String>,
        /// 1 when every error is of a kind that the Go agent exits 1 on: `--port`, `--max-batchsize`, `--max-latency`
        /// (strings to its flag library, it finds out later) and the environment. 2 as soon as one is of another
        /// kind, or two ports are the same (SPEC F4, O4).
        exit_code: u8,
    },
}

/// Reads the command line, without the program's name, and the environment, a variable at a time.
///
/// `--help` and `--version` win over errors, as they are what one types to get out of them.
pub fn parse(args: &[String], env: &dyn Fn(&str) -> Option<String>) -> Outcome {
    let mut report = Report::default();
    let given = match forms::read(args, &mut report) {
        Request::Help => return Outcome::Print(help::help()),
        Request::Version => return Outcome::Print(help::version()),
        Request::Run(given) => given,
    };
    let config =
        Flags::from_given(&given, &mut report).and_then(|flags| settings::config(&flags, &given, env, &mut report));
    report.outcome(config)
}
