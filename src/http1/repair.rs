//! Heads that are not quite what the grammar says, but whose meaning is certain, made into ones that are, in place (SPEC P13).
//!
//! Only what the parser has refused comes here, so a head that is well pays nothing.
//!
//! Not here: what is refused ([`super::head`]).

/// Percent-encodes the bytes over 0x7f of a request's target, as Go does, at the start of `buf`, of which `length` bytes are in
/// use. The new length; `None`: there are none, or no room for three times as many.
pub fn target(buf: &mut [u8], length: usize) -> Option<usize> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let line = buf[..length].iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(length);
    let start = buf[..line].iter().position(|byte| *byte == b' ')? + 1;
    let end = buf[start..line].iter().position(|byte| *byte == b' ').map_or(line, |at| start + at);
    let raw = buf[start..end].iter().filter(|byte| !byte.is_ascii()).count();
    let grown = length + 2 * raw;
    if raw == 0 || grown > buf.len() {
        return None;
    }
    buf.copy_within(end..length, end + 2 * raw);
    // From the end, so that no byte is written over before it is read.
    let mut at = end + 2 * raw;
    for from in (start..end).rev() {
        let byte = buf[from];
        if byte.is_ascii() {
            at -= 1;
            buf[at] = byte;
        } else {
            at -= 3;
            buf[at..at + 3].copy_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
    Some(grown)
}

/// Removes the white space between the names of a whole response head, at the start of `buf`, and their colons (RFC 9112 §5.1).
/// The new length of all of `buf`.
pub fn blanks(buf: &mut [u8]) -> usize {
    let end = buf.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 2);
    let (mut read, mut kept) = (0, 0);
    while read < end {
        let line = read + buf[read..end].iter().position(|byte| *byte == b'\n').map_or(end - read, |at| at + 1);
        // The status line has no name.
        let colon = if read == 0 { None } else { buf[read..line].iter().position(|byte| *byte == b':') };
        if let Some(colon) = colon.map(|at| read + at) {
            let name = buf[read..colon].trim_ascii_end().len();
            buf.copy_within(read..read + name, kept);
            kept += name;
            read = colon;
        }
        buf.copy_within(read..line, kept);
        kept += line - read;
        read = line;
    }
    buf.copy_within(end.., kept);
    buf.len() - (end - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &[u8], room: usize) -> Option<Vec<u8>> {
        let mut buf = text.to_vec();
        buf.resize(text.len() + room, b'?');
        let length = target(&mut buf, text.len())?;
        Some(buf[..length].to_vec())
    }

    #[test]
    fn a_target_is_encoded_and_nothing_else_is() {
        for (raw, clean) in [
            (
                &b"GET /gr\xc3\xb6\xc3\x9fe HTTP/1.1\r\nX: \xff\r\n\r\n"[..],
                &b"GET /gr%C3%B6%C3%9Fe HTTP/1.1\r\nX: \xff\r\n\r\n"[..],
            ),
            (b"GET /a?b=\xff HTTP/1.1\r\n", b"GET /a?b=%FF HTTP/1.1\r\n"),
            (b"GET /\x80", b"GET /%80"),
        ] {
            assert_eq!(encoded(raw, 100).as_deref(), Some(clean));
        }
        for raw in
            [&b"GET / HTTP/1.1\r\nX: \xff\r\n"[..], b"G\xffT / HTTP/1.1\r\n", b"GET / HTTP/1.\xff\r\n", b"\xff", b""]
        {
            assert_eq!(encoded(raw, 100), None, "{raw:?}");
        }
        assert_eq!(encoded(b"GET /\x80", 1), None, "no room");
        assert!(encoded(b"GET /\x80", 2).is_some());
    }

    #[test]
    fn blanks_before_colons_are_removed_and_nothing_else_is() {
        let mut buf = b"HTTP/1.1 200 O : K\r\nA : b : c\r\nB:d\r\nLong \t: e\r\n\r\nbody : x\r\n\r\n".to_vec();
        let length = blanks(&mut buf);
        assert_eq!(&buf[..length], b"HTTP/1.1 200 O : K\r\nA: b : c\r\nB:d\r\nLong: e\r\n\r\nbody : x\r\n\r\n");
    }
}
