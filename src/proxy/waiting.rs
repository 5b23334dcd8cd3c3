//! What a connection waits for, how long, and what happens when it does not come (SPEC P8, P11).
//!
//! Not here: the lists that deadlines are kept in ([`super::timers`]), and their lengths ([`crate::config`]).

use super::connection::Phase;
use super::plane::{Drain, Flow, Plane};
use crate::config::PROGRESS_RATE;
use crate::fault::{Blame, Fault, Reason};

/// The deadlines of a client's connection; it has at most one at a time.
pub(crate) mod deadline {
    /// For the end of a request head.
    pub(crate) const HEAD: usize = 0;
    /// For the next request.
    pub(crate) const KEEP_ALIVE: usize = 1;
    /// For some bytes moved.
    pub(crate) const PROGRESS: usize = 2;
    /// For the client's end of the connection.
    pub(crate) const LINGER: usize = 3;
    /// For any byte through a tunnel.
    pub(crate) const TUNNEL: usize = 4;
    /// The same while the server has not sent one: such a tunnel can make way for others (SPEC P7).
    pub(crate) const SILENT: usize = 5;
    /// For the response to a client that has closed its side.
    pub(crate) const LEAVE: usize = 6;
    /// For the rest of a short request.
    pub(crate) const GATHER: usize = 7;
    /// How many there are.
    pub(crate) const COUNT: usize = 8;
}

/// The deadlines of a connection to the server.
pub(crate) mod upstream_deadline {
    /// For the connection.
    pub(crate) const CONNECT: usize = 0;
    /// For the first byte of the response.
    pub(crate) const RESPONSE: usize = 1;
    /// For the next request.
    pub(crate) const IDLE: usize = 2;
    /// For the reset behind the server's end.
    pub(crate) const RESET: usize = 3;
    /// How many there are.
    pub(crate) const COUNT: usize = 4;
}

impl Plane {
    /// Makes the deadlines fit what the connection waits for.
    pub(super) fn settle(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let sending = !connection.unsent.is_empty();
        let wanted = match &connection.phase {
            // Any byte starts the wait anew.
            Phase::Tunnel(tunnel) => {
                self.deadlines.cancel(key);
                Some(if tunnel.is_served { deadline::TUNNEL } else { deadline::SILENT })
            }
            _ if sending => Some(deadline::PROGRESS),
            Phase::Idle if connection.is_used => Some(deadline::KEEP_ALIVE),
            // Connected as the agent was about to stop: its request may be on the way.
            Phase::Idle if matches!(self.drain, Drain::Finish(_)) => Some(deadline::LINGER),
            Phase::Idle | Phase::Head => Some(deadline::HEAD),
            // A client that closes while it waits has left (SPEC P8), unless it has sent more requests before.
            Phase::Exchange(exchange) if exchange.has_request() => {
                (connection.socket.peer_closed() && connection.input.is_empty()).then_some(deadline::LEAVE)
            }
            // The wait for a 100 is the server's, but not for ever.
            Phase::Exchange(exchange) if exchange.awaits_continue() => Some(deadline::HEAD),
            Phase::Exchange(_) => match connection.upstream {
                None => Some(deadline::GATHER),
                Some(upstream) => {
                    let server_lags = !self.upstreams[upstream].unsent.is_empty();
                    // A client that has closed its side can't be told from one that is gone.
                    (!server_lags || connection.socket.peer_closed()).then_some(deadline::PROGRESS)
                }
            },
            Phase::Collecting(_) => Some(deadline::PROGRESS),
            // A batch may take as long as inference does.
            Phase::Batched(_) | Phase::Parked(_) | Phase::Delayed => {
                connection.socket.peer_closed().then_some(deadline::LEAVE)
            }
            Phase::Closing(_) => Some(deadline::LINGER),
        };
        match wanted {
            Some(list) if self.deadlines.armed(key) != Some(list) => {
                connection.moved = 0;
                self.deadlines.arm(key, list, self.now);
            }
            Some(_) => {}
            None => self.deadlines.cancel(key),
        }
        self.settle_upstream(key);
    }

    fn settle_upstream(&mut self, key: usize) {
        let connection = &self.connections[key];
        let Some(upstream_key) = connection.upstream else { return };
        let upstream = &self.upstreams[upstream_key];
        let server_owes = match &connection.phase {
            Phase::Exchange(exchange) => {
                exchange.awaits_head() && (exchange.has_request() || !upstream.unsent.is_empty())
            }
            _ => false,
        };
        let wanted = if upstream.is_ending {
            Some(upstream_deadline::RESET)
        } else if !upstream.connected && !upstream.unsent.is_empty() {
            Some(upstream_deadline::CONNECT)
        } else if server_owes && self.setup.upstream_timeout.is_some() {
            Some(upstream_deadline::RESPONSE)
        } else {
            None
        };
        match wanted {
            Some(list) if self.upstream_deadlines.armed(upstream_key) == Some(list) => {}
            Some(list) => self.upstream_deadlines.arm(upstream_key, list, self.now),
            None => self.upstream_deadlines.cancel(upstream_key),
        }
    }

    pub(super) fn on_deadline(&mut self, key: usize, list: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let of_window = self.setup.body_timeout.as_secs().saturating_mul(PROGRESS_RATE).max(1);
        let wanted = if list == deadline::LEAVE { 1 } else { of_window };
        let flow = match (list, &connection.phase) {
            (deadline::PROGRESS | deadline::LEAVE, _) if connection.moved >= wanted => {
                connection.moved = 0;
                self.deadlines.arm(key, list, self.now);
                return;
            }
            (deadline::GATHER, Phase::Exchange(_)) => match self.send_gathered(key) {
                Ok(()) => Flow::Next,
                Err(fault) => self.fail(key, fault),
            },
            (deadline::HEAD, Phase::Idle | Phase::Head) => return self.refuse_slow_head(key),
            // It is the server that was asked, and has said nothing.
            (deadline::HEAD, Phase::Exchange(_)) if connection.unsent.is_empty() => {
                self.fail(key, Fault::ContinueTimeout)
            }
            (deadline::PROGRESS, Phase::Exchange(_)) if connection.unsent.is_empty() => {
                self.fail(key, Fault::RequestBodyTimeout)
            }
            (deadline::PROGRESS, Phase::Collecting(_)) => self.refuse(key, Fault::RequestBodyTimeout),
            (deadline::PROGRESS, _) => {
                // What it did not take must not look complete.
                connection.socket.reset_on_close();
                self.note_failure(Blame::Rejected(Reason::SlowClient), &"a client took its response too slowly");
                Flow::Close
            }
            _ => Flow::Close,
        };
        self.follow(key, flow);
    }

    pub(super) fn on_upstream_deadline(&mut self, key: usize, list: usize) {
        let Some(owner) = self.upstreams.get(key).map(|upstream| upstream.owner) else { return };
        match (owner, list) {
            (Some(owner), upstream_deadline::CONNECT) => {
                let flow = self.fail(owner, Fault::ConnectTimeout);
                self.follow(owner, flow);
            }
            (Some(owner), upstream_deadline::RESPONSE) => {
                let flow = self.fail(owner, Fault::ResponseTimeout);
                self.follow(owner, flow);
            }
            (Some(owner), upstream_deadline::RESET) => {
                let flow = self.fail(owner, Fault::NoResponse);
                self.follow(owner, flow);
            }
            _ => self.drop_upstream(key),
        }
    }
}
