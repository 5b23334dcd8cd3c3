//! The flags as argh declares them, one struct per group of `--help` (SPEC F).
//!
//! The doc comment of a struct is the group's title and that of a field the flag's meaning; both are shown to users.
//! A switch is a Go boolean, a `Vec` appends, every other flag is text that `settings` checks.

use super::forms::Given;
use super::report::{Report, not_allowed};
use super::value;
use argh::{ArgsInfo, FlagInfo, FlagInfoKind, FromArgs, Optionality};

/// Every flag's text, defaults filled in.
pub(super) struct Flags {
    pub(super) proxy: ProxyFlags,
    pub(super) batcher: BatcherFlags,
    pub(super) logger: LoggerFlags,
    pub(super) store: StoreFlags,
    pub(super) puller: PullerFlags,
    pub(super) probe: ProbeFlags,
    pub(super) operations: OperationsFlags,
}

impl Flags {
    /// Runs argh over what was given; a boolean that is not one is reported and taken as off.
    pub(super) fn from_given(given: &Given, report: &mut Report) -> Option<Self> {
        Some(Self {
            proxy: group(given, report)?,
            batcher: group(given, report)?,
            logger: group(given, report)?,
            store: group(given, report)?,
            puller: group(given, report)?,
            probe: group(given, report)?,
            operations: group(given, report)?,
        })
    }
}

/// A titled part of `--help`.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) flags: Vec<Flag>,
}

/// One flag as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag {
    /// Without dashes.
    pub(super) name: &'static str,
    /// How it takes values.
    pub(super) kind: Kind,
    /// One line.
    pub(super) meaning: &'static str,
    /// As text; empty for lists and for what is off when empty.
    pub(super) default: &'static str,
}

/// How a flag takes values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A Go boolean: alone it means true.
    Switch,
    /// One value, the last wins.
    Value,
    /// Values that append.
    List,
}

/// Every group, in the order of `--help`.
pub(super) fn groups() -> [Group; 7] {
    [
        described::<ProxyFlags>(),
        described::<BatcherFlags>(),
        described::<LoggerFlags>(),
        described::<StoreFlags>(),
        described::<PullerFlags>(),
        described::<ProbeFlags>(),
        described::<OperationsFlags>(),
    ]
}

fn described<T: ArgsInfo>() -> Group {
    let info = T::get_args_info();
    // argh lists its own `--help` with every struct; here it belongs to the program as a whole.
    let own = info.flags.iter().filter(|flag| flag.long != "--help");
    Group { title: info.description.trim(), flags: own.map(Flag::from_info).collect() }
}

impl Flag {
    fn from_info(info: &FlagInfo<'static>) -> Self {
        let name = info.long.trim_start_matches('-');
        let kind = match (&info.kind, &info.optionality) {
            (FlagInfoKind::Switch, _) => Kind::Switch,
            (_, Optionality::Repeating) => Kind::List,
            _ => Kind::Value,
        };
        let listed = DEFAULTS.iter().find(|(flag, _)| *flag == name);
        let default = match kind {
            Kind::Switch => "false",
            _ => listed.map_or("", |(_, text)| text),
        };
        Self { name, kind, meaning: info.description.trim(), default }
    }
}

/// Gives argh the flags of one group, each in the one form that it takes.
fn group<T: FromArgs + ArgsInfo>(given: &Given, report: &mut Report) -> Option<T> {
    let mut argv: Vec<String> = Vec::new();
    for flag in described::<T>().flags {
        let option = format!("--{}", flag.name);
        match flag.kind {
            Kind::Switch => {
                let text = given.last(flag.name).unwrap_or(flag.default);
                match value::boolean(text) {
                    Some(true) => argv.push(option),
                    Some(false) => {}
                    None => report.usage_error(not_allowed(&option, text, value::BOOLEANS)),
                }
            }
            Kind::Value => {
                argv.extend([option, given.last(flag.name).unwrap_or(flag.default).to_owned()]);
            }
            Kind::List => {
                let pairs = given.all(flag.name).iter();
                argv.extend(pairs.flat_map(|text| [option.clone(), text.clone()]));
            }
        }
    }
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    T::from_args(&[env!("CARGO_PKG_NAME")], &argv)
        .map_err(|exit| report.usage_error(exit.output.trim().replace('\n', " ")))
        .ok()
}

/// Proxy
#[derive(FromArgs, ArgsInfo)]
pub(super) struct ProxyFlags {
    /// port the agent listens on, all interfaces, IPv4 and IPv6
    #[argh(option)]
    pub(super) port: String,
    /// port of the model server on 127.0.0.1
    #[argh(option)]
    pub(super) component_port: String,
    /// proxy worker threads; 0: the processors this process may use, at most 4
    #[argh(option)]
    pub(super) threads: String,
    /// keep each worker on one processor: auto (when the process has whole processors of its own), on or off
    #[argh(option)]
    pub(super) pin: String,
    /// client connections at most; 0: what RLIMIT_NOFILE allows
    #[argh(option)]
    pub(super) max_connections: String,
    /// wait for the first byte of a response; 0: no limit
    #[argh(option)]
    pub(super) upstream_timeout: String,
    /// longest pause of a request's body, or of a client that takes its response; over this time both move 240 bytes/s
    #[argh(option)]
    pub(super) request_body_timeout: String,
}

/// Batcher
#[derive(FromArgs, ArgsInfo)]
pub(super) struct BatcherFlags {
    /// turn the request batcher on
    #[argh(switch)]
    pub(super) enable_batcher: bool,
    /// instances in one batch at most
    #[argh(option)]
    pub(super) max_batchsize: String,
    /// milliseconds a request may wait for its batch to fill
    #[argh(option)]
    pub(super) max_latency: String,
    /// when a batch leaves: window (full, or waited long enough), eager (at once) or adaptive
    #[argh(option)]
    pub(super) batch_policy: String,
    /// batches in flight at most; 0: the policy's own number
    #[argh(option)]
    pub(super) batch_concurrency: String,
    /// requests that may wait in the batcher; beyond it 503
    #[argh(option)]
    pub(super) batch_queue: String,
    /// request headers that must be equal inside one batch; comma-separated
    #[argh(option)]
    pub(super) batch_key_headers: String,
}

/// Payload logger
#[derive(FromArgs, ArgsInfo)]
pub(super) struct LoggerFlags {
    /// where payload events go: http(s)://... CloudEvents, s3:// gs:// abfs:// object store; empty: no payload log
    #[argh(option)]
    pub(super) log_url: String,
    /// payload delivery threads
    #[argh(option)]
    pub(super) workers: String,
    /// source of the CloudEvents; empty: http://localhost:PORT/
    #[argh(option)]
    pub(super) source_uri: String,
    /// what is logged: all, request or response
    #[argh(option)]
    pub(super) log_mode: String,
    /// name of the InferenceService, copied into events
    #[argh(option)]
    pub(super) inference_service: String,
    /// namespace, copied into events
    #[argh(option)]
    pub(super) namespace: String,
    /// endpoint, copied into events
    #[argh(option)]
    pub(super) endpoint: String,
    /// component (predictor, transformer, explainer), copied into events
    #[argh(option)]
    pub(super) component: String,
    /// request headers to copy into events; comma-separated, may be repeated
    #[argh(option)]
    pub(super) metadata_headers: Vec<String>,
    /// list of k=v to copy into events; comma-separated, may be repeated
    #[argh(option)]
    pub(super) metadata_annotations: Vec<String>,
    /// file under /etc/tls/logger that https log sinks are verified against
    #[argh(option)]
    pub(super) logger_ca_cert_file: String,
    /// skip that verification
    #[argh(switch)]
    pub(super) logger_tls_skip_verify: bool,
    /// also log responses whose status is not 200
    #[argh(switch)]
    pub(super) log_all_responses: bool,
    /// limit of one delivery attempt, name lookup included
    #[argh(option)]
    pub(super) log_client_timeout: String,
    /// how long an event is retried; 0: for ever; default: 5m, for ever with --log-spool-dir
    #[argh(option)]
    pub(super) log_retry_for: String,
    /// file of "Name: value" lines sent to the sink (a mounted Secret), read again when it changes
    #[argh(option)]
    pub(super) log_headers_file: String,
    /// bytes of events that may wait for delivery
    #[argh(option)]
    pub(super) log_queue_bytes: String,
    /// when that many wait: drop (count, never slow a request) or block (make the request wait)
    #[argh(option)]
    pub(super) log_when_full: String,
    /// folder for an on-disk queue that survives a restart; empty: memory only
    #[argh(option)]
    pub(super) log_spool_dir: String,
    /// bytes that the spool folder may hold
    #[argh(option)]
    pub(super) log_spool_bytes: String,
    /// share of requests logged, over 0 and up to 1
    #[argh(option)]
    pub(super) log_sample: String,
}

/// Object storage
#[derive(FromArgs, ArgsInfo)]
pub(super) struct StoreFlags {
    /// path inside the bucket; object storage is active only when it is set
    #[argh(option)]
    pub(super) log_store_path: String,
    /// format of an object: json, csv or parquet
    #[argh(option)]
    pub(super) log_store_format: String,
    /// who turns records into a file; the default is done in process
    #[argh(option)]
    pub(super) log_marshaller_url: String,
    /// accepted, unused: no marshaller service is started
    #[argh(option)]
    pub(super) log_marshaller_port: String,
    /// records per stored object
    #[argh(option)]
    pub(super) log_batch_size: String,
    /// longest wait before a partial object is stored (500ms, 1m30s); 0: no limit
    #[argh(option)]
    pub(super) log_batch_interval: String,
}

/// Model puller
#[derive(FromArgs, ArgsInfo)]
pub(super) struct PullerFlags {
    /// turn the model puller on
    #[argh(switch)]
    pub(super) enable_puller: bool,
    /// folder with models.json
    #[argh(option)]
    pub(super) config_dir: String,
    /// folder that models are pulled into
    #[argh(option)]
    pub(super) model_dir: String,
    /// the one folder below which file:// and pvc:// models may lie
    #[argh(option)]
    pub(super) model_source_dir: String,
    /// a model's old version: keep it until the new one is whole, replace it, or auto: keep where there is room for both
    #[argh(option)]
    pub(super) model_update: String,
    /// longest answer of the server to a load
    #[argh(option)]
    pub(super) model_load_timeout: String,
}

/// Probes and drain
#[derive(FromArgs, ArgsInfo)]
pub(super) struct ProbeFlags {
    /// accepted for the sake of old manifests, unused
    #[argh(option)]
    pub(super) probe_period: String,
    /// time without a proxied request before the agent shuts down
    #[argh(option)]
    pub(super) drain_period: String,
}

/// Operations
#[derive(FromArgs, ArgsInfo)]
pub(super) struct OperationsFlags {
    /// port of the Prometheus metrics; 0 turns them off
    #[argh(option)]
    pub(super) metrics_port: String,
    /// port of the status page, loopback only; 0 turns it off
    #[argh(option)]
    pub(super) admin_port: String,
    /// the agent's own messages, to standard error: error, warn, info, debug or trace
    #[argh(option)]
    pub(super) log_level: String,
}

/// Defaults that are not empty; argh has no way to show them, so `--help` and the values come from here.
const DEFAULTS: [(&str, &str); 36] = [
    ("port", "9081"),
    ("component-port", "8080"),
    ("threads", "0"),
    ("pin", "auto"),
    ("max-connections", "0"),
    ("upstream-timeout", "0s"),
    ("request-body-timeout", "60s"),
    ("max-batchsize", "32"),
    ("max-latency", "5000"),
    ("batch-policy", "window"),
    ("batch-concurrency", "0"),
    ("batch-queue", "10000"),
    ("batch-key-headers", "authorization,cookie"),
    ("workers", "5"),
    ("log-mode", "all"),
    ("logger-ca-cert-file", "service-ca.crt"),
    ("log-client-timeout", "10s"),
    ("log-queue-bytes", "67108864"),
    ("log-when-full", "drop"),
    ("log-spool-bytes", "1073741824"),
    ("log-sample", "1.0"),
    ("log-store-format", "json"),
    ("log-marshaller-url", "http://localhost:9083/marshal"),
    ("log-marshaller-port", "9083"),
    ("log-batch-size", "1"),
    ("log-batch-interval", "0"),
    ("config-dir", "/mnt/configs"),
    ("model-dir", "/mnt/models"),
    ("model-source-dir", "/mnt/pvc"),
    ("model-update", "auto"),
    ("model-load-timeout", "10m"),
    ("probe-period", "-1"),
    ("drain-period", "20s"),
    ("metrics-port", "9089"),
    ("admin-port", "9090"),
    ("log-level", "info"),
];
