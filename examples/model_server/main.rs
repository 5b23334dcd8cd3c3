//! A small model server to put behind the agent: a Gaussian naive Bayes classifier of the iris
//! data, trained at start, that speaks KServe's V1 protocol, the Open Inference Protocol (V2) and
//! server-sent events.
//!
//! It is real where the agent can see it: keep-alive, both framings, `Expect: 100-continue`,
//! answers that depend on the question, errors with a reason, and (for benchmarks) a cost per call
//! and per instance. It is **not** a production server: loopback only, a fixed number of blocking
//! threads, no TLS, no metrics but two counts, no graceful stop, and its limits are constants.
//!
//! ```text
//! cargo run --release --example model_server -- --port 8080
//! curl -d '{"instances":[[5.1,3.5,1.4,0.2]]}' localhost:8080/v1/models/iris:predict
//! ```

mod connection;
mod iris;
mod options;
mod protocol;
mod request;

use std::env;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use connection::Connection;
use iris::{CLASSES, Engine};
use options::Options;
use request::{Refusal, Request};

/// Connections served at a time: one thread each, all of them started at once. Further ones wait
/// in the kernel's backlog.
const CONNECTIONS: usize = 1024;
/// Bounds on what one `GET /stream` may ask for, so that a typing error does not hold a thread for
/// a year.
const MAX_EVENTS: u64 = 100_000;
const MAX_INTERVAL_MS: u64 = 60_000;

fn main() -> ExitCode {
    let outcome = match Options::parse(env::args().skip(1)) {
        Ok(options) => serve(&options).map_err(|error| (error.to_string(), 1)),
        Err(reason) => Err((reason, 2)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((reason, code)) => {
            // With standard error gone as well there is nobody left to tell.
            let _ = writeln!(io::stderr(), "model_server: {reason}");
            ExitCode::from(code)
        }
    }
}

/// Binds, says where on standard output, and serves until the process is ended.
fn serve(options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
    let mut stdout = io::stdout();
    writeln!(stdout, "listening on {}", listener.local_addr()?)?;
    stdout.flush()?;

    let engine = Engine::new(options.cost);
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            thread::Builder::new()
                .name(format!("connection-{number}"))
                .spawn_scoped(scope, || accept_forever(&listener, &engine))?;
        }
        Ok(())
    })
}

fn accept_forever(listener: &TcpListener, engine: &Engine) {
    loop {
        match listener.accept() {
            // An error ends this one connection; there is no log that would tell of it.
            Ok((stream, _)) => drop(converse(stream, engine)),
            // Out of file descriptors, most likely: trying again at once would only spin.
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Requests of one connection, one after another.
fn converse(stream: TcpStream, engine: &Engine) -> io::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(request) = connection.request()? {
        match route(&request, engine) {
            Reply::Whole(answer) => connection.answer(&request, &answer)?,
            Reply::Events(events) => connection.stream(&request, events)?,
        }
        if !request.keep_alive {
            return connection.close();
        }
    }
    Ok(())
}

/// What a request leads to.
enum Reply<'a> {
    Whole(Result<Value, Refusal>),
    /// Server-sent events; asking for the next one is what takes the time.
    Events(Box<dyn Iterator<Item = Value> + 'a>),
}

impl Reply<'_> {
    fn known(value: Value) -> Self {
        Self::Whole(Ok(value))
    }

    fn error(status: u16, reason: String) -> Self {
        Self::Whole(Err(Refusal::new(status, reason)))
    }

    fn computed(answer: Result<Value, String>) -> Self {
        Self::Whole(answer.map_err(|reason| Refusal::new(400, reason)))
    }
}

fn route<'a>(request: &Request, engine: &'a Engine) -> Reply<'a> {
    let allowed = match request.path.as_str() {
        "/v1/models/iris:predict"
        | "/v1/models/iris:stream"
        | "/v2/models/iris/infer"
        | "/v2/models/iris/versions/1/infer" => "POST",
        "/"
        | "/v1/models"
        | "/v1/models/iris"
        | "/v2"
        | "/v2/health/live"
        | "/v2/health/ready"
        | "/v2/models/iris"
        | "/v2/models/iris/ready"
        | "/v2/models/iris/stats"
        | "/stream" => "GET",
        other => return Reply::error(404, format!("nothing at {other}")),
    };
    let method = if request.method == "HEAD" { "GET" } else { &request.method };
    if method != allowed {
        let reason = format!("{} takes {allowed}, not {}", request.path, request.method);
        return Reply::Whole(Err(Refusal::new(405, reason).allowing(allowed)));
    }
    match request.path.as_str() {
        "/v1/models" => Reply::known(json!({"models": ["iris"]})),
        "/v1/models/iris" | "/v2/models/iris/ready" => Reply::known(json!({"name": "iris", "ready": true})),
        "/v1/models/iris:predict" => Reply::computed(protocol::v1_predict(&request.body, engine)),
        "/v1/models/iris:stream" => stream_predictions(&request.body, engine),
        "/v2" => Reply::known(protocol::server_metadata()),
        "/v2/health/live" => Reply::known(json!({"live": true})),
        "/v2/health/ready" => Reply::known(json!({"ready": true})),
        "/v2/models/iris" => Reply::known(protocol::model_metadata()),
        "/v2/models/iris/stats" => Reply::known(protocol::statistics(engine)),
        "/v2/models/iris/infer" | "/v2/models/iris/versions/1/infer" => {
            Reply::computed(protocol::v2_infer(&request.body, engine))
        }
        "/stream" => stream_clock(&request.query),
        _ => Reply::known(json!({"status": "alive"})),
    }
}

/// One event per instance, each predicted when its turn comes.
fn stream_predictions<'a>(body: &[u8], engine: &'a Engine) -> Reply<'a> {
    match protocol::v1_instances(body) {
        Ok(instances) => Reply::Events(Box::new(instances.into_iter().enumerate().map(move |(index, instance)| {
            let class = engine.predict(&[instance])[0];
            json!({"instance": index, "prediction": class, "class": CLASSES[class]})
        }))),
        Err(reason) => Reply::error(400, reason),
    }
}

/// `events` numbered events, `interval_ms` apart.
fn stream_clock(query: &str) -> Reply<'static> {
    let numbers = parameter(query, "events", 3, MAX_EVENTS)
        .and_then(|events| Ok((events, parameter(query, "interval_ms", 0, MAX_INTERVAL_MS)?)));
    match numbers {
        Ok((events, interval)) => Reply::Events(Box::new((0..events).map(move |number| {
            if number > 0 {
                thread::sleep(Duration::from_millis(interval));
            }
            json!({"event": number, "of": events})
        }))),
        Err(reason) => Reply::error(400, reason),
    }
}

fn parameter(query: &str, name: &str, default: u64, most: u64) -> Result<u64, String> {
    let text = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    let Some((_, text)) = text else {
        return Ok(default);
    };
    request::number(text.as_bytes())
        .filter(|value| *value <= most)
        .ok_or_else(|| format!("{name}={text}: a number from 0 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_parameter_is_plain_digits_within_its_bound() {
        assert_eq!(parameter("a=1&events=7", "events", 3, 10), Ok(7));
        assert_eq!(parameter("a=1", "events", 3, 10), Ok(3));
        for query in ["events=11", "events=+5", "events=", "events=-1", "events=1e3"] {
            assert!(parameter(query, "events", 3, 10).is_err(), "{query}");
        }
    }
}
