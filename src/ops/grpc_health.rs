//! One `grpc.health.v1.Health/Check` call without a gRPC stack: the least HTTP/2 that a server answers.
//!
//! ```text
//! preface, SETTINGS, HEADERS, DATA + END_STREAM  ──►
//!                                                ◄──  SETTINGS, WINDOW_UPDATE, PING …
//! SETTINGS ack, PING ack                         ──►
//!                                                ◄──  HEADERS, DATA, HEADERS + END_STREAM
//! ```
//!
//! [`Call`] is the pure half: bytes go in, replies and the verdict come out. [`Wire`] moves them before the deadline.
//!
//! Not here, on purpose: HPACK decoding, so `grpc-status` stays unread (a call that failed has no message, which is
//! failure enough); TLS, which Kubernetes' gRPC probes lack; flow control, as both messages are far below the initial
//! window; `grpc-timeout`, as closing the connection at the limit cancels the call.

use HealthError::{Malformed, NoMessage, NotServing, Refused};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

/// How every container probe names itself, over HTTP as over gRPC (SPEC H3).
pub(super) const USER_AGENT: &str = concat!("kube-probe/", env!("CARGO_PKG_VERSION"));

/// Asks the server on 127.0.0.1 for `service` (empty: the server as a whole); `Ok` is SERVING within `limit`.
pub(super) fn check(port: NonZeroU16, service: &str, limit: Duration) -> Result<(), HealthError> {
    let mut wire = Wire::open(port, limit)?;
    wire.write_all(&encode_request(port, service))?;
    let mut call = Call::default();
    let mut buffer = [0; READ_BYTES];
    loop {
        let count = match wire.read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        let mut reply = Vec::new();
        if call.receive(&buffer[..count], &mut reply)? {
            return Ok(());
        }
        wire.write_all(&reply)?;
    }
}

/// Why a health check did not pass.
#[derive(Debug)]
pub(super) enum HealthError {
    /// The socket could not be opened, broke, or ended; or the limit passed.
    Io(io::Error),
    /// RST_STREAM or GOAWAY, and its HTTP/2 error code; all that are defined fit.
    Refused(&'static str, u8),
    /// The call ended without a message: an unknown service, or no health service.
    NoMessage,
    /// A `ServingStatus` other than SERVING; 0 also comes from Python servers that do not know the service.
    NotServing(u8),
    /// The server broke the protocol, or a limit of this page.
    Malformed(&'static str),
}

impl From<io::Error> for HealthError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for HealthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(frame, code) => write!(f, "{frame} with HTTP/2 error {code}"),
            Self::NoMessage | Self::NotServing(0) => f.write_str("no status (unknown service?)"),
            Self::NotServing(2) => f.write_str("not serving"),
            Self::NotServing(status) => write!(f, "not serving (status {status})"),
            Self::Malformed(what) => write!(f, "not a gRPC answer: {what}"),
        }
    }
}

/// The connection, and the one deadline of all that is done with it. A socket's timeouts are per call, so each call
/// gets the time that is left.
struct Wire {
    socket: TcpStream,
    deadline: Instant,
}

impl Wire {
    fn open(port: NonZeroU16, limit: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + limit;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port.get()));
        let socket = TcpStream::connect_timeout(&server, limit)?;
        Ok(Self { socket, deadline })
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All that the client says of its own accord. A service name over 16 KiB makes a frame that servers refuse.
fn encode_request(port: NonZeroU16, service: &str) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    put_frame(&mut out, HEADERS, END_HEADERS, STREAM, &encode_fields(port));
    put_frame(&mut out, DATA, END_STREAM, STREAM, &encode_message(service));
    out
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [.., high, middle, low] = payload.len().to_be_bytes();
    out.extend([high, middle, low, kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// HPACK literals without indexing, names spelt out, no Huffman code (RFC 7541 §6.2.2).
/// INVARIANT: no text has more than 126 bytes, so that one byte tells its length.
fn encode_fields(port: NonZeroU16) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", &format!("127.0.0.1:{port}")),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", USER_AGENT),
    ];
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            out.push(text.len().to_le_bytes()[0]);
            out.extend(text.as_bytes());
        }
    }
    out
}

/// gRPC's prefix and the protobuf `HealthCheckRequest { service = 1 }`.
fn encode_message(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(FIELD_1_TEXT);
        let mut length = service.len();
        while length > 0x7f {
            message.push(length.to_le_bytes()[0] | 0x80);
            length >>= 7;
        }
        message.push(length.to_le_bytes()[0]);
        message.extend(service.as_bytes());
    }
    let [.., a, b, c, d] = message.len().to_be_bytes();
    [&[0, a, b, c, d], &message[..]].concat()
}

/// The client's side of the exchange once its request is sent.
#[derive(Debug, Default)]
struct Call {
    /// The start of a frame. INVARIANT: shorter than the longest frame.
    partial: Vec<u8>,
    /// The response's prefix and message so far. INVARIANT: at most [`MESSAGE_BYTES`].
    message: Vec<u8>,
    received: usize,
    frames: usize,
}

impl Call {
    /// Takes bytes as they come and adds to `reply` what to send back; `true` is SERVING.
    fn receive(&mut self, bytes: &[u8], reply: &mut Vec<u8>) -> Result<bool, HealthError> {
        self.received += bytes.len();
        if self.received > RESPONSE_BYTES {
            return Err(Malformed("too many bytes"));
        }
        let mut input = std::mem::take(&mut self.partial);
        input.extend(bytes);
        let mut rest = &input[..];
        while let Some((frame, after)) = decode_frame(rest)? {
            rest = after;
            if self.take(&frame, reply)? {
                return Ok(true);
            }
        }
        self.partial = rest.to_vec();
        Ok(false)
    }

    fn take(&mut self, frame: &Frame<'_>, reply: &mut Vec<u8>) -> Result<bool, HealthError> {
        self.frames += 1;
        if self.frames > FRAMES {
            return Err(Malformed("too many frames"));
        }
        match (frame.kind, frame.stream, frame.payload) {
            (DATA, STREAM, _) => self.message.extend(frame.data()?),
            (HEADERS, STREAM, _) => {}
            (RST_STREAM, STREAM, &[_, _, _, code]) => return Err(Refused("RST_STREAM", code)),
            // A server that is leaving still answers the calls up to the last stream it names, if it names one.
            (GOAWAY, 0, &[0 | 0x80, 0, 0, 0, _, _, _, code, ..]) => {
                return Err(Refused("GOAWAY", code));
            }
            (SETTINGS | PING, 0, _) if frame.flags & ACK != 0 => {}
            (SETTINGS, 0, _) => put_frame(reply, SETTINGS, ACK, 0, &[]),
            (PING, 0, opaque) if opaque.len() == 8 => put_frame(reply, PING, ACK, 0, opaque),
            (DATA | HEADERS | RST_STREAM | SETTINGS | PUSH_PROMISE | PING, _, _) => {
                return Err(Malformed("a frame out of place"));
            }
            _ => {} // PRIORITY, WINDOW_UPDATE, CONTINUATION; unknown ones by RFC 9113 §4.1
        }
        if self.message.len() > MESSAGE_BYTES {
            return Err(Malformed("the message is too long"));
        }
        if !matches!(frame.kind, DATA | HEADERS) || frame.flags & END_STREAM == 0 {
            return Ok(false);
        }
        match decode_status(&self.message)? {
            SERVING => Ok(true),
            status => Err(NotServing(status)),
        }
    }
}

/// One HTTP/2 frame (RFC 9113 §4.1).
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The payload without its padding (RFC 9113 §6.1).
    fn data(&self) -> Result<&'a [u8], HealthError> {
        let (padding, rest) = match self.payload {
            [padding, rest @ ..] if self.flags & PADDED != 0 => (usize::from(*padding), rest),
            all => (0, all),
        };
        let end = rest.len().checked_sub(padding).ok_or(Malformed("too much padding"))?;
        Ok(&rest[..end])
    }
}

/// The first frame of `input` and what follows it; `None` while it is not whole.
fn decode_frame(input: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, HealthError> {
    let Some((&[a, b, c, kind, flags, s, t, u, v], rest)) = input.split_first_chunk() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > FRAME_BYTES {
        return Err(Malformed("a frame is too long"));
    }
    let stream = u32::from_be_bytes([s & 0x7f, t, u, v]);
    let frame = |payload| Frame { kind, flags, stream, payload };
    Ok(rest.split_at_checked(length).map(|(payload, after)| (frame(payload), after)))
}

/// The status in gRPC's prefix and the protobuf `HealthCheckResponse { status = 1 }`. Field 1 comes first in every
/// encoder; what may follow it in a later version of the message is not looked at.
fn decode_status(response: &[u8]) -> Result<u8, HealthError> {
    match response.strip_prefix(&[0; 4]) {
        None if response.is_empty() => Err(NoMessage),
        Some([0]) => Ok(0),
        Some(&[length, FIELD_1_VARINT, status @ ..0x80, ref rest @ ..]) if usize::from(length) == rest.len() + 2 => {
            Ok(status)
        }
        _ => Err(Malformed("a cut, compressed or unknown message")),
    }
}

const READ_BYTES: usize = 4096; // At once; a whole answer has about 150.
const RESPONSE_BYTES: usize = 32 * 1024; // Of all that the server sends: room for one frame of the largest size.
const FRAMES: usize = 64; // A gRPC server sends about eight.
const FRAME_BYTES: usize = 16_384; // Of payload: what a server may send that was told no other (RFC 9113 §4.2).
const MESSAGE_BYTES: usize = 260; // With its prefix, and a length of one byte; the message that is defined has 2.

/// The client's connection preface: the magic, and SETTINGS with ENABLE_PUSH 0 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x02\0\0\0\0";

// The client's first stream; frame types and flags (RFC 9113 §6); protobuf tags; `ServingStatus`.
const STREAM: u32 = 1;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const FIELD_1_TEXT: u8 = 0x0a;
const FIELD_1_VARINT: u8 = 0x08;
const SERVING: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, kind, flags, stream, payload);
        out
    }

    #[test]
    fn a_request_is_what_the_rfcs_say() {
        let request = encode_request(NonZeroU16::MIN, &"s".repeat(300));
        let fields = b"\x01\x04\0\0\0\x01\0\x07:method\x04POST\0\x07:scheme\x04http\0\x05:path\x1c/";
        assert!(request[PREFACE.len() + 2..][1..].starts_with(fields));
        let data = b"\0\x01\x34\0\x01\0\0\0\x01\0\0\0\x01\x2f\x0a\xac\x02sss";
        assert!(request[request.len() - 9 - 5 - 303..].starts_with(data));
        assert_eq!(encode_message(""), [0; 5]);
    }

    #[test]
    fn an_answer_is_understood_at_every_split_and_not_before_its_end() {
        let bytes = [
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 64, 0]),
            frame(SETTINGS, ACK, 0, &[]),
            frame(PING, 0, 0, b"are you?"),
            frame(HEADERS, END_HEADERS, STREAM, &[0x88]),
            frame(DATA, PADDED, STREAM, &[2, 0, 0, 0, 0, 2, 8, 1, 0, 0]),
            frame(HEADERS, END_HEADERS | END_STREAM, STREAM, &[0x88]),
        ]
        .concat();
        let acks = b"\0\0\0\x04\x01\0\0\0\0\0\0\x08\x06\x01\0\0\0\0are you?";
        for (start, end) in (0..bytes.len()).map(|split| bytes.split_at(split)) {
            let (mut call, mut reply) = (Call::default(), Vec::new());
            assert!(matches!(call.receive(start, &mut reply), Ok(false)));
            assert!(matches!(call.receive(end, &mut reply), Ok(true)));
            assert_eq!(reply, acks);
        }
    }

    #[test]
    fn every_other_answer_has_its_reason() {
        let ended = |message: &[u8]| frame(DATA, END_STREAM, STREAM, message);
        for (answer, reason) in [
            (ended(&[0, 0, 0, 0, 2, 8, 1]), "true"),
            (ended(&[0, 0, 0, 0, 4, 8, 1, 16, 9]), "true"),
            (frame(DATA, END_STREAM, 0x8000_0001, &[0, 0, 0, 0, 2, 8, 1]), "true"),
            (ended(&[0, 0, 0, 0, 2, 8, 2]), "not serving"),
            (ended(&[0, 0, 0, 0, 0]), "no status"),
            (frame(HEADERS, END_STREAM, STREAM, &[]), "no status"),
            (ended(&[0, 0, 0, 0, 2, 8, 0x81]), "unknown message"),
            (ended(&[1, 0, 0, 0, 2, 8, 1]), "compressed"),
            (ended(&[0, 0, 0, 0, 3, 8, 1]), "a cut"),
            (ended(&[0; MESSAGE_BYTES + 1]), "message is too long"),
            (frame(DATA, PADDED, STREAM, &[2, 0]), "padding"),
            (frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]), "HTTP/2 error 7"),
            (frame(RST_STREAM, 0, STREAM, &[0]), "out of place"),
            (frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]), "error 11"),
            (frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), "false"),
            (frame(PUSH_PROMISE, 0, STREAM, &[]), "out of place"),
            (frame(DATA, 0, 3, &[]), "out of place"),
            (frame(99, 0, 9, &[]), "false"),
            (frame(99, 0, 0, &[0; FRAME_BYTES + 1]), "frame is too long"),
            (frame(PING, 1, 0, &[]).repeat(FRAMES + 1), "too many frames"),
            (vec![0; RESPONSE_BYTES + 1], "too many bytes"),
        ] {
            let verdict = match Call::default().receive(&answer, &mut Vec::new()) {
                Ok(serving) => serving.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(verdict.contains(reason), "{verdict}, not {reason}");
        }
    }
}
