//! One connection, asked in a closed loop, with nanoseconds of its own for each request: where wrk tells whole
//! microseconds of a difference of 15. Many peers are asked in turn, a few hundred requests each, so that a machine
//! that is now fast, now slow is so to all of them.
//!
//! Deliberately not here: more than one connection (wrk and h2load are good at those), and reading any other answer
//! than the one that the first request had.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::parse::message_length;
use crate::place;

/// How long one peer is asked before it is the next one's turn: far shorter than what changes the pace of a machine.
pub(crate) const BLOCK: Duration = Duration::from_millis(25);
/// Requests of a block that do not count: the peer has slept, and its memory is in no cache any more.
const WARM_UP: usize = 20;
/// An answer takes microseconds; this long means that there is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client with its one connection.
pub(crate) struct Client {
    pub(crate) name: String,
    stream: TcpStream,
    request: Vec<u8>,
    /// Bytes of an answer, all of which are of one length.
    length: usize,
    buf: Vec<u8>,
}

impl Client {
    /// Connects, and asks once to see how long an answer is. The request has the fields that wrk's has.
    pub(crate) fn connect(name: &str, port: u16, path: &str) -> Result<Self, Failure> {
        let body = r#"{"instances":[[5.1,3.5,1.4,0.2]]}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (name, request) = (name.to_owned(), request.into_bytes());
        let mut client = Self { name, stream, request, length: usize::MAX, buf: vec![0; 16 << 10] };
        client.length = client.first()?;
        Ok(client)
    }

    /// Length of the first answer.
    fn first(&mut self) -> Result<usize, Failure> {
        self.stream.write_all(&self.request)?;
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.buf[filled..])?;
            filled += count;
            match message_length(&self.buf[..filled]) {
                Some(whole) if whole == filled => return Ok(whole),
                Some(whole) if whole < filled => return Err(self.broken("more than one answer")),
                _ if count == 0 => return Err(self.broken("no whole answer with a Content-Length")),
                _ => {}
            }
        }
    }

    /// Asks for `BLOCK`; microseconds of each request but the first ones go to `samples`.
    fn block(&mut self, samples: &mut Vec<f64>) -> Result<(), Failure> {
        for _ in 0..WARM_UP {
            self.ask()?;
        }
        let began = Instant::now();
        let mut before = began;
        while before.duration_since(began) < BLOCK {
            self.ask()?;
            let now = Instant::now();
            samples.push(now.duration_since(before).as_secs_f64() * 1e6);
            before = now;
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.request)?;
        let mut filled = 0;
        while filled < self.length {
            match self.stream.read(&mut self.buf[filled..])? {
                0 => return Err(self.broken("closed the connection")),
                count => filled += count,
            }
        }
        if filled > self.length || !self.buf.starts_with(OK) {
            return Err(self.broken("another answer than the first"));
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> Failure {
        Failure::new(format!("{}: {what}", self.name))
    }
}

const OK: &[u8] = b"HTTP/1.1 200";

/// Clients that are asked in turn, in another order each time: how soon a processor wakes depends on how long it has
/// slept, and so on whose turn was before.
pub(crate) struct Turns {
    pub(crate) clients: Vec<Client>,
    random: u64,
}

impl Turns {
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        // Any number but 0; the same orders in each run.
        Self { clients, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// `turns` of each, from a thread that stays on `processor`: sorted microseconds by client.
    pub(crate) fn round(&mut self, turns: usize, processor: usize) -> Result<Vec<Vec<f64>>, Failure> {
        let run = || {
            place::stay_on(processor)?;
            let mut samples = vec![Vec::new(); self.clients.len()];
            for _ in 0..turns {
                for place in self.shuffled() {
                    self.clients[place].block(&mut samples[place])?;
                }
            }
            samples.iter_mut().for_each(|samples| samples.sort_by(f64::total_cmp));
            Ok(samples)
        };
        let ended = thread::scope(|scope| scope.spawn(run).join());
        ended.unwrap_or_else(|_| Err(Failure::new("the generator panicked")))
    }

    /// Places of all clients in a random order, by Fisher and Yates; the numbers are Marsaglia's xorshift64.
    fn shuffled(&mut self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.clients.len()).collect();
        for last in (1..places.len()).rev() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            #[expect(clippy::cast_possible_truncation, reason = "less than `last + 1`")]
            places.swap(last, (self.random % (last as u64 + 1)) as usize);
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers each request, whose length it knows, with the answers in their order, then ends.
    fn served(answers: Vec<&'static str>) -> Result<u16, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut buf = [0; 1024];
            for answer in answers {
                let _ = stream.read(&mut buf);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Ok(port)
    }

    const ONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

    #[test]
    fn every_request_has_a_time_of_its_own() -> Result<(), Failure> {
        let client = Client::connect("peer", served(vec![ONE; 100_000])?, "/")?;
        let samples = Turns::new(vec![client]).round(2, place::processors()?[0])?;
        assert!(samples.len() == 1 && samples[0].len() > WARM_UP, "{samples:?}");
        assert!(samples[0].is_sorted() && samples[0][0] > 0.0);
        Ok(())
    }

    #[test]
    fn each_turn_has_all_clients_in_an_order_of_its_own() -> Result<(), Failure> {
        let client = || Client::connect("peer", served(vec![ONE])?, "/");
        let mut turns = Turns::new(vec![client()?, client()?, client()?, client()?]);
        let orders: Vec<Vec<usize>> = (0..24).map(|_| turns.shuffled()).collect();
        assert!(orders.iter().all(|order| (0..4).all(|place| order.contains(&place))), "{orders:?}");
        assert!((0..4).all(|place| orders.iter().any(|order| order[0] == place)), "{orders:?}");
        Ok(())
    }

    #[test]
    fn an_answer_unlike_the_first_ends_the_measurement() -> Result<(), Failure> {
        let longer = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\":123}";
        for other in [longer, "HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{}"] {
            let mut client = Client::connect("peer", served(vec![ONE, other])?, "/")?;
            assert!(client.ask().is_err(), "{other}");
        }
        Ok(())
    }
}
