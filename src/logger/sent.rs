//! The head of a response as it was sent to the client. Pure.
//!
//! It is read here and not by [`crate::http1::head`], which keeps the limits of what a server may send: with what the agent
//! adds for the client a head can be over them. The agent has written it, so nothing in it is ambiguous.
//!
//! Not here: the body ([`super::tap`]).

use crate::http1::{Framing, decimal, trim};

/// What the log needs of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SentHead<'b> {
    /// In bytes, with the empty line.
    pub(super) length: usize,
    pub(super) status: u16,
    /// For a request that was not `HEAD`.
    pub(super) framing: Framing,
    /// Empty: there is none.
    pub(super) content_type: &'b [u8],
    /// The same; of several fields the last, which a server does not send.
    pub(super) content_encoding: &'b [u8],
}

impl<'b> SentHead<'b> {
    /// The one at the start of these bytes; `None`: there is none.
    pub(super) fn read(bytes: &'b [u8]) -> Option<Self> {
        let length = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let status = decimal(bytes.get("HTTP/1.1 ".len().."HTTP/1.1 200".len())?)?;
        let status = u16::try_from(status).ok()?;
        let (mut framing, mut content_type, mut content_encoding) = (Framing::Close, None, &b""[..]);
        for line in bytes[..length].split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let value = trim(line[colon + 1..].trim_ascii_end());
            match &line[..colon] {
                name if name.eq_ignore_ascii_case(b"content-type") => content_type = content_type.or(Some(value)),
                name if name.eq_ignore_ascii_case(b"content-encoding") => content_encoding = value,
                name if name.eq_ignore_ascii_case(b"content-length") => framing = Framing::Length(decimal(value)?),
                name if name.eq_ignore_ascii_case(b"transfer-encoding") => framing = Framing::Chunked,
                _ => {}
            }
        }
        if matches!(status, 100..=199 | 204 | 304) {
            framing = Framing::Empty;
        }
        Some(Self { length, status, framing, content_type: content_type.unwrap_or_default(), content_encoding })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(usize, u16, Framing, &str)> {
        let head = SentHead::read(text.as_bytes())?;
        Some((head.length, head.status, head.framing, str::from_utf8(head.content_type).unwrap()))
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        for (fields, framing) in [
            ("Content-Length: 7\r\n", Framing::Length(7)),
            ("content-length:0\r\n", Framing::Length(0)),
            ("Transfer-Encoding: chunked\r\nConnection: close\r\n", Framing::Chunked),
            ("X-Content-Length: 7\r\nX: Content-Length: 7\r\n", Framing::Close),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(read(&format!("{head}body\r\n\r\n")), Some((head.len(), 200, framing, "")), "{fields}");
        }
    }

    #[test]
    fn a_head_that_has_no_body_says_so_by_its_status() {
        for status in [100, 103, 204, 304] {
            let head = format!("HTTP/1.0 {status} \r\nContent-Length: 7\r\n\r\n");
            assert_eq!(read(&head), Some((head.len(), status, Framing::Empty, "")), "{status}");
        }
    }

    #[test]
    fn the_first_content_type_counts() {
        let head = "HTTP/1.1 200 OK: yes\r\nCONTENT-TYPE: \t a/b; c=\"d:e\" \r\nContent-Type: f/g\r\n\r\n";
        assert_eq!(read(head), Some((head.len(), 200, Framing::Close, "a/b; c=\"d:e\"")));
    }

    #[test]
    fn what_is_not_whole_is_no_head() {
        for text in ["", "HTTP/1.1 200 OK\r\nA: b\r\n", "\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
