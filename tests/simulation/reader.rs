//! A strict reader of HTTP/1.1 messages: what a server or client that takes RFC 9112 at its word would make of bytes.
//!
//! Architecture Invariant: shares no line with `src/http1`, so that an error there does not hide itself here.

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The bytes can't be a message.
    Bad(&'static str),
    /// The bytes end before the message does.
    More,
}

/// A request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Empty in a response.
    pub(crate) method: Vec<u8>,
    /// Empty in a response.
    pub(crate) target: Vec<u8>,
    /// 0 in a request.
    pub(crate) status: u16,
    /// 0 or 1.
    pub(crate) minor_version: u8,
    /// Names in lower case, in order.
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Bytes of the head.
    pub(crate) head: usize,
}

type Fields = Vec<(String, Vec<u8>)>;

impl Message {
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.0 == name).map(|field| &field.1[..])
    }

    pub(crate) fn value(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// Whether `Connection` holds this option.
    pub(crate) fn has_option(&self, option: &str) -> bool {
        let is = |member: &[u8]| member.trim_ascii().eq_ignore_ascii_case(option.as_bytes());
        self.values("connection").any(|value| value.split(|byte| *byte == b',').any(is))
    }
}

/// Reads a request at the start of `data`; returns where it ends.
pub(crate) fn request(data: &[u8]) -> Result<(Message, usize), Unread> {
    let (mut message, at) = request_head(data)?;
    let end = body(data, at, &mut message, None)?;
    Ok((message, end))
}

/// Reads a request's head at the start of `data`.
pub(crate) fn request_head(data: &[u8]) -> Result<(Message, usize), Unread> {
    let (first, at) = line(data, 0)?;
    let words: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err(Unread::Bad("request line")) };
    let minor_version = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        _ => return Err(Unread::Bad("version")),
    };
    if !is_token(method) {
        return Err(Unread::Bad("method"));
    }
    if target.is_empty() || !target.iter().all(|byte| matches!(byte, 0x21..=0x7e)) {
        return Err(Unread::Bad("target"));
    }
    let (fields, at) = fields(data, at)?;
    let message = Message {
        method: method.to_vec(),
        target: target.to_vec(),
        minor_version,
        fields,
        head: at,
        ..Message::default()
    };
    if minor_version == 1 && message.values("host").count() != 1 {
        return Err(Unread::Bad("host"));
    }
    Ok((message, at))
}

/// Reads a response at the start of `data`; `to_head`: the request was `HEAD`. `closed`: nothing follows, and the end
/// was a clean one.
pub(crate) fn response(data: &[u8], to_head: bool, closed: bool) -> Result<(Message, usize), Unread> {
    let (first, at) = line(data, 0)?;
    let minor_version = match first.get(..9) {
        Some(b"HTTP/1.1 ") => 1,
        Some(b"HTTP/1.0 ") => 0,
        _ => return Err(Unread::Bad("status line")),
    };
    let status = match first[9..] {
        [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9']
        | [a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(Unread::Bad("status")),
    };
    let (fields, at) = fields(data, at)?;
    let mut message = Message { status, minor_version, fields, head: at, ..Message::default() };
    if to_head || status < 200 || status == 204 || status == 304 {
        if status < 200 || status == 204 {
            forbid(&message, &["content-length", "transfer-encoding"])?;
        }
        return Ok((message, at));
    }
    let end = body(data, at, &mut message, Some(closed))?;
    Ok((message, end))
}

fn forbid(message: &Message, names: &[&str]) -> Result<(), Unread> {
    if names.iter().any(|name| message.value(name).is_some()) {
        return Err(Unread::Bad("a framing where no body can be"));
    }
    Ok(())
}

/// `until_close`: without a framing the body goes on to the end, which has come or not.
fn body(data: &[u8], at: usize, message: &mut Message, until_close: Option<bool>) -> Result<usize, Unread> {
    let codings: Vec<&[u8]> = message.values("transfer-encoding").collect();
    let lengths: Vec<&[u8]> = message.values("content-length").collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => match until_close {
            None => Ok(at),
            Some(false) => Err(Unread::More),
            Some(true) => {
                message.body = data[at..].to_vec();
                Ok(data.len())
            }
        },
        ([], [length]) => {
            let length = decimal(length).ok_or(Unread::Bad("content-length"))?;
            let bytes = data.get(at..).and_then(|rest| rest.get(..length)).ok_or(Unread::More)?;
            message.body = bytes.to_vec();
            Ok(at + length)
        }
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && message.minor_version == 1 => {
            chunked(data, at, message)
        }
        ([_, ..], [_, ..]) => Err(Unread::Bad("two framings")),
        ([], _) => Err(Unread::Bad("two lengths")),
        _ => Err(Unread::Bad("transfer-encoding")),
    }
}

/// Extensions are for one hop and the agent passes none on, so none is taken.
fn chunked(data: &[u8], mut at: usize, message: &mut Message) -> Result<usize, Unread> {
    let mut body = Vec::new();
    loop {
        let (digits, start) = line(data, at)?;
        let size = hexadecimal(digits).ok_or(Unread::Bad("chunk size"))?;
        if size == 0 {
            let (trailers, end) = fields(data, start)?;
            (message.body, message.trailers) = (body, trailers);
            return Ok(end);
        }
        let rest = data.get(start..).filter(|rest| rest.len() >= size + 2).ok_or(Unread::More)?;
        body.extend_from_slice(&rest[..size]);
        if rest[size..size + 2] != *b"\r\n" {
            return Err(Unread::Bad("chunk end"));
        }
        at = start + size + 2;
    }
}

fn line(data: &[u8], at: usize) -> Result<(&[u8], usize), Unread> {
    let rest = &data[at..];
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Unread::More)?;
    let line = rest[..end].strip_suffix(b"\r").ok_or(Unread::Bad("line ending"))?;
    if line.contains(&b'\r') {
        return Err(Unread::Bad("line ending"));
    }
    Ok((line, at + end + 1))
}

fn fields(data: &[u8], mut at: usize) -> Result<(Fields, usize), Unread> {
    let mut fields = Fields::new();
    loop {
        let (field, after) = line(data, at)?;
        at = after;
        if field.is_empty() {
            return Ok((fields, at));
        }
        let colon = field.iter().position(|byte| *byte == b':').ok_or(Unread::Bad("field line"))?;
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        let is_value = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
        if !is_token(name) || !value.iter().all(is_value) {
            return Err(Unread::Bad("field line"));
        }
        let value = value.trim_ascii().to_vec();
        fields.push((String::from_utf8(name.to_ascii_lowercase()).unwrap(), value));
    }
}

fn is_token(text: &[u8]) -> bool {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(in_token)
}

/// At most 19 digits: 20 overflow the signed 64 bits of many servers.
fn decimal(text: &[u8]) -> Option<usize> {
    let is_number = !text.is_empty() && text.len() <= 19 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_number)?.parse().ok()
}

fn hexadecimal(text: &[u8]) -> Option<usize> {
    let is_number = !text.is_empty() && text.len() <= 16 && text.iter().all(u8::is_ascii_hexdigit);
    usize::from_str_radix(std::str::from_utf8(text).ok().filter(|_| is_number)?, 16).ok()
}
