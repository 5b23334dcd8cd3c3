//! Where payload events go: an HTTP server that counts them and answers at once, late, or not as it should.
//!
//! Deliberately not here: what is in an event (the agent's own tests look), and events without a Content-Length.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::failure::Failure;
use crate::parse::message_length;

/// What a sink does with what comes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// An answer for each event, after a while.
    Answers { late: Duration, answer: &'static [u8] },
    /// This instead of an answer, and the end of the connection.
    Lies(&'static [u8]),
    /// Reads, and never answers.
    Silent,
    /// Reads one byte at a time, so far apart.
    Trickles(Duration),
}

impl Way {
    pub(crate) const HEALTHY: Self = Self::late(Duration::ZERO);

    /// All is well, but for the time that it takes.
    pub(crate) const fn late(late: Duration) -> Self {
        Self::Answers { late, answer: ANSWER }
    }

    /// An answer that says no.
    pub(crate) const fn refusing(answer: &'static [u8]) -> Self {
        Self::Answers { late: Duration::ZERO, answer }
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// A running one. Dropping it ends it; its connections end with the agent.
pub(crate) struct Sink {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    way: Way,
    received: AtomicU64,
    has_ended: AtomicBool,
}

impl Sink {
    pub(crate) fn start(way: Way) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { way, received: AtomicU64::new(0), has_ended: AtomicBool::new(false) });
        let of_acceptor = Arc::clone(&shared);
        let acceptor = thread::Builder::new().name("sink".to_owned()).spawn(move || accept(&listener, &of_acceptor))?;
        Ok(Self { port, shared, acceptor: Some(acceptor) })
    }

    /// Events so far.
    pub(crate) fn received(&self) -> f64 {
        self.shared.received.load(Ordering::Relaxed) as f64
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        // Wakes the acceptor; where that fails it has ended before.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken.is_ok()) {
            // It can't panic.
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.has_ended.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        // A connection without a thread is closed, which the agent sees.
        let _ = thread::Builder::new().name("sink-line".to_owned()).spawn(move || serve(stream, &shared));
    }
}

/// Does with one connection what the sink does with all.
fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match shared.way {
        Way::Answers { late, answer } => answers(&mut stream, &shared.received, late, answer),
        Way::Lies(bytes) => {
            let count = stream.read(&mut [0; 64 << 10])?;
            if count > 0 { stream.write_all(bytes) } else { Ok(()) }
        }
        Way::Silent => io::copy(&mut stream, &mut io::sink()).map(drop),
        Way::Trickles(pause) => {
            while stream.read(&mut [0])? > 0 {
                thread::sleep(pause);
            }
            Ok(())
        }
    }
}

/// What came at once is answered at once.
fn answers(stream: &mut TcpStream, received: &AtomicU64, late: Duration, answer: &[u8]) -> io::Result<()> {
    let (mut waiting, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let count = stream.read(&mut buf)?;
        if count == 0 {
            return Ok(());
        }
        waiting.extend_from_slice(&buf[..count]);
        let (events, used) = whole(&waiting);
        waiting.drain(..used);
        if events > 0 {
            received.fetch_add(events as u64, Ordering::Relaxed);
            thread::sleep(late);
            stream.write_all(&answer.repeat(events))?;
        }
    }
}

/// Whole messages at the beginning of `bytes`, and their bytes.
fn whole(bytes: &[u8]) -> (usize, usize) {
    let (mut count, mut used) = (0, 0);
    while let Some(length) = message_length(&bytes[used..]).filter(|length| used + length <= bytes.len()) {
        (count, used) = (count + 1, used + length);
    }
    (count, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_counted_and_answered_however_it_is_cut() -> Result<(), Failure> {
        let sink = Sink::start(Way::HEALTHY)?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, sink.port))?;
        stream.set_nodelay(true)?;
        let event = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        let three = event.repeat(3);
        let mut answers = vec![0; ANSWER.len() * 3];
        for cut in 0..three.len() {
            stream.write_all(&three[..cut])?;
            stream.write_all(&three[cut..])?;
            stream.read_exact(&mut answers)?;
            assert_eq!(answers, ANSWER.repeat(3), "cut at {cut}");
        }
        assert_eq!(sink.received(), (three.len() * 3) as f64);
        Ok(())
    }

    #[test]
    fn a_sink_can_be_bad() -> Result<(), Failure> {
        let said = |way| -> Result<Vec<u8>, Failure> {
            let sink = Sink::start(way)?;
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, sink.port))?;
            stream.set_read_timeout(Some(Duration::from_millis(100)))?;
            stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")?;
            let mut said = Vec::new();
            // One that says nothing is not waited for.
            let _ = stream.read_to_end(&mut said);
            Ok(said)
        };
        assert_eq!(said(Way::refusing(b"no"))?, b"no");
        assert_eq!(said(Way::Lies(b"lie"))?, b"lie");
        assert_eq!(said(Way::Silent)?, b"");
        assert_eq!(said(Way::Trickles(Duration::from_secs(1)))?, b"");
        Ok(())
    }
}
