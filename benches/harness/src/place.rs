//! Which processor a thread runs on. Where the kernel chooses, a request through a proxy takes 30 µs while all of its
//! stations happen to share a processor, and 75 once they do not and each wakes one that sleeps; which it is changes
//! within seconds, and says nothing of the proxy.

use std::io;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;
use crate::peer::Peer;
use crate::process::threads;

/// Processors that the harness may use, the last one first: interrupts tend to be on the first.
pub(crate) fn processors() -> Result<Vec<usize>, Failure> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).rev().filter(|processor| allowed.is_set(*processor)).collect())
}

/// Keeps the calling thread, and it alone, on one processor.
pub(crate) fn stay_on(processor: usize) -> io::Result<()> {
    Ok(sched_setaffinity(None, &only(processor))?)
}

/// Keeps all threads of a peer there.
pub(crate) fn put_on(processor: usize, peer: &Peer) -> Result<(), Failure> {
    for thread in peer.processes().into_iter().flat_map(threads) {
        // None of 0, which is the calling thread: that number is no thread's.
        if let Some(thread) = i32::try_from(thread).ok().and_then(Pid::from_raw) {
            sched_setaffinity(Some(thread), &only(processor))?;
        }
    }
    Ok(())
}

fn only(processor: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(processor);
    set
}
