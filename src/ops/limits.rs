//! What the process may use: processors, descriptors.
//!
//! Not here: the numbers that the agent sets itself ([`crate::config`]).

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::{OPERATOR_CONNECTIONS, Pin, THREADS_DEFAULT_MAX};

/// Descriptors that are not connections: standard streams, signals, listeners, the prober's, the batcher's; 18 were
/// counted.
const RESERVED_DESCRIPTORS: u64 = 20 + OPERATOR_CONNECTIONS as u64;
/// Descriptors of one worker: its poll, its waker, its end of the main thread's pipe; 4 were counted.
const WORKER_DESCRIPTORS: u64 = 4;

/// Raises the soft limit of descriptors to the hard one, as Go's runtime does; returns the limit.
pub(crate) fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Connections at most: each may need a second descriptor for the model server.
pub(crate) fn max_connections(wanted: Option<NonZeroUsize>, descriptors: u64, workers: usize) -> usize {
    let reserved = RESERVED_DESCRIPTORS + WORKER_DESCRIPTORS * workers as u64;
    let possible = usize::try_from(descriptors.saturating_sub(reserved) / 2).unwrap_or(usize::MAX).max(1);
    match wanted.map(NonZeroUsize::get) {
        Some(wanted) if wanted > possible => {
            log::warn!(
                "--max-connections: {wanted} needs more than the {descriptors} descriptors there are; using {possible}"
            );
            possible
        }
        Some(wanted) => wanted,
        None => possible,
    }
}

/// Workers when the number is not given: the processors that affinity and cgroup quota leave, within reason.
pub(crate) fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_DEFAULT_MAX)
}

/// The processors that workers are to stay on; none: they are not pinned.
pub(crate) fn processors_to_pin(pin: Pin) -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    let processors: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|list| count(list.trim()));
    match pin {
        Pin::On => processors,
        Pin::Auto if has_own(processors.len(), online) => processors,
        Pin::Auto | Pin::Off => Vec::new(),
    }
}

/// A cpuset smaller than the machine is the kubelet's static policy at work, and the processors in it are ours alone.
/// Without one every agent on a node would pin its first worker to the same processor; under a quota below the set a
/// pinned worker would sit out its throttling beside an idle processor.
fn has_own(allowed: usize, online: Option<usize>) -> bool {
    let has_quota = std::thread::available_parallelism().is_ok_and(|usable| usable.get() < allowed);
    !has_quota && online.is_some_and(|online| allowed < online)
}

/// Processors in a kernel list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    list.split(',').try_fold(0, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(sum + last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    })
}

/// Keeps the calling thread on one processor.
pub(crate) fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    if let Err(error) = sched_setaffinity(None, &set) {
        log::warn!("not pinned to processor {processor}: {error}");
    }
}

/// Whether a call failed for want of descriptors or memory, which is nobody's fault but the machine's.
pub(crate) fn is_exhausted(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    // NOSPC: of the kernel's room for polls (fs.epoll.max_user_watches).
    Errno::from_io_error(error)
        .is_some_and(|errno| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC].contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_list_is_counted() {
        assert_eq!(count("0-3,8,10-11"), Some(7));
        assert_eq!(count("0"), Some(1));
        assert_eq!(count("x"), None);
        assert_eq!(count("3-1"), None);
    }

    #[test]
    fn each_connection_has_two_descriptors() {
        assert_eq!(max_connections(None, 64, 2), 10);
        assert_eq!(max_connections(None, 64, 4), 6);
        assert_eq!(max_connections(None, 10, 1), 1);
        assert_eq!(max_connections(NonZeroUsize::new(5), 64, 2), 5);
        assert_eq!(max_connections(NonZeroUsize::new(500), 64, 2), 10);
    }

    #[test]
    fn only_a_set_smaller_than_the_machine_is_ones_own() {
        let usable = std::thread::available_parallelism().unwrap().get();
        assert!(has_own(usable, Some(usable + 1)));
        assert!(!has_own(usable, Some(usable)));
        assert!(!has_own(usable + 1, Some(usable + 2)), "a quota below the set");
        assert!(!has_own(usable, None));
    }
}
