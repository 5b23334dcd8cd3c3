//! The payload logger's flags (SPEC L).
//!
//! Names that are only copied into events are free text. `--log-url` decides between CloudEvents and an object store:
//! a bucket without `--log-store-path` is an error, since events can't be posted to it; a path without a bucket is of
//! no use and a warning, as the Go agent then posts events too.

use super::flags::{LoggerFlags, StoreFlags};
use super::report::{Report, quoted, url_not_allowed};
use super::url::{self, SinkUrl};
use super::value::{self, count, word};
use super::{csv, duration};
use crate::config::{
    COUNT_MAX, LOG_CA_CERT_DIR, LOG_QUEUE_BYTES_MAX, LOG_RETRY_FOR, LOG_SPOOL_BYTES_MAX, LOG_WORKERS_MAX, LogMode,
    LoggerConfig, StoreConfig, StoreFormat, WhenFull,
};
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The logger, or `Some(None)` when it is off.
pub(super) fn logger(
    flags: &LoggerFlags,
    store_flags: &StoreFlags,
    port: Option<NonZeroU16>,
    report: &mut Report,
) -> Option<Option<LoggerConfig>> {
    let sink = sink(flags, store_flags, report);
    let store = store(store_flags, report);
    let threads = count("threads", LOG_WORKERS_MAX);
    let workers = report.usage("--workers", &flags.workers, threads);
    let modes = [("all", LogMode::All), ("request", LogMode::Request), ("response", LogMode::Response)];
    let mode = report.usage("--log-mode", &flags.log_mode, word(&modes));
    let metadata_headers = headers(&flags.metadata_headers, report);
    let metadata_annotations = annotations(&flags.metadata_annotations, report);
    let client_timeout = report.usage("--log-client-timeout", &flags.log_client_timeout, duration::wait);
    let spool_dir = named(&flags.log_spool_dir);
    let retry_for = report.usage("--log-retry-for", &flags.log_retry_for, |text| retry_for(text, spool_dir.is_some()));
    let queue_bytes = report.usage("--log-queue-bytes", &flags.log_queue_bytes, count("bytes", LOG_QUEUE_BYTES_MAX));
    let spool_bytes = report.usage("--log-spool-bytes", &flags.log_spool_bytes, count("bytes", LOG_SPOOL_BYTES_MAX));
    let choices = [("drop", WhenFull::Drop), ("block", WhenFull::Block)];
    let when_full = report.usage("--log-when-full", &flags.log_when_full, word(&choices));
    let sample = report.usage("--log-sample", &flags.log_sample, value::share);
    let SinkUrl { text: url, is_store } = sink?;
    let store = Some(store?).filter(|_| is_store);
    let config = LoggerConfig {
        url,
        workers: workers?,
        source_uri: source_uri(&flags.source_uri, port?),
        mode: mode?,
        store,
        inference_service: flags.inference_service.clone(),
        namespace: flags.namespace.clone(),
        endpoint: flags.endpoint.clone(),
        component: flags.component.clone(),
        metadata_headers: metadata_headers?,
        metadata_annotations: metadata_annotations?,
        ca_cert_file: ca_cert_file(&flags.logger_ca_cert_file),
        tls_skip_verify: flags.logger_tls_skip_verify,
        all_responses: flags.log_all_responses,
        client_timeout: client_timeout?,
        retry_for: retry_for?,
        headers_file: named(&flags.log_headers_file),
        queue_bytes: queue_bytes?,
        when_full: when_full?,
        spool_dir,
        spool_bytes: spool_bytes?.get() as u64,
        sample: sample?,
    };
    Some((!flags.log_url.is_empty()).then_some(config))
}

/// Where events go; an empty URL when the logger is off.
fn sink(flags: &LoggerFlags, store: &StoreFlags, report: &mut Report) -> Option<SinkUrl> {
    if flags.log_url.is_empty() {
        return Some(SinkUrl::default());
    }
    let sink = url("--log-url", &flags.log_url, url::sink, report)?;
    if !sink.is_store && !store.log_store_path.is_empty() {
        report.warn("--log-store-path is not used: --log-url is not a bucket".to_owned());
    }
    Some(sink)
}

/// Checks a URL, which may hold a password or a token.
fn url<T>(name: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, String>, report: &mut Report) -> Option<T> {
    parse(text).map_err(|allowed| report.usage_error(url_not_allowed(name, text, &allowed))).ok()
}

fn store(flags: &StoreFlags, report: &mut Report) -> Option<StoreConfig> {
    let formats = [("json", StoreFormat::Json), ("csv", StoreFormat::Csv), ("parquet", StoreFormat::Parquet)];
    // Another marshaller may know others, and a payload log that can't work keeps nothing from starting (SPEC F6, L9).
    let format = word(&formats)(&flags.log_store_format).ok();
    if format.is_none() {
        let format = quoted(&flags.log_store_format);
        report
            .warn(format!("--log-store-format: {format} is left to --log-marshaller-url; here are json, csv, parquet"));
    }
    let marshaller_url = url("--log-marshaller-url", &flags.log_marshaller_url, url::service, report);
    // The Go agent's service has this port. Here is none, so that any number will do (SPEC L9).
    let unused_port = report.usage("--log-marshaller-port", &flags.log_marshaller_port, value::any_integer);
    let records = count("records", COUNT_MAX);
    let batch_size = report.usage("--log-batch-size", &flags.log_batch_size, records);
    let batch_interval = report.usage("--log-batch-interval", &flags.log_batch_interval, duration::limit);
    unused_port?;
    Some(StoreConfig {
        path: flags.log_store_path.clone(),
        format,
        batch_size: batch_size?,
        batch_interval: batch_interval?,
        marshaller_url: marshaller_url?,
    })
}

/// Names once each, case aside: an event has one entry per header. A name that no header can have is as harmless here
/// as with the Go agent, it matches none.
fn headers(lists: &[String], report: &mut Report) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in entries("--metadata-headers", lists, report)? {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            names.push(name);
        }
    }
    Some(names)
}

/// Sorted by key; the last value of a key wins.
fn annotations(lists: &[String], report: &mut Report) -> Option<Vec<(String, String)>> {
    const FLAG: &str = "--metadata-annotations";
    let pairs: Vec<Option<(String, String)>> =
        entries(FLAG, lists, report)?.iter().map(|entry| report.usage(FLAG, entry, annotation)).collect();
    let sorted: BTreeMap<String, String> = pairs.into_iter().collect::<Option<_>>()?;
    Some(sorted.into_iter().collect())
}

fn annotation(entry: &str) -> Result<(String, String), String> {
    let (key, value) = entry.split_once('=').ok_or("a comma-separated list of key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The entries of a flag that was given any number of times.
fn entries(flag: &str, lists: &[String], report: &mut Report) -> Option<Vec<String>> {
    let split: Vec<_> = lists.iter().map(|list| report.usage(flag, list, csv::split)).collect();
    split.into_iter().collect::<Option<Vec<_>>>().map(|lists| lists.concat())
}

/// The file or folder of this flag, unless it is empty.
fn named(text: &str) -> Option<PathBuf> {
    Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// How long an event is retried; `None`: for ever. Without a value a queue on disk keeps events as long as it takes, and
/// one in memory gives them up, so that what comes later finds room.
fn retry_for(text: &str, has_spool: bool) -> Result<Option<Duration>, String> {
    match text {
        "" => Ok((!has_spool).then_some(LOG_RETRY_FOR)),
        _ => duration::limit(text),
    }
}

/// The default that the Go agent makes.
fn source_uri(text: &str, port: NonZeroU16) -> String {
    if text.is_empty() { format!("http://localhost:{port}/") } else { text.to_owned() }
}

/// Always below the mounted folder, also when it is written as an absolute path, as Go's `filepath.Join` has it. Empty
/// is what the controller passes on when its own configuration names no file.
fn ca_cert_file(text: &str) -> PathBuf {
    let name = text.trim_start_matches('/');
    Path::new(LOG_CA_CERT_DIR).join(if name.is_empty() { "service-ca.crt" } else { name })
}
