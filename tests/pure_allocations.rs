//! A guard against slower pure code that needs no quiet machine: it counts allocations, not time. Parsing makes none,
//! merging makes one whatever the number of members, and so on. A change that raises a number has to say here why.
//!
//! One test alone in its binary, as the counter is the process's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;

use kserve_agent::batcher::key::Parts;
use kserve_agent::batcher::v2::{NewId, Tensors};
use kserve_agent::batcher::{v1, v2};
use kserve_agent::http1::Framing;
use kserve_agent::http1::body::{Body, Keep};
use kserve_agent::http1::head::{self, Slots};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MEMBERS: usize = 32;
const REQUEST: &[u8] = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\
    Content-Length: 35\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n";
const V1: &[u8] = br#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
const V2: &[u8] = br#"{"id":"42","inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[5.1,3.5,1.4,0.2]}]}"#;

/// Allocations and reallocations of `work`, whose result lives until they are counted.
fn count<T>(work: impl FnOnce() -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    let result = work();
    let change = region.change();
    drop(result);
    change.allocations + change.reallocations
}

#[test]
fn pure_code_allocates_what_it_must() {
    let list = v1::instances(V1, &mut Parts::default()).unwrap();
    let tensors = Tensors::of_request(V2, &mut Parts::default()).unwrap();
    let (v1_bodies, v2_bodies) = ([(V1, &list); MEMBERS], [(V2, &tensors); MEMBERS]);
    let ones = vec!["1"; MEMBERS].join(",");
    let v1_answer = format!(r#"{{"predictions":[{ones}]}}"#).into_bytes();
    let output = format!(r#"{{"name":"y","shape":[{MEMBERS}],"datatype":"INT64","data":[{ones}]}}"#);
    let v2_answer = format!(r#"{{"id":"1","outputs":[{output}]}}"#).into_bytes();
    let mut chunked = [b"5\r\nhello\r\n".repeat(1000), b"0\r\n\r\n".to_vec()].concat();
    let long = format!(r#"{{"instances":[{}]}}"#, vec!["[5.1,3.5,1.4,0.2]"; 1000].join(",")).into_bytes();

    let counts = [
        ("request head", count(|| head::request(REQUEST, &mut Slots::new()).is_ok())),
        ("response head", count(|| head::response(RESPONSE, &mut Slots::new()).is_ok())),
        ("1 000 chunks", count(|| Body::new(Framing::Chunked, Keep::Data).advance(&mut chunked).is_ok())),
        ("V1 scan", count(|| v1::instances(V1, &mut Parts::default()).is_ok())),
        ("V1 scan of 1 000", count(|| v1::instances(&long, &mut Parts::default()).is_ok())),
        ("V1 merge", count(|| v1::merge(&v1_bodies))),
        ("V1 predictions", count(|| v1::predictions(&v1_answer, &[1; MEMBERS]).is_some())),
        ("V1 scatter", count(|| v1::split(&v1_answer, &(16..v1_answer.len() - 2), [1; MEMBERS].into_iter()))),
        ("V2 scan", count(|| Tensors::of_request(V2, &mut Parts::default()).is_ok())),
        ("V2 merge", count(|| v2::merge(&v2_bodies, NewId::None))),
        ("V2 scan of an answer", count(|| Tensors::of_response(&v2_answer, &[1; MEMBERS]).is_ok())),
    ];
    let expected = [
        ("request head", 0),
        ("response head", 0),
        ("1 000 chunks", 0),
        // The key, which says how the list is spelled; a worker's has begun with the head's part.
        ("V1 scan", 1),
        ("V1 scan of 1 000", 1),
        ("V1 merge", 1),
        // How many each member gets, and where they lie: they are cut while they are walked over.
        ("V1 predictions", 2),
        ("V1 scatter", 2),
        // The list of tensors, their dimensions, the data's own dimensions, and the key with the names in it.
        ("V2 scan", 6),
        // The body, and the list of the places in it that change.
        ("V2 merge", 6),
        // The same without a key, and what an answer is cut into.
        ("V2 scan of an answer", 7),
    ];
    assert_eq!(counts, expected);
}
