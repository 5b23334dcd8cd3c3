//! What tests of a crash, and of file systems that there are none of here, make happen at a named step. Nothing in a
//! released binary.

/// Dies here as by `kill -9`, if the test wants it to.
#[cfg(feature = "fault-injection")]
pub(super) fn at(step: &str) {
    if is_named("KSERVE_AGENT_KILL_AT", step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Whether the test wants this call to fail as on a file system that does not know it.
#[cfg(feature = "fault-injection")]
pub(super) fn lacks(call: &str) -> bool {
    is_named("KSERVE_AGENT_LACKS", call)
}

#[cfg(feature = "fault-injection")]
fn is_named(variable: &str, step: &str) -> bool {
    std::env::var(variable).is_ok_and(|wanted| wanted == step)
}

#[cfg(not(feature = "fault-injection"))]
pub(super) fn at(_: &str) {}

#[cfg(not(feature = "fault-injection"))]
pub(super) fn lacks(_: &str) -> bool {
    false
}
