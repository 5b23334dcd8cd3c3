//! The scheduler: decides by chance who moves next, until nobody can.

use kserve_agent::fault::Fault;

use super::client::{Peer, Tally};
use super::owner::{Client, Owner, Pool};
use super::request::{Cut, Request};
use super::response::Response;
use super::rng::Rng;
use super::server::{Book, Entry, Server};

/// Steps of one run at most; each moves something, so a run that needs more goes in circles.
const STEPS: usize = 1_000_000;

/// What can happen on each connection.
const MOVES: usize = 8;

pub(crate) struct World {
    rng: Rng,
    book: Book,
    /// Clients, and their connections' owners.
    sides: Vec<(Peer, Owner)>,
    servers: Vec<Server>,
    pool: Pool,
    /// A move that is made only when no other can be: that side has stalled, and what lies before it fills up.
    last: usize,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut book = Book::new();
        let mut sides = Vec::new();
        for _ in 0..=rng.below(3) {
            let mut nonces = Vec::new();
            for _ in 0..=rng.below(6) {
                let nonce = rng.next();
                let request = Request::random(&mut rng, nonce);
                let response = Response::random(&mut rng, &request);
                book.insert(nonce, Entry { request, response, reads: 0, was_stale: false });
                nonces.push(nonce);
            }
            let pace = if rng.below(4) == 0 { 1 + rng.below(60) } else { usize::MAX };
            sides.push((Peer::new(nonces, rng.below(2) == 0, pace), Owner::new()));
        }
        let last = rng.below(2 * MOVES * sides.len());
        Self { rng, book, sides, servers: Vec::new(), pool: Pool::default(), last }
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Tally {
        for _ in 0..STEPS {
            if !self.step() && !self.run_out_of_patience() {
                self.check_end();
                return self.tally();
            }
            self.check();
        }
        panic!("it does not end");
    }

    /// Something happens; `false`: nothing can.
    fn step(&mut self) -> bool {
        let moves = self.sides.len() * MOVES;
        let first = self.rng.below(moves);
        let last = self.last;
        let mut order = (first..moves).chain(0..first).filter(|index| *index != last);
        order.any(|index| self.try_move(index / MOVES, index % MOVES))
            || last < moves && self.try_move(last / MOVES, last % MOVES)
    }

    fn try_move(&mut self, side: usize, index: usize) -> bool {
        self.servers.resize_with(self.pool.opened, Server::default);
        let (peer, _) = &mut self.sides[side];
        if peer.is_over {
            return false;
        }
        match index {
            0 => peer.send(&self.book, &mut self.rng),
            1 => peer.gives_up_waiting(&self.book),
            2 => self.read_client(side),
            3 => self.end_client(side),
            4 => self.flush_client(side),
            5 => self.flush_server(side),
            6 => self.read_server(side),
            _ => self.end_server(side),
        }
    }

    fn read_client(&mut self, side: usize) -> bool {
        let (peer, owner) = &mut self.sides[side];
        let most = owner.room_for_client().min(peer.up.len());
        if most == 0 {
            return false;
        }
        let bytes: Vec<u8> = peer.up.drain(..self.rng.piece(most)).collect();
        owner.client_sent(&bytes, &mut self.pool);
        true
    }

    /// The agent sees that the client sends no more, or is gone.
    fn end_client(&mut self, side: usize) -> bool {
        let (peer, owner) = &mut self.sides[side];
        match peer.up_ended {
            Some(Cut::Reset) => {
                owner.client_reset(&mut self.pool);
                peer.leave();
                true
            }
            Some(Cut::End) if peer.up.is_empty() && owner.room_for_client() > 0 => {
                owner.client_ended(&mut self.pool);
                peer.up_ended = None;
                true
            }
            _ => false,
        }
    }

    fn flush_client(&mut self, side: usize) -> bool {
        let (peer, owner) = &mut self.sides[side];
        if owner.to_client.is_empty() {
            if owner.client == Client::Open {
                return false;
            }
            peer.end(owner.client == Client::Reset, &self.book);
            return true;
        }
        let count = self.rng.piece(owner.to_client.len());
        let bytes: Vec<u8> = owner.to_client.drain(..count).collect();
        peer.take(&bytes, false, &self.book);
        if owner.to_client.is_empty() {
            owner.client_flushed(&mut self.pool);
        }
        true
    }

    fn flush_server(&mut self, side: usize) -> bool {
        let owner = &mut self.sides[side].1;
        let Some(server) = owner.server.filter(|_| !owner.to_server.is_empty()) else { return false };
        let server = &mut self.servers[server];
        if server.ended.is_some() {
            owner.server_broken();
            return true;
        }
        let count = self.rng.piece(owner.to_server.len());
        let bytes: Vec<u8> = owner.to_server.drain(..count).collect();
        server.take(&bytes, &mut self.book, &mut self.rng);
        true
    }

    fn read_server(&mut self, side: usize) -> bool {
        let owner = &mut self.sides[side].1;
        let Some(server) = owner.server.filter(|_| owner.room_for_server() > 0) else { return false };
        let down = &mut self.servers[server].down;
        if down.is_empty() {
            return false;
        }
        let count = self.rng.piece(down.len().min(owner.room_for_server()));
        let bytes: Vec<u8> = down.drain(..count).collect();
        owner.server_sent(&bytes, !down.is_empty(), &mut self.pool);
        true
    }

    fn end_server(&mut self, side: usize) -> bool {
        let owner = &mut self.sides[side].1;
        let Some(number) = owner.server.filter(|_| owner.room_for_server() > 0) else { return false };
        let server = &self.servers[number];
        let Some(reset) = server.ended.filter(|_| server.down.is_empty()) else { return false };
        owner.server_ended(reset, server.unseen, &mut self.pool);
        assert!(owner.server != Some(number), "it holds on to a connection that has ended");
        true
    }

    /// Nobody moves: those who wait for somebody that is silent stop waiting. `false`: nobody does.
    fn run_out_of_patience(&mut self) -> bool {
        let mut has_moved = false;
        for (peer, owner) in self.sides.iter_mut().filter(|side| !side.0.is_over) {
            if let Some(server) = owner.server.map(|server| &mut self.servers[server])
                && server.is_silent
                && server.ended.is_none()
            {
                has_moved = true;
                if owner.awaits_server() && self.rng.below(2) == 0 {
                    owner.timed_out(Fault::ResponseTimeout, &mut self.pool);
                } else {
                    server.ended = Some(false);
                }
            } else if peer.is_silent() && owner.owes_request() {
                has_moved = true;
                owner.timed_out(Fault::RequestBodyTimeout, &mut self.pool);
            } else if peer.is_silent() && owner.has_part_of_head() {
                has_moved = true;
                owner.timed_out(Fault::RequestHeadTimeout, &mut self.pool);
            }
        }
        has_moved
    }

    fn tally(&self) -> Tally {
        let exchanges = self.sides.iter().map(|side| side.1.opened).sum();
        let stale = self.book.values().filter(|entry| entry.was_stale).count();
        let own = Tally { exchanges, reuses: exchanges.saturating_sub(self.pool.opened), stale, ..Tally::default() };
        self.sides.iter().fold(own, |sum, side| sum + side.0.tally)
    }

    /// What holds at any time.
    fn check(&self) {
        self.sides.iter().for_each(|side| side.1.check());
        for server in self.pool.idle.iter().filter(|server| **server < self.servers.len()) {
            assert!(self.servers[*server].may_be_used_again(), "a connection is kept that can't be used again");
        }
        for (index, server) in self.pool.idle.iter().enumerate() {
            assert!(!self.pool.idle[..index].contains(server) && !self.pool.dropped.contains(server));
            assert!(self.sides.iter().all(|side| side.1.server != Some(*server)), "one connection for two exchanges");
        }
    }

    /// What holds when nobody has anything left to do.
    fn check_end(&self) {
        for (peer, owner) in &self.sides {
            assert!(peer.is_over || peer.is_content() || peer.is_silent(), "a client waits for ever");
            assert!(!owner.has_exchange() && owner.server.is_none(), "an exchange does not end");
        }
        let kept = self.pool.idle.len() + self.pool.dropped.len();
        assert_eq!(kept, self.pool.opened, "a connection to the server was lost");
    }
}
