//! HTTP/1.1 messages as bytes: a sans-IO codec (RFC 9110, RFC 9112).
//!
//! Every function takes bytes and says how many of them it used. "More bytes are needed" and "no byte could ever make
//! this right" are different answers: the first is `Ok` with nothing consumed, the second an error.
//!
//! | module | what |
//! |---|---|
//! | [`head`] | request and response heads, parsed in place; which framing the body has |
//! | [`fields`] | the fields of one head and what they say about the message |
//! | [`field`] | what one header field means to a proxy |
//! | [`body`] | the body's framing: how many bytes belong to it, which of them go on |
//! | [`repair`] | heads that are not quite right and whose meaning is certain, made right |
//! | `trailers` | the section behind the last chunk |
//! | [`chunk`] | one chunk-size line, read and written |
//!
//! The choices are the strict ones wherever RFC 9112 leaves one (SPEC P10): lines end in CRLF, a field line never
//! folds, `Transfer-Encoding` is exactly `chunked` and never beside a `Content-Length`, numbers are digits. The exceptions
//! are few, certain in their meaning, and never passed on as they came: bytes over 0x7f in a target, and of a server blanks
//! before a colon and behind a chunk's size (SPEC P13).
//!
//! Not here: sockets, clocks, threads, log lines; what a proxy changes in a head ([`crate::proxy`]).

pub mod body;
pub mod chunk;
pub mod field;
pub mod fields;
pub mod head;
pub mod repair;
mod trailers;

/// The version of a message; the major version is always 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How a message's body is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes; responses only.
    Close,
}

/// Lengths and chunk sizes end here: a server that counts in signed 64 bits would read more as less than nothing.
const LENGTH_MAX: u64 = i64::MAX as u64;

/// A length as RFC 9110 writes it: digits and nothing else, no sign, no space. `None` if it is anything else or over
/// [`LENGTH_MAX`].
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let number = text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    });
    number.filter(|number| *number <= LENGTH_MAX)
}

/// `text` without the optional white space around it (RFC 9110 §5.6.3: SP and HTAB, not NBSP, not VT).
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"009223372036854775807"), Some(LENGTH_MAX));
        for bad in
            ["", "+5", "-0", " 5", "5 ", "5,5", "0x5", "1_0", "9223372036854775808", "18446744073709551616", "\u{b2}"]
        {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn only_space_and_tab_are_trimmed() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b"\x0ba\x0b"), b"\x0ba\x0b");
        assert_eq!(trim(b"\xa0a"), b"\xa0a");
    }
}
