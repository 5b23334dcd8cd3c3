//! A worker's connections to the model server: made, kept for the next request, taken over from a forwarder, closed.
//!
//! Not here: which request goes over which ([`super::receive`], [`super::resend`]).

use std::net;

use mio::net::TcpStream;

use super::buffer::Unsent;
use super::connection::Upstream;
use super::plane::{Plane, Source};
use super::socket::{Socket, Stream};
use super::waiting::upstream_deadline;
use crate::fault::Fault;
use crate::ops::limits::is_exhausted;

impl Plane {
    /// The connection to the server that became idle last, if the server is not about to close it.
    pub(crate) fn idle_upstream(&mut self) -> Option<usize> {
        let key = self.upstream_deadlines.newest(upstream_deadline::IDLE)?;
        let idle = self.now.saturating_duration_since(self.upstreams[key].idle_since);
        if idle >= self.setup.server.idle_limit() {
            // The others have been idle longer.
            return None;
        }
        self.upstream_deadlines.cancel(key);
        Some(key)
    }

    /// The server has closed a connection that nobody used.
    pub(crate) fn server_closed_idle(&mut self, key: usize) {
        let idle = self.now.saturating_duration_since(self.upstreams[key].idle_since);
        self.setup.server.has_closed_idle(idle);
        self.drop_upstream(key);
    }

    /// Opens a connection to the server; it may be made only when the first bytes go out.
    ///
    /// # Errors
    /// When there is none, or no descriptor for it.
    pub(crate) fn connect(&mut self) -> Result<usize, Fault> {
        let stream = TcpStream::connect(self.setup.server.address).map_err(|error| connect_fault(&error))?;
        // Not worth failing for: it only delays small writes.
        let _ = stream.set_nodelay(true);
        self.insert_upstream(stream, Vec::new())
    }

    /// Takes over a connection to the server that carries a response; `input`: bytes that were read from it.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub(crate) fn adopt_upstream(&mut self, stream: net::TcpStream, input: Vec<u8>) -> Result<usize, Fault> {
        let fault = |error: std::io::Error| connect_fault(&error);
        stream.set_nonblocking(true).map_err(fault)?;
        let key = self.insert_upstream(TcpStream::from_std(stream), input)?;
        let upstream = &mut self.upstreams[key];
        upstream.connected = true;
        upstream.socket.try_to_read();
        Ok(key)
    }

    fn insert_upstream(&mut self, stream: TcpStream, input: Vec<u8>) -> Result<usize, Fault> {
        let entry = self.upstreams.vacant_entry();
        let key = entry.key();
        let socket = Socket::register(Stream::Tcp(stream), &self.registry, Source::Upstream(key).token(), false)
            .map_err(|error| connect_fault(&error))?;
        entry.insert(Upstream {
            socket,
            sent_at: self.now,
            idle_since: self.now,
            owner: None,
            input,
            unsent: Unsent::default(),
            replay: Vec::new(),
            reused: false,
            connected: false,
            is_checked: false,
            is_ending: false,
            broken: None,
        });
        self.setup.metrics.upstream_opened.count();
        Ok(key)
    }

    /// Takes the connection to the server away from its exchange, to be used by another.
    pub(crate) fn release_upstream(&mut self, key: usize) {
        let upstream = &mut self.upstreams[key];
        upstream.owner = None;
        upstream.idle_since = self.now;
        upstream.reused = true;
        upstream.is_checked = false;
        self.upstream_deadlines.arm(key, upstream_deadline::IDLE, self.now);
    }

    /// Closes a connection to the server.
    pub(crate) fn drop_upstream(&mut self, key: usize) {
        let Some(mut upstream) = self.upstreams.try_remove(key) else { return };
        self.upstream_deadlines.cancel(key);
        self.setup.metrics.upstream_closed.count();
        let pool = &mut self.buffers.pool;
        pool.put(&mut upstream.input);
        pool.put(&mut upstream.replay);
        upstream.unsent.clear(pool);
    }
}

fn connect_fault(error: &std::io::Error) -> Fault {
    if is_exhausted(error) { Fault::Exhausted } else { Fault::Connect(error.kind()) }
}
