//! What the tests of the batcher share: requests, model servers that answer them, and answers taken apart.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::batcher_json::{items, leaves, member, members};
use crate::support::agent::Setup;
use crate::support::{Agent, Message, OK, Peer, Server, Wire, until};

/// For batches that leave only when they are full: longer than any test waits, so no timer has a part in them.
pub(crate) const NEVER: &str = "--max-latency=600000";
pub(crate) const PATH: &str = "/v1/models/m:predict";
pub(crate) const V2_PATH: &str = "/v2/models/m/infer";

/// An agent with one worker: what is sent over one connection is submitted before what is sent over another later.
pub(crate) fn batching(server: &Server, flags: &[&str]) -> Agent {
    setup(server, flags).start()
}

/// The same with its metrics open.
pub(crate) fn batching_watched(server: &Server, flags: &[&str]) -> Agent {
    setup(server, flags).watched().start()
}

fn setup(server: &Server, flags: &[&str]) -> Setup {
    Agent::setup(server.port).flags(&["--enable-batcher", "--threads=1"]).flags(flags)
}

/// A `POST`; every field line ends with its `\r\n`.
pub(crate) fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A V1 request with these instances, written as they are.
pub(crate) fn predict(instances: &[&str]) -> String {
    post(PATH, "Content-Type: application/json\r\n", &instances_body(instances))
}

pub(crate) fn instances_body(instances: &[&str]) -> String {
    format!("{{\"instances\":[{}]}}", instances.join(","))
}

/// A V2 request.
pub(crate) fn infer(body: &str) -> String {
    post(V2_PATH, "Content-Type: application/json\r\n", body)
}

/// A response with this status line and these fields, each with its `\r\n`.
pub(crate) fn answer(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn json(body: &str) -> Vec<u8> {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// What a model gives that returns its input: one prediction for each instance, or an output for each input.
pub(crate) fn echo(request: &Message) -> Vec<u8> {
    let body = request.text();
    if !request.line().starts_with("POST") {
        return OK.to_vec();
    }
    if !request.target().contains("/infer") {
        return json(&format!("{{\"predictions\":[{}]}}", items(member(&body, "instances").unwrap()).join(",")));
    }
    let outputs = items(member(&body, "inputs").unwrap()).into_iter().map(|input| {
        let part = |name| member(input, name).unwrap();
        let name = part("name").trim_matches('"');
        let (datatype, shape, data) = (part("datatype"), part("shape"), part("data"));
        format!("{{\"name\":\"out-{name}\",\"shape\":{shape},\"datatype\":{datatype},\"data\":{data}}}")
    });
    let outputs: Vec<String> = outputs.collect();
    let id = member(&body, "id").map_or(String::new(), |id| format!("\"id\":{id},"));
    json(&format!("{{\"model_name\":\"m\",\"model_version\":\"7\",{id}\"outputs\":[{}]}}", outputs.join(",")))
}

/// A model server that holds each `POST` until it is let go; everything else it answers at once.
pub(crate) struct Gate {
    pub(crate) server: Server,
    release: mpsc::Sender<()>,
    most: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (most, held) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let of_server = Arc::clone(&most);
        let server = Server::start(move |mut peer: Peer| {
            while let Some(request) = peer.request() {
                if request.line().starts_with("POST") {
                    of_server.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let is_released = released.lock().unwrap().recv().is_ok();
                    held.fetch_sub(1, Ordering::SeqCst);
                    if !is_released {
                        return;
                    }
                }
                if peer.wire.try_send(echo(&request)).is_err() {
                    return;
                }
            }
        });
        Self { server, release, most }
    }

    /// Lets so many calls go.
    pub(crate) fn open(&self, count: usize) {
        for _ in 0..count {
            self.release.send(()).unwrap();
        }
    }

    /// The most calls that were held at one time.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Waits until so many calls have come in all.
    #[track_caller]
    pub(crate) fn reached(&self, count: usize) {
        until("the server has the calls", || posts(&self.server).len() >= count);
        assert_eq!(calls(&self.server).len(), count, "{:?}", calls(&self.server));
    }
}

/// Sends a request over a connection of its own, and waits until the agent's worker has read it.
pub(crate) fn submit(agent: &Agent, request: impl AsRef<[u8]>) -> Wire {
    let mut client = agent.connect();
    client.send(request);
    settle(agent);
    client
}

/// The same for a request that is too large to be read at once: none of it is left on its way to the worker.
pub(crate) fn submit_whole(agent: &Agent, request: impl AsRef<[u8]>) -> Wire {
    let mut client = agent.connect();
    client.send(request);
    let port = local_port(&client);
    until("both queues are empty", || {
        let [ours, theirs] = [(port, agent.port), (agent.port, port)].map(|(own, peer)| table_row(own, peer).remove(4));
        ours == "00000000:00000000" && theirs == ours
    });
    settle(agent);
    client
}

/// Asks over this connection and waits for the answer.
pub(crate) fn ask_over(client: &mut Wire, request: impl AsRef<[u8]>) -> Message {
    client.send(request);
    client.response()
}

/// Returns when the one worker has handled what was sent to it before: it takes events in order.
pub(crate) fn settle(agent: &Agent) {
    assert_eq!(agent.ask("GET /settle HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status(), 200);
}

/// Lets clients leave, and waits until the agent has seen it: it closes its ends.
pub(crate) fn leave(agent: &Agent, clients: Vec<Wire>, close: impl Fn(Wire)) {
    let ends: Vec<String> = clients.iter().map(|client| agents_end(agent, client)).collect();
    clients.into_iter().for_each(close);
    until("the agent has closed its ends", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
        let open: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect();
        !ends.iter().any(|end| open.iter().any(|link| link.to_str() == Some(end)))
    });
    settle(agent);
}

/// The agent's socket of this connection, by the name it has among its descriptors.
fn agents_end(agent: &Agent, client: &Wire) -> String {
    format!("socket:[{}]", table_row(agent.port, local_port(client))[9])
}

fn local_port(client: &Wire) -> u16 {
    client.socket().local_addr().unwrap().as_socket().unwrap().port()
}

/// What the kernel says of the end of a connection that has this port.
fn table_row(own: u16, peer: u16) -> Vec<String> {
    let (own, peer) = (format!(":{own:04X}"), format!(":{peer:04X}"));
    // A dual-stack listener's connections are in the second table, whatever their addresses.
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let mut rows =
        tables.iter().flat_map(|table| table.lines()).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = rows.find(|row| row.len() > 9 && row[1].ends_with(&own) && row[2].ends_with(&peer));
    found.expect("the connection is there").into_iter().map(str::to_owned).collect()
}

/// Sends each request over a connection of its own, in this order, and collects the answers.
pub(crate) fn together<T: AsRef<[u8]>>(agent: &Agent, requests: &[T]) -> Vec<Message> {
    let mut clients: Vec<Wire> = requests.iter().map(|_| agent.connect()).collect();
    for (client, request) in clients.iter_mut().zip(requests) {
        client.send(request);
    }
    clients.iter_mut().map(Wire::response).collect()
}

/// The calls that the server got, without what passed beside the batcher.
pub(crate) fn posts(server: &Server) -> Vec<Message> {
    server.seen().into_iter().filter(|request| request.line().starts_with("POST")).collect()
}

/// The instances of each V1 call, and the rows of the first input of each V2 call.
pub(crate) fn calls(server: &Server) -> Vec<Vec<String>> {
    posts(server).iter().map(instances_of).collect()
}

pub(crate) fn instances_of(request: &Message) -> Vec<String> {
    let body = request.text();
    let parts = match member(&body, "instances") {
        Some(instances) => items(instances),
        None => leaves(member(items(member(&body, "inputs").unwrap())[0], "data").unwrap()),
    };
    parts.into_iter().map(str::to_owned).collect()
}

/// How many instances each call had, in the order of the calls.
pub(crate) fn sizes(server: &Server) -> Vec<usize> {
    calls(server).iter().map(Vec::len).collect()
}

/// The batch id and the predictions of a V1 answer, whose form must be exactly that of SPEC B2.
#[track_caller]
pub(crate) fn batch_of(got: &Message) -> (String, Vec<String>) {
    let body = got.text();
    assert_eq!(got.status(), 200, "{got:?} {body}");
    assert_eq!(got.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(got.field("content-length"), Some(body.len().to_string()));
    let members = members(&body);
    let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["message", "batchId", "predictions"], "{body}");
    let (id, list) = (members[1].1.trim_matches('"'), members[2].1);
    assert_eq!(body, format!("{{\"message\":\"\",\"batchId\":\"{id}\",\"predictions\":{list}}}"));
    assert_is_uuid4(id);
    (id.to_owned(), items(list).into_iter().map(str::to_owned).collect())
}

#[track_caller]
pub(crate) fn predictions(got: &Message) -> Vec<String> {
    batch_of(got).1
}

/// RFC 9562 §5.4: version 4, variant 10, lower case.
#[track_caller]
fn assert_is_uuid4(id: &str) {
    let groups: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
    assert!(id.chars().all(|c| c == '-' || matches!(c, '0'..='9' | 'a'..='f')), "{id}");
    assert!(id[14..].starts_with('4') && id[19..].starts_with(['8', '9', 'a', 'b']), "{id}");
}

/// A failure of the agent's own: one line of text.
#[track_caller]
pub(crate) fn assert_one_line(got: &Message, status: u16) {
    assert_eq!(got.status(), status, "{got:?} {}", got.text());
    assert_eq!(got.field("content-type").as_deref(), Some("text/plain; charset=utf-8"));
    let text = got.text();
    assert!(text.len() > 5 && text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
}

/// The agent has no room now.
#[track_caller]
pub(crate) fn assert_turned_away(got: &Message) {
    assert_eq!((got.status(), got.field("retry-after").as_deref()), (503, Some("1")), "{got:?} {}", got.text());
}
