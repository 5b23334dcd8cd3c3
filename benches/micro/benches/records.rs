//! `make bench-micro`: what an event costs on its way into a file: records of 1 KiB of payload made into each format.

#![allow(missing_docs, reason = "a benchmark")]

use std::io;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kserve_agent::config::StoreFormat;
use kserve_agent::logger::marshal::File;
use kserve_agent::logger::record::{Common, Record, Url};

fn main() {
    divan::main();
}

const RECORDS: usize = 100;

#[divan::bench(args = [StoreFormat::Json, StoreFormat::Csv, StoreFormat::Parquet])]
fn encode(bencher: Bencher<'_, '_>, format: StoreFormat) {
    let common = Common {
        url: Url::new("s3://bucket/prefix"),
        inference_service: "iris".to_owned(),
        namespace: "prod".to_owned(),
        ..Common::default()
    };
    let ids: Vec<String> = (0..RECORDS).map(|number| format!("b08b069c-6d01-4657-8d23-{number:012}")).collect();
    let occurred_at = "2026-01-02T03:04:05.6Z".parse().unwrap_or_default();
    let record = |id| Record {
        common: &common,
        bytes: &[b'x'; 1024],
        content_type: "application/json",
        req_type: "org.kubeflow.serving.inference.request",
        id,
        metadata: "{}",
        occurred_at,
    };
    bencher.counter(ItemsCount::new(RECORDS)).bench(|| {
        let mut file = File::new(format, black_box(&ids).iter().map(|id| record(id)));
        io::copy(&mut file, &mut io::sink())
    });
}
