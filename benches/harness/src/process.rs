//! What the kernel knows of a process and its children: processor time, memory, wake-ups.

use std::collections::BTreeMap;
use std::fs;

use crate::failure::Failure;

/// The process and all its descendants, parents first.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        for thread in threads(parent) {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{thread}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
        next += 1;
    }
    found
}

pub(crate) fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Processor time that processes have used.
pub(crate) struct Used {
    /// User and system seconds, in steps of the kernel's tick; with those of threads that have ended.
    ticks: f64,
    /// Nanoseconds by thread.
    threads: BTreeMap<u32, u64>,
}

impl Used {
    pub(crate) fn by(pids: &[u32]) -> Self {
        let ticks = pids.iter().map(|pid| seconds(*pid).unwrap_or_default()).sum();
        let tasks = pids.iter().flat_map(|pid| threads(*pid).into_iter().map(move |thread| (*pid, thread)));
        let threads = tasks.filter_map(|(pid, thread)| Some((thread, nanoseconds(pid, thread)?))).collect();
        Self { ticks, threads }
    }

    /// Seconds since `before`: to the nanosecond where the kernel counts them and no thread has ended in between.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        let all_live = before.threads.keys().all(|thread| self.threads.contains_key(thread));
        if self.threads.is_empty() || !all_live {
            return self.ticks - before.ticks;
        }
        let nanos = self.threads.iter().map(|(thread, now)| now - before.threads.get(thread).unwrap_or(&0));
        nanos.sum::<u64>() as f64 / 1e9
    }
}

fn seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / rustix::param::clock_ticks_per_second() as f64)
}

fn nanoseconds(pid: u32, thread: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// `VmRSS` or `VmHWM`, in bytes.
pub(crate) fn memory(pid: u32, line: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse::<f64>().ok());
    found.map(|kib| kib * 1024.0).ok_or_else(|| Failure::new(format!("no {line} of process {pid}")))
}

/// Makes `VmHWM` begin anew at what is resident now.
pub(crate) fn forget_peak(pid: u32) {
    // Where that is not allowed the peak is the process's of all time, which is never less.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Context switches of all threads: how often they were woken.
pub(crate) fn switches(pid: u32) -> f64 {
    let statuses = threads(pid)
        .into_iter()
        .filter_map(|thread| fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok());
    let count = |status: String| -> f64 {
        let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum()
    };
    statuses.map(count).sum()
}

/// Busy and all time of the machine's processors, in ticks.
pub(crate) fn machine_time() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<f64> =
        stat.lines().next()?.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all: f64 = ticks.iter().take(8).sum();
    Some((all - idle, all))
}
