//! Every flag's text turned into the types of [`Config`], all errors collected.
//!
//! Each function first checks all it is responsible for and only then uses `?`, so that one bad value hides no other.
//! Flags of a part that is off are checked too: a typo shows before it is needed.

use super::flags::{BatcherFlags, Flags, OperationsFlags, ProbeFlags, ProxyFlags, PullerFlags};
use super::forms::Given;
use super::ports::{self, Claim, Wanted};
use super::report::Report;
use super::value::{self, count, count_or_default, word};
use super::{csv, duration, environment, logger, probe};
use crate::config::{
    BATCH_CONCURRENCY_MAX, BatchPolicy, BatcherConfig, CONNECTIONS_MAX, COUNT_MAX, Config, ModelUpdate, Pin,
    ProxyConfig, PullerConfig, THREADS_MAX,
};
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

/// The whole configuration, or `None` once an error was reported.
pub(super) fn config(
    flags: &Flags,
    given: &Given,
    env: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Option<Config> {
    let port = report.runtime("--port", &flags.proxy.port, value::port);
    let component = report.usage("--component-port", &flags.proxy.component_port, value::port);
    let proxy = proxy(&flags.proxy, &flags.probe, report);
    let batcher = batcher(&flags.batcher, report);
    let logger = logger::logger(&flags.logger, &flags.store, port, report);
    let puller = puller(&flags.puller, report);
    let needed = [needed("--port", port), needed("--component-port", component)];
    let queue_proxy = environment::queue_proxy_port(env);
    let [metrics_port, admin_port] = extra_ports(&flags.operations, given, needed, queue_proxy, report);
    let log_level = environment::log_level(&flags.operations.log_level, given, env, report);
    environment::check(env, report);
    let probe = probe::container_probe(env, component, report);
    Some(Config {
        port: port?,
        component_port: component?,
        metrics_port,
        admin_port,
        proxy: proxy?,
        probe: probe?,
        batcher: batcher?,
        logger: logger?,
        puller: puller?,
        log_level: log_level?,
    })
}

fn proxy(flags: &ProxyFlags, probe: &ProbeFlags, report: &mut Report) -> Option<ProxyConfig> {
    let threads = report.usage("--threads", &flags.threads, count_or_default("threads", THREADS_MAX));
    let pins = [("auto", Pin::Auto), ("on", Pin::On), ("off", Pin::Off)];
    let pin = report.usage("--pin", &flags.pin, word(&pins));
    let connections = count_or_default("connections", CONNECTIONS_MAX);
    let max_connections = report.usage("--max-connections", &flags.max_connections, connections);
    let upstream_timeout = report.usage("--upstream-timeout", &flags.upstream_timeout, duration::limit);
    let body_timeout = report.usage("--request-body-timeout", &flags.request_body_timeout, duration::wait);
    let drain_period = report.usage("--drain-period", &probe.drain_period, duration::period);
    // Not used, as in the Go agent, but a typo in it stops that one as well.
    report.usage("--probe-period", &probe.probe_period, duration::probe_period);
    Some(ProxyConfig {
        threads: threads?,
        pin: pin?,
        max_connections: max_connections?,
        upstream_timeout: upstream_timeout?,
        body_timeout: body_timeout?,
        drain_period: drain_period?,
    })
}

/// The batcher, or `Some(None)` when it is off.
fn batcher(flags: &BatcherFlags, report: &mut Report) -> Option<Option<BatcherConfig>> {
    let instances = count("instances", COUNT_MAX);
    let max_batch_size = report.runtime("--max-batchsize", &flags.max_batchsize, instances);
    let max_latency = report.runtime("--max-latency", &flags.max_latency, milliseconds);
    let policies =
        [("window", BatchPolicy::Window), ("eager", BatchPolicy::Eager), ("adaptive", BatchPolicy::Adaptive)];
    let policy = report.usage("--batch-policy", &flags.batch_policy, word(&policies));
    let batches = count_or_default("batches", BATCH_CONCURRENCY_MAX);
    let concurrency = report.usage("--batch-concurrency", &flags.batch_concurrency, batches);
    let requests = count("requests", CONNECTIONS_MAX);
    let queue = report.usage("--batch-queue", &flags.batch_queue, requests);
    let key_headers = report.usage("--batch-key-headers", &flags.batch_key_headers, lowercase_headers);
    let config = BatcherConfig {
        max_batch_size: max_batch_size?,
        max_latency: max_latency?,
        policy: policy?,
        concurrency: concurrency?,
        queue: queue?,
        key_headers: key_headers?,
    };
    Some(flags.enable_batcher.then_some(config))
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let number: NonZeroUsize = count("milliseconds", COUNT_MAX)(text)?;
    Ok(Duration::from_millis(number.get() as u64))
}

fn lowercase_headers(text: &str) -> Result<Vec<String>, String> {
    let names = csv::split(text)?;
    if !names.iter().all(|name| value::is_token(name)) {
        return Err("a comma-separated list of header names".to_owned());
    }
    Ok(names.iter().map(|name| name.to_ascii_lowercase()).collect())
}

/// The puller, or `Some(None)` when it is off.
fn puller(flags: &PullerFlags, report: &mut Report) -> Option<Option<PullerConfig>> {
    let config_dir = report.usage("--config-dir", &flags.config_dir, value::path);
    let model_dir = report.usage("--model-dir", &flags.model_dir, value::path);
    let source_dir = report.usage("--model-source-dir", &flags.model_source_dir, value::path);
    let updates = [("auto", ModelUpdate::Auto), ("keep", ModelUpdate::Keep), ("replace", ModelUpdate::Replace)];
    let update = report.usage("--model-update", &flags.model_update, word(&updates));
    let load_timeout = report.usage("--model-load-timeout", &flags.model_load_timeout, duration::wait);
    let config = PullerConfig {
        config_dir: config_dir?,
        model_dir: model_dir?,
        source_dir: source_dir?,
        update: update?,
        load_timeout: load_timeout?,
    };
    Some(flags.enable_puller.then_some(config))
}

fn needed(flag: &'static str, port: Option<NonZeroU16>) -> Wanted {
    Wanted { flag, port, claim: Claim::Needed }
}

/// The ports of metrics and status page, `None` where they are off, or wrong and reported.
fn extra_ports(
    flags: &OperationsFlags,
    given: &Given,
    [port, component]: [Wanted; 2],
    queue_proxy: Option<NonZeroU16>,
    report: &mut Report,
) -> [Option<NonZeroU16>; 2] {
    let claim = |name| {
        if given.has(name) { Claim::Asked } else { Claim::Spare }
    };
    let metrics = Wanted {
        flag: "--metrics-port",
        port: report.usage("--metrics-port", &flags.metrics_port, value::port_or_off).flatten(),
        claim: claim("metrics-port"),
    };
    let admin = Wanted {
        flag: "--admin-port",
        port: report.usage("--admin-port", &flags.admin_port, value::port_or_off).flatten(),
        claim: claim("admin-port"),
    };
    let queue_proxy = needed("queue-proxy", queue_proxy);
    let [.., metrics, admin] = ports::settle([queue_proxy, port, component, metrics, admin], report);
    [metrics, admin]
}
