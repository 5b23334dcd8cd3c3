//! `make bench-micro`: what an event costs on its way into a file: records of 1 KiB of payload made into each format.

#![allow(missing_docs, reason = "a benchmark")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kserve_agent::config::StoreFormat;
use kserve_agent::logger::marshal::marshal;
use kserve_agent::logger::record::{Record, Url};

fn main() {
    divan::main();
}

const RECORDS: usize = 100;

fn records() -> Vec<Record> {
    let record = |number: usize| Record {
        url: Url::new("s3://bucket/prefix"),
        bytes: vec![b'x'; 1024],
        content_type: "application/json".to_owned(),
        req_type: "org.kubeflow.serving.inference.request".to_owned(),
        id: format!("b08b069c-6d01-4657-8d23-{number:012}"),
        inference_service: "iris".to_owned(),
        namespace: "prod".to_owned(),
        ..Record::default()
    };
    (0..RECORDS).map(record).collect()
}

#[divan::bench(args = [StoreFormat::Json, StoreFormat::Csv, StoreFormat::Parquet])]
fn encode(bencher: Bencher<'_, '_>, format: StoreFormat) {
    let records = records();
    bencher.counter(ItemsCount::new(RECORDS)).bench(|| marshal(format, black_box(&records)));
}
