//! The shape of the source, which no compiler checks: who may use whom, how long a file is, what is documented.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the crate, top to bottom; `ops` and `proxy` do not know each other's threads.
const LAYERS: [&str; 11] =
    ["agent", "cli", "proxy", "batcher", "puller", "logger", "storage", "fault", "ops", "http1", "config"];
/// Modules of the proxy, top to bottom. Those on one line are parts of one `impl` and may use each other.
const PROXY: [&[&str]; 10] = [
    &["worker"],
    &["inbox", "listener"],
    &[
        "receive", "relay", "resend", "tunnel", "closing", "waiting", "batch", "parked", "operator", "admit",
        "account", "plane", "pool",
    ],
    &["connection"],
    &["collect"],
    &["batch_heads"],
    &["exchange"],
    &["headers", "ends"],
    &["metrics"],
    &["socket", "buffer", "timers", "load"],
];
const FILE_LINES: usize = 400;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(path.to_str().unwrap()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// The code before the tests, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]").filter(|line| !line.trim_start().starts_with("//"))
}

fn layer_of(path: &Path, layers: &[&[&str]]) -> Option<usize> {
    let names: Vec<&str> = path.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")).collect();
    layers.iter().position(|layer| layer.iter().any(|module| names.contains(module)))
}

#[test]
fn a_module_uses_only_those_below_it() {
    let layers: Vec<&[&str]> = LAYERS.iter().map(std::slice::from_ref).collect();
    for (path, text) in sources("src") {
        let Some(own) = layer_of(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap(), &layers) else { continue };
        for (above, name) in LAYERS.iter().enumerate().take(own) {
            let used = code(&text).find(|line| line.contains(&format!("crate::{name}::")));
            assert!(used.is_none(), "{} (layer {own}) uses {name} (layer {above}): {used:?}", path.display());
        }
    }
}

#[test]
fn a_module_of_the_proxy_uses_only_those_below_it() {
    for (path, text) in sources("src/proxy") {
        let Some(own) = layer_of(Path::new(path.file_name().unwrap()), &PROXY) else { continue };
        for name in PROXY.iter().take(own).flat_map(|layer| layer.iter()) {
            let used = code(&text).find(|line| line.contains(&format!("super::{name}::")));
            assert!(used.is_none(), "{} uses {name}: {used:?}", path.display());
        }
    }
}

/// What a pure layer never names.
const IMPURE: [&str; 7] = ["mio::", "std::net::Tcp", "socket2::", "SystemTime", "thread::", "log::", "crossbeam"];
/// Pure modules of the folder: no socket, clock, thread or log.
const PURE: [(&str, &[&str]); 4] = [
    ("src/proxy", &["exchange", "headers", "collect", "batch_heads"]),
    ("src/puller/fetch", &["plan", "record", "patience"]),
    (
        "src/batcher",
        &[
            "queue", "due", "again", "divide", "pace", "json", "runs", "v1", "v2", "v2_walk", "v2_data", "key",
            "fields", "request", "answer",
        ],
    ),
    ("src/logger", &["record", "key", "time", "url", "columns", "json", "csv", "parquet", "thrift", "batches"]),
];
/// Those of them that are told the time; none asks for it.
const TIMED: [&str; 6] = ["queue", "due", "again", "pace", "request", "batches"];

#[test]
fn the_pure_layers_know_no_socket_clock_thread_or_log() {
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let chosen = PURE.into_iter().flat_map(|(folder, names)| {
        sources(folder).into_iter().filter(move |(path, _)| names.contains(&stem(path).as_str()))
    });
    for (path, text) in sources("src/http1").into_iter().chain(chosen) {
        let clock = if TIMED.contains(&stem(&path).as_str()) { "Instant::now" } else { "Instant" };
        for word in IMPURE.into_iter().chain([clock]) {
            let used = code(&text).find(|line| line.contains(word));
            assert!(used.is_none(), "{} uses {word}: {used:?}", path.display());
        }
    }
}

#[test]
fn no_file_is_long() {
    for folder in ["src", "tests", "examples", "benches"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= FILE_LINES, "{}: {lines} lines", path.display());
        }
    }
}

#[test]
fn every_flag_is_in_the_readme() {
    let readme = readme();
    let kserve_agent::cli::Outcome::Print(help) = kserve_agent::cli::parse(&["--help".to_owned()], &|_| None) else {
        panic!("--help prints");
    };
    let flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| word.starts_with("--"))
        .collect();
    assert!(flags.len() > 40, "{flags:?}");
    for flag in flags {
        assert!(readme.contains(&format!("| `{flag}` |")), "{flag} is not in the README's table");
    }
}

/// Variables are known by their shape: a string of capitals with an underscore; cargo's are of the build.
#[test]
fn every_environment_variable_is_in_the_readme() {
    let readme = readme();
    let table = readme.split("| variable | meaning |").nth(1).unwrap().split("\n\n").next().unwrap();
    let is_capital = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let is_variable = |word: &str| word.contains('_') && !word.starts_with("CARGO_") && word.bytes().all(is_capital);
    let mut read = Vec::new();
    let proxies = sources("src/ops").into_iter().filter(|(path, _)| path.ends_with("proxy.rs"));
    let readers = ["src/cli", "src/storage", "src/puller"].into_iter().flat_map(sources).chain(proxies);
    // What only a test has is no variable of the agent.
    let is_of_tests = |path: &Path| ["tests.rs", "injected.rs"].iter().any(|end| path.to_str().unwrap().ends_with(end));
    for (_, text) in readers.filter(|(path, _)| !is_of_tests(path)) {
        let strings = code(&text).flat_map(|line| line.split('"').skip(1).step_by(2));
        read.extend(strings.filter(|word| is_variable(word)).map(str::to_owned));
    }
    assert!(read.len() >= 30, "{read:?}");
    for name in &read {
        assert!(table.contains(&format!("`{name}`")), "{name} is not in the README's table");
    }
    for name in table.split('`').skip(1).step_by(2).filter(|word| is_variable(word)) {
        assert!(read.iter().any(|known| known == name), "{name} is in the README's table and nowhere read");
    }
}

#[test]
fn every_exit_status_is_in_the_readme() {
    let readme = readme();
    let table = readme.split("| exit status | meaning |").nth(1).unwrap().split("\n\n").next().unwrap();
    for status in ["0", "1", "2"] {
        assert!(table.contains(&format!("\n| {status} | ")), "exit status {status} is not in the README's table");
    }
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

#[test]
fn every_limit_is_in_the_readme() {
    let readme = readme();
    for status in ["400", "408", "414", "417", "431", "501", "502", "503", "504", "505"] {
        assert!(readme.contains(&format!("| {status} |")), "status {status} is not in the README's table of limits");
    }
}
