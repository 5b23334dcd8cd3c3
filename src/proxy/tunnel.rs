//! Bytes both ways as they are: after a 101 (WebSocket), or for HTTP/2 with prior knowledge (gRPC).
//!
//! Each direction has back-pressure, and its end is passed on by itself: a client that has sent its last byte still
//! gets the rest of what the server sends.
//!
//! Not here: what the bytes mean; batching and payload logging do not see them.

use std::io::ErrorKind;

use super::buffer::{Buffers, READ_AT, READ_END};
use super::connection::{Phase, Tunnel};
use super::plane::{Flow, Plane, SendFrom};
use super::socket::Received;
use crate::fault::Fault;

/// What a direction of a tunnel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passed {
    Bytes,
    Nothing,
    /// It has ended, and all of it went out.
    End,
}

impl Plane {
    /// Makes the connection a tunnel and sends what has come so far into it.
    pub(super) fn open_tunnel(&mut self, key: usize, end: usize) -> Flow {
        self.saw_request = true;
        let Buffers { read, out, .. } = &mut self.buffers;
        out.clear();
        out.extend_from_slice(&read[READ_AT..end]);
        self.become_tunnel(key, Tunnel::default());
        match self.dispatch_new(key) {
            Ok(()) => Flow::Next,
            // There is no HTTP/1 answer to HTTP/2.
            Err(fault) => {
                self.note_fault(fault);
                Flow::Close
            }
        }
    }

    /// From now on the connection's bytes pass as they are.
    pub(super) fn become_tunnel(&mut self, key: usize, tunnel: Tunnel) {
        self.connections[key].phase = Phase::Tunnel(tunnel);
        self.setup.metrics.tunnels_opened.count();
    }

    /// Moves bytes both ways until both directions wait or have ended.
    pub(super) fn tunnel(&mut self, key: usize) -> Flow {
        while self.may_move(1) {
            let (up, down) = match (self.tunnel_up(key), self.tunnel_down(key)) {
                (Ok(up), Ok(down)) => (up, down),
                (Err(kind), _) | (_, Err(kind)) => return self.break_tunnel(key, kind),
            };
            match (up, down) {
                (Passed::End, Passed::End) => return Flow::Close,
                (Passed::Bytes, _) | (_, Passed::Bytes) => {}
                _ => return Flow::Wait,
            }
        }
        Flow::Yield
    }

    /// One side broke its connection: the other must not take that for an end.
    fn break_tunnel(&mut self, key: usize, kind: ErrorKind) -> Flow {
        let upstream = self.connections[key].upstream;
        if upstream.is_some_and(|upstream| !self.upstreams[upstream].connected) {
            self.note_fault(Fault::Connect(kind));
        }
        let connection = &self.connections[key];
        connection.socket.reset_on_close();
        if let Some(upstream) = connection.upstream {
            self.upstreams[upstream].socket.reset_on_close();
        }
        Flow::Close
    }

    /// Client to server: one write or one read.
    fn tunnel_up(&mut self, key: usize) -> Result<Passed, ErrorKind> {
        let connection = &mut self.connections[key];
        let (Phase::Tunnel(tunnel), Some(upstream_key)) = (&mut connection.phase, connection.upstream) else {
            return Ok(Passed::End);
        };
        let upstream = &mut self.upstreams[upstream_key];
        let Buffers { read, pool, .. } = &mut self.buffers;
        if !upstream.unsent.is_empty() {
            if !upstream.socket.is_writable() {
                return Ok(Passed::Nothing);
            }
            let sent = upstream.socket.send(upstream.unsent.rest())?;
            upstream.connected |= sent > 0;
            upstream.unsent.advance(sent, pool);
            return Ok(if sent > 0 { Passed::Bytes } else { Passed::Nothing });
        }
        if tunnel.client_ended {
            return Ok(Passed::End);
        }
        if !connection.socket.is_readable() {
            return Ok(Passed::Nothing);
        }
        match connection.socket.receive(&mut read[READ_AT..READ_END]) {
            Received::Bytes(count) => {
                self.setup.metrics.received.add(count as u64);
                let bytes = &read[READ_AT..READ_AT + count];
                let sent = upstream.socket.send(bytes)?;
                upstream.unsent.keep(&bytes[sent..], pool);
                Ok(Passed::Bytes)
            }
            Received::Nothing => Ok(Passed::Nothing),
            Received::End => {
                tunnel.client_ended = true;
                upstream.socket.end();
                Ok(Passed::End)
            }
            Received::Broken(kind) => Err(kind),
        }
    }

    /// Server to client: one write or one read.
    fn tunnel_down(&mut self, key: usize) -> Result<Passed, ErrorKind> {
        let had = !self.connections[key].unsent.is_empty();
        if !self.flush_client(key)? {
            return Ok(Passed::Nothing);
        }
        let connection = &mut self.connections[key];
        let (Phase::Tunnel(tunnel), Some(upstream_key)) = (&mut connection.phase, connection.upstream) else {
            return Ok(Passed::End);
        };
        if tunnel.server_ended {
            return Ok(Passed::End);
        }
        let upstream = &mut self.upstreams[upstream_key];
        if !upstream.socket.is_readable() {
            return Ok(if had { Passed::Bytes } else { Passed::Nothing });
        }
        match upstream.socket.receive(&mut self.buffers.read[READ_AT..READ_END]) {
            Received::Bytes(count) => {
                upstream.connected = true;
                tunnel.is_served = true;
                let from = SendFrom::Read { start: READ_AT, end: READ_AT + count };
                Self::send_to_client(connection, &mut self.buffers, &self.setup, from).map(|()| Passed::Bytes)
            }
            Received::Nothing => Ok(Passed::Nothing),
            Received::End => {
                tunnel.server_ended = true;
                connection.socket.end();
                Ok(Passed::End)
            }
            Received::Broken(kind) => Err(kind),
        }
    }
}
