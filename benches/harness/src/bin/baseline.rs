//! The road not taken, kept so that it stays measured: a proxy that is a tiny_http server, pinned workers and a ureq
//! client, in the shortest honest form. Each worker blocks in `recv()` on the one server, forwards over its own agent's
//! kept connections, and streams both bodies.
//!
//! Deliberately not here: what would make it a fair proxy in other ways than speed (limits, timeouts, hop-by-hop
//! fields beyond those that break framing). All of it would cost more, not less.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread;

use argh::FromArgs;
use rustix::thread::{CpuSet, sched_setaffinity};
use tiny_http::{Header, Request, Response, Server, StatusCode};

/// The baseline proxy: tiny_http in front, ureq behind.
#[derive(FromArgs)]
struct Options {
    /// port to listen on, 127.0.0.1
    #[argh(option)]
    port: u16,
    /// port of the model server on 127.0.0.1
    #[argh(option)]
    server: u16,
    /// worker threads, each pinned to a processor
    #[argh(option, default = "thread::available_parallelism().map_or(1, usize::from)")]
    workers: usize,
}

fn main() -> ExitCode {
    match serve(&argh::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // With standard error gone as well there is nobody left to tell.
            let _ = writeln!(io::stderr(), "baseline: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> Result<(), String> {
    let server = Server::http(("127.0.0.1", options.port)).map_err(|error| error.to_string())?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for number in 0..options.workers {
            let server = &server;
            scope.spawn(move || {
                let mut own = CpuSet::new();
                own.set(number % processors);
                // Where that is not allowed the worker runs anywhere.
                let _ = sched_setaffinity(None, &own);
                work(server, options.server);
            });
        }
    });
    Ok(())
}

fn work(server: &Server, port: u16) {
    // Everything that ureq would do to a request of its own is turned off.
    let config = ureq::Agent::config_builder().proxy(None).max_redirects(0).http_status_as_error(false);
    let client = ureq::Agent::new_with_config(config.build());
    while let Ok(mut request) = server.recv() {
        let answer = match forward(&client, port, &mut request) {
            Ok(answer) => request.respond(answer),
            Err(reason) => request.respond(Response::from_string(reason).with_status_code(502)),
        };
        // A client that left.
        drop(answer);
    }
}

fn forward(
    client: &ureq::Agent,
    port: u16,
    request: &mut Request,
) -> Result<Response<ureq::BodyReader<'static>>, String> {
    let mut builder = ureq::http::Request::builder()
        .method(request.method().as_str())
        .uri(format!("http://127.0.0.1:{port}{}", request.url()));
    for header in request.headers() {
        if !["connection", "host"].iter().any(|name| header.field.as_str().as_str().eq_ignore_ascii_case(name)) {
            builder = builder.header(header.field.as_str().as_str(), header.value.as_str());
        }
    }
    let length = request.body_length().unwrap_or(0);
    let answer = if length > 0 {
        let mut body = Whole { reader: request.as_reader(), left: length };
        let body = ureq::SendBody::from_reader(&mut body);
        client.run(builder.body(body).map_err(|error| error.to_string())?)
    } else {
        client.run(builder.body(()).map_err(|error| error.to_string())?)
    }
    .map_err(|error| error.to_string())?;
    let (parts, body) = answer.into_parts();
    let length = body.content_length().and_then(|length| usize::try_from(length).ok());
    let headers = parts
        .headers
        .iter()
        .filter(|(name, _)| !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()))
        .filter_map(|(name, value)| Header::from_bytes(name.as_str(), value.as_bytes()).ok())
        .collect();
    Ok(Response::new(StatusCode(parts.status.as_u16()), headers, body.into_reader(), length, None))
}

/// A body that ends early is an error: of a client that left in the middle tiny_http makes a body that has ended, and
/// ureq then spins for ever on what is missing of its `Content-Length`.
struct Whole<'r> {
    reader: &'r mut dyn Read,
    left: usize,
}

impl Read for Whole<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        if count == 0 && self.left > 0 && !buf.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}
