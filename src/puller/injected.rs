//! Kills the process at a named step, for tests of what a crash leaves. Nothing in a released binary.

/// Dies here as by `kill -9`, if the test wants it to.
#[cfg(feature = "fault-injection")]
pub(super) fn at(step: &str) {
    if std::env::var("KSERVE_AGENT_KILL_AT").is_ok_and(|wanted| wanted == step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(feature = "fault-injection"))]
pub(super) fn at(_: &str) {}
