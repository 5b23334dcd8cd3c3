//! The command line of the real program: streams, exit codes, and that nothing starts on a bad one (SPEC F4, F5, O4).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::process::{Command, Output};

/// Runs the program to its end with nothing but this environment.
fn agent(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kserve-agent")).args(args).env_clear().envs(env.iter().copied()).output().unwrap()
}

fn lines(stream: &[u8]) -> Vec<String> {
    String::from_utf8(stream.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn help_goes_to_standard_output_in_groups_with_defaults() {
    let output = agent(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let text = lines(&output.stdout);
    for title in ["Proxy:", "Batcher:", "Payload logger:", "Model puller:", "Operations:"] {
        assert!(text.iter().any(|line| line == title), "{title} {text:#?}");
    }
    let port = text.iter().find(|line| line.starts_with("  --port ")).unwrap();
    assert!(port.ends_with("[default: 9081]"), "{port}");
}

#[test]
fn version_goes_to_standard_output() {
    let output = agent(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let text = lines(&output.stdout);
    assert_eq!(text.len(), 1);
    assert!(text[0].starts_with(concat!("kserve-agent ", env!("CARGO_PKG_VERSION"), " ")));
}

#[test]
fn all_bad_values_are_reported_at_once_and_nothing_else_is_printed() {
    let args = ["--port=70000", "--max-batchsize", "0", "--pin=maybe", "--log-sample=2"];
    let output = agent(&args, &[("USER_PORT", "x")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let text = lines(&output.stderr);
    for part in [
        "--port: \"70000\" is not allowed: a port from 1 to 65535",
        "--max-batchsize: \"0\"",
        "--pin: \"maybe\"",
        "--log-sample: \"2\"",
        "USER_PORT: \"x\"",
    ] {
        assert_eq!(text.iter().filter(|line| line.contains(part)).count(), 1, "{part} {text:#?}");
    }
    assert_eq!(text.len(), 5, "{text:#?}");
}

#[test]
fn values_that_the_go_agent_exits_1_on_exit_1() {
    for args in [["--port=0"], ["--max-batchsize=abc"], ["--max-latency=0"]] {
        let output = agent(&args, &[]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty());
        assert_eq!(lines(&output.stderr).len(), 1, "{args:?}");
    }
}

#[test]
fn nothing_is_bound_before_the_whole_configuration_is_valid() {
    // Taken: an agent that bound first would fail on the port, with another line than this one.
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = agent(&["--port", &port, "--workers=0"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let text = lines(&output.stderr);
    assert!(text.len() == 1 && text[0].contains("--workers: \"0\""), "{text:#?}");
}

#[test]
fn a_malformed_probe_exits_1_with_the_reason() {
    let output = agent(&[], &[("SERVING_READINESS_PROBE", "{\"httpGet\":")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = lines(&output.stderr);
    assert!(text.len() == 1 && text[0].contains("SERVING_READINESS_PROBE: "), "{text:#?}");
    assert!(text[0].contains("EOF"), "{text:#?}");
}

#[test]
fn an_argument_that_is_not_text_is_no_panic() {
    use std::os::unix::ffi::OsStrExt;
    let port = std::ffi::OsStr::from_bytes(b"--port=\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_kserve-agent")).arg(port).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = lines(&output.stderr);
    assert!(text.len() == 1 && text[0].contains("--port"), "{text:#?}");
}

#[test]
fn help_into_a_closed_pipe_is_no_panic() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut help = Command::new(env!("CARGO_BIN_EXE_kserve-agent"));
    let output = help.arg("--help").env_clear().stdout(full).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(1), &b""[..]));
}
