//! The flag table of SPEC F, kept here line by line: each flag is read, shown and has its default.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use super::tests::{run, run_with_warnings, usage};
use super::{flags, help};
use crate::config::{
    BatchPolicy, BatcherConfig, Config, ContainerProbe, LogMode, LoggerConfig, ModelUpdate, Pin, ProxyConfig,
    PullerConfig, StoreConfig, StoreFormat, WhenFull,
};
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

const TABLE: [(&str, &str); 52] = [
    ("port", "9081"),
    ("component-port", "8080"),
    ("enable-batcher", "false"),
    ("max-batchsize", "32"),
    ("max-latency", "5000"),
    ("enable-puller", "false"),
    ("config-dir", "/mnt/configs"),
    ("model-dir", "/mnt/models"),
    ("model-source-dir", "/mnt/pvc"),
    ("model-update", "auto"),
    ("model-load-timeout", "10m"),
    ("log-url", ""),
    ("workers", "5"),
    ("source-uri", ""),
    ("log-mode", "all"),
    ("log-store-path", ""),
    ("log-store-format", "json"),
    ("log-marshaller-url", "http://localhost:9083/marshal"),
    ("log-marshaller-port", "9083"),
    ("log-batch-size", "1"),
    ("log-batch-interval", "0"),
    ("inference-service", ""),
    ("namespace", ""),
    ("endpoint", ""),
    ("component", ""),
    ("metadata-headers", ""),
    ("metadata-annotations", ""),
    ("logger-ca-cert-file", "service-ca.crt"),
    ("logger-tls-skip-verify", "false"),
    ("probe-period", "-1"),
    ("metrics-port", "9089"),
    ("admin-port", "9090"),
    ("log-all-responses", "false"),
    ("log-client-timeout", "10s"),
    ("log-retry-for", ""),
    ("log-headers-file", ""),
    ("log-spool-bytes", "1073741824"),
    ("log-queue-bytes", "67108864"),
    ("log-when-full", "drop"),
    ("log-spool-dir", ""),
    ("log-sample", "1.0"),
    ("batch-policy", "window"),
    ("batch-concurrency", "0"),
    ("batch-queue", "10000"),
    ("batch-key-headers", "authorization,cookie"),
    ("threads", "0"),
    ("pin", "auto"),
    ("max-connections", "0"),
    ("upstream-timeout", "0s"),
    ("request-body-timeout", "60s"),
    ("drain-period", "20s"),
    ("log-level", "info"),
];

#[test]
fn the_declared_flags_are_those_of_the_table() {
    let mut declared: Vec<(&str, &str)> =
        flags::groups().iter().flat_map(|group| &group.flags).map(|flag| (flag.name, flag.default)).collect();
    let mut table = TABLE.to_vec();
    declared.sort_unstable();
    table.sort_unstable();
    assert_eq!(declared, table);
}

#[test]
fn help_shows_every_flag_with_its_default() {
    let help = help::help();
    for (name, default) in TABLE {
        let flag = format!("  --{name} ");
        let Some(line) = help.lines().find(|line| line.starts_with(&flag)) else {
            panic!("{name} is missing in\n{help}")
        };
        let default = if default.is_empty() { "\"\"" } else { default };
        assert!(line.ends_with(&format!("[default: {default}]")), "{line}");
    }
}

/// Everything on, so that every flag shows in the configuration.
const ALL_ON: [&str; 4] = ["--enable-batcher", "--enable-puller", "--log-url=s3://b", "--log-store-path=p"];

#[test]
fn giving_a_default_is_like_giving_nothing() {
    let expected = run(&ALL_ON);
    for (name, default) in TABLE {
        let flag = format!("--{name}={default}");
        let separate = [&format!("--{name}"), default];
        // Ahead of what turns everything on: the last one wins.
        assert_eq!(run(&[&[flag.as_str()], &ALL_ON[..]].concat()), expected, "{flag}");
        if default != "false" {
            assert_eq!(run(&[&separate[..], &ALL_ON[..]].concat()), expected, "{separate:?}");
        }
    }
}

#[test]
fn a_flag_without_its_value_is_named() {
    for (name, default) in TABLE {
        let flag = format!("--{name}");
        if default == "false" {
            run_with_warnings(&[&flag]);
        } else {
            let line = format!("{flag}: no value is not allowed: {flag} value or {flag}=value");
            assert_eq!(usage(&[&flag]), (vec![line], 2));
        }
    }
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}

fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}

#[test]
fn no_flags_at_all_make_a_plain_proxy() {
    let expected = Config {
        port: port(9081),
        component_port: port(8080),
        metrics_port: Some(port(9089)),
        admin_port: Some(port(9090)),
        proxy: ProxyConfig {
            threads: None,
            pin: Pin::Auto,
            max_connections: None,
            upstream_timeout: None,
            body_timeout: Duration::from_secs(60),
            drain_period: Duration::from_secs(20),
        },
        probe: ContainerProbe::AlwaysReady,
        batcher: None,
        logger: None,
        puller: None,
        log_level: log::LevelFilter::Info,
    };
    assert_eq!(run_with_warnings(&[]), (expected, vec![]));
}

#[test]
fn what_is_turned_on_has_the_defaults_of_the_table() {
    let config = run(&ALL_ON);
    let batcher = BatcherConfig {
        max_batch_size: count(32),
        max_latency: Duration::from_secs(5),
        policy: BatchPolicy::Window,
        concurrency: None,
        queue: count(10_000),
        key_headers: vec!["authorization".into(), "cookie".into()],
    };
    assert_eq!(config.batcher, Some(batcher));
    let puller = PullerConfig {
        config_dir: "/mnt/configs".into(),
        model_dir: "/mnt/models".into(),
        source_dir: "/mnt/pvc".into(),
        update: ModelUpdate::Auto,
        load_timeout: Duration::from_secs(600),
    };
    assert_eq!(config.puller, Some(puller));
    let store = StoreConfig {
        path: "p".into(),
        format: Some(StoreFormat::Json),
        batch_size: count(1),
        batch_interval: None,
        marshaller_url: "http://localhost:9083/marshal".into(),
    };
    let logger = LoggerConfig {
        url: "s3://b".into(),
        workers: count(5),
        source_uri: "http://localhost:9081/".into(),
        mode: LogMode::All,
        store: Some(store),
        inference_service: String::new(),
        namespace: String::new(),
        endpoint: String::new(),
        component: String::new(),
        metadata_headers: vec![],
        metadata_annotations: vec![],
        ca_cert_file: "/etc/tls/logger/service-ca.crt".into(),
        tls_skip_verify: false,
        all_responses: false,
        client_timeout: Duration::from_secs(10),
        retry_for: Some(Duration::from_secs(300)),
        headers_file: None,
        queue_bytes: count(64 << 20),
        when_full: WhenFull::Drop,
        spool_dir: None,
        spool_bytes: 1 << 30,
        sample: 1.0,
    };
    assert_eq!(config.logger, Some(logger));
}
