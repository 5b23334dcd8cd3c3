//! The end of a client's connection: the last bytes go out, and nothing that is on its way is lost to a reset.
//!
//! Not here: why it closes ([`super::exchange`]).

use std::io::{Read, Write};

use super::connection::{Closing, Phase};
use super::headers::{self, Connection};
use super::plane::{Flow, Plane, SendFrom};
use super::socket::{Received, Stream};
use super::waiting::deadline;
use crate::fault::Fault;
use crate::http1::Version;

impl Plane {
    /// Puts the last bytes in `out` on their way and closes behind them.
    pub(super) fn send_and_close(&mut self, key: usize, closing: Closing) -> Flow {
        let connection = &mut self.connections[key];
        connection.phase = Phase::Closing(closing);
        match Self::send_to_client(connection, &mut self.buffers, &self.setup, SendFrom::Out) {
            Ok(()) => Flow::Next,
            Err(_) => Flow::Close,
        }
    }

    /// Last bytes out, then the end; lingering if the client may still be sending.
    pub(super) fn closing(&mut self, key: usize) -> Flow {
        match self.flush_client(key) {
            Ok(true) => {}
            Ok(false) => return Flow::Wait,
            Err(_) => return Flow::Close,
        }
        let connection = &mut self.connections[key];
        match &mut connection.phase {
            Phase::Closing(Closing::Clean) => return Flow::Close,
            Phase::Closing(closing @ Closing::Linger) => {
                *closing = Closing::Lingering;
                connection.socket.end();
                self.buffers.pool.put(&mut connection.input);
                self.deadlines.arm(key, deadline::LINGER, self.now);
            }
            _ => {}
        }
        self.discard(key)
    }

    /// Throws away what a closing client sends.
    fn discard(&mut self, key: usize) -> Flow {
        // One turn's worth: a client that sends without end is cut by the deadline, not served by it.
        while self.may_move(1) {
            let connection = &mut self.connections[key];
            if !connection.socket.is_readable() {
                return Flow::Wait;
            }
            match connection.socket.receive(&mut self.buffers.read) {
                Received::Bytes(_) => {}
                Received::Nothing => return Flow::Wait,
                Received::End | Received::Broken(_) => return Flow::Close,
            }
        }
        Flow::Yield
    }
}

/// Answers 503 and closes, without waiting for anything. What the client has sent so far is read first: closing on
/// unread bytes is a reset, which would overtake the answer.
pub(super) fn turn_away(mut stream: Stream) {
    let mut answer = Vec::new();
    headers::write_fault(&mut answer, Fault::TooManyConnections, Version::Http11, Connection::Close, false);
    let mut unread = [0; 16 * 1024];
    // The client may be gone already; there is nobody else to tell.
    let _ = stream.write_all(&answer).and_then(|()| stream.end()).and_then(|()| stream.read(&mut unread));
}
