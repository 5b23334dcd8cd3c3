//! A process under measurement: a proxy, or the server itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::process;

/// Masters fork their workers after they listen.
const FORKS: Duration = Duration::from_millis(200);
/// Between two looks whether something listens.
const LOOK: Duration = Duration::from_micros(100);

/// How a peer is started: words, in which `{port}` and `{server}` were filled in.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) words: Vec<String>,
    /// Sent with each request, so that two peers can be one program.
    pub(crate) fault: bool,
}

/// A running one. Dropping it ends it.
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) fault: bool,
    /// From the start of the process until a connection was taken.
    pub(crate) listened: Duration,
    began: Instant,
    child: Child,
    /// The process that serves: the last one that was forked.
    pub(crate) pid: u32,
}

impl Peer {
    pub(crate) fn start(recipe: &Recipe, within: Duration) -> Result<Self, Failure> {
        let (program, arguments) =
            recipe.words.split_first().ok_or_else(|| Failure::new("a peer without a command"))?;
        let began = Instant::now();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| Failure::new(format!("{program}: {error}")))?;
        let pid = child.id();
        let (name, port, fault) = (recipe.name.clone(), recipe.port, recipe.fault);
        let mut peer = Self { name, port, fault, listened: Duration::ZERO, began, child, pid };
        peer.listened = peer.until(within, |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
        Ok(peer)
    }

    /// Until its workers are there, too.
    pub(crate) fn settle(mut self) -> Self {
        thread::sleep(FORKS);
        self.pid = self.processes().last().copied().unwrap_or(self.pid);
        self
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        process::tree(self.child.id())
    }

    /// Time until a GET is answered.
    pub(crate) fn first_answer(&mut self) -> Result<Duration, Failure> {
        self.until(Duration::from_secs(10), |port| ask_once(port).is_some())
    }

    fn until(&mut self, within: Duration, is_so: impl Fn(u16) -> bool) -> Result<Duration, Failure> {
        loop {
            if is_so(self.port) {
                return Ok(self.began.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::new(format!("{} ended at once: {status}", self.name)));
            }
            if self.began.elapsed() > within {
                return Err(Failure::new(format!("{} does not listen on {}", self.name, self.port)));
            }
            thread::sleep(LOOK);
        }
    }

    pub(crate) fn memory(&self, line: &str) -> Result<f64, Failure> {
        process::memory(self.pid, line)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What can't be ended has ended.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_millis(300);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        for pid in self.processes().into_iter().rev().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            if matches!(self.child.try_wait(), Ok(None)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// One GET over a connection of its own; whether all went well.
fn ask_once(port: u16) -> Option<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(GET).ok()?;
    let mut buf = [0; 1024];
    let count = stream.read(&mut buf).ok()?;
    buf[..count].starts_with(b"HTTP/1.1 200").then_some(())
}

/// What idle connections have carried.
pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

pub(crate) fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Where a program is, as the shell would find it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    // Debian's servers are where an ordinary user's path does not lead.
    let folders = std::env::split_paths(&paths).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Fills in a configuration of `benches/peers` and puts it into `folder`.
pub(crate) fn fill_in(
    template: &Path,
    folder: &Path,
    as_name: &str,
    values: &[(&str, String)],
) -> Result<String, Failure> {
    let mut text = fs::read_to_string(template)?;
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    let path = folder.join(as_name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}
