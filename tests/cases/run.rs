//! Runs one case: a client that sends its bytes in given pieces, and a server that answers what it can read strictly.

use super::owner::{Client, Owner, Pool};
use super::reader::{self, Unread};
use super::table::{Case, Outcome, latin1};

/// Sends `raw` cut at these places and lets the server answer each request with `ok`.
pub(crate) fn request(raw: &[u8], half_close: bool, cuts: &[usize]) -> Outcome {
    let (mut owner, mut pool, mut outcome) = (Owner::new(), Pool::default(), Outcome::default());
    let mut server = Server::default();
    for piece in pieces(raw, cuts) {
        let mut piece = piece;
        while !piece.is_empty() && owner.client == Client::Open {
            let room = owner.room_for_client().min(piece.len());
            assert!(room > 0, "it reads no more, though nothing is under way");
            owner.client_sent(&piece[..room], &mut pool);
            piece = &piece[room..];
            settle(&mut owner, &mut pool, &mut outcome, &mut server);
        }
    }
    if half_close && owner.client == Client::Open {
        owner.client_ended(&mut pool);
        settle(&mut owner, &mut pool, &mut outcome, &mut server);
    }
    outcome.closed = owner.client != Client::Open;
    outcome.reset = owner.client == Client::Reset;
    outcome
}

/// Sends one request, and lets the server answer with the case's bytes, cut at these places.
pub(crate) fn response(case: &Case, version: &str, cuts: &[usize]) -> Outcome {
    let (mut owner, mut pool, mut outcome) = (Owner::new(), Pool::default(), Outcome::default());
    let body = if case.request_method == "POST" { "Content-Length: 3\r\n\r\nabc" } else { "\r\n" };
    owner.client_sent(format!("{} / {version}\r\nHost: a\r\n{body}", case.request_method).as_bytes(), &mut pool);
    outcome.raw.append(&mut owner.to_server);
    let raw = latin1(&case.raw);
    let (mut rest, mut sent) = (pieces(&raw, cuts).peekable(), 0);
    while let Some(piece) = rest.next() {
        if !owner.has_exchange() {
            break;
        }
        sent += piece.len();
        let mut piece = piece;
        while !piece.is_empty() && owner.has_exchange() {
            let room = owner.room_for_server().min(piece.len());
            let unread = room < piece.len() || rest.peek().is_some();
            owner.server_sent(&piece[..room], unread, &mut pool);
            outcome.got.append(&mut owner.to_client);
            piece = &piece[room..];
        }
    }
    if case.backend_closes && sent == raw.len() && owner.has_exchange() {
        owner.server_ended(false, false, &mut pool);
        outcome.got.append(&mut owner.to_client);
    }
    outcome.closed = owner.client != Client::Open;
    outcome.reset = owner.client == Client::Reset;
    outcome.reused = !pool.idle.is_empty();
    outcome
}

fn pieces<'a>(raw: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([raw.len()]);
    starts.zip(ends).map(|(start, end)| &raw[start..end]).filter(|piece| !piece.is_empty())
}

#[derive(Default)]
struct Server {
    /// Which connection it is.
    connection: Option<usize>,
    unread: Vec<u8>,
    has_continued: bool,
    is_stopped: bool,
}

/// Lets both sides take what lies ready until nothing moves.
fn settle(owner: &mut Owner, pool: &mut Pool, outcome: &mut Outcome, server: &mut Server) {
    loop {
        owner.check();
        if !owner.to_client.is_empty() {
            outcome.got.append(&mut owner.to_client);
            owner.client_flushed(pool);
        } else if !owner.to_server.is_empty() {
            if owner.server != server.connection {
                *server = Server { connection: owner.server, ..Server::default() };
            }
            outcome.raw.extend_from_slice(&owner.to_server);
            server.unread.append(&mut owner.to_server);
            let answer = server.answer(outcome);
            if !answer.is_empty() && owner.has_exchange() {
                owner.server_sent(&answer, false, pool);
            }
        } else {
            return;
        }
    }
}

impl Server {
    fn answer(&mut self, outcome: &mut Outcome) -> Vec<u8> {
        let mut answers = Vec::new();
        while !self.is_stopped {
            match reader::request(&self.unread) {
                Ok((message, length)) => {
                    let is_head = message.method == b"HEAD";
                    let raw = self.unread.drain(..length).collect();
                    outcome.requests.push((message, raw));
                    self.has_continued = false;
                    answers.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
                    answers.extend_from_slice(if is_head { b"" } else { b"ok" });
                }
                Err(Unread::More) => {
                    let expects = |(message, _): (reader::Message, usize)| message.value("expect").is_some();
                    if !self.has_continued && reader::request_head(&self.unread).is_ok_and(expects) {
                        self.has_continued = true;
                        answers.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    break;
                }
                Err(Unread::Bad(why)) => {
                    outcome.errors.push(why);
                    self.is_stopped = true;
                    answers.extend_from_slice(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
            }
        }
        answers
    }
}
