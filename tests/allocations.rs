//! Promise: in the steady state a request costs the agent no allocation (DESIGN §3).
//!
//! The agent runs in this process, under an allocator that counts. Client and model server are loops over fixed
//! buffers, so whatever is counted is the agent's. One test alone in its binary, as the counter is the process's.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kserve_agent::cli::{self, Outcome};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUEST: &[u8] = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
    X-Forwarded-For: 10.0.0.1\r\nContent-Length: 35\r\n\r\n{\"instances\":[[5.1,3.5,1.4,0.2]]}\r\n";
const CHUNKED: &[u8] = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
    23\r\n{\"instances\":[[5.1,3.5,1.4,0.2]]}\r\n\r\n0\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"predictions\":[1]}";

/// Answers every request whose last byte is the last of [`REQUEST`] or [`CHUNKED`].
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while stream.read(&mut buf).is_ok_and(|count| count > 0) {
                stream.write_all(RESPONSE).unwrap();
            }
        });
    }
}

fn ask(client: &mut TcpStream, request: &[u8], times: usize) {
    let mut buf = [0; 4096];
    for _ in 0..times {
        client.write_all(request).unwrap();
        let mut got = 0;
        while !buf[..got].ends_with(b"[1]}") {
            got += client.read(&mut buf[got..]).unwrap();
        }
        assert!(buf.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

fn connect(port: u16) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn a_request_costs_no_allocation_in_the_steady_state() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let component_port = server.local_addr().unwrap().port();
    std::thread::spawn(move || serve(&server));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let args = [format!("--port={port}"), format!("--component-port={component_port}"), "--threads=1".to_owned()];
    let Outcome::Run { config, .. } = cli::parse(&args, &|_| None) else { panic!("usage") };
    std::thread::spawn(move || kserve_agent::agent::run(&config));

    let mut client = connect(port);
    ask(&mut client, REQUEST, 100);
    ask(&mut client, CHUNKED, 100);
    let steady = Region::new(ALLOCATOR);
    ask(&mut client, REQUEST, 1000);
    ask(&mut client, CHUNKED, 1000);
    let cost = steady.change();
    assert_eq!((cost.allocations, cost.reallocations, cost.deallocations), (0, 0, 0), "{cost:?}");
}
