//! What one wake-up of a worker does at most: SPEC P14. It counts calls and bytes between two waits, so that it needs no quiet
//! machine.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::batcher_support::{NEVER, PATH, batching, echo, predict};
use crate::support::{Agent, Server, Wire, alone, possible_connections, process, until};

/// Bytes read at once, bytes of all connections in one wake-up, and messages of other threads: `READ_BYTES`,
/// `WAKE_UP_READS` and `MESSAGES_AT_ONCE` of the agent.
const READ: u64 = 96 * 1024;
const WAKE_UP: u64 = 8 * 1024 * 1024;
const MESSAGES: u64 = 256;
/// Clients whose requests are one batch, so that all their answers come at once.
const CLIENTS: usize = 600;
const UPLOADS: u64 = 4;

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

#[test]
fn a_wake_up_ends_whatever_there_is_to_do() {
    let _alone = alone();
    if !process::has_program("strace") {
        return eprintln!("not tried, as there is no strace");
    }
    let server = Server::with(echo);
    let clients = possible_connections(CLIENTS);
    let agent = batching(&server, &[&format!("--max-batchsize={clients}"), NEVER]);
    let trace = std::env::temp_dir().join(format!("turns-{}", agent.pid()));
    let mut strace = Command::new("strace")
        .args(["-e", "trace=epoll_wait,epoll_pwait,recvfrom,sendto", "-s", "0", "-p", &worker(&agent), "-o"])
        .arg(&trace)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the worker is traced", || {
        assert_eq!(agent.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
        fs::read_to_string(&trace).is_ok_and(|trace| trace.contains("epoll_")) || strace.try_wait().unwrap().is_some()
    });
    let port = agent.port;
    let upload = |_| {
        std::thread::spawn(move || {
            // What is no predict request is scanned as well.
            let body = format!("{}{{\"x\":[1]}}", " ".repeat(7 << 20));
            let mut client = Wire::connect(port);
            client.patience *= 3;
            client.send(format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
            assert_eq!(client.response().status(), 400);
        })
    };
    let mut waiting: Vec<Wire> = (0..clients).map(|_| agent.connect()).collect();
    let uploads: Vec<_> = (0..UPLOADS).map(upload).collect();
    for _ in 0..3 {
        waiting.iter_mut().for_each(|client| client.send(predict(&["1"])));
        waiting.iter_mut().for_each(|client| assert_eq!(client.response().status(), 200));
    }
    uploads.into_iter().for_each(|upload| upload.join().unwrap());
    let pid = Pid::from_raw(i32::try_from(strace.id()).unwrap()).unwrap();
    let _ = kill_process(pid, Signal::INT);
    strace.wait().unwrap();
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    if !text.contains("epoll_") {
        return eprintln!("not tried, as strace may not attach here");
    }
    let (turns, read, written) = most_per_turn(&text);
    // Beyond its budget each connection that has an event has one read more.
    let readers = clients as u64 * 100 + UPLOADS * READ;
    assert!(read <= WAKE_UP + readers, "{read} bytes in one of {turns} wake-ups");
    assert!(written <= MESSAGES + UPLOADS, "{written} writes in one of {turns} wake-ups");
    assert!(turns > 10, "{turns} wake-ups");
}
