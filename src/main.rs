//! The program: read the command line, start the log, serve, exit.

mod stderr;

use std::io::Write as _;
use std::process::ExitCode;

use kserve_agent::agent;
use kserve_agent::cli::{self, Outcome};
use kserve_agent::config::Config;
use simplelog::{ConfigBuilder, WriteLogger};

fn main() -> ExitCode {
    // What is not UTF-8 is no value of any flag or variable, so it is refused with the rest.
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    match cli::parse(&args, &|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())) {
        Outcome::Run { config, warnings } => serve(&config, &warnings),
        Outcome::Print(text) => print(&text),
        Outcome::Usage { errors, warnings, exit_code } => complain(&errors, &warnings, exit_code),
    }
}

fn serve(config: &Config, warnings: &[String]) -> ExitCode {
    start_log(config.log_level);
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    match agent::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The agent's own messages go to standard error with RFC 3339 UTC times (SPEC O3).
fn start_log(level: log::LevelFilter) {
    let format = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_target_level(log::LevelFilter::Off)
        .set_location_level(log::LevelFilter::Off)
        .set_thread_level(log::LevelFilter::Off)
        .add_filter_allow_str("kserve_agent")
        .build();
    // It fails only if there is a log already.
    let _ = WriteLogger::init(level, format, stderr::lines());
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[expect(clippy::print_stderr, reason = "there is no log before there is a configuration")]
fn complain(errors: &[String], warnings: &[String], exit_code: u8) -> ExitCode {
    for line in warnings.iter().chain(errors) {
        eprintln!("kserve-agent: {line}");
    }
    ExitCode::from(exit_code)
}
