//! The agent as a child process: started on a free port, watched, and never left behind.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Message, Metrics, PATIENCE, Wire, holds_within, process};

/// A running agent. Dropping it kills it.
pub(crate) struct Agent {
    child: Child,
    pub(crate) port: u16,
    /// Where its metrics are, if it was told to keep them open.
    pub(crate) metrics_port: u16,
    /// Where its status page is, if it was told to have one.
    pub(crate) admin_port: u16,
    log: File,
}

/// How an agent is to be started.
pub(crate) struct Setup {
    server: u16,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    /// What starts it, if it is not started directly: a program whose last argument is a shell's script.
    shell: Option<Vec<String>>,
    is_watched: bool,
}

impl Agent {
    /// An agent in front of the model server on this port, with these flags besides the ports.
    pub(crate) fn start(server: u16, flags: &[&str]) -> Self {
        Self::setup(server).flags(flags).start()
    }

    pub(crate) fn setup(server: u16) -> Setup {
        Setup { server, flags: Vec::new(), env: Vec::new(), shell: None, is_watched: false }
    }

    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(self.port)
    }

    /// One request over a connection of its own.
    #[track_caller]
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        let mut client = self.connect();
        client.send(request);
        client.response()
    }

    /// An agent whose metrics and status page are open.
    pub(crate) fn watched(server: u16, flags: &[&str]) -> Self {
        Self::setup(server).flags(flags).watched().start()
    }

    /// Its metrics as they are now.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::read(self.metrics_port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        process::resident_kib(self.pid())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end of the process.
    #[track_caller]
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        let ended = holds_within(patience, || {
            status = self.ended();
            status.is_some()
        });
        assert!(ended, "the agent did not end within {patience:?}; it said:\n{}", self.log());
        status.unwrap()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        let mut bytes = vec![0; usize::try_from(self.log.metadata().unwrap().len()).unwrap()];
        // The agent's end of the file is at its place, and stays there.
        self.log.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the agent at port {} (ended before: {ended:?}) said:\n{log}", self.port);
        }
        if log.contains("panic") && !log.contains("fault injected") && !std::thread::panicking() {
            panic!("the agent panicked:\n{log}");
        }
    }
}

impl Setup {
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Limits its descriptors, hard and soft.
    pub(crate) fn descriptors(mut self, limit: u32) -> Self {
        self.shell = Some(vec!["sh".to_owned(), "-c".to_owned(), format!("ulimit -n {limit}")]);
        self
    }

    /// Runs it in namespaces of its own, which `unshare` makes by this flag, after this script.
    pub(crate) fn within(mut self, flag: &str, script: &str) -> Self {
        self.shell = Some(["unshare", flag, "sh", "-c", script].map(str::to_owned).to_vec());
        self
    }

    /// Opens its metrics and its status page.
    pub(crate) fn watched(mut self) -> Self {
        self.is_watched = true;
        self
    }

    /// Starts it and waits until it takes connections.
    pub(crate) fn start(&self) -> Agent {
        // A port that was free may be taken before the agent binds it; then it ends at once, and another is tried.
        for _ in 0..5 {
            let mut agent = self.spawn(free_port());
            let mut ended = false;
            let ready = holds_within(PATIENCE, || {
                ended = agent.child.try_wait().unwrap().is_some();
                let ports = [agent.port, agent.metrics_port, agent.admin_port];
                let mut ports = ports.into_iter().filter(|port| *port > 0);
                ended || ports.all(|port| Wire::try_connect(port).is_ok())
            });
            if ready && !ended {
                return agent;
            }
            assert!(ended && agent.log().contains("--port"), "the agent did not start:\n{}", agent.log());
        }
        panic!("no free port in five tries");
    }

    /// Starts it on this port without waiting for anything.
    pub(crate) fn spawn(&self, port: u16) -> Agent {
        let program = env!("CARGO_BIN_EXE_kserve-agent");
        let mut command = match self.shell.as_deref() {
            Some([first, arguments @ .., script]) => {
                let mut shell = Command::new(first);
                shell.args(arguments).args([&format!("{script}; exec \"$0\" \"$@\""), program]);
                shell
            }
            _ => Command::new(program),
        };
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args([format!("--port={port}"), format!("--component-port={}", self.server)]);
        // Two agents can't have the same ports.
        let [metrics_port, admin_port] = if self.is_watched { [free_port(), free_port()] } else { [0; 2] };
        command.args([format!("--metrics-port={metrics_port}"), format!("--admin-port={admin_port}")]);
        command.args(&self.flags);
        let log = nameless_file();
        let child = command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).spawn().unwrap();
        Agent { child, port, metrics_port, admin_port, log }
    }
}

/// A file for what a child writes: it is there when the child has written it, without a thread that reads a pipe.
fn nameless_file() -> File {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("kserve-agent-log-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().create_new(true).read(true).append(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// A port that nobody listens on, and that no other test gets, of this process or another that runs at the same time.
///
/// It lies below the range that the kernel gives to clients: a port from that range, free now, may be the source of
/// somebody's connection a moment later.
pub(crate) fn free_port() -> u16 {
    static OWN: LazyLock<OwnPorts> = LazyLock::new(OwnPorts::take);
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = OWN.first + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS_OF_ONE;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// Ports that a test process has for itself: more than the tests take, as one that nobody listens on may be waited for.
const PORTS_OF_ONE: u16 = 7000;

/// The ports of this process, as long as its lock on a file is held.
struct OwnPorts {
    first: u16,
    _lock: File,
}

impl OwnPorts {
    fn take() -> Self {
        const FIRST: u16 = 10_000;
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let low = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768_u16);
        let blocks = (low.saturating_sub(FIRST) / PORTS_OF_ONE).max(1);
        let lock_of = |block| {
            let path = std::env::temp_dir().join(format!("kserve-agent-test-ports-{block}"));
            let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.try_lock().is_ok().then_some((block, file))
        };
        let (block, lock) = (0..blocks).find_map(lock_of).expect("fewer test processes than blocks of ports");
        Self { first: FIRST + block * PORTS_OF_ONE, _lock: lock }
    }
}
