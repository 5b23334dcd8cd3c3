//! The fields of a batch's request and of its response (SPEC B4, B12).
//!
//! Not here: what is taken out of a request's head before it is handed over (the worker's).

use ureq::http::HeaderMap;
use ureq::http::header::{CONTENT_TYPE, HeaderName};

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
pub(super) fn of_exchange(headers: &HeaderMap, is_shared: bool) -> Vec<u8> {
    let named = headers.get_all("connection").iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let named: Vec<_> = named.map(|name| trim(name).to_ascii_lowercase()).collect();
    text(headers, |name| {
        let is_framing = matches!(
            Kind::of(name.as_str().as_bytes()),
            Kind::Connection | Kind::Hop | Kind::Te | Kind::TransferEncoding | Kind::ContentLength | Kind::Upgrade
        );
        // A cookie is for one client.
        let is_of_one = is_shared && name == "set-cookie";
        let is_of_hop = is_framing || name == "trailer" || named.iter().any(|named| named == name.as_str().as_bytes());
        !is_of_hop && !is_of_one && !is_of_body(name)
    })
}

/// The lines that describe the bytes of the body, so that they hold for no other.
pub(super) fn of_body(headers: &HeaderMap) -> Vec<u8> {
    text(headers, is_of_body)
}

/// Whether a response is to be seen as it comes, by its type.
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    const STREAMS: [&str; 7] = [
        "text/event-stream",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-seq",
        "multipart/x-mixed-replace",
    ];
    let of = |value: &str| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(of);
    media.is_some_and(|media| STREAMS.contains(&&*media))
}

fn is_of_body(name: &HeaderName) -> bool {
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
    OF_THE_BODY.contains(&name.as_str())
}

fn text(headers: &HeaderMap, passes: impl Fn(&HeaderName) -> bool) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| passes(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
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
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "a/b"),
            ("x-model", "m"),
            ("content-length", "5"),
            ("connection", "x-gone"),
            ("x-gone", "1"),
            ("set-cookie", "c"),
            ("etag", "\"x\""),
            ("transfer-encoding", "chunked"),
            ("x-model", "n"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        assert_eq!(of_exchange(&headers, true), b"x-model: m\r\nx-model: n\r\n");
        assert!(String::from_utf8(of_exchange(&headers, false)).unwrap().contains("set-cookie: c\r\n"));
        assert_eq!(of_body(&headers), b"content-type: a/b\r\netag: \"x\"\r\n");
    }
}
