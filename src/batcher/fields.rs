//! The fields of a batch's request and of its response (SPEC B4, B12).
//!
//! Not here: what is taken out of a request's head before it is handed over (the worker's).

use crate::http1::field::Kind;
use crate::http1::trim;

/// The field lines of `first` that every one of `others` has with the same values: name and value.
pub(super) fn common<'f>(first: &'f [u8], others: &[&'f [u8]]) -> Vec<(&'f [u8], &'f [u8])> {
    let mut common: Vec<_> = lines(first).collect();
    for other in others.iter().filter(|other| **other != first) {
        let other: Vec<_> = lines(other).collect();
        let own = common.clone();
        common.retain(|(name, _)| values(&own, name).eq(values(&other, name)));
    }
    common
}

/// Names and values of field lines, each of which ends in CRLF.
fn lines(fields: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], trim(line[colon + 1..].strip_suffix(b"\r")?)))
    })
}

fn values<'f>(fields: &[(&'f [u8], &'f [u8])], name: &[u8]) -> impl Iterator<Item = &'f [u8]> {
    fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
}

/// The lines of a response's fields that its clients get whatever becomes of its body; `is_shared`: there are several.
pub(super) fn of_exchange(fields: &[u8], is_shared: bool) -> Vec<u8> {
    let named: Vec<&[u8]> = lines(fields)
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
        .flat_map(|(_, value)| value.split(|byte| *byte == b',').map(trim))
        .collect();
    text(fields, |name| {
        let is_framing = matches!(
            Kind::of(name),
            Kind::Connection | Kind::Hop | Kind::Te | Kind::TransferEncoding | Kind::ContentLength | Kind::Upgrade
        );
        // A cookie is for one client.
        let is_of_one = is_shared && name.eq_ignore_ascii_case(b"set-cookie");
        let is_named = named.iter().any(|named| named.eq_ignore_ascii_case(name));
        let is_of_hop = is_framing || is_named || name.eq_ignore_ascii_case(b"trailer");
        !is_of_hop && !is_of_one && !is_of_body(name)
    })
}

/// The lines that describe the bytes of the body, so that they hold for no other.
pub(super) fn of_body(fields: &[u8]) -> Vec<u8> {
    text(fields, is_of_body)
}

/// Whether the body is coded, so that it can't be read.
pub(super) fn is_coded(fields: &[u8]) -> bool {
    lines(fields).any(|(name, value)| name.eq_ignore_ascii_case(b"content-encoding") && value != b"identity")
}

/// Whether a response is to be seen as it comes, by its type.
pub(super) fn is_stream(fields: &[u8]) -> bool {
    const STREAMS: [&str; 7] = [
        "text/event-stream",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-seq",
        "multipart/x-mixed-replace",
    ];
    let media = |value: &[u8]| value.split(|byte| *byte == b';').next().map(trim).map(<[u8]>::to_ascii_lowercase);
    lines(fields)
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"content-type"))
        .filter_map(|(_, value)| media(value))
        .any(|media| STREAMS.iter().any(|stream| stream.as_bytes() == media))
}

fn is_of_body(name: &[u8]) -> bool {
    const OF_THE_BODY: [&str; 10] = [
        "content-type",
        "content-encoding",
        "content-range",
        "accept-ranges",
        "content-md5",
        "digest",
        "content-digest",
        "repr-digest",
        "etag",
        "last-modified",
    ];
    OF_THE_BODY.iter().any(|of_body| name.eq_ignore_ascii_case(of_body.as_bytes()))
}

fn text(fields: &[u8], passes: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let passing =
        fields.split_inclusive(|byte| *byte == b'\n').filter(|line| lines(line).any(|(name, _)| passes(name)));
    passing.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'f>(fields: &[(&'f [u8], &'f [u8])]) -> Vec<&'f str> {
        fields.iter().map(|field| std::str::from_utf8(field.0).unwrap()).collect()
    }

    #[test]
    fn only_what_all_have_with_the_same_values_goes_on() {
        let first = b"Host: a\r\nX-Id: 1\r\nAccept: x\r\naccept: y\r\nVia:  v \r\n";
        assert_eq!(names(&common(first, &[])), ["Host", "X-Id", "Accept", "accept", "Via"]);
        let other = b"host:a\r\nX-Id: 2\r\nACCEPT: x\r\nVia: v\r\n";
        assert_eq!(names(&common(first, &[first, other])), ["Host", "Via"]);
        assert_eq!(common(first, &[other])[1], (&b"Via"[..], &b"v"[..]));
        assert_eq!(names(&common(b"A: 1\r\n", &[b""])), [""; 0]);
    }

    #[test]
    fn clients_get_what_is_not_of_the_hop_or_of_the_body() {
        let fields =
            b"Content-Type: a/b\r\nX-Model: m\r\ncontent-length: 5\r\nConnection: close, x-gone\r\nX-Gone: 1\r\n\
            Set-Cookie: c\r\nETag: \"x\"\r\nTransfer-Encoding: chunked\r\nx-model: n\r\nTrailer: x\r\n";
        assert_eq!(of_exchange(fields, true), b"X-Model: m\r\nx-model: n\r\n");
        assert!(String::from_utf8(of_exchange(fields, false)).unwrap().contains("Set-Cookie: c\r\n"));
        assert_eq!(of_body(fields), b"Content-Type: a/b\r\nETag: \"x\"\r\n");
    }

    #[test]
    fn streams_and_coded_bodies_are_known_by_their_fields() {
        assert!(is_stream(b"A: b\r\ncontent-type: Text/Event-Stream ; charset=utf-8\r\n"));
        assert!(!is_stream(b"Content-Type: application/json\r\n") && !is_stream(b""));
        assert!(is_coded(b"content-encoding: gzip\r\n") && !is_coded(b"Content-Encoding: identity\r\nX: gzip\r\n"));
    }
}
