//! `make bench-micro`: what the batcher does to bodies, V1 and V2: find the instances, merge 32 requests,
//! give each its part of the answer.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark, whose bodies are right")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use kserve_agent::batcher::key::Parts;
use kserve_agent::batcher::v2::{NewId, Tensors};
use kserve_agent::batcher::{v1, v2};

fn main() {
    divan::main();
}

const MEMBERS: usize = 32;
const V1: &[u8] = br#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
const V2: &[u8] = br#"{"id":"42","inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}"#;

fn v1_body(instances: usize) -> Vec<u8> {
    let list = vec!["[5.1,3.5,1.4,0.2]"; instances].join(",");
    format!(r#"{{"instances":[{list}]}}"#).into_bytes()
}

fn v2_answer() -> Vec<u8> {
    let data = vec!["1"; MEMBERS].join(",");
    let output = format!(r#"{{"name":"y","shape":[{MEMBERS}],"datatype":"INT64","data":[{data}]}}"#);
    format!(r#"{{"model_name":"iris","id":"1","outputs":[{output}]}}"#).into_bytes()
}

#[divan::bench(args = [1, 32, 1024])]
fn v1_scan(bencher: Bencher<'_, '_>, instances: usize) {
    let body = v1_body(instances);
    bencher.counter(BytesCount::of_slice(&body)).bench(|| v1::instances(black_box(&body), &mut Parts::default()));
}

#[divan::bench]
fn v1_merge(bencher: Bencher<'_, '_>) {
    let list = v1::instances(V1, &mut Parts::default()).unwrap();
    let bodies = [(V1, &list); MEMBERS];
    bencher.bench(|| v1::merge(black_box(&bodies)));
}

#[divan::bench]
fn v1_scatter(bencher: Bencher<'_, '_>) {
    let predictions = vec!["1"; MEMBERS].join(",");
    let answer = format!(r#"{{"predictions":[{predictions}]}}"#).into_bytes();
    bencher.bench(|| v1::predictions(black_box(&answer), &[1; MEMBERS]).unwrap());
}

#[divan::bench]
fn v2_scan(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::of_slice(V2)).bench(|| Tensors::of_request(black_box(V2), &mut Parts::default()));
}

#[divan::bench]
fn v2_merge(bencher: Bencher<'_, '_>) {
    let tensors = Tensors::of_request(V2, &mut Parts::default()).unwrap();
    let bodies = [(V2, &tensors); MEMBERS];
    bencher.bench(|| v2::merge(black_box(&bodies), NewId::None));
}

#[divan::bench]
fn v2_scatter(bencher: Bencher<'_, '_>) {
    let answer = v2_answer();
    bencher.bench(|| {
        let tensors = Tensors::of_response(black_box(&answer), &[1; MEMBERS]).unwrap();
        let part = |number| tensors.share(&answer, number, 1, NewId::This(b"\"42\""));
        (0..MEMBERS).map(part).collect::<Vec<_>>()
    });
}
