//! The service over sockets, with whoever may be on the loopback.

use std::thread::{self, JoinHandle};

use super::*;
use crate::config::MARSHAL_BODY_BYTES;

/// A running service, which ends with the test.
struct Running {
    address: SocketAddr,
    stop: Option<Stop>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Running {
    fn start() -> Self {
        let (service, stop) = Service::bind(0, StoreFormat::Json).unwrap();
        let address = service.address().unwrap();
        Self { address, stop: Some(stop), thread: Some(thread::spawn(|| service.run())) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What the service answers to this, up to the end of the connection.
    fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        rest_of(&mut stream)
    }

    fn assert_serves(&self) {
        let answer = self.ask(&post(br#"[{"id":"a"}]"#));
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        assert!(answer.ends_with(br#"{"id":"a","occurrenceTime":"0001-01-01T00:00:00Z"}"#));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(Ok(())))) || thread::panicking());
    }
}

fn post(body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST /marshal HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn records_are_answered_with_their_file_and_the_connection_closes() {
    Running::start().assert_serves();
}

#[test]
fn a_large_payload_comes_back_whole() {
    let body = format!(r#"[{{"bytes":"{}"}}]"#, "QUJD".repeat(8 << 20));
    let answer = Running::start().ask(&post(body.as_bytes()));
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let expected = format!(r#"{},"occurrenceTime":"0001-01-01T00:00:00Z"}}"#, &body[1..body.len() - 2]);
    assert!(answer.ends_with(expected.as_bytes()));
}

#[test]
fn a_length_that_no_memory_has_is_refused_and_the_next_is_served() {
    let service = Running::start();
    for length in ["99999999999999", "9223372036854775807"] {
        let mut stream = service.connect();
        write!(stream, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nabc").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(rest_of(&mut stream).starts_with(b"HTTP/1.1 413 "));
    }
    service.assert_serves();
}

#[test]
fn an_early_answer_reaches_a_client_that_goes_on_sending() {
    let service = Running::start();
    let mut stream = service.connect();
    write!(stream, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 20).unwrap();
    stream.write_all(&[b' '; 1 << 20]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(rest_of(&mut stream).starts_with(b"HTTP/1.1 405 "));
}

#[test]
fn stalled_clients_hold_up_nobody() {
    let service = Running::start();
    let mut stalled = Vec::new();
    let began = Instant::now();
    for part in ["", "POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nabc"].iter().cycle().take(12) {
        let mut stream = service.connect();
        stream.write_all(part.as_bytes()).unwrap();
        stalled.push(stream);
        service.assert_serves();
    }
    assert!(began.elapsed() < MARSHAL_TIMEOUT, "they had to wait");
    drop(stalled);
}

#[test]
fn a_client_that_takes_no_answer_holds_up_nobody() {
    let service = Running::start();
    let body = format!(r#"[{{"bytes":"{}"}}]"#, "QUJD".repeat(4 << 20));
    let mut idle = service.connect();
    idle.write_all(&post(body.as_bytes())).unwrap();
    let began = Instant::now();
    service.assert_serves();
    assert!(began.elapsed() < MARSHAL_TIMEOUT, "it had to wait");
    assert!(rest_of(&mut idle).starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn the_oldest_of_too_many_connections_makes_room() {
    let service = Running::start();
    let mut oldest = service.connect();
    oldest.write_all(b"POST").unwrap();
    let others: Vec<TcpStream> = (0..2 * MARSHAL_CONNECTIONS).map(|_| service.connect()).collect();
    service.assert_serves();
    let mut byte = [0];
    assert!(matches!(oldest.read(&mut byte), Ok(0) | Err(_)));
    drop(others);
}

#[test]
fn a_client_that_is_too_slow_is_cut() {
    let (mut service, _stop) = Service::bind(0, StoreFormat::Json).unwrap();
    let mut slow = TcpStream::connect(service.address().unwrap()).unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\n").unwrap();
    let now = Instant::now();
    let mut scratch = [0; 1024];
    while service.connections.is_empty() {
        let ready = service.wait(now).unwrap();
        assert!(ready.listener);
        service.accept(now);
    }
    service.serve(&[true], now + MARSHAL_TIMEOUT - Duration::from_nanos(1), &mut scratch);
    assert_eq!(service.connections.len(), 1);
    service.serve(&[false], now + MARSHAL_TIMEOUT, &mut scratch);
    assert!(service.connections.is_empty());
    assert!(matches!(slow.read(&mut scratch), Ok(0) | Err(_)));
}

#[test]
fn requests_hold_no_more_together_than_they_may() {
    let service = Running::start();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MARSHAL_BODY_BYTES}\r\n\r\n");
    let piece = vec![b' '; MARSHAL_BODY_BYTES - 1];
    let mut refused = 0;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut stream = service.connect();
        // What the service has refused it may reset.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&piece));
        clients.push(stream);
    }
    for mut stream in clients {
        let _ = stream.shutdown(Shutdown::Write);
        let mut start = [0; 13];
        refused += usize::from(stream.read_exact(&mut start).is_ok() && start == *b"HTTP/1.1 503 ");
    }
    assert!((1..=2).contains(&refused), "{refused}");
    service.assert_serves();
}

#[test]
fn without_a_descriptor_it_waits_and_then_accepts() {
    let (mut service, _stop) = Service::bind(0, StoreFormat::Json).unwrap();
    let _waiting = TcpStream::connect(service.address().unwrap()).unwrap();
    let now = Instant::now();
    service.accepts_at = Some(now + MARSHAL_ACCEPT_WAIT);
    let ready = service.wait(now).unwrap();
    assert!(!ready.listener, "it does not spin");
    assert!(now.elapsed() >= MARSHAL_ACCEPT_WAIT);
    let ready = service.wait(Instant::now()).unwrap();
    assert!(ready.listener && service.accepts_at.is_none());
}

#[test]
fn it_ends_when_it_is_told_to_whatever_its_clients_do() {
    let service = Running::start();
    let mut stalled = service.connect();
    stalled.write_all(b"POST").unwrap();
    drop(service);
}
