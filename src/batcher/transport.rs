//! A connection that goes on to read when the server takes no more: a server that refuses a large body may answer and
//! close without reading it, and its answer is still there (RFC 9112 §9.5).
//!
//! Not here: everything else about connections, which is ureq's.

use std::io::ErrorKind;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Makes the connection of the connector before it one that reads on.
#[derive(Debug)]
pub(super) struct ReadOnConnector;

/// A connection whose failed writes end the writing and not the exchange.
#[derive(Debug)]
pub(super) struct ReadOn<T> {
    inner: T,
    is_broken: bool,
}

impl<In: Transport> Connector<In> for ReadOnConnector {
    type Out = ReadOn<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, made: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(made.map(|inner| ReadOn { inner, is_broken: false }))
    }
}

impl<T: Transport> Transport for ReadOn<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.is_broken {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            // Without an answer the read that follows says what has happened.
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.is_broken = true;
                Ok(())
            }
            result => result,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        !self.is_broken && self.inner.is_open()
    }
}
