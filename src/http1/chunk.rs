//! One chunk's line, read and written (RFC 9112 §7.1).
//!
//! Not here: what follows the line ([`super::body`]).

use std::io::Write as _;

use super::body::BodyError;
use crate::config::CHUNK_LINE_BYTES;

/// Room that [`frame_chunk`] needs before the data: 16 hex digits and CRLF.
pub const CHUNK_HEADROOM: usize = 18;
/// Room that [`frame_chunk`] needs behind the data.
pub const CHUNK_TAILROOM: usize = 2;
/// The last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends the line before a chunk of so many bytes.
pub fn write_size(out: &mut Vec<u8>, size: u64) {
    // A Vec takes every byte, so this can't fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// `chunk-size [ chunk-ext ] CRLF`.
pub(super) struct SizeLine {
    /// Bytes of data that follow; 0 in the last chunk.
    pub(super) size: u64,
    /// Bytes of the number.
    pub(super) digits: usize,
    /// Bytes of the line with its CRLF.
    pub(super) length: usize,
}

impl SizeLine {
    /// Reads a line at the start of `buf`; `None` when its end has not come and nothing is wrong so far. `of_server`: blanks
    /// behind the number are passed over, as some servers fill it up to a width (SPEC P13).
    pub(super) fn parse(buf: &[u8], of_server: bool) -> Result<Option<Self>, BodyError> {
        let digits = buf.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(buf.len());
        if digits > 16 {
            return Err(BodyError::Malformed("chunk size is over 64 bits"));
        }
        let size = buf[..digits].iter().fold(0, |size, digit| size << 4 | u64::from(hex_value(*digit)));
        if size > super::LENGTH_MAX {
            return Err(BodyError::Malformed("chunk size is over 63 bits"));
        }
        let blanks = buf[digits..].iter().take_while(|byte| of_server && is_blank(**byte)).count();
        match &buf[digits + blanks..] {
            _ if blanks >= CHUNK_LINE_BYTES => Err(BodyError::TooLarge("chunk size")),
            [] => Ok(None),
            _ if digits == 0 => Err(BodyError::Malformed("chunk size")),
            [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => Ok(Some(Self { size, digits, length: digits + blanks + 2 })),
            [b';' | b' ' | b'\t', ..] => {
                let Some(extension) = extensions(&buf[digits..])? else { return Ok(None) };
                Ok(Some(Self { size, digits, length: digits + extension + 2 }))
            }
            _ => Err(BodyError::Malformed("chunk size")),
        }
    }
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Length of the chunk extensions at the start of `buf`, up to the CRLF (RFC 9112 §7.1.1):
/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn extensions(buf: &[u8]) -> Result<Option<usize>, BodyError> {
    #[derive(Clone, Copy)]
    enum At {
        Before,
        Name { empty: bool },
        AfterName,
        Value { empty: bool },
        Quoted,
        Escaped,
        AfterValue,
    }
    let mut at = At::Before;
    for (index, byte) in buf.iter().enumerate().take(CHUNK_LINE_BYTES) {
        at = match (at, *byte) {
            (At::Name { empty: false } | At::AfterName | At::Value { empty: false } | At::AfterValue, b'\r') => {
                return match buf.get(index + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(index)),
                    Some(_) => Err(BodyError::Malformed("line ending of a chunk size")),
                };
            }
            (At::Quoted, b'"') => At::AfterValue,
            (At::Quoted, b'\\') => At::Escaped,
            (At::Quoted | At::Escaped, b'\t' | 0x20..=0x7e | 0x80..) => At::Quoted,
            (
                At::Before | At::Name { empty: true } | At::Value { empty: true } | At::AfterName | At::AfterValue,
                b' ' | b'\t',
            ) => at,
            (At::Name { empty: false }, b' ' | b'\t') => At::AfterName,
            (At::Value { empty: false }, b' ' | b'\t') => At::AfterValue,
            (
                At::Before | At::Name { empty: false } | At::AfterName | At::Value { empty: false } | At::AfterValue,
                b';',
            ) => At::Name { empty: true },
            (At::Name { empty: false } | At::AfterName, b'=') => At::Value { empty: true },
            (At::Value { empty: true }, b'"') => At::Quoted,
            (At::Name { .. }, byte) if is_token(byte) => At::Name { empty: false },
            (At::Value { .. }, byte) if is_token(byte) => At::Value { empty: false },
            _ => return Err(BodyError::Malformed("chunk extension")),
        };
    }
    if buf.len() >= CHUNK_LINE_BYTES { Err(BodyError::TooLarge("chunk extension")) } else { Ok(None) }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// Makes `buf[data]` one chunk by writing its size before and the CRLF behind it; returns where the chunk lies.
/// There must be [`CHUNK_HEADROOM`] and [`CHUNK_TAILROOM`] bytes around `data`, which must not be empty.
pub fn frame_chunk(buf: &mut [u8], data: std::ops::Range<usize>) -> std::ops::Range<usize> {
    buf[data.end..data.end + 2].copy_from_slice(b"\r\n");
    buf[data.start - 2..data.start].copy_from_slice(b"\r\n");
    let (mut size, mut start) = (data.len(), data.start - 2);
    while size > 0 {
        start -= 1;
        buf[start] = b"0123456789abcdef"[size & 0xf];
        size >>= 4;
    }
    start..data.end + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_becomes_a_chunk_where_it_lies() {
        for length in [1, 15, 16, 255, 4096] {
            let mut buf = vec![b'x'; CHUNK_HEADROOM + length + CHUNK_TAILROOM];
            let chunk = frame_chunk(&mut buf, CHUNK_HEADROOM..CHUNK_HEADROOM + length);
            assert_eq!(buf[chunk], [format!("{length:x}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n"].concat());
        }
    }
}
