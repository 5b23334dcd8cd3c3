//! The pace that a server must keep: one that sends a byte now and then does not stall, and would hold who waits for it
//! for ever.
//!
//! It is taken where bytes leave the socket, below TLS and HTTP, so that heads, bodies, documents of errors and whatever is
//! between them all have it. Only time that is spent waiting for the network counts: a disk may be as slow as it is.
//!
//! Not here: the time without any byte, which ureq limits.

use std::io;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use crate::config::STORE_PACE_BYTES;

/// Has every connection keep a pace.
#[derive(Debug)]
pub(super) struct Paced {
    /// Time of waiting in which [`STORE_PACE_BYTES`] must come.
    pub(super) time: Duration,
}

impl<T: Transport> Connector<T> for Paced {
    type Out = PacedTransport<T>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<T>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|transport| PacedTransport { transport, pace: Pace::new(self.time) }))
    }
}

/// A connection and the pace of what comes by it.
#[derive(Debug)]
pub(super) struct PacedTransport<T> {
    transport: T,
    pace: Pace,
}

impl<T: Transport> Transport for PacedTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.transport.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // A request: many small answers by one connection are not one slow answer.
        self.pace = Pace::new(self.pace.time);
        self.transport.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let had = self.transport.buffers().input().len();
        let begun = Instant::now();
        let result = self.transport.await_input(timeout)?;
        let count = self.transport.buffers().input().len().saturating_sub(had);
        self.pace.keep(begun.elapsed(), count)?;
        Ok(result)
    }

    fn is_open(&mut self) -> bool {
        self.transport.is_open()
    }

    fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }
}

/// How long has been waited for how much. Pure.
#[derive(Debug)]
struct Pace {
    time: Duration,
    waited: Duration,
    bytes: usize,
}

impl Pace {
    fn new(time: Duration) -> Self {
        Self { time, waited: Duration::ZERO, bytes: 0 }
    }

    /// So many bytes came after this time of waiting.
    fn keep(&mut self, waited: Duration, bytes: usize) -> io::Result<()> {
        self.waited += waited;
        self.bytes += bytes;
        if self.bytes >= STORE_PACE_BYTES {
            *self = Self::new(self.time);
        } else if self.waited >= self.time {
            let text = format!("slower than {STORE_PACE_BYTES} bytes in {} s", self.time.as_secs());
            return Err(io::Error::other(text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_byte_now_and_then_is_too_slow() {
        let mut pace = Pace::new(60 * SECOND);
        assert!((0..59).all(|_| pace.keep(SECOND, 1).is_ok()));
        assert_eq!(pace.keep(SECOND, 1).unwrap_err().to_string(), "slower than 65536 bytes in 60 s");
    }

    #[test]
    fn a_slow_network_is_waited_for_however_long_it_takes() {
        let mut pace = Pace::new(60 * SECOND);
        assert!((0..10_000).all(|_| pace.keep(SECOND, STORE_PACE_BYTES / 59).is_ok()));
    }
}
