//! What tests of the queue on disk need: a folder, agents that use it, and events that can be told apart.
//!
//! Not here: the format of what is in the folder, but for where an event ends.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use crate::support::sink::{dead_flag, setup};
use crate::support::{Agent, Books, PATIENCE, Server, Sink, until};

/// A folder of a test's own, which goes with it.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    is_mounted: bool,
}

/// An event's id, and whether it is a request's.
pub(crate) type Name = (String, bool);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kserve-agent-spool-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self { path, is_mounted: false }
    }

    /// A file system of its own; `None`: this machine does not let a test make one.
    pub(crate) fn mounted(options: &str) -> Option<Self> {
        let mut folder = Self::new();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&folder.path).output();
        folder.is_mounted = mount.is_ok_and(|output| output.status.success());
        folder.is_mounted.then_some(folder)
    }

    pub(crate) fn flag(&self) -> String {
        format!("--log-spool-dir={}", self.path.display())
    }

    /// What is named as segments are, in order.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "events")).collect();
        segments.sort_unstable();
        segments
    }

    #[track_caller]
    pub(crate) fn await_empty(&self, agent: &Agent) {
        let is_empty = crate::support::holds_within(PATIENCE, || self.segments().is_empty());
        assert!(is_empty, "{:?}\n{}", self.segments(), agent.log());
    }

    /// The segment of this number, with a mark that no event has.
    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:020}-{:016x}.events", 0xabcd))
    }

    /// Puts a segment there whose events have this mark.
    pub(crate) fn put(&self, number: u64, mark: u64, bytes: &[u8]) {
        fs::write(self.path.join(format!("{number:020}-{mark:016x}.events")), bytes).unwrap();
    }

    /// What was set aside, in order.
    pub(crate) fn corrupt(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "corrupt")).collect();
        paths.sort_unstable();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// An agent with its queue in this folder.
pub(crate) fn spooling(server: &Server, sink: &str, folder: &Folder, flags: &[&str]) -> Agent {
    setup(server, sink).flags(&[&folder.flag()]).flags(flags).start()
}

/// Asks with these numbers as ids, one after the other, and so many bytes.
pub(crate) fn ask(agent: &Agent, numbers: Range<usize>, bytes: usize) {
    let mut client = agent.connect();
    for number in numbers {
        client.send(request(number, bytes));
        assert_eq!(client.response().status(), 200);
    }
}

pub(crate) fn request(number: usize, bytes: usize) -> String {
    let body = "x".repeat(bytes);
    format!("POST / HTTP/1.1\r\nHost: a\r\nCe-Id: {number}\r\nContent-Length: {bytes}\r\n\r\n{body}")
}

/// The names of both events of these.
pub(crate) fn names(numbers: Range<usize>) -> BTreeSet<Name> {
    numbers.flat_map(|number| [true, false].map(|of| (number.to_string(), of))).collect()
}

/// What the sink has.
pub(crate) fn delivered(sink: &Sink) -> BTreeSet<Name> {
    sink.events().iter().map(|event| (event.id(), event.is_request())).collect()
}

/// Waits until the sink has all of these, and at the end no other.
#[track_caller]
pub(crate) fn await_names(sink: &Sink, wanted: &BTreeSet<Name>, agent: &Agent) {
    let all = crate::support::holds_within(PATIENCE, || delivered(sink).is_superset(wanted));
    let missing: Vec<_> = wanted.difference(&delivered(sink)).cloned().collect();
    assert!(all, "{} are missing: {missing:?}\n{}", missing.len(), agent.log());
    assert_eq!(&delivered(sink), wanted);
}

#[track_caller]
pub(crate) fn await_accepted(agent: &Agent, count: usize) {
    until("all are accepted", || Books::of(agent).accepted == count as u64);
}

/// As a crash does.
pub(crate) fn kill(mut agent: Agent) {
    agent.signal(Signal::KILL);
    agent.wait(PATIENCE);
}

/// Without the quiet time; returns what it said.
#[track_caller]
pub(crate) fn stop(mut agent: Agent) -> String {
    agent.signal(Signal::TERM);
    until("it drains", || agent.log().contains("draining"));
    agent.signal(Signal::TERM);
    let status = agent.wait(PATIENCE * 2);
    assert!(status.success(), "{status}\n{}", agent.log());
    until("all that it said is read", || agent.log().contains("stopped"));
    agent.log()
}

/// Leaves both events of these numbers in the folder.
pub(crate) fn leave(folder: &Folder, numbers: Range<usize>, bytes: usize) {
    let server = Server::good();
    let agent = spooling(&server, &dead_flag().1, folder, &[]);
    let count = 2 * numbers.len();
    ask(&agent, numbers, bytes);
    await_accepted(&agent, count);
    kill(agent);
}

/// Where each event of a segment ends.
pub(crate) fn ends(segment: &Path) -> Vec<usize> {
    let bytes = fs::read(segment).unwrap();
    let mut ends = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        at += 20 + u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
        ends.push(at);
    }
    assert_eq!(at, bytes.len());
    ends
}
