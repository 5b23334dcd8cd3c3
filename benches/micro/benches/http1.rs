//! `make bench-micro`: heads and chunked bodies, per message.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark, whose messages are right")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use kserve_agent::http1::Framing;
use kserve_agent::http1::body::{Body, Keep};
use kserve_agent::http1::head::{self, Slots};

fn main() {
    divan::main();
}

/// What a load generator sends.
const SMALL: &[u8] = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
    Content-Length: 35\r\n\r\n";
/// What comes through a mesh and queue-proxy.
const MESH: &[u8] = b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: iris.default.svc.cluster.local\r\n\
    User-Agent: python-httpx/0.28.1\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nContent-Type: application/json\r\n\
    Content-Length: 35\r\nX-Request-Id: 5c1a2d3e-0f43-4f21-9f07-0d8a3b6a5a11\r\nX-Forwarded-For: 10.12.0.7, 10.12.0.9\r\n\
    X-Forwarded-Proto: http\r\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
    Authorization: Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJhIn0.c2lnbmF0dXJl\r\nK-Proxy-Request: activator\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: uvicorn\r\n\
    Content-Length: 19\r\nContent-Type: application/json\r\n\r\n";

#[divan::bench(args = [("small", SMALL), ("mesh", MESH)].map(Named))]
fn request_head(bencher: Bencher<'_, '_>, message: &Named) {
    let bytes = message.0.1;
    bencher.counter(BytesCount::of_slice(bytes)).bench(|| {
        let mut slots = Slots::new();
        black_box(head::request(black_box(bytes), &mut slots)).is_ok()
    });
}

#[divan::bench]
fn response_head(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::of_slice(RESPONSE)).bench(|| {
        let mut slots = Slots::new();
        black_box(head::response(black_box(RESPONSE), &mut slots)).is_ok()
    });
}

/// One read's worth of a chunked body, in chunks of that size.
#[divan::bench(args = [16, 256, 4096, 65_536])]
fn chunked_body(bencher: Bencher<'_, '_>, size: usize) {
    let chunk = [format!("{size:x}\r\n").as_bytes(), &vec![b'x'; size], b"\r\n"].concat();
    let mut message = chunk.repeat((65_536 / chunk.len()).max(1));
    message.extend_from_slice(b"0\r\n\r\n");
    bencher
        .counter(BytesCount::of_slice(&message))
        .with_inputs(|| message.clone())
        .bench_refs(|message| Body::new(Framing::Chunked, Keep::Data).advance(message).unwrap());
}

/// A message and what it is called.
struct Named((&'static str, &'static [u8]));

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.0)
    }
}
