//! Request and response heads, parsed in place.
//!
//! `httparse` finds the lines; this module asks for what it lets pass (a bare LF, a NUL-free but non-ASCII target) and
//! decides what the head means: [`Framing`] by RFC 9112 §6.3, `Connection`, `Expect`, `Upgrade`, `Host`.
//! Names and values stay where they were read; a head owns nothing.
//!
//! Not here: which bytes of the buffer are new, and what the next hop is sent.

use std::mem::MaybeUninit;

use super::field::Kind;
use super::fields::{Fields, Options, is_authority};
use super::{Framing, Version};
use crate::config::{HEAD_BYTES, HEAD_FIELDS, LEADING_EMPTY_LINES, REQUEST_LINE_BYTES, RESPONSE_FIELDS};

/// Room for the fields of one head; the parser fills it.
pub struct Slots<'b, const N: usize> {
    headers: [MaybeUninit<httparse::Header<'b>>; N],
    kinds: [Kind; N],
}

/// Room for the fields of a request's head.
pub type RequestSlots<'b> = Slots<'b, HEAD_FIELDS>;
/// Room for the fields of a response's head.
pub type ResponseSlots<'b> = Slots<'b, RESPONSE_FIELDS>;

impl<const N: usize> Slots<'_, N> {
    /// Room for so many fields.
    pub const fn new() -> Self {
        Self { headers: [const { MaybeUninit::uninit() }; N], kinds: [Kind::Other; N] }
    }
}

impl<const N: usize> Default for Slots<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a parser found in the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<T> {
    /// The head is complete.
    Complete(T),
    /// Nothing is wrong yet, and the head's end has not come.
    Partial,
}

/// Why no further byte can make these bytes a head that the agent takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Against the grammar or ambiguous; the text says where.
    Malformed(&'static str),
    /// Over [`HEAD_BYTES`] or [`HEAD_FIELDS`].
    TooLarge,
    /// Over [`REQUEST_LINE_BYTES`].
    RequestLineTooLong,
    /// A version other than 1.0 and 1.1.
    Version,
    /// `CONNECT`: the agent is no forward proxy.
    Connect,
    /// A transfer coding other than `chunked`.
    Coding,
    /// An expectation other than `100-continue`.
    Expectation,
    /// White space between a response's field name and its colon, which a proxy removes (RFC 9112 §5.1).
    Blanks,
}

impl HeadError {
    /// The status that a request with it is answered with.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed(_) | Self::Blanks => 400,
            Self::TooLarge => 431,
            Self::RequestLineTooLong => 414,
            Self::Version => 505,
            Self::Connect | Self::Coding => 501,
            Self::Expectation => 417,
        }
    }
}

/// A request head.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// Bytes from the start of the buffer to the end of the head, skipped empty lines included.
    pub length: usize,
    /// The method, a token.
    pub method: &'b [u8],
    /// The target as sent: visible ASCII.
    pub target: &'b [u8],
    /// Where the target's origin-form starts: 0, or behind the authority of an absolute-form.
    pub origin_at: usize,
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'h, 'b>,
    /// How the body is delimited.
    pub framing: Framing,
    /// What `Connection` says.
    pub options: Options,
    /// The client waits for a 100 (never set for HTTP/1.0).
    pub expects_continue: bool,
    /// An `Upgrade` that goes on: HTTP/1.1, named by `Connection`, no body, not `h2c`.
    pub upgrade: bool,
}

/// A response head.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// Bytes of the head.
    pub length: usize,
    /// The status, 100 to 599.
    pub status: u16,
    /// The reason phrase as sent, which may be empty.
    pub reason: &'b [u8],
    /// The version.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'h, 'b>,
    /// How the body is delimited, for a request that was not `HEAD`.
    pub framing: Framing,
    /// What `Connection` says.
    pub options: Options,
}

/// What of a target stands before its query.
pub(crate) fn path_of(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// Parses a request head at the start of `buf`.
///
/// # Errors
/// When no continuation of `buf` is a head that the agent takes.
pub fn request<'h, 'b>(
    buf: &'b [u8],
    slots: &'h mut RequestSlots<'b>,
) -> Result<Parsed<RequestHead<'h, 'b>>, HeadError> {
    let Some(skipped) = empty_lines(buf)? else { return Ok(Parsed::Partial) };
    let rest = &buf[skipped..];
    let mut parser = httparse::Request::new(&mut []);
    let parsed = parser.parse_with_uninit_headers(rest, &mut slots.headers);
    let length = match parsed.map_err(|error| request_error(error, rest))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return partial_request(rest),
    };
    check_lines(&rest[..length])?;
    let (Some(method), Some(target)) = (parser.method, parser.path) else {
        return Err(HeadError::Malformed("request line"));
    };
    let (method, target) = (method.as_bytes(), target.as_bytes());
    if method.len() + target.len() + " HTTP/1.1 \r\n".len() > REQUEST_LINE_BYTES {
        return Err(HeadError::RequestLineTooLong);
    }
    check_size(length)?;
    let version = version(parser.version)?;
    let mut fields = Fields::classify(&rest[..length], parser.headers, &mut slots.kinds);
    let options = fields.options()?;
    let framing = fields.request_framing(version)?;
    let origin_at = check_target(method, target, fields.host(version)?)?;
    let expects_continue = fields.expects_continue(version)?;
    let upgrade = options.upgrade && version == Version::Http11 && framing == Framing::Empty && fields.upgrade_passes();
    let length = skipped + length;
    Ok(Parsed::Complete(RequestHead {
        length,
        method,
        target,
        origin_at,
        version,
        fields,
        framing,
        options,
        expects_continue,
        upgrade,
    }))
}

/// Parses a response head at the start of `buf`.
///
/// # Errors
/// When no continuation of `buf` is a head that the agent passes on; [`HeadError::Blanks`] when [`super::repair::blanks`]
/// can make it one.
pub fn response<'h, 'b>(
    buf: &'b [u8],
    slots: &'h mut ResponseSlots<'b>,
) -> Result<Parsed<ResponseHead<'h, 'b>>, HeadError> {
    // httparse skips empty lines here as well, which only a server may do (RFC 9112 §2.2).
    if let Some(b'\r' | b'\n') = buf.first() {
        return Err(HeadError::Malformed("status line"));
    }
    let mut parser = httparse::Response::new(&mut []);
    let mut lenient = httparse::ParserConfig::default();
    // So that they can be removed (SPEC P13).
    lenient.allow_spaces_after_header_name_in_responses(true);
    let parsed = lenient.parse_response_with_uninit_headers(&mut parser, buf, &mut slots.headers);
    let length = match parsed.map_err(head_error)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if buf.len() >= HEAD_BYTES => return Err(HeadError::TooLarge),
        httparse::Status::Partial => return Ok(Parsed::Partial),
    };
    check_size(length)?;
    check_lines(&buf[..length])?;
    let status = parser.code.filter(|code| (100..600).contains(code)).ok_or(HeadError::Malformed("status"))?;
    let version = version(parser.version)?;
    // httparse gives "" for a reason with bytes over 0x7f, so it is taken from the line itself.
    let line_end = buf.iter().position(|byte| *byte == b'\r').unwrap_or(length);
    let reason = buf.get("HTTP/1.1 200 ".len()..line_end).unwrap_or_default();
    let mut fields = Fields::classify(&buf[..length], parser.headers, &mut slots.kinds);
    if fields.has_blanks() {
        return Err(HeadError::Blanks);
    }
    let options = fields.options()?;
    let framing = fields.response_framing(version, status)?;
    Ok(Parsed::Complete(ResponseHead { length, status, reason, version, fields, framing, options }))
}

/// Empty lines at the start of `buf`, in bytes; `None` while the next byte must decide.
fn empty_lines(buf: &[u8]) -> Result<Option<usize>, HeadError> {
    let lines = buf.chunks(2).take_while(|pair| *pair == b"\r\n").count();
    if lines > LEADING_EMPTY_LINES {
        return Err(HeadError::Malformed("empty lines before the request line"));
    }
    match &buf[lines * 2..] {
        [] | [b'\r'] => Ok(None),
        [b'\r' | b'\n', ..] => Err(HeadError::Malformed("line ending")),
        _ => Ok(Some(lines * 2)),
    }
}

fn partial_request<'h, 'b>(buf: &[u8]) -> Result<Parsed<RequestHead<'h, 'b>>, HeadError> {
    let line = buf.iter().take(REQUEST_LINE_BYTES).position(|byte| *byte == b'\n');
    if line.is_none() && buf.len() >= REQUEST_LINE_BYTES {
        return Err(HeadError::RequestLineTooLong);
    }
    check_size(buf.len())?;
    // httparse takes a lone LF as a line end; seen here, the peer need not wait for its deadline.
    check_lines(buf)?;
    Ok(Parsed::Partial)
}

fn request_error(error: httparse::Error, buf: &[u8]) -> HeadError {
    // A third word that is HTTP's is a version that we do not know; all else is no request at all.
    let is_http = || buf.splitn(3, |byte| *byte == b' ').nth(2).is_some_and(|word| word.starts_with(b"HTTP/"));
    match error {
        httparse::Error::Version if is_http() => HeadError::Version,
        other => head_error(other),
    }
}

fn head_error(error: httparse::Error) -> HeadError {
    HeadError::Malformed(match error {
        httparse::Error::TooManyHeaders => return HeadError::TooLarge,
        httparse::Error::HeaderName => "field name",
        httparse::Error::HeaderValue => "field value",
        httparse::Error::NewLine => "line ending",
        httparse::Error::Status => "status line",
        httparse::Error::Token => "request line",
        httparse::Error::Version => "version",
    })
}

fn check_size(length: usize) -> Result<(), HeadError> {
    if length > HEAD_BYTES { Err(HeadError::TooLarge) } else { Ok(()) }
}

/// Refuses an LF without its CR. Written without an early exit so that it runs over 16 bytes at a time.
fn check_lines(head: &[u8]) -> Result<(), HeadError> {
    let bare = head
        .iter()
        .zip(head.iter().skip(1))
        .fold(false, |bare, (before, byte)| bare | (*byte == b'\n' && *before != b'\r'));
    if bare { Err(HeadError::Malformed("line ending")) } else { Ok(()) }
}

fn version(minor: Option<u8>) -> Result<Version, HeadError> {
    match minor {
        Some(0) => Ok(Version::Http10),
        Some(1) => Ok(Version::Http11),
        _ => Err(HeadError::Version),
    }
}

/// Checks the target's form (RFC 9112 §3.2) and says where its origin-form starts.
fn check_target(method: &[u8], target: &[u8], host: Option<&[u8]>) -> Result<usize, HeadError> {
    if method == b"CONNECT" {
        return Err(HeadError::Connect);
    }
    if !target.iter().all(|byte| matches!(byte, 0x21..=0x7e) && *byte != b'#') {
        return Err(HeadError::Malformed("request target"));
    }
    match target {
        [b'/', ..] => Ok(0),
        b"*" if method == b"OPTIONS" => Ok(0),
        _ => absolute_form(target, host),
    }
}

/// An absolute-form is taken when it names the same authority as `Host`: which of the two the model server would
/// believe is anybody's guess otherwise.
fn absolute_form(target: &[u8], host: Option<&[u8]>) -> Result<usize, HeadError> {
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .ok_or(HeadError::Malformed("request target"))?
        .len();
    let path =
        target[scheme..].iter().position(|byte| matches!(byte, b'/' | b'?')).map_or(target.len(), |at| scheme + at);
    let authority = &target[scheme..path];
    if authority.is_empty()
        || !is_authority(authority)
        || host.is_some_and(|host| !host.eq_ignore_ascii_case(authority))
    {
        return Err(HeadError::Malformed("request target and Host differ"));
    }
    Ok(path)
}
