//! Runs of the load generators against a peer, and what the peer's processes used meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::model::Kind;
use crate::parse::{Count, Log, calls, moves_bytes};
use crate::peer::Peer;
use crate::process::{self, Used};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many flowers in each request.
    Predict(usize),
    /// One flower over a connection of its own.
    Close,
    Upload(usize),
    /// A file of the fast server, of so many bytes.
    Download(usize),
}

impl Work {
    fn path(self, predict: &str) -> String {
        match self {
            Self::Predict(_) | Self::Close => predict.to_owned(),
            Self::Upload(_) => "/upload".to_owned(),
            Self::Download(size) => format!("/files/{size}"),
        }
    }

    fn arguments(self) -> (&'static str, usize) {
        match self {
            Self::Predict(flowers) => ("predict", flowers),
            Self::Close => ("close", 1),
            Self::Upload(size) => ("upload", size),
            Self::Download(_) => ("get", 0),
        }
    }

    /// Bytes of the body that counts.
    pub(crate) fn body(self) -> Option<usize> {
        match self {
            Self::Predict(_) | Self::Close => None,
            Self::Upload(size) | Self::Download(size) => Some(size),
        }
    }
}

/// One run.
pub(crate) struct Run {
    pub(crate) count: Count,
    /// Processor time of the peer's processes per request, in microseconds.
    pub(crate) cpu: f64,
    /// Resident memory at most, in bytes.
    pub(crate) peak: f64,
    /// By how much that is more than before the run.
    pub(crate) grown: f64,
}

impl Run {
    pub(crate) fn rate(&self) -> f64 {
        self.count.requests / self.count.seconds
    }

    /// As the report names them.
    pub(crate) fn figures(&self, work: Work, connections: usize) -> Vec<(Kind, f64)> {
        let mut figures = vec![(Kind::Rate, self.rate()), (Kind::Cpu, self.cpu)];
        figures.extend(Kind::LATENCIES.into_iter().zip(self.count.latency));
        if let Some(size) = work.body() {
            figures.push((Kind::Bandwidth, self.rate() * size as f64 / 1e9));
            figures.push((Kind::PerStream, self.grown / 1024.0 / connections as f64));
        }
        figures.push((Kind::Peak, self.peak / f64::from(1 << 20)));
        figures.push((Kind::Errors, self.count.errors));
        figures
    }
}

/// Where the generators find and put their files.
pub(crate) struct Load {
    /// `benches/peers`.
    pub(crate) scripts: PathBuf,
    pub(crate) folder: PathBuf,
    /// Target of predict requests.
    pub(crate) path: String,
}

impl Load {
    /// A closed loop: each of `connections` sends when it has its answer.
    pub(crate) fn closed(&self, peer: &Peer, connections: usize, seconds: u32, work: Work) -> Result<Run, Failure> {
        let (kind, size) = work.arguments();
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout=60s", "-s"])
            .arg(self.scripts.join("load.lua"))
            .arg(format!("http://127.0.0.1:{}{}", peer.port, work.path(&self.path)))
            .args(["--", kind, &size.to_string()]);
        if peer.fault {
            wrk.arg("spin");
        }
        let processes = peer.processes();
        process::forget_peak(peer.pid);
        let resident = peer.memory("VmRSS:")?;
        let before = Used::by(&processes);
        let output = wrk.output()?;
        let used = Used::by(&peer.processes()).since(&before);
        let text = String::from_utf8_lossy(&output.stdout);
        let count = Count::of_wrk(&text)
            .filter(|count| count.requests > 0.0)
            .ok_or_else(|| Failure::new(format!("{} answered nothing", peer.name)))?;
        let cpu = used / count.requests * 1e6;
        let peak = peer.memory("VmHWM:")?;
        Ok(Run { count, cpu, peak, grown: peak - resident })
    }

    /// An open loop: `rate` requests per second are begun whether or not earlier ones were answered.
    pub(crate) fn open(&self, peer: &Peer, rate: usize, seconds: f64) -> Result<(Run, Log), Failure> {
        let clients = (rate / PER_CLIENT).max(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
        let requests = (rate as f64 * seconds) as usize;
        let ramp = clients as f64 * APART.as_secs_f64();
        let (body, log) = (self.folder.join("predict.json"), self.folder.join("h2load.log"));
        fs::write(&body, r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#)?;
        // h2load appends to it.
        let _ = fs::remove_file(&log);
        let mut h2load = Command::new("h2load");
        h2load
            .args(["--h1", "-t1", &format!("-c{clients}"), &format!("-n{requests}"), &format!("--rps={PER_CLIENT}")])
            .args(["-r1", &format!("--rate-period={}ms", APART.as_millis())])
            .args(["-H", "Content-Type: application/json", "-d"])
            .arg(&body)
            .arg(format!("--log-file={}", log.display()))
            .arg(format!("http://127.0.0.1:{}{}", peer.port, self.path));
        let processes = peer.processes();
        process::forget_peak(peer.pid);
        let resident = peer.memory("VmRSS:")?;
        let before = Used::by(&processes);
        let status = h2load.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        let used = Used::by(&peer.processes()).since(&before);
        if !status.success() {
            return Err(Failure::new(format!("h2load failed at {}: {status}", peer.name)));
        }
        let log = Log::of_h2load(&fs::read_to_string(&log)?, ramp, seconds);
        let cpu = used / log.all.max(1) as f64 * 1e6;
        let latency = Count::PERCENTILES.map(|percent| log.percentile(percent));
        let (requests, errors) = (log.rate * (seconds - ramp), log.errors as f64);
        let count = Count { requests, seconds: seconds - ramp, bytes: 0.0, errors, latency };
        let peak = peer.memory("VmHWM:")?;
        Ok((Run { count, cpu, peak, grown: peak - resident }, log))
    }

    /// Calls that move bytes and calls of the poll, per request.
    pub(crate) fn calls(&self, peer: &Peer) -> Result<(f64, f64), Failure> {
        let table = self.folder.join("strace");
        let mut strace = Command::new("strace");
        strace.args(["-c", "-f", "-o"]).arg(&table);
        for pid in peer.processes() {
            strace.args(["-p", &pid.to_string()]);
        }
        let mut strace = strace.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // It says nothing when it has attached to all threads.
        thread::sleep(ATTACH);
        let run = self.closed(peer, 16, 1, Work::Predict(1));
        Command::new("kill").args(["-INT", &strace.id().to_string()]).status()?;
        strace.wait()?;
        let requests = run?.count.requests;
        let calls = calls(&read(&table)?);
        let sum = |which: &dyn Fn(&str) -> bool| -> f64 {
            calls.iter().filter(|(name, _)| which(name)).map(|(_, count)| count).sum()
        };
        Ok((sum(&moves_bytes) / requests, sum(&|name| name.contains("epoll") || name == "poll") / requests))
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// Requests per second of each client of the open loop. Its interval of 20 ms is far longer than an answer takes, so
/// that a client is free when its next request is due: h2load would put it off otherwise.
const PER_CLIENT: usize = 50;
/// Clients begin one after another, and so their requests do: begun together, they would all ask at the same moment of
/// every 20 ms, which measures the queue of that burst (2.8 ms in the mean at 5 000 requests/s instead of 0.4).
const APART: Duration = Duration::from_millis(1);
const ATTACH: Duration = Duration::from_millis(300);
