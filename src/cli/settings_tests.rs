//! Each flag's value arrives where it belongs, and ports do not clash.

#![allow(clippy::panic, reason = "a test fails by panicking")]

use super::tests::{logger, run, run_in, run_with_warnings, usage};
use crate::config::{BatchPolicy, LogMode, Pin, StoreFormat, WhenFull};
use std::num::NonZeroU16;
use std::time::Duration;

#[test]
fn flags_of_what_is_off_are_checked_and_left_out() {
    let config = run(&["--max-batchsize=7", "--config-dir=/c", "--log-mode=request"]);
    assert!(config.batcher.is_none() && config.puller.is_none() && config.logger.is_none());
    assert_eq!(usage(&["--enable-batcher=false", "--max-batchsize=0"]).1, 1);
}

#[test]
fn every_value_arrives_where_it_belongs() {
    let config = run(&[
        "--threads=3",
        "--pin=off",
        "--max-connections=+100",
        "--upstream-timeout=1m30s",
        "--request-body-timeout=5s",
        "--drain-period=0",
        "--probe-period",
        "-1",
        "--metrics-port=0",
        "--admin-port=0",
        "--log-level=trace",
        "--enable-batcher",
        "--max-batchsize=007",
        "--max-latency=20",
        "--batch-policy=adaptive",
        "--batch-concurrency=4",
        "--batch-key-headers=X-Tenant,Cookie",
    ]);
    assert_eq!(config.proxy.threads.map(Into::into), Some(3_usize));
    assert_eq!(config.proxy.pin, Pin::Off);
    assert_eq!(config.proxy.max_connections.map(Into::into), Some(100_usize));
    assert_eq!(config.proxy.upstream_timeout, Some(Duration::from_secs(90)));
    assert_eq!(config.proxy.body_timeout, Duration::from_secs(5));
    assert_eq!(config.proxy.drain_period, Duration::ZERO);
    assert_eq!((config.metrics_port, config.admin_port), (None, None));
    assert_eq!(config.log_level, log::LevelFilter::Trace);
    let batcher = config.batcher.unwrap_or_else(|| panic!("no batcher"));
    assert_eq!(batcher.max_batch_size.get(), 7);
    assert_eq!(batcher.max_latency, Duration::from_millis(20));
    assert_eq!(batcher.policy, BatchPolicy::Adaptive);
    assert_eq!(batcher.concurrency.map(Into::into), Some(4_usize));
    assert_eq!(batcher.key_headers, ["x-tenant", "cookie"]);
}

#[test]
fn the_loggers_values_arrive_where_they_belong() {
    let logger = logger(&[
        "--workers=2",
        "--log-mode=response",
        "--log-when-full=block",
        "--log-spool-dir=/spool",
        "--log-sample=0.25",
        "--log-all-responses",
        "--log-client-timeout=300ms",
        "--logger-ca-cert-file=/ca.pem",
        "--inference-service=iris ü",
        "--source-uri=pod-7",
    ]);
    assert_eq!((logger.workers.get(), logger.mode), (2, LogMode::Response));
    assert_eq!((logger.when_full, logger.sample), (WhenFull::Block, 0.25));
    assert_eq!(logger.spool_dir.as_deref(), Some("/spool".as_ref()));
    assert!(logger.all_responses);
    assert_eq!(logger.client_timeout, Duration::from_millis(300));
    assert_eq!(logger.ca_cert_file, std::path::Path::new("/etc/tls/logger/ca.pem"));
    assert_eq!(logger.inference_service, "iris ü");
    assert_eq!(logger.source_uri, "pod-7");
}

#[test]
fn the_source_follows_the_port() {
    let config = run(&["--port=7", "--log-url=http://sink"]);
    assert_eq!(config.logger.map(|l| l.source_uri), Some("http://localhost:7/".to_owned()));
}

#[test]
fn object_storage_needs_a_bucket_and_a_path() {
    let args = ["--log-url=gs://b", "--log-store-path=p", "--log-store-format=parquet"];
    let store = run(&args).logger.and_then(|logger| logger.store);
    assert_eq!(store.and_then(|store| store.format), Some(StoreFormat::Parquet));
    // Another marshaller may know the format; and a bucket without a path keeps nothing from starting.
    for args in [&["--log-url=gs://b", "--log-store-path=p", "--log-store-format=avro"][..], &["--log-url=gs://b"]] {
        let (config, warnings) = run_with_warnings(args);
        assert!(config.logger.is_some_and(|logger| logger.store.is_some()));
        assert_eq!(warnings.len(), usize::from(args.len() > 1), "{warnings:?}");
    }
    let (config, warnings) = run_with_warnings(&["--log-url=http://sink", "--log-store-path=p"]);
    assert!(config.logger.is_some_and(|logger| logger.store.is_none()));
    assert!(warnings.len() == 1 && warnings[0].contains("--log-store-path"), "{warnings:?}");
}

#[test]
fn a_port_that_would_loop_or_clash_is_an_error_that_names_both() {
    for (args, first, second) in [
        (vec!["--port=8080"], "--component-port", "--port"),
        (vec!["--component-port=9081"], "--component-port", "--port"),
        (vec!["--metrics-port=9081"], "--metrics-port", "--port"),
        (vec!["--admin-port=8080"], "--admin-port", "--component-port"),
        (vec!["--metrics-port=7", "--admin-port=7"], "--admin-port", "--metrics-port"),
    ] {
        let (errors, exit_code) = usage(&args);
        assert_eq!((errors.len(), exit_code), (1, 2), "{args:?} {errors:?}");
        assert!(errors[0].starts_with(&format!("{first}: ")), "{errors:?}");
        assert!(errors[0].ends_with(&format!("that of {second}")), "{errors:?}");
    }
}

#[test]
fn the_marshallers_port_is_of_no_account() {
    let store = ["--log-url=s3://b", "--log-store-path=p"];
    for port in ["0", "9081", "9089", "70000", "-1"] {
        let flag = format!("--log-marshaller-port={port}");
        let (config, warnings) = run_with_warnings(&[&store[..], &["--port=9083", &flag]].concat());
        let ports = [Some(config.port), config.metrics_port, config.admin_port];
        assert_eq!(ports.map(|port| port.map_or(0, NonZeroU16::get)), [9083, 9089, 9090], "{port}");
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

#[test]
fn default_ports_that_the_go_agent_does_not_have_give_way() {
    for (args, metrics, admin) in [
        (vec!["--port=9089"], 0, 9090),
        (vec!["--component-port=9090"], 9089, 0),
        (vec!["--port=9089", "--component-port=9090"], 0, 0),
        (vec!["--metrics-port=9090"], 9090, 0),
        (vec!["--admin-port=9089"], 0, 9089),
    ] {
        let (config, warnings) = run_with_warnings(&args);
        let number = |port: Option<NonZeroU16>| port.map_or(0, NonZeroU16::get);
        assert_eq!((number(config.metrics_port), number(config.admin_port)), (metrics, admin));
        let off = [metrics, admin].iter().filter(|&&port| port == 0).count();
        assert_eq!(warnings.len(), off, "{args:?} {warnings:?}");
    }
}

#[test]
fn the_status_page_gives_way_to_queue_proxy() {
    let knative = [("QUEUE_SERVING_PORT", "8012")];
    let (config, warnings) = run_in(&[], &knative);
    assert_eq!(config.admin_port, None);
    let line = "--admin-port is turned off: queue-proxy has its default port 9090";
    assert_eq!(warnings, [line]);
    let (config, warnings) = run_in(&["--admin-port=9095"], &knative);
    assert_eq!((config.admin_port.map(NonZeroU16::get), warnings.len()), (Some(9095), 0));
}
