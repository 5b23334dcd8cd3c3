//! What the kernel says about a process.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Processor time used so far, in clock ticks of 10 ms.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may hold anything, so count from behind its parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// How often all of its threads together were given a processor or gave one up.
pub(crate) fn switches(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path());
    let of_thread = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let counts = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
        counts.map(|(_, count)| count.trim().parse::<u64>().unwrap()).sum::<u64>()
    };
    threads.map(of_thread).sum()
}

/// Open descriptors.
pub(crate) fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Whether a program is in `PATH`.
pub(crate) fn has_program(name: &str) -> bool {
    std::env::var("PATH").is_ok_and(|path| path.split(':').any(|folder| Path::new(folder).join(name).is_file()))
}

/// Brings the loopback of a new network namespace up.
pub(crate) fn raise_loopback() -> bool {
    const IN_PYTHON: &str = "import socket, fcntl, struct\n\
        fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'lo', 0x49))";
    let ip = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    let python = || Command::new("python3").args(["-c", IN_PYTHON]).status();
    ip.is_ok_and(|status| status.success()) || python().is_ok_and(|status| status.success())
}

/// Its address space, bytes.
pub(crate) fn address_space(pid: u32) -> u64 {
    status_kib(pid, "VmSize:") * 1024
}

/// Limits its address space; returns the limit that was.
pub(crate) fn address_space_limit(pid: u32, bytes: u64) -> u64 {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let old = prlimit(pid, Resource::As, Rlimit { current: Some(bytes), maximum: None }).unwrap();
    old.current.unwrap_or(u64::MAX)
}

/// Limits its descriptors, for good.
pub(crate) fn descriptor_limit(pid: u32, count: usize) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let count = Some(u64::try_from(count).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: count, maximum: count }).unwrap();
}
