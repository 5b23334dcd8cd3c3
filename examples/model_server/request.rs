//! Reading a request: enough of HTTP/1.1 (RFC 9112) for a server in front of which a proxy is
//! tested. Framing is strict, because a server that shrugs at an ambiguous message would hide a
//! proxy's mistake. No request trailers (read and dropped), no compression, no `Upgrade`.

use std::io::{self, BufRead, ErrorKind, Read};

/// Request line and fields together. The usual size among servers is 8 to 64 KiB.
const MAX_HEAD: usize = 16 * 1024;
/// A request of a hundred thousand flowers is 2 MB.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A request that is answered with an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// The method that a 405 names (RFC 9110 §15.5.6).
    pub(crate) allow: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), allow: None }
    }

    pub(crate) fn allowing(self, method: &'static str) -> Self {
        Self { allow: Some(method), ..self }
    }
}

/// A request, read to its end.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Vec<u8>,
    /// The connection serves another request after this one.
    pub(crate) keep_alive: bool,
    /// HTTP/1.x; a 1.0 peer gets no chunked body.
    pub(crate) minor: u8,
}

/// Why a request could not be read.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Answered with the refusal; nothing more can be read from this connection.
    Refusal(Refusal),
    /// The peer is gone, between two requests or in the middle of one.
    Closed,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        // A peer that is gone in the middle of a body is no different from one gone before it.
        if error.kind() == ErrorKind::UnexpectedEof { Self::Closed } else { Self::Io(error) }
    }
}

fn refuse<T>(status: u16, reason: &str) -> Result<T, Stop> {
    Err(Stop::Refusal(Refusal::new(status, reason)))
}

/// `go_on` tells a client that waits for it to send the body. It is not called for a body that is
/// refused by its declared length.
pub(crate) fn read_request(reader: &mut impl BufRead, go_on: impl FnOnce() -> io::Result<()>) -> Result<Request, Stop> {
    let mut budget = MAX_HEAD;
    let line = read_line(reader, &mut budget)?;
    let mut request = request_line(&line)?;
    let fields = Fields::read(reader, &mut budget)?;
    match (request.minor, fields.hosts) {
        (1, 1) | (0, 0 | 1) => {}
        _ => return refuse(400, "exactly one Host field, please"),
    }
    request.keep_alive = request.minor == 1 && !fields.close;
    if fields.length.is_some_and(|length| length > MAX_BODY as u64) {
        return refuse(413, &format!("a body may have {MAX_BODY} bytes"));
    }
    if fields.expects && request.minor == 1 && (fields.chunked || fields.length > Some(0)) {
        go_on()?;
    }
    request.body = match fields.length {
        _ if fields.chunked => read_chunks(reader)?,
        Some(length) => read_exactly(reader, length)?,
        None => Vec::new(),
    };
    Ok(request)
}

fn request_line(line: &[u8]) -> Result<Request, Stop> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return refuse(400, "a request line is METHOD target HTTP/1.1");
    };
    let minor = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        _ => return refuse(505, "HTTP/1.1 is spoken here"),
    };
    if method.is_empty() || !method.iter().all(u8::is_ascii_alphabetic) {
        return refuse(400, "the method is not a word");
    }
    let Some(target) = str::from_utf8(target).ok().filter(|target| target.starts_with('/')) else {
        return refuse(400, "the request target does not start with /");
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method: String::from_utf8_lossy(method).into_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: Vec::new(),
        keep_alive: false,
        minor,
    })
}

/// What the fields of a head say about the connection and the body; the rest is of no interest.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    close: bool,
}

impl Fields {
    fn read(reader: &mut impl BufRead, budget: &mut usize) -> Result<Self, Stop> {
        let mut fields = Self::default();
        loop {
            let line = read_line(reader, budget)?;
            if line.is_empty() {
                break;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return refuse(400, "a field line without a colon");
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || name.iter().any(|byte| !byte.is_ascii_graphic()) {
                return refuse(400, "a field name with a space in it");
            }
            fields.note(name, value)?;
        }
        // RFC 9112 §6.3: a message with both could be read in two ways.
        if fields.chunked && fields.length.is_some() {
            return refuse(400, "Content-Length and Transfer-Encoding in one request");
        }
        Ok(fields)
    }

    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), Stop> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("host") {
            self.hosts += 1;
        } else if is("content-length") {
            match number(value) {
                Some(length) if self.length.is_none() => self.length = Some(length),
                _ => return refuse(400, "Content-Length is not one number"),
            }
        } else if is("transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return refuse(501, "chunked is the only transfer coding here");
            }
            self.chunked = true;
        } else if is("expect") {
            self.expects = value.eq_ignore_ascii_case(b"100-continue");
        } else if is("connection") {
            let mut tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.close |= tokens.any(|token| token.eq_ignore_ascii_case(b"close"));
        }
        Ok(())
    }
}

/// Decimal digits and nothing else: `str::parse` would take a sign.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

fn read_exactly(reader: &mut impl BufRead, length: u64) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if (body.len() as u64) < length { Err(Stop::Closed) } else { Ok(body) }
}

fn read_chunks(reader: &mut impl BufRead) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    loop {
        let mut budget = MAX_HEAD;
        let line = read_line(reader, &mut budget)?;
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        let Some(size) = chunk_size(size) else {
            return refuse(400, "not a chunk size");
        };
        if size == 0 {
            break;
        }
        if body.len() + size > MAX_BODY {
            return refuse(413, &format!("a body may have {MAX_BODY} bytes"));
        }
        body.extend(read_exactly(reader, size as u64)?);
        let mut end = [0; 2];
        reader.read_exact(&mut end)?;
        if end != *b"\r\n" {
            return refuse(400, "a chunk longer than its size");
        }
    }
    let mut budget = MAX_HEAD;
    while !read_line(reader, &mut budget)?.is_empty() {}
    Ok(body)
}

/// At most seven hexadecimal digits: more than a body may have, and no overflow.
fn chunk_size(digits: &[u8]) -> Option<usize> {
    let plain = (1..=7).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| plain)?;
    usize::from_str_radix(digits, 16).ok()
}

/// A line without its CRLF; `budget` is what the lines of one section may still have.
fn read_line(reader: &mut impl BufRead, budget: &mut usize) -> Result<Vec<u8>, Stop> {
    let mut line = Vec::new();
    let count = reader.take(*budget as u64).read_until(b'\n', &mut line)?;
    *budget -= count;
    match line.as_slice() {
        [.., b'\r', b'\n'] => line.truncate(count - 2),
        [.., b'\n'] => return refuse(400, "a line that does not end with CRLF"),
        _ if *budget == 0 => return refuse(431, &format!("a head may have {MAX_HEAD} bytes")),
        _ => return Err(Stop::Closed),
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    /// The request, or the status it is refused with (0: the peer is gone).
    fn read(text: &str) -> Result<(Request, bool), u16> {
        let mut told = false;
        let mut reader = BufReader::with_capacity(1, text.as_bytes());
        let request = read_request(&mut reader, || {
            told = true;
            Ok(())
        });
        match request {
            Ok(request) => Ok((request, told)),
            Err(Stop::Refusal(refusal)) => Err(refusal.status),
            Err(_) => Err(0),
        }
    }

    fn post(fields: &str, body: &str) -> Result<(Request, bool), u16> {
        read(&format!("POST /p?a=b HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}"))
    }

    #[test]
    fn both_framings_give_the_body() {
        for (fields, body) in [
            ("Content-Length: 5\r\n", "hello"),
            ("Transfer-Encoding: Chunked\r\n", "2\r\nhe\r\n003;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n"),
        ] {
            let request = post(fields, body).map(|(request, _)| request);
            assert!(request.is_ok_and(|r| r.body == b"hello" && r.query == "a=b" && r.keep_alive));
        }
    }

    #[test]
    fn a_waiting_client_is_told_to_go_on_once_its_length_is_accepted() {
        let expect = "Expect: 100-continue\r\nContent-Length: ";
        assert!(post(&format!("{expect}1\r\n"), "x").is_ok_and(|(_, told)| told));
        assert!(post(&format!("{expect}0\r\n"), "").is_ok_and(|(_, told)| !told));
        assert_eq!(post(&format!("{expect}99999999\r\n"), "").err(), Some(413));
    }

    #[test]
    fn an_ambiguous_message_is_refused() {
        for (fields, status) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length : 1\r\n", 400),
            ("Content-Length: 1\n", 400),
            ("Host: y\r\n", 400),
            ("Transfer-Encoding: gzip\r\n", 501),
        ] {
            assert_eq!(post(fields, "x").err(), Some(status), "{fields}");
        }
        for chunks in ["+1\r\nx\r\n", "\r\n", "1\r\nxy\r\n", "ffffffff\r\n"] {
            let verdict = post("Transfer-Encoding: chunked\r\n", chunks).err();
            assert_eq!(verdict, Some(400), "{chunks:?}");
        }
        assert_eq!(post(&format!("A: {}\r\n", "x".repeat(MAX_HEAD)), "").err(), Some(431));
    }

    #[test]
    fn a_request_cut_short_anywhere_is_no_request() {
        let whole = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        assert!(read(whole).is_ok());
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]).err(), Some(0), "cut at {end}");
        }
    }
}
