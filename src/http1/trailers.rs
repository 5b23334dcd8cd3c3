//! The trailer section behind the last chunk (RFC 9112 §7.1.2).
//!
//! It is used only when it is complete; what no further byte could mend is refused at once.
//!
//! Not here: which fields may not stand in it ([`super::field`]).

use super::body::BodyError;
use super::field::forbidden_in_trailers;
use crate::config::{HEAD_FIELDS, TRAILER_BYTES};

/// Length of the section at the start of `buf`, with its empty line; `None` when that has not come.
pub(super) fn length(buf: &[u8]) -> Result<Option<usize>, BodyError> {
    match buf {
        [b'\r', b'\n', ..] => return Ok(Some(2)),
        [] | [b'\r'] => return Ok(None),
        _ => {}
    }
    let end = buf.windows(4).take(TRAILER_BYTES - 3).position(|end| end == b"\r\n\r\n");
    match end {
        Some(at) => Ok(Some(at + 4)),
        None if buf.len() >= TRAILER_BYTES => Err(BodyError::TooLarge("trailers")),
        None => {
            let mut headers = [httparse::EMPTY_HEADER; HEAD_FIELDS];
            match parse(buf, &mut headers)? {
                httparse::Status::Partial => Ok(None),
                // It has an end, but not one of CRLF alone.
                httparse::Status::Complete(_) => Err(BodyError::Malformed("line ending of a trailer")),
            }
        }
    }
}

/// Moves the trailers that may go on to the front of a complete section; returns their length with the empty line.
pub(super) fn keep_passing(section: &mut [u8]) -> Result<usize, BodyError> {
    let mut lines = [(0, 0); HEAD_FIELDS];
    let mut count = 0;
    let mut headers = [httparse::EMPTY_HEADER; HEAD_FIELDS];
    let httparse::Status::Complete(fields) = parse(section, &mut headers)? else {
        return Err(BodyError::Malformed("trailer"));
    };
    let mut start = 0;
    for name in fields.iter().map(|field| field.name) {
        let line = &section[start..];
        let end = start + line.iter().position(|byte| *byte == b'\n').map_or(line.len(), |at| at + 1);
        if !forbidden_in_trailers(name.as_bytes()) {
            lines[count] = (start, end);
            count += 1;
        }
        start = end;
    }
    let mut kept = 0;
    for (start, end) in lines[..count].iter().copied().chain([(section.len() - 2, section.len())]) {
        section.copy_within(start..end, kept);
        kept += end - start;
    }
    Ok(kept)
}

fn parse<'h, 'b>(
    section: &'b [u8],
    headers: &'h mut [httparse::Header<'b>],
) -> Result<httparse::Status<&'h [httparse::Header<'b>]>, BodyError> {
    // httparse takes a lone LF as a line end.
    let is_bare = |(at, byte): (usize, &u8)| *byte == b'\n' && (at == 0 || section[at - 1] != b'\r');
    if section.iter().enumerate().any(is_bare) {
        return Err(BodyError::Malformed("line ending of a trailer"));
    }
    match httparse::parse_headers(section, headers) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(httparse::Status::Complete(fields)),
        Ok(httparse::Status::Partial) => Ok(httparse::Status::Partial),
        Err(httparse::Error::TooManyHeaders) => Err(BodyError::TooLarge("trailers")),
        Err(_) => Err(BodyError::Malformed("trailer")),
    }
}
