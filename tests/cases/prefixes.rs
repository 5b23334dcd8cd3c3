//! A message that was cut off never looks complete, wherever it was cut, to anyone.

use kserve_agent::http1::Framing;
use kserve_agent::http1::body::{Body, BodyError, Keep};
use kserve_agent::http1::head::{self, Parsed, Slots};

use super::owner::{Client, Owner, Pool};
use super::reader;
use super::run;
use super::table::{self, Case, latin1};
use super::{REQUESTS, RESPONSES};

const TRAILERS: &str = "POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n\
    5;a=\"b;c\"\r\nhello\r\n10 ; d\r\n0123456789abcdef\r\n000\r\nX-A: 1\r\nHost: b\r\nX-B: 2\r\n\r\n";
const LONG_HEAD: &str = "PUT http://a/p?q HTTP/1.1\r\nHost: a\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\n\
    X-Forwarded-For: 1.2.3.4\r\nContent-Length: 3, 3\r\nExpect: 100-continue\r\n\r\nabc";

/// Every message of the list that is one whole valid request.
fn requests() -> Vec<Vec<u8>> {
    let is_one = |case: &Case| case.expect == "accept" && !case.has_more_than_one();
    let listed = table::load(REQUESTS).into_iter().filter(is_one).map(|case| latin1(&case.raw));
    listed.chain([latin1(TRAILERS), latin1(LONG_HEAD)]).collect()
}

/// The head's length and the body's framing, if the head is complete.
fn request_head(raw: &[u8]) -> Option<(usize, Framing)> {
    match head::request(raw, &mut Slots::new()).unwrap() {
        Parsed::Complete(head) => Some((head.length, head.framing)),
        Parsed::Partial => None,
    }
}

fn response_head(raw: &[u8]) -> Option<(usize, Framing)> {
    match head::response(raw, &mut Slots::new()).unwrap() {
        Parsed::Complete(head) => Some((head.length, head.framing)),
        Parsed::Partial => None,
    }
}

/// No prefix of the message is one to the codec: the head is neither complete nor wrong, the body has not ended.
fn no_prefix_is_complete(raw: &[u8], head: impl Fn(&[u8]) -> Option<(usize, Framing)>) {
    let (length, framing) = head(raw).unwrap();
    for end in 0..length {
        assert_eq!(head(&raw[..end]), None, "{} of {}", end, raw.escape_ascii());
    }
    for keep in [Keep::Framing, Keep::Data] {
        for end in length..raw.len() {
            let mut body = Body::new(framing, keep);
            body.advance(&mut raw[length..end].to_vec()).unwrap();
            assert!(!body.has_ended(), "{} of {}", end, raw.escape_ascii());
            if framing != Framing::Close {
                assert_eq!(body.end_of_input(), Err(BodyError::Truncated));
            }
        }
        let mut body = Body::new(framing, keep);
        assert_eq!(body.advance(&mut raw[length..].to_vec()).unwrap().consumed, raw.len() - length);
        assert!(body.has_ended() || framing == Framing::Close, "{}", raw.escape_ascii());
    }
}

#[test]
fn no_prefix_of_a_request_is_one_to_the_codec() {
    let requests = requests();
    assert!(requests.len() > 20, "{}", requests.len());
    requests.iter().for_each(|raw| no_prefix_is_complete(raw, request_head));
}

#[test]
fn no_prefix_of_a_request_is_one_to_the_server() {
    for raw in requests() {
        for end in 0..raw.len() {
            for half_close in [false, true] {
                let outcome = run::request(&raw[..end], half_close, &[]);
                assert!(outcome.requests.is_empty(), "{end} of {}", raw.escape_ascii());
                assert!(outcome.errors.is_empty(), "{end} of {}", raw.escape_ascii());
                assert_eq!(outcome.closed, half_close);
                let is_answered = outcome.answer("").is_some_and(|answer| answer.0 < 400);
                assert!(!is_answered, "{end} of {}", raw.escape_ascii());
            }
        }
        assert_eq!(run::request(&raw, false, &[]).requests.len(), 1, "{}", raw.escape_ascii());
    }
}

/// Whole responses whose end can be told from what it says itself, and their methods.
fn responses() -> Vec<(String, Vec<u8>)> {
    let is_framed =
        |case: &Case| case.expect == "forward" && case.name != "ok_close_delimited" && case.name != "head_with_body";
    let listed = table::load(RESPONSES).into_iter().filter(is_framed);
    let get = |raw: &str| ("GET".to_owned(), latin1(raw));
    listed
        .map(|case| (case.request_method, latin1(&case.raw)))
        .chain([
            get("HTTP/1.1 102 \r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                5;a=b\r\nhello\r\n0;c\r\nX-A: 1\r\nAge: 2\r\nX-B: 3\r\n\r\n"),
            get("HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc"),
            get("HTTP/1.1 204 \r\nX-A: 1\r\n\r\n"),
        ])
        .collect()
}

/// What a client that understands the protocol makes of a response to `method` that comes up to `end`, when the
/// server's connection then ends: its final response, if it takes it for complete.
fn read_by_client(method: &str, raw: &[u8], version: &str, reset: bool) -> Option<reader::Message> {
    let (mut owner, mut pool, mut got) = (Owner::new(), Pool::default(), Vec::new());
    owner.client_sent(format!("{method} / {version}\r\nHost: a\r\n\r\n").as_bytes(), &mut pool);
    owner.to_server.clear();
    if !raw.is_empty() {
        owner.server_sent(raw, false, &mut pool);
        got.append(&mut owner.to_client);
    }
    if owner.has_exchange() {
        owner.server_ended(reset, false, &mut pool);
        got.append(&mut owner.to_client);
    }
    let mut at = 0;
    loop {
        match reader::response(&got[at..], method == "HEAD", owner.client == Client::Closing) {
            Ok((interim, length)) if interim.status < 200 => at += length,
            Ok((response, _)) => return Some(response),
            Err(reader::Unread::More) => return None,
            Err(reader::Unread::Bad(why)) => panic!("{why}: {}", got.escape_ascii()),
        }
    }
}

#[test]
fn no_prefix_of_a_response_is_one_to_the_codec() {
    for (method, raw) in responses() {
        let mut at = 0;
        while raw[at..].starts_with(b"HTTP/1.1 1") {
            at += response_head(&raw[at..]).unwrap().0;
        }
        let head = |bytes: &[u8]| {
            let found = response_head(bytes)?;
            Some((found.0, if method == "HEAD" { Framing::Empty } else { found.1 }))
        };
        no_prefix_is_complete(&raw[at..], head);
    }
}

#[test]
fn no_prefix_of_a_response_is_one_to_the_client() {
    let responses = responses();
    assert!(responses.len() > 10, "{}", responses.len());
    for (method, raw) in responses {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            for reset in [false, true] {
                for end in 0..raw.len() {
                    let read = read_by_client(&method, &raw[..end], version, reset);
                    assert!(read.is_none_or(|read| read.status == 502), "{version}, {end} of {}", raw.escape_ascii());
                }
                assert_ne!(read_by_client(&method, &raw, version, reset).unwrap().status, 502);
            }
        }
    }
}

#[test]
fn a_body_that_ends_with_its_connection_is_whole_unless_that_was_reset() {
    let raw = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello";
    let head = raw.len() - 5;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for end in 0..=raw.len() {
            let read = read_by_client("GET", &raw[..end], version, false).unwrap();
            assert_eq!(read.status, if end < head { 502 } else { 200 });
            assert!(end < head || read.body == raw[head..end]);
            let read = read_by_client("GET", &raw[..end], version, true);
            assert!(read.is_none_or(|read| read.status == 502), "{version}, {end}");
        }
    }
}
