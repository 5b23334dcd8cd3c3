//! The process and the build, under the names that every Prometheus client library gives them.
//!
//! Not here: anything that costs something while nobody asks.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::family::{Family, Kind, Sample, Source, Value};
use crate::ops::build::{VERSION, target};

/// Panics since the start: bugs that cost a connection or a batch. A static, as the hook that counts has no owner.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// What the process says of itself.
#[derive(Debug)]
pub(crate) struct Process {
    started: SystemTime,
    is_draining: AtomicBool,
}

/// Counts panics, and gives them a line in the log instead of Rust's own on standard error.
pub(crate) fn count_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        log::error!("a bug of the agent's: thread {name}: {panic}");
    }));
}

impl Process {
    /// A process that has just started.
    pub(crate) fn new() -> Self {
        Self { started: SystemTime::now(), is_draining: AtomicBool::new(false) }
    }

    /// The shutdown has begun (SPEC D1).
    pub(crate) fn drains(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether the shutdown has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// When it started, as Unix time in seconds.
    pub(crate) fn started(&self) -> f64 {
        unix_seconds(self.started)
    }
}

/// A time as Unix time in seconds.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Source for Process {
    fn families(&self) -> Vec<Family> {
        let draining = u64::from(self.is_draining());
        let build = vec![("version", VERSION.to_owned()), ("target", target())];
        let mut families = vec![
            Family::gauge("kserve_agent_draining", "1 once the shutdown has begun.", draining),
            Family::counter(
                "kserve_agent_panics_total",
                "Bugs of the agent that cost a connection or a batch.",
                PANICS.load(Ordering::Relaxed),
            ),
            Family {
                name: "kserve_agent_build_info",
                help: "Version and target.",
                kind: Kind::Info,
                samples: vec![Sample { labels: build, value: Value::Whole(1) }],
            },
        ];
        families.extend(usage(self.started()));
        families
    }
}

/// What the process uses. What the kernel does not tell is left out.
fn usage(started: f64) -> Vec<Family> {
    let processor = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "it is a measure")]
    let processor = processor.tv_sec as f64 + processor.tv_nsec as f64 / 1e9;
    let [size, resident] = memory().map_or([None; 2], |memory| memory.map(Some));
    let gauge = |name, help, value: Option<u64>| Some(Family::gauge(name, help, value?));
    let real = |name, help, kind, value| Some(Family::of(name, help, kind, Value::Real(value)));
    let all = [
        real("process_cpu_seconds_total", "Processor time, user and system.", Kind::Counter, processor),
        gauge("process_resident_memory_bytes", "Memory in use.", resident),
        gauge("process_virtual_memory_bytes", "Address space.", size),
        gauge("process_open_fds", "Open file descriptors.", open_descriptors()),
        gauge("process_max_fds", "File descriptors at most.", getrlimit(Resource::Nofile).current),
        real("process_start_time_seconds", "Start of the process, Unix time.", Kind::Gauge, started),
    ];
    all.into_iter().flatten().collect()
}

/// A folder's size is its number of descriptors from Linux 6.2 on, which costs nothing; to count ten thousand of them
/// takes milliseconds.
fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

/// Address space and memory in use, bytes (proc_pid_statm(5)).
fn memory() -> Option<[u64; 2]> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = pages.split(' ').map(|number| number.parse::<u64>());
    let page = rustix::param::page_size() as u64;
    Some([pages.next()?.ok()? * page, pages.next()?.ok()? * page])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_what_it_uses() {
        let process = Process::new();
        process.drains();
        let families = process.families();
        let value = |name| families.iter().find(|family| family.name == name).map(|family| &family.samples[0].value);
        assert_eq!(value("kserve_agent_draining"), Some(&Value::Whole(1)));
        let Some(Value::Whole(resident)) = value("process_resident_memory_bytes") else { panic!("{families:?}") };
        assert!((1 << 20..1 << 30).contains(resident), "{resident}");
        let Some(Value::Real(started)) = value("process_start_time_seconds") else { panic!("{families:?}") };
        assert!(*started > 1.7e9);
        assert_eq!(families.len(), 9);
    }
}
