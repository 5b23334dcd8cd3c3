//! Our own cases: what the lists of other projects leave out, found by trying.

use super::run;
use super::table::{Case, Outcome, latin1};
use super::{in_every_way, report};

/// What must come of a request.
enum Expect {
    /// Refused with this status and closed, and the server reads no request.
    Refused(u16),
    /// The server reads this target and body, and then nothing more.
    Passed(&'static str, &'static str),
}
use Expect::{Passed, Refused};

const OK: Expect = Passed("/", "");
const HELLO: Expect = Passed("/", "hello");

/// Request lines, each followed by `Host: a`.
const REQUEST_LINES: [(&str, Expect); 29] = [
    ("GET / HTTP/1.1 ", Refused(400)),
    ("GET / HTTP/1.1\r", Refused(400)),
    ("GET / HTTP/1.1\0", Refused(400)),
    ("GET / http/1.1", Refused(400)),
    ("GET / HTTP /1.1", Refused(400)),
    ("GET / HTTP/1.1.1", Refused(400)),
    ("GET / HTTP/1,1", Refused(505)),
    ("GET / HTTP/01.1", Refused(505)),
    ("GET / HTTP/3", Refused(505)),
    (" GET / HTTP/1.1", Refused(400)),
    ("\tGET / HTTP/1.1", Refused(400)),
    ("\nGET / HTTP/1.1", Refused(400)),
    ("\r\rGET / HTTP/1.1", Refused(400)),
    ("\r\n\r\nGET / HTTP/1.1", OK),
    ("G\0T / HTTP/1.1", Refused(400)),
    ("GET /\x0b HTTP/1.1", Refused(400)),
    ("GET /\x0c/ HTTP/1.1", Refused(400)),
    ("GET /a#b HTTP/1.1", Refused(400)),
    ("GET http://a HTTP/1.1", OK),
    ("GET http://a?x HTTP/1.1", Passed("/?x", "")),
    ("GET HTTPS://A/p HTTP/1.1", Passed("/p", "")),
    ("GET http://a@b/ HTTP/1.1", Refused(400)),
    ("GET http://b@a/ HTTP/1.1", Refused(400)),
    ("GET http:///p HTTP/1.1", Refused(400)),
    ("GET ftp://a/ HTTP/1.1", Refused(400)),
    ("OPTIONS * HTTP/1.1", Passed("*", "")),
    ("OPTIONS http://a HTTP/1.1", Passed("*", "")),
    ("PRI * HTTP/1.1", Refused(400)),
    ("connect a:80 HTTP/1.1", Refused(400)),
];

/// Fields of a `POST` with the body `hello`, which none of them but these frames.
const FRAMINGS: [(&str, Expect); 34] = [
    ("Transfer-Encoding: \"chunked\"", Refused(400)),
    ("Transfer-Encoding: chunked;", Refused(400)),
    ("Transfer-Encoding: chun\tked", Refused(400)),
    ("Transfer-Encoding: chunked\0", Refused(400)),
    ("Transfer-Encoding: , chunked ,", Refused(400)),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding:", Refused(400)),
    ("Transfer-Encoding: identity", Refused(400)),
    ("Transfer-Encoding:\r\n\tchunked", Refused(400)),
    ("Transfer-Encoding: gzip, chunked", Refused(501)),
    ("Transfer-Encoding: gzip,chunked", Refused(501)),
    ("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", Refused(400)),
    ("CONTENT_LENGTH: 5", Refused(400)),
    ("Connection: Content_Length\r\nContent_Length: 5\r\nContent-Length: 5", Refused(400)),
    ("Content-Length: 5\t5", Refused(400)),
    ("Content-Length: 5,", Refused(400)),
    ("Content-Length: ,", Refused(400)),
    ("Content-Length: 5;5", Refused(400)),
    ("Content-Length: 5.0", Refused(400)),
    ("Content-Length: 5e0", Refused(400)),
    ("Content-Length: \"5\"", Refused(400)),
    ("Content-Length: \u{b5}", Refused(400)),
    ("Content-Length: \u{ef}\u{bc}\u{95}", Refused(400)),
    ("Content-Length: \x0b5", Refused(400)),
    ("Content-Length: 5\r\n ", Refused(400)),
    ("Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6", Refused(400)),
    ("Content-Length: 5\r\nContent-Length:", Refused(400)),
    ("Content-Length:\t 5 \t", HELLO),
    ("Content-Length:5", HELLO),
    ("Content-Length: 05\r\ncontent-length: 5", HELLO),
    ("Content-Length: 00000000000000000000000000000005", HELLO),
    ("Content-Length: 5\r\nConnection: Upgrade\r\nUpgrade: websocket", HELLO),
    ("Content-Length: 5\r\nExpect: 100-Continue", HELLO),
    ("Content-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue", HELLO),
    ("Content-Length: 5\r\nConnection: expect\r\nExpect: 100-continue", HELLO),
];

/// Fields of a `GET`, instead of `Host: a`.
const FIELDS: [(&str, Expect); 37] = [
    ("Host: a\r\nHost: a", Refused(400)),
    ("Host: a:b", Refused(400)),
    ("Host: a:80:80", Refused(400)),
    ("Host: a:123456", Refused(400)),
    ("Host: user@a", Refused(400)),
    ("Host: http://a", Refused(400)),
    ("Host: a?b", Refused(400)),
    ("Host: a#b", Refused(400)),
    ("Host: a\\b", Refused(400)),
    ("Host: a\tb", Refused(400)),
    ("Host: a, b", Refused(400)),
    ("Host: caf\u{e9}", Refused(400)),
    ("Host: \"a\"", Refused(400)),
    ("Host: [::1", Refused(400)),
    ("Host: [::1]x", Refused(400)),
    ("Host: ::1", Refused(400)),
    ("Host: [::1]:80", OK),
    ("Host: a_b.c:80", OK),
    ("Host: a:", OK),
    ("Host:", OK),
    ("host:a", OK),
    ("\tHost: a", Refused(400)),
    ("Host\t: a", Refused(400)),
    ("Host: a\r\nX\x7f: y", Refused(400)),
    ("Host: a\r\nX: a\r", Refused(400)),
    ("Host: a\r\nX: \x1b[0m", Refused(400)),
    ("Host: a\r\nX(y): z", Refused(400)),
    ("Host: a\r\nX@y: z", Refused(400)),
    ("Host: a\r\nX:", OK),
    ("Host: a\r\nX: \u{80}\u{ff}", OK),
    ("Host: a\r\nX!#$%&'*+-.^_`|~: y", OK),
    ("Host: a\r\nExpect:", Refused(417)),
    ("Host: a\r\nExpect: 100-continue;q", Refused(417)),
    ("Host: a\r\nExpect: 100-continue, x", Refused(417)),
    ("Host: a\r\nConnection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6,7", Refused(400)),
    ("Host: a\r\nConnection: host, content-length, te\r\nTE: trailers", OK),
    ("Host: a\r\nProxy-Connection: close", OK),
];

/// Bodies behind `Transfer-Encoding: chunked`.
const CHUNKS: [(&str, Expect); 45] = [
    ("5\r\nhello\r\n0\r\n\r\n", HELLO),
    ("5 ;a\r\nhello\r\n0\r\n\r\n", HELLO),
    ("5\t; a = b\r\nhello\r\n0\r\n\r\n", HELLO),
    ("5;a=\"\u{e9}\\\"\t\"\r\nhello\r\n0\r\n\r\n", HELLO),
    ("0000000000000005\r\nhello\r\n0000\r\n\r\n", HELLO),
    ("05;a;b;c=d\r\nhello\r\n0;x=\"0\"\r\nX: y\r\n\r\n", HELLO),
    ("5\r\nhello\r\n0\r\nX:\r\nY: \u{ff}\r\n\r\n", HELLO),
    ("5\r\nhello\r\n0\r\ncontent-length: 1\r\nTransfer_Encoding: x\r\nConnection: close\r\n\r\n", HELLO),
    ("00000000000000005\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("-5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5h\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("0x\r\n\r\n", Refused(400)),
    ("5_0\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("\t5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5\0\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5 \r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5\t\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5 5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5,5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5\r\n\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5\r\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5\n\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5\x0b\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("\u{ff}5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;;a\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;a=\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;=b\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;a=\"b\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;a=\"b\0\"\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;a=\"b\n\"\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;a=\"b\"c\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;\u{e9}\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5;a\n\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("5\r\nhello\n\r\n0\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\r\n0\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n\r\n0\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n-0\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\nX: a\0\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\nX: a\r\n\tb\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\n X: a\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\n\rX: a\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\nX: a\n\r\n\r\n", Refused(400)),
    ("5\r\nhello\r\n0\r\nX\u{e9}: a\r\n\r\n", Refused(400)),
];

fn judge(expect: &Expect, outcome: &Outcome) -> Result<(), String> {
    let requests: Vec<(&[u8], &[u8])> =
        outcome.requests.iter().map(|(message, _)| (&message.target[..], &message.body[..])).collect();
    let status = outcome.got.get(9..12).map(|code| String::from_utf8_lossy(code).into_owned());
    let holds = match expect {
        Refused(wanted) => requests.is_empty() && status == Some(wanted.to_string()) && outcome.closed,
        Passed(target, body) => {
            requests == [(target.as_bytes(), body.as_bytes())]
                && status.is_some_and(|status| status.starts_with(['1', '2']))
        }
    };
    let errors = &outcome.errors;
    if holds && errors.is_empty() {
        Ok(())
    } else {
        Err(format!("client got {:?}, server read {requests:?} {errors:?}", outcome.got.escape_ascii().to_string()))
    }
}

fn check(form: impl Fn(&str) -> String, table: &[(&str, Expect)]) {
    let failures: Vec<String> = table
        .iter()
        .filter_map(|(text, expect)| {
            let raw = latin1(&form(text));
            let result =
                in_every_way(&raw, "", |cuts| run::request(&raw, false, cuts), |outcome| judge(expect, outcome));
            result.err().map(|why| format!("{text:?}: {why}"))
        })
        .collect();
    report(&failures, table.len());
}

#[test]
fn our_own_cases_request_lines() {
    check(|line| format!("{line}\r\nHost: a\r\n\r\n"), &REQUEST_LINES);
}

#[test]
fn our_own_cases_framings() {
    check(|fields| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nhello"), &FRAMINGS);
}

#[test]
fn our_own_cases_fields() {
    check(|fields| format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"), &FIELDS);
}

#[test]
fn our_own_cases_chunks() {
    check(|body| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"), &CHUNKS);
}

/// Responses to a request: method, bytes, the status the client gets, the body, and whether the connection to the
/// server is used again.
const RESPONSES: [(&str, &str, u16, &str, bool); 44] = [
    ("GET", "HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "ICY 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\n: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\n Content-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello", 502, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: close\r\n\r\n", 502, "", false),
    ("GET", "\0HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 502, "", false),
    ("GET", "HTTP/1.1 204 \r\nTransfer-Encoding: chunked\r\n\r\n", 204, "", false),
    ("GET", "HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n", 204, "", true),
    ("GET", "HTTP/1.1 304 \r\nContent-Length: 7\r\n\r\n", 304, "", true),
    ("GET", "HTTP/1.1 304 \r\nTransfer-Encoding: chunked\r\n\r\n", 304, "", false),
    ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", true),
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "", false),
    ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200, "", true),
    ("GET", "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", 205, "", true),
    (
        "GET",
        "HTTP/1.1 103 \r\nContent-Length: 3\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        200,
        "hello",
        true,
    ),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 05\r\n\r\nhello", 200, "hello", true),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive, CLOSE\r\n\r\nhello", 200, "hello", false),
    ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", false),
    ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", 200, "hello", true),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", 200, "hello", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n", 200, "hello", false),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n5;a=b\r\nhello\r\n0;c\r\nX: y\r\nAge: 3\r\n\r\n",
        200,
        "hello",
        true,
    ),
    ("POST", "HTTP/1.1 500 \u{dc}bel\r\nContent-Length: 0\r\n\r\n", 500, "", false),
];

#[test]
fn our_own_cases_responses() {
    let failures: Vec<String> = RESPONSES
        .iter()
        .filter_map(|(method, raw, status, body, reused)| {
            let mut case = Case::default();
            (case.raw, case.request_method) = ((*raw).to_owned(), (*method).to_owned());
            let bytes = latin1(raw);
            let judge = |outcome: &Outcome| {
                let verdict = outcome.answer(method);
                let wanted = (*status, if *status == 502 { None } else { Some(body.as_bytes().to_vec()) });
                let is = (verdict, outcome.reused);
                if is == (Some(wanted.clone()), *reused) {
                    Ok(())
                } else {
                    Err(format!("{is:?}, not {wanted:?} {reused}"))
                }
            };
            let result = in_every_way(&bytes, method, |cuts| run::response(&case, "HTTP/1.1", cuts), judge);
            result.err().map(|why| format!("{raw:?}: {why}"))
        })
        .collect();
    report(&failures, RESPONSES.len());
}
