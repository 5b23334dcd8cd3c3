//! Limits, and what was found at them.

use kserve_agent::config::{HEAD_BYTES, HEAD_FIELDS, REQUEST_LINE_BYTES, RESPONSE_FIELDS, TRAILER_BYTES};
use kserve_agent::http1::Framing;
use kserve_agent::http1::body::{Body, BodyError, Keep};
use kserve_agent::http1::head::{self, HeadError, Parsed, Slots};

use super::owner::{HELD_BYTES, Owner, Pool};
use super::run;

/// The head's length when it is complete.
fn request(raw: &[u8]) -> Result<Option<usize>, HeadError> {
    match head::request(raw, &mut Slots::new())? {
        Parsed::Complete(head) => Ok(Some(head.length)),
        Parsed::Partial => Ok(None),
    }
}

fn response(raw: &[u8]) -> Result<Option<usize>, HeadError> {
    match head::response(raw, &mut Slots::new())? {
        Parsed::Complete(head) => Ok(Some(head.length)),
        Parsed::Partial => Ok(None),
    }
}

fn head_of(length: usize, start: &str) -> Vec<u8> {
    let mut raw = format!("{start}\r\nHost: a\r\nContent-Length: 0\r\nX: ").into_bytes();
    raw.resize(length - 4, b'x');
    raw.extend_from_slice(b"\r\n\r\n");
    raw
}

#[test]
fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
    for skipped in ["", "\r\n", "\r\n\r\n\r\n\r\n"] {
        let start = format!("{skipped}GET / HTTP/1.1");
        let most = HEAD_BYTES + skipped.len();
        assert_eq!(request(&head_of(most, &start)), Ok(Some(most)));
        assert_eq!(request(&head_of(most + 1, &start)), Err(HeadError::TooLarge));
        for end in most - 3..most {
            assert_eq!(request(&head_of(most, &start)[..end]), Ok(None));
        }
        assert_eq!(request(&head_of(most + 9, &start)[..=most]), Err(HeadError::TooLarge));
    }
    assert_eq!(response(&head_of(HEAD_BYTES, "HTTP/1.1 200 OK")), Ok(Some(HEAD_BYTES)));
    assert_eq!(response(&head_of(HEAD_BYTES + 1, "HTTP/1.1 200 OK")), Err(HeadError::TooLarge));
    assert_eq!(response(&head_of(HEAD_BYTES + 9, "HTTP/1.1 200 OK")[..=HEAD_BYTES]), Err(HeadError::TooLarge));
}

#[test]
fn a_request_line_may_be_as_long_as_the_limit_and_no_longer() {
    for skipped in ["", "\r\n\r\n"] {
        let target = "x".repeat(REQUEST_LINE_BYTES - "GET / HTTP/1.1\r\n".len());
        let most = format!("{skipped}GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(request(most.as_bytes()), Ok(Some(most.len())));
        let more = format!("{skipped}GET /x{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(request(more.as_bytes()), Err(HeadError::RequestLineTooLong));
        let line = skipped.len() + REQUEST_LINE_BYTES;
        assert_eq!(request(&more.as_bytes()[..line - 1]), Ok(None));
        assert_eq!(request(&more.as_bytes()[..line]), Err(HeadError::RequestLineTooLong));
    }
}

#[test]
fn a_head_may_have_as_many_fields_as_the_limit_and_no_more() {
    let head = |start: &str, fields: usize| {
        format!("{start}\r\n{}\r\n", "Host:\r\n".to_owned() + &"X: y\r\n".repeat(fields - 1))
    };
    assert!(request(head("GET / HTTP/1.1", HEAD_FIELDS).as_bytes()).is_ok());
    assert!(response(head("HTTP/1.1 200 OK", RESPONSE_FIELDS).as_bytes()).is_ok());
    assert_eq!(response(head("HTTP/1.1 200 OK", RESPONSE_FIELDS + 1).as_bytes()), Err(HeadError::TooLarge));
    assert_eq!(request(head("GET / HTTP/1.1", HEAD_FIELDS + 1).as_bytes()), Err(HeadError::TooLarge));
}

#[test]
fn a_space_in_the_target_is_a_bad_request_and_no_bad_version() {
    assert!(matches!(request(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"), Err(HeadError::Malformed(_))));
    assert!(matches!(request(b"GET /a b"), Err(HeadError::Malformed(_))));
    assert_eq!(request(b"GET / HTTP/9.9\r\n"), Err(HeadError::Version));
}

#[test]
fn a_request_line_over_its_limit_is_told_apart_from_a_head_over_its_limit() {
    let raw = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(HEAD_BYTES));
    assert_eq!(request(&raw.as_bytes()[..HEAD_BYTES]), Err(HeadError::RequestLineTooLong));
    assert_eq!(request(raw.as_bytes()), Err(HeadError::RequestLineTooLong));
}

#[test]
fn a_length_that_overflows_signed_64_bits_is_refused() {
    let with = |length: u64| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    assert!(request(with(i64::MAX as u64).as_bytes()).is_ok());
    for length in [i64::MAX as u64 + 1, u64::MAX] {
        assert!(matches!(request(with(length).as_bytes()), Err(HeadError::Malformed(_))), "{length}");
        let outcome = run::request(with(length).as_bytes(), false, &[]);
        assert_eq!((outcome.answer("").map(|answer| answer.0), &outcome.raw[..]), (Some(400), &b""[..]));
    }
}

#[test]
fn a_chunk_size_that_overflows_signed_64_bits_is_refused() {
    let chunk = |line: &[u8]| Body::new(Framing::Chunked, Keep::Framing).advance(&mut line.to_vec());
    assert!(chunk(b"7fffffffffffffff\r\n").is_ok());
    for line in [&b"8000000000000000\r\n"[..], b"ffffffffffffffff\r\n"] {
        assert!(matches!(chunk(line), Err(BodyError::Malformed(_))), "{}", line.escape_ascii());
    }
}

/// Gives a trailer section of so many bytes to a body: so many at once, and then byte by byte.
fn trailers(length: usize, at_once: usize) -> Result<bool, BodyError> {
    let mut raw = b"0\r\nX: ".to_vec();
    raw.resize(3 + length - 4, b'x');
    raw.extend_from_slice(b"\r\n\r\n");
    let (first, rest) = raw.split_at(at_once.min(raw.len()));
    let (mut body, mut unused) = (Body::new(Framing::Chunked, Keep::Framing), Vec::new());
    for bytes in std::iter::once(first).chain(rest.chunks(1)) {
        unused.extend_from_slice(bytes);
        let step = body.advance(&mut unused)?;
        unused.drain(..step.consumed);
    }
    Ok(body.has_ended())
}

#[test]
fn the_limit_of_trailers_does_not_depend_on_how_they_come() {
    for length in TRAILER_BYTES - 5..TRAILER_BYTES + 5 {
        let whole = trailers(length, usize::MAX);
        assert_eq!(trailers(length, TRAILER_BYTES - 9), whole, "{length} bytes");
        assert_eq!(whole, if length <= TRAILER_BYTES { Ok(true) } else { Err(BodyError::TooLarge("trailers")) });
    }
}

#[test]
fn a_response_starts_with_its_status_line() {
    for before in ["\n", "\r\n", "\r\n\r\n", "\n\r\n"] {
        let raw = format!("{before}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert!(matches!(response(raw.as_bytes()), Err(HeadError::Malformed(_))), "{raw:?}");
    }
}

#[test]
fn the_fields_that_the_agent_adds_stay_in_bounds() {
    let nodes = "a,".repeat(30_000);
    let raw = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {nodes}\r\n\r\n");
    let (mut owner, mut pool) = (Owner::new(), Pool::default());
    owner.client_sent(raw.as_bytes(), &mut pool);
    let head = owner.to_server.len();
    assert!(head <= HELD_BYTES, "a head of {} bytes became one of {head}: SPEC P2", raw.len());
}

#[test]
fn a_trailer_that_no_byte_could_mend_is_refused_when_it_is_seen() {
    for section in ["\n", "X: y\n\r\n", "\rX", " X: y\r\n", "X : y\r\n", "junk\r\n", "X: \0\r\n", ": y\r\n"] {
        let mut body = Body::new(Framing::Chunked, Keep::Framing);
        let result = body.advance(&mut format!("0\r\n{section}").into_bytes());
        assert!(matches!(result, Err(BodyError::Malformed(_))), "{section:?}");
    }
}
