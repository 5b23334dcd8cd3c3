//! A TCP connection to a name: the look-up has a time limit, its addresses share the time of an attempt, and the last one
//! that answered is tried first (SPEC L5).
//!
//! Two addresses that swallow every SYN, as with dual stack and broken IPv6 or dead nodes of a headless Service, must not
//! keep the agent from a third that answers (RFC 8305 §5 has the same aim; Go divides the time in the same way).
//!
//! Not here: what goes over the connection ([`super::line`]).

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::config::CONNECT_TIMEOUT;

/// What is known of the sink's addresses, by all delivery threads.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Marks>);

#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    /// Answered last.
    good: Option<SocketAddr>,
    /// Took a connection last and did not answer.
    bad: Option<SocketAddr>,
}

/// One thread's look-ups.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// One that did not end in time, and the name that it is of. There is never more than one, so that names which hang
    /// cost one thread each and no more.
    pending: Option<(String, Receiver<io::Result<Vec<IpAddr>>>)>,
}

impl Known {
    /// This address has answered.
    pub(super) fn answered(&self, address: SocketAddr) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.good = Some(address);
        marks.bad = marks.bad.filter(|bad| *bad != address);
    }

    /// This address has taken a connection and not answered.
    pub(super) fn failed(&self, address: SocketAddr) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.good = marks.good.filter(|good| *good != address);
        marks.bad = Some(address);
    }

    fn sort(&self, addresses: &mut [SocketAddr]) {
        let marks = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Stable: the others keep the resolver's order (RFC 6724).
        addresses.sort_by_key(|address| match Some(*address) {
            of if of == marks.good => 0,
            of if of == marks.bad => 2,
            _ => 1,
        });
    }

    fn good(&self, port: u16) -> Option<SocketAddr> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.good.filter(|address| address.port() == port)
    }
}

/// Connects to the first address of the name that takes it before the deadline.
///
/// # Errors
/// When none does; the error is that of the last.
pub(super) fn connect(
    resolver: &mut Resolver,
    known: &Known,
    (host, port): (&str, u16),
    deadline: Instant,
) -> io::Result<TcpStream> {
    let mut addresses = addresses(resolver, known, (host, port), deadline)?;
    known.sort(&mut addresses);
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let share = share(deadline.saturating_duration_since(Instant::now()), addresses.len() - index);
        match TcpStream::connect_timeout(address, share) {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Time for the next of so many addresses: what follows the connection gets a share as well.
fn share(left: Duration, addresses: usize) -> Duration {
    let shares = u32::try_from(addresses).unwrap_or(u32::MAX).saturating_add(1);
    (left / shares).min(CONNECT_TIMEOUT).max(Duration::from_millis(1))
}

fn addresses(
    resolver: &mut Resolver,
    known: &Known,
    (host, port): (&str, u16),
    deadline: Instant,
) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // With an address that has answered before, a name server that is silent need not take all of the time.
    let good = known.good(port);
    let left = deadline.saturating_duration_since(Instant::now());
    let patience = if good.is_some() { left / 2 } else { left };
    match (resolver.look_up(host, Instant::now() + patience), good) {
        (Ok(found), _) => Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect()),
        (Err(_), Some(good)) => Ok(vec![good]),
        (Err(error), None) => Err(error),
    }
}

impl Resolver {
    /// Asks the system, which has limits of its own and knows none of ours, in a thread that is left behind when the time
    /// is over.
    fn look_up(&mut self, host: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
        let late = || io::Error::new(ErrorKind::TimedOut, "the name look-up timed out");
        let (name, found) = match self.pending.take() {
            Some((name, found)) if name == host => (name, found),
            Some((name, found)) => {
                if matches!(found.recv_deadline(deadline), Err(RecvTimeoutError::Timeout)) {
                    self.pending = Some((name, found));
                    return Err(late());
                }
                (host.to_owned(), ask(host)?)
            }
            None => (host.to_owned(), ask(host)?),
        };
        match found.recv_deadline(deadline) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the name look-up failed")),
            Err(RecvTimeoutError::Timeout) => {
                self.pending = Some((name, found));
                Err(late())
            }
        }
    }
}

fn ask(host: &str) -> io::Result<Receiver<io::Result<Vec<IpAddr>>>> {
    let (answer, found) = crossbeam_channel::bounded(1);
    let host = host.to_owned();
    thread::Builder::new().name("log-lookup".to_owned()).spawn(move || {
        let addresses = (host.as_str(), 0).to_socket_addrs();
        // Nobody may be waiting any more.
        let _ = answer.send(addresses.map(|found| found.map(|address| address.ip()).collect()));
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 80))
    }

    #[test]
    fn the_last_good_address_is_first_and_the_last_bad_one_last() {
        let known = Known::default();
        let sorted = || {
            let mut addresses = [at(1), at(2), at(3)];
            known.sort(&mut addresses);
            addresses
        };
        assert_eq!(sorted(), [at(1), at(2), at(3)]);
        known.answered(at(3));
        known.failed(at(1));
        assert_eq!(sorted(), [at(3), at(2), at(1)]);
        known.failed(at(3));
        assert_eq!(sorted(), [at(1), at(2), at(3)]);
        known.answered(at(3));
        assert_eq!((known.good(80), known.good(81)), (Some(at(3)), None));
    }

    #[test]
    fn addresses_share_the_time_that_is_left() {
        let second = Duration::from_secs(1);
        assert_eq!(share(8 * second, 3), 2 * second);
        assert_eq!(share(60 * second, 1), CONNECT_TIMEOUT);
        assert_eq!(share(Duration::ZERO, 1), Duration::from_millis(1));
    }

    #[test]
    fn a_look_up_has_a_deadline_and_there_is_one_at_a_time() {
        let (answer, found) = crossbeam_channel::bounded(1);
        let mut resolver = Resolver { pending: Some(("hangs".to_owned(), found)) };
        let soon = || Instant::now() + Duration::from_millis(20);
        for name in ["hangs", "localhost", "hangs"] {
            assert_eq!(resolver.look_up(name, soon()).unwrap_err().kind(), ErrorKind::TimedOut);
        }
        answer.send(Ok(vec![at(7).ip()])).unwrap();
        assert_eq!(resolver.look_up("hangs", soon()).unwrap(), [at(7).ip()]);
    }
}
