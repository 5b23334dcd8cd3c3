//! A server of the tests: it answers each request with the next answer of a script, and keeps what it was asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The server; its thread ends with the script.
pub(super) struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers with these statuses and bodies.
    pub(super) fn start<B: AsRef<str> + Send + 'static>(answers: Vec<(u16, B)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        let serve = move || {
            for (status, body) in answers {
                let (mut connection, _) = listener.accept().unwrap();
                let request = read(&mut connection);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                let body = body.as_ref();
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                connection.write_all((head + body).as_bytes()).unwrap();
            }
        };
        thread::Builder::new().name("scripted".to_owned()).spawn(serve).unwrap();
        Self { address, asked }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far: head and body.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request with a length, or none.
fn read(connection: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        connection.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    let length = text.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    connection.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}
