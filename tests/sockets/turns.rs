//! What one wake-up of a worker does at most: SPEC P14. It counts calls and bytes between two waits, so that it needs no quiet
//! machine.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::batcher_support::{NEVER, PATH, batching, echo, predict, settle};
use crate::support::{Agent, Server, Wire, alone, possible_connections, process, until};

/// Bytes read at once, bytes of all connections in one wake-up, and messages of other threads: `READ_BYTES`,
/// `WAKE_UP_READS` and `MESSAGES_AT_ONCE` of the agent.
const READ: u64 = 96 * 1024;
const WAKE_UP: u64 = 8 * 1024 * 1024;
const MESSAGES: u64 = 256;
/// Clients whose requests are one batch, so that all their answers come at once.
const CLIENTS: usize = 600;
/// What is read of a client's head at once when there is no more to be read of bodies: `HEAD_ALONE`.
const HEAD: u64 = 4096;

/// The thread of the one worker, once it has its name.
fn worker(agent: &Agent) -> String {
    let found = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap().map(|task| task.unwrap().path());
        let mut workers =
            tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("worker")));
        workers.find_map(|task| Some(task.file_name()?.to_str()?.to_owned()))
    };
    until("there is a worker", || found().is_some());
    found().unwrap()
}

/// The most bytes that were read, and the most writes, between two waits of the worker.
fn most_per_turn(trace: &str) -> (u64, u64, u64) {
    let (mut turns, mut most_read, mut most_written) = (0, 0, 0);
    let (mut read, mut written) = (0, 0);
    for line in trace.lines() {
        let result = line.rsplit("= ").next().and_then(|result| result.split_whitespace().next());
        let bytes: u64 = result.and_then(|result| result.parse().ok()).unwrap_or(0);
        if line.starts_with("epoll_") {
            turns += 1;
            (most_read, most_written) = (most_read.max(read), most_written.max(written));
            (read, written) = (0, 0);
        } else if line.starts_with("recvfrom(") {
            read += bytes;
        } else if line.starts_with("sendto(") {
            written += 1;
        }
    }
    (turns, most_read, most_written)
}

/// What strace has seen of the one worker of an agent.
struct Trace {
    strace: Child,
    path: PathBuf,
}

impl Trace {
    /// Begins; `None`: there is no strace here, or it may not attach.
    fn of(agent: &Agent) -> Option<Self> {
        if !process::has_program("strace") {
            eprintln!("not tried, as there is no strace");
            return None;
        }
        let path = std::env::temp_dir().join(format!("turns-{}", agent.pid()));
        let strace = Command::new("strace")
            .args(["-e", "trace=epoll_wait,epoll_pwait,recvfrom,sendto", "-s", "0", "-p", &worker(agent), "-o"])
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut trace = Self { strace, path };
        until("the worker is traced", || {
            assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
            trace.text().contains("epoll_") || trace.strace.try_wait().unwrap().is_some()
        });
        if !trace.text().contains("epoll_") {
            eprintln!("not tried, as strace may not attach here");
            return None;
        }
        Some(trace)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    fn end(mut self) -> String {
        let _ = kill_process(pid(self.strace.id()), Signal::INT);
        self.strace.wait().unwrap();
        let text = self.text();
        fs::remove_file(&self.path).unwrap();
        text
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

fn upload(port: u16, blanks: usize) -> Vec<u8> {
    // What is no predict request is scanned as well.
    let body = format!("{}{{\"x\":[1]}}", " ".repeat(blanks));
    let mut client = Wire::connect(port);
    client.patience *= 3;
    client.send(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let got = client.response();
    assert_eq!(got.status(), 400);
    got.body
}

#[test]
fn a_wake_up_ends_whatever_there_is_to_do() {
    let _alone = alone();
    let server = Server::with(echo);
    let clients = possible_connections(CLIENTS);
    let agent = batching(&server, &[&format!("--max-batchsize={clients}"), NEVER]);
    let Some(trace) = Trace::of(&agent) else { return };
    let port = agent.port;
    let mut waiting: Vec<Wire> = (0..clients).map(|_| agent.connect()).collect();
    let uploads: Vec<_> = (0..4).map(|_| thread::spawn(move || upload(port, 7 << 20))).collect();
    for _ in 0..3 {
        waiting.iter_mut().for_each(|client| client.send(predict(&["1"])));
        waiting.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    }
    uploads.into_iter().for_each(|upload| assert!(!upload.join().unwrap().is_empty()));
    assert_bounded(&trace.end());
}

#[test]
fn a_wake_up_ends_however_many_bodies_come_at_once() {
    let _alone = alone();
    let server = Server::good();
    let agent = batching(&server, &[NEVER]);
    let Some(trace) = Trace::of(&agent) else { return };
    let port = agent.port;
    // The first half come as their heads do, the others behind heads that were read before.
    let begun: Vec<Wire> = (0..100)
        .map(|_| {
            let mut client = agent.connect();
            client.patience *= 3;
            client.send(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 140000\r\n\r\n "));
            client
        })
        .collect();
    settle(&agent);
    kill_process(pid(agent.pid()), Signal::STOP).unwrap();
    let new: Vec<_> = (0..100).map(|_| thread::spawn(move || upload(port, 140_000))).collect();
    let begun: Vec<_> = begun
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                client.send(" ".repeat(139_999));
                assert_eq!(client.response().status(), 400);
            })
        })
        .collect();
    until("most of it is in the kernel", || waiting_for(agent.port) > 2 * WAKE_UP);
    kill_process(pid(agent.pid()), Signal::CONT).unwrap();
    new.into_iter().for_each(|upload| drop(upload.join().unwrap()));
    begun.into_iter().for_each(|upload| upload.join().unwrap());
    assert_bounded(&trace.end());
}

/// Bytes that were sent to a port and wait there to be read.
fn waiting_for(port: u16) -> u64 {
    let local = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_of_port = fields.get(1).is_some_and(|address| address.ends_with(&local));
        let received = fields.get(4).and_then(|queues| queues.split_once(':'))?.1;
        is_of_port.then(|| u64::from_str_radix(received, 16).ok())?
    };
    tables.iter().flat_map(|table| table.lines()).filter_map(of_line).sum()
}

#[track_caller]
fn assert_bounded(trace: &str) {
    let (turns, read, written) = most_per_turn(trace);
    // The budget is kept to the nearest read, and heads are read beyond it.
    let heads = CLIENTS as u64 * HEAD;
    assert!(read <= WAKE_UP + READ + heads, "{read} bytes in one of {turns} wake-ups");
    assert!(written <= MESSAGES + 4, "{written} writes in one of {turns} wake-ups");
    assert!(turns > 3, "{turns} wake-ups");
}
