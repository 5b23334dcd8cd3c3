//! Wakes the batcher's thread, which parks between looks at its channels.
//!
//! A blocking receive of crossbeam's yields the processor about ten times before it sleeps. In front of a lone client
//! that was half of the agent's calls to the kernel and 25 µs of a request's latency, on two processors that the model
//! server needs. So the threads here look, and then park.
//!
//! Not here: the channels.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;

/// Rung behind every message.
#[derive(Debug, Default)]
pub(super) struct Bell {
    sleeper: OnceLock<Thread>,
    /// Something waits that a returning batch makes room for; if nothing does, returns are looked at with the next message.
    wants_returns: AtomicBool,
}

/// Rings when it is dropped: the channel end before it in the same struct is gone by then, and the sleeper sees that.
#[derive(Debug, Clone)]
pub(super) struct RungAtEnd(pub(super) Arc<Bell>);

impl Bell {
    /// Makes the calling thread the one that is woken. What was sent before is found by its first look.
    pub(super) fn attach(&self) {
        // There is one batcher, so this is the first and only call.
        let _ = self.sleeper.set(std::thread::current());
        fence(Ordering::SeqCst);
    }

    /// A message was sent.
    pub(super) fn ring(&self) {
        let sleeper = self.sleeper.get().or_else(|| {
            // It may just have come, and not have seen the message.
            fence(Ordering::SeqCst);
            self.sleeper.get()
        });
        if let Some(sleeper) = sleeper {
            sleeper.unpark();
        }
    }

    /// A batch has returned, and the receipt was sent.
    pub(super) fn ring_for_return(&self) {
        // The other half is in `sleep`: at least one of the two sees what the other has written.
        fence(Ordering::SeqCst);
        if self.wants_returns.load(Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Sleeps until it rings, or until then. `wants_returns`: for returns as well, unless `has_returns`.
    pub(super) fn sleep(&self, until: Option<Instant>, wants_returns: bool, has_returns: impl FnOnce() -> bool) {
        self.wants_returns.store(wants_returns, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if wants_returns && has_returns() {
            return;
        }
        match until {
            None => std::thread::park(),
            Some(until) => std::thread::park_timeout(until.saturating_duration_since(Instant::now())),
        }
    }
}

impl Drop for RungAtEnd {
    fn drop(&mut self) {
        self.0.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_and_no_wanted_return_is_slept_through() {
        let (messages, inbox) = crossbeam_channel::unbounded();
        let (returned, returns) = crossbeam_channel::unbounded();
        let bell = Arc::new(Bell::default());
        let of_sleeper = Arc::clone(&bell);
        let sleeper = std::thread::spawn(move || {
            of_sleeper.attach();
            let (mut sum, mut open) = (0, true);
            while open || sum < 40_000 {
                sum += returns.try_iter().sum::<u32>();
                sum += inbox.try_iter().sum::<u32>();
                match inbox.try_recv() {
                    Ok(one) => {
                        sum += one;
                        continue;
                    }
                    Err(error) => open = error != crossbeam_channel::TryRecvError::Disconnected,
                }
                if open || sum < 40_000 {
                    of_sleeper.sleep(None, true, || !returns.is_empty());
                }
            }
            sum
        });
        let at_end = RungAtEnd(Arc::clone(&bell));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    returned.send(1).unwrap();
                    bell.ring_for_return();
                }
            });
            for _ in 0..20_000 {
                messages.send(1).unwrap();
                bell.ring();
            }
        });
        drop(messages);
        drop(at_end);
        assert_eq!(sleeper.join().unwrap(), 40_000);
    }
}
