//! The fields of one head: classified once, and what they say about the message.
//!
//! Not here: the syntax of a field line, which the parser has checked; what a proxy sends on ([`crate::proxy`]).

use super::field::{Kind, list, list_has};
use super::head::HeadError;
use super::{Framing, Version, decimal};
use crate::config::CONNECTION_OPTIONS;

/// The fields of a head, in order.
#[derive(Debug)]
pub struct Fields<'h, 'b> {
    /// The head up to and with its empty line. INVARIANT: every name and value lies in it, one field a line.
    bytes: &'b [u8],
    headers: &'h [httparse::Header<'b>],
    kinds: &'h mut [Kind],
    present: u32,
}

/// What `Connection` says about the connection itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
}

impl Options {
    /// Whether the sender of a message of this version keeps its connection open (RFC 9112 §9.3).
    pub(crate) fn keeps(self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

impl<'h, 'b> Fields<'h, 'b> {
    pub(super) fn classify(bytes: &'b [u8], headers: &'h [httparse::Header<'b>], kinds: &'h mut [Kind]) -> Self {
        let mut present = 0;
        for (header, kind) in headers.iter().zip(kinds.iter_mut()) {
            *kind = Kind::of(header.name.as_bytes());
            present |= 1 << *kind as u32;
        }
        Self { bytes, headers, kinds, present }
    }

    /// Whether a name and its colon are apart.
    pub(super) fn has_blanks(&self) -> bool {
        let colon = |header: &httparse::Header<'_>| self.bytes.get(self.offset(header) + header.name.len());
        self.headers.iter().any(|header| colon(header) != Some(&b':'))
    }

    /// Where the line of a field begins.
    fn offset(&self, header: &httparse::Header<'_>) -> usize {
        header.name.as_ptr().addr() - self.bytes.as_ptr().addr()
    }

    /// Every field: its kind, its name and its value without the white space around it.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &'b str, &'b [u8])> {
        self.headers.iter().zip(self.kinds.iter()).map(|(header, kind)| (*kind, header.name, header.value))
    }

    /// The head as it came, up to and with its empty line.
    pub(crate) fn head(&self) -> &'b [u8] {
        self.bytes
    }

    /// Copies the field lines that `passes` lets through, as they were sent, in as few pieces as there are gaps.
    pub(crate) fn copy_lines(&self, out: &mut Vec<u8>, mut passes: impl FnMut(Kind, &'b [u8]) -> bool) {
        let offset = |header| self.offset(header);
        let end = self.bytes.len() - 2;
        let mut run_start = None;
        for (header, kind) in self.headers.iter().zip(self.kinds.iter()) {
            match (passes(*kind, header.value), run_start) {
                (true, None) => run_start = Some(offset(header)),
                (false, Some(start)) => {
                    out.extend_from_slice(&self.bytes[start..offset(header)]);
                    run_start = None;
                }
                (true, Some(_)) | (false, None) => {}
            }
        }
        if let Some(start) = run_start {
            out.extend_from_slice(&self.bytes[start..end]);
        }
    }

    /// Whether a field of this kind is there.
    pub fn has(&self, kind: Kind) -> bool {
        self.present & (1 << kind as u32) != 0
    }

    /// The values of a kind, in order.
    pub fn values(&self, kind: Kind) -> impl Iterator<Item = &'b [u8]> {
        let count = if self.has(kind) { self.headers.len() } else { 0 };
        self.iter().take(count).filter(move |field| field.0 == kind).map(|field| field.2)
    }

    /// The value of the first field of a kind.
    pub fn first(&self, kind: Kind) -> Option<&'b [u8]> {
        self.values(kind).next()
    }

    /// Reads `Connection` and marks the fields that it names (RFC 9110 §7.6.1).
    pub(super) fn options(&mut self) -> Result<Options, HeadError> {
        let mut options = Options::default();
        if !self.has(Kind::Connection) {
            return Ok(options);
        }
        let mut named = 0;
        let headers = self.headers;
        for (index, header) in headers.iter().enumerate() {
            if self.kinds[index] != Kind::Connection {
                continue;
            }
            for option in list(header.value) {
                match option.len() {
                    5 if option.eq_ignore_ascii_case(b"close") => options.close = true,
                    10 if option.eq_ignore_ascii_case(b"keep-alive") => options.keep_alive = true,
                    7 if option.eq_ignore_ascii_case(b"upgrade") => options.upgrade = true,
                    _ => {
                        named += 1;
                        self.nominate(option);
                    }
                }
                if named > CONNECTION_OPTIONS {
                    return Err(HeadError::Malformed("too many options in Connection"));
                }
            }
        }
        Ok(options)
    }

    fn nominate(&mut self, name: &[u8]) {
        for (header, kind) in self.headers.iter().zip(self.kinds.iter_mut()) {
            if kind.can_be_nominated() && header.name.as_bytes().eq_ignore_ascii_case(name) {
                *kind = Kind::Nominated;
            }
        }
    }

    /// RFC 9112 §6.3 for requests, without its leniencies.
    pub(super) fn request_framing(&self, version: Version) -> Result<Framing, HeadError> {
        if self.has(Kind::Lookalike) {
            return Err(HeadError::Malformed("a framing field spelt with an underscore"));
        }
        if self.has(Kind::TransferEncoding) {
            return self.chunked(version);
        }
        Ok(self
            .content_length()?
            .map_or(Framing::Empty, |length| if length == 0 { Framing::Empty } else { Framing::Length(length) }))
    }

    /// RFC 9112 §6.3 for responses. A 1xx, 204 or 304 has no body whatever its fields say.
    pub(super) fn response_framing(&self, version: Version, status: u16) -> Result<Framing, HeadError> {
        let length = self.content_length()?;
        if matches!(status, 100..=199 | 204 | 304) {
            return Ok(Framing::Empty);
        }
        if self.has(Kind::TransferEncoding) {
            return self.chunked(version);
        }
        Ok(length.map_or(Framing::Close, |length| if length == 0 { Framing::Empty } else { Framing::Length(length) }))
    }

    fn chunked(&self, version: Version) -> Result<Framing, HeadError> {
        if self.has(Kind::ContentLength) {
            return Err(HeadError::Malformed("both Content-Length and Transfer-Encoding"));
        }
        if version == Version::Http10 {
            return Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0"));
        }
        let mut values = self.values(Kind::TransferEncoding);
        match (values.next(), values.next()) {
            (Some(value), None) if value.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(value), None) if ends_in_chunked(value) => Err(HeadError::Coding),
            _ => Err(HeadError::Malformed("Transfer-Encoding")),
        }
    }

    /// The one length that every `Content-Length` gives; a repeated equal value is one value (RFC 9110 §8.6).
    pub(crate) fn content_length(&self) -> Result<Option<u64>, HeadError> {
        const BAD: HeadError = HeadError::Malformed("Content-Length");
        let mut length = None;
        for value in self.values(Kind::ContentLength) {
            for member in value.split(|byte| *byte == b',') {
                let number = decimal(super::trim(member)).ok_or(BAD)?;
                if length.is_some_and(|length| length != number) {
                    return Err(BAD);
                }
                length = Some(number);
            }
        }
        Ok(length)
    }

    /// The one valid `Host`; only HTTP/1.0 may leave it out (RFC 9112 §3.2).
    pub(super) fn host(&self, version: Version) -> Result<Option<&'b [u8]>, HeadError> {
        let mut hosts = self.values(Kind::Host);
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if is_authority(host) => Ok(Some(host)),
            (None, _) if version == Version::Http10 => Ok(None),
            (None, _) => Err(HeadError::Malformed("no Host")),
            (Some(_), None) => Err(HeadError::Malformed("Host")),
            (Some(_), Some(_)) => Err(HeadError::Malformed("more than one Host")),
        }
    }

    pub(super) fn expects_continue(&self, version: Version) -> Result<bool, HeadError> {
        let mut expects = false;
        for value in self.values(Kind::Expect) {
            if version == Version::Http11 {
                expects = value.eq_ignore_ascii_case(b"100-continue").then_some(true).ok_or(HeadError::Expectation)?;
            }
        }
        Ok(expects)
    }

    /// `h2c` would hand the rest of the connection to a protocol that nobody here checks: it is never passed on.
    pub(super) fn upgrade_passes(&self) -> bool {
        self.has(Kind::Upgrade) && !self.values(Kind::Upgrade).any(|value| list_has(value, "h2c"))
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2), which may be empty.
pub(super) fn is_authority(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', ..] => match host.iter().position(|byte| *byte == b']') {
            Some(end) => host.split_at(end + 1),
            None => return false,
        },
        _ => host.split_at(host.iter().position(|byte| *byte == b':').unwrap_or(host.len())),
    };
    let in_name = |byte: &u8| match name.first() {
        Some(b'[') => byte.is_ascii_alphanumeric() || b"[]:.%-_~".contains(byte),
        _ => byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte),
    };
    let is_port =
        |port: &[u8]| port.first() == Some(&b':') && port.len() <= 6 && port[1..].iter().all(u8::is_ascii_digit);
    name.iter().all(in_name) && (port.is_empty() || is_port(port))
}
/// Whether the last of several codings is `chunked`, so that the end of the body can be told.
fn ends_in_chunked(codings: &[u8]) -> bool {
    let mut codings = codings.rsplit(|byte| *byte == b',').map(super::trim);
    let last = codings.next();
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    last.is_some_and(is_chunked) && codings.next().is_some_and(|coding| !coding.is_empty() && !is_chunked(coding))
}
