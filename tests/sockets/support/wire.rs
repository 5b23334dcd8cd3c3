//! One end of a connection, client's or server's: raw bytes with deadlines, and a plain reading of HTTP/1.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::PATIENCE;

/// A connection, and the bytes that were read but not used.
pub(crate) struct Wire {
    socket: Arc<Socket>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) patience: Duration,
}

/// A request or response.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// From the first line to the empty line, as it came.
    pub(crate) head: Vec<u8>,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    /// The body as it came, with its framing and trailers.
    pub(crate) framed: Vec<u8>,
    /// The connection it came over, for a server.
    pub(crate) connection: usize,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Closed,
    Reset,
}

impl Wire {
    pub(crate) fn of(socket: impl Into<Socket>) -> Self {
        Self { socket: Arc::new(socket.into()), buffer: Vec::new(), patience: PATIENCE }
    }

    /// Connects to this port of the loopback.
    pub(crate) fn connect(port: u16) -> Self {
        Self::try_connect(port).unwrap_or_else(|error| panic!("connect to {port}: {error}"))
    }

    pub(crate) fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Self::of(stream))
    }

    pub(crate) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("send: {error}"));
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.set_write_timeout(Some(self.patience))?;
        (&*self.socket).write_all(bytes.as_ref())
    }

    /// Sends no more.
    pub(crate) fn end(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Closes at once. Dropping does that only when no other test is just starting a process: between its fork and its
    /// exec the child holds a copy of every descriptor, and the kernel closes with the last one.
    pub(crate) fn close(self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Closes with a reset, whatever has been read.
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Reads once; 0 is the end.
    pub(crate) fn fill(&mut self, end: Instant) -> io::Result<usize> {
        let left = end.saturating_duration_since(Instant::now());
        self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut chunk = [0; 64 * 1024];
        let count = (&*self.socket).read(&mut chunk).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// Waits for exactly these bytes to come next.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let end = Instant::now() + self.patience;
        while self.buffer.len() < bytes.len() && bytes.starts_with(&self.buffer) {
            let read = self.fill(end);
            assert!(
                matches!(read, Ok(1..)),
                "{read:?}, wanted {:?}, have {:?}",
                bytes.escape_ascii().to_string(),
                self.text()
            );
        }
        assert!(
            self.buffer.starts_with(bytes),
            "wanted {:?}, have {:?}",
            bytes.escape_ascii().to_string(),
            self.text()
        );
        self.buffer.drain(..bytes.len());
    }

    /// Reads to the end; returns what came before it.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Ending) {
        let end = Instant::now() + self.patience;
        let ending = loop {
            match self.fill(end) {
                Ok(0) => break Ending::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => panic!("no end; have {:?}", self.text()),
                Err(_) => break Ending::Reset,
            }
        };
        (std::mem::take(&mut self.buffer), ending)
    }

    fn text(&self) -> String {
        self.buffer.escape_ascii().to_string()
    }

    fn try_head(&mut self) -> io::Result<Vec<u8>> {
        let end = Instant::now() + self.patience;
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok(self.buffer.drain(..at + 4).collect());
            }
            self.more(end)?;
        }
    }

    fn more(&mut self, end: Instant) -> io::Result<()> {
        match self.fill(end)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Reads one request; `None` when the connection ended before its first byte.
    pub(crate) fn request(&mut self) -> Option<Message> {
        self.patience = Duration::from_secs(60);
        let head = self.try_head().ok()?;
        self.body_of(head, false).ok()
    }

    /// Reads one request head and nothing more.
    pub(crate) fn request_head(&mut self) -> Option<Message> {
        self.patience = Duration::from_secs(60);
        self.try_head().ok().map(Message::bodiless)
    }

    /// Reads one response to anything but `HEAD`; an interim one is a response of its own.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Message {
        match self.try_response() {
            Ok(message) => message,
            Err(error) => panic!("no response: {error}; have {:?}", self.text()),
        }
    }

    pub(crate) fn try_response(&mut self) -> io::Result<Message> {
        let head = self.try_head()?;
        self.body_of(head, true)
    }

    /// Reads one response head and nothing more.
    #[track_caller]
    pub(crate) fn response_head(&mut self) -> Message {
        match self.try_head() {
            Ok(head) => Message::bodiless(head),
            Err(error) => panic!("no response head: {error}; have {:?}", self.text()),
        }
    }

    fn body_of(&mut self, head: Vec<u8>, is_response: bool) -> io::Result<Message> {
        let mut message = Message::bodiless(head);
        let end = Instant::now() + self.patience;
        let bodiless = is_response && matches!(message.status(), 100..=199 | 204 | 304);
        if bodiless {
            return Ok(message);
        }
        if message.field("transfer-encoding").is_some() {
            return self.chunks_of(message, end);
        }
        let length = message.field("content-length").map(|value| value.parse::<usize>().unwrap());
        match length {
            Some(length) => {
                while self.buffer.len() < length {
                    self.more(end)?;
                }
                message.body = self.buffer.drain(..length).collect();
            }
            None if is_response => {
                while self.fill(end)? > 0 {}
                message.body = std::mem::take(&mut self.buffer);
            }
            None => {}
        }
        message.framed.clone_from(&message.body);
        Ok(message)
    }

    fn chunks_of(&mut self, mut message: Message, end: Instant) -> io::Result<Message> {
        let mut at = 0;
        loop {
            let line_end = self.find_line(at, end)?;
            let line = String::from_utf8_lossy(&self.buffer[at..line_end]).into_owned();
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, format!("chunk size {line:?}")))?;
            at = line_end + 2;
            if size == 0 {
                break;
            }
            while self.buffer.len() < at + size + 2 {
                self.more(end)?;
            }
            message.body.extend_from_slice(&self.buffer[at..at + size]);
            at += size + 2;
        }
        loop {
            let line_end = self.find_line(at, end)?;
            let is_last = line_end == at;
            at = line_end + 2;
            if is_last {
                message.framed = self.buffer.drain(..at).collect();
                return Ok(message);
            }
        }
    }

    fn find_line(&mut self, at: usize, end: Instant) -> io::Result<usize> {
        loop {
            if let Some(length) = self.buffer[at..].windows(2).position(|window| window == b"\r\n") {
                return Ok(at + length);
            }
            self.more(end)?;
        }
    }
}

impl Message {
    fn bodiless(head: Vec<u8>) -> Self {
        Self { head, body: Vec::new(), framed: Vec::new(), connection: 0 }
    }

    /// The first line.
    pub(crate) fn line(&self) -> String {
        String::from_utf8_lossy(&self.head).split("\r\n").next().unwrap_or_default().to_owned()
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.line().get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// The target of a request.
    pub(crate) fn target(&self) -> String {
        self.line().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// Names and values in order, as they came but for the space around values.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let text: String = self.head.iter().map(|byte| char::from(*byte)).collect();
        let lines = text.split("\r\n").skip(1).filter(|line| !line.is_empty());
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.trim().into())).collect()
    }

    /// All values of a field, joined; `None` if it is not there.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let fields = self.fields();
        let values: Vec<&str> =
            fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
