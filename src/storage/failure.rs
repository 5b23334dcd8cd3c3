//! Why a request to a store failed, and whether it is worth another attempt.
//!
//! Architecture Invariant: a reason holds no secret. Of what is sent nothing is in it, no URL and no field; of what a
//! store says only its code and its message, and in those whatever is as long as a signature, a key or a token is left
//! out. So a reason can be logged, counted and shown.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, StatusCode};
use ureq::{Error, Timeout};

use crate::config::{STORE_CONNECT_TIMEOUT, STORE_REASON_CHARS, STORE_STALL_TIMEOUT};
use crate::ops::retry_after::retry_after;

/// A request that did not do what it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub kind: Kind,
    /// For an operator: what the store said, or what happened to the connection.
    pub reason: String,
    /// Of the answer, if there was one.
    pub(super) status: Option<StatusCode>,
    /// There is no room for it here.
    pub(crate) is_full: bool,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Try again: the connection broke, or the store was busy or broken itself.
    Transient {
        /// The store asked for this much time.
        after: Option<Duration>,
    },
    /// The object is no longer the one that was listed: list again, and read it from its start.
    Changed,
    /// The same request would fail again until somebody changes something: a permission, a key, a name.
    Refused,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn transient(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Transient { after: None }, reason: reason.into(), status: None, is_full: false }
    }

    /// The disk has no room for it.
    pub(crate) fn full(reason: impl Into<String>) -> Self {
        Self { is_full: true, ..Self::transient(reason) }
    }

    pub(crate) fn changed(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Changed, reason: reason.into(), status: None, is_full: false }
    }

    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, reason: reason.into(), status: None, is_full: false }
    }

    /// Somebody has answered, and said no.
    pub(crate) fn has_answered(&self) -> bool {
        self.status.is_some()
    }

    /// Permissions do not allow it, or do not yet: those that were just given take some seconds to spread.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.status == Some(StatusCode::FORBIDDEN)
    }

    /// The store has more to do than it can, and is to be asked for less.
    pub(crate) fn is_overload(&self) -> bool {
        self.status.is_some_and(|status| matches!(status.as_u16(), 429 | 503))
    }

    /// The same, with what was done in front of its reason.
    pub(crate) fn of(self, action: impl fmt::Display) -> Self {
        Self { reason: format!("{action}: {}", self.reason), ..self }
    }

    /// The same, with something to add.
    pub(super) fn and(self, more: &str) -> Self {
        Self { reason: format!("{}; {more}", self.reason), ..self }
    }

    /// No answer, or not all of it.
    pub(crate) fn of_transport(error: &Error) -> Self {
        let seconds = |limit: Duration| limit.as_secs();
        match error {
            Error::Timeout(Timeout::Connect) => {
                Self::transient(format!("no connection within {} s", seconds(STORE_CONNECT_TIMEOUT)))
            }
            Error::Timeout(_) => Self::transient(format!("stalled for {} s", seconds(STORE_STALL_TIMEOUT))),
            Error::HostNotFound => Self::transient("the host's name is not known"),
            // By the resolver, which says what.
            Error::Io(error) if error.kind() == io::ErrorKind::Unsupported => Self::refused(error.to_string()),
            Error::Io(error) => Self::of_io(error),
            Error::Rustls(error) => Self::transient(format!("TLS: {error}")),
            Error::ConnectionFailed => Self::transient("no connection"),
            // What could not even be sent will not be the next time. Their texts quote URLs.
            Error::BadUri(_) | Error::Http(_) | Error::Tls(_) | Error::RequireHttpsOnly(_) => {
                Self::refused("the address is not one that can be connected to")
            }
            Error::ConnectProxyFailed(reason) => Self::transient(format!("no tunnel: {}", readable(reason))),
            Error::LargeResponseHeader(..) | Error::Protocol(_) => Self::transient("the answer is not HTTP"),
            _ => Self::transient("the request failed"),
        }
    }

    /// The same for a body, whose errors come wrapped.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return Self::of_transport(error);
        }
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::transient(format!("TLS: {error}"));
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::transient("the connection ended early"),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                Self::of_transport(&Error::Timeout(Timeout::PerRead))
            }
            _ => Self::transient(error.to_string()),
        }
    }

    /// An answer that is not a success.
    pub(crate) fn of_answer(status: StatusCode, fields: &HeaderMap, document: &str) -> Self {
        let reason = match said(document) {
            Some(said) => format!("{}: {said}", status.as_u16()),
            // A `HEAD` or a store that says it in a field.
            None => match fields.get("x-ms-error-code").and_then(|code| code.to_str().ok()) {
                Some(code) => format!("{}: {}", status.as_u16(), readable(code)),
                None => status.to_string(),
            },
        };
        let reason = match fields.get("x-amz-bucket-region").and_then(|region| region.to_str().ok()) {
            Some(region) if matches!(status.as_u16(), 301 | 307 | 400) => {
                format!("{reason}; AWS_DEFAULT_REGION: the bucket's region is {}", readable(region))
            }
            _ => reason,
        };
        let kind = match status.as_u16() {
            412 => Kind::Changed,
            408 | 425 | 429 | 500..=599 => Kind::Transient { after: asked(fields) },
            // A connection that S3 waited on for too long.
            400 if reason.contains("RequestTimeout") => Kind::Transient { after: None },
            _ => Kind::Refused,
        };
        Self { kind, reason, status: Some(status), is_full: false }
    }
}

fn asked(fields: &HeaderMap) -> Option<Duration> {
    retry_after(fields.get("retry-after")?.to_str().ok()?, SystemTime::now())
}

/// The code and the message of an error document: XML of S3, STS and Azure, JSON of Google and of token endpoints.
///
/// By a search and not by a parser, as it is for people only, and as it may be cut or be a proxy's own.
fn said(document: &str) -> Option<String> {
    let (code, message) = if document.trim_start().starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(document).ok()?;
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => Some(text.clone()),
            _ => None,
        };
        match value.get("error")? {
            serde_json::Value::String(code) => (Some(code.clone()), value.get("error_description").and_then(text)),
            error => (error.get("status").and_then(text), error.get("message").and_then(text)),
        }
    } else {
        (element(document, "Code"), element(document, "Message"))
    };
    match (code, message) {
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => Some(readable(&one)),
        (Some(code), Some(message)) => Some(readable(&format!("{code}: {message}"))),
    }
}

fn element(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(
        text.replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
}

/// One line without secrets: a word as long as any of them becomes `…`.
pub(crate) fn readable(text: &str) -> String {
    let is_of_secret = |c: char| c.is_ascii_alphanumeric() || "+/=_-.%".contains(c);
    let mut line = String::new();
    let mut word = String::new();
    let take_word = |line: &mut String, word: &mut String| {
        line.push_str(if word.len() < SECRET_CHARS { word } else { "…" });
        word.clear();
    };
    for c in text.chars() {
        if is_of_secret(c) {
            word.push(c);
            continue;
        }
        take_word(&mut line, &mut word);
        match c {
            _ if c.is_control() || c == ' ' => line.push_str(if line.ends_with(' ') { "" } else { " " }),
            _ => line.push(c),
        }
    }
    take_word(&mut line, &mut word);
    match line.char_indices().nth(STORE_REASON_CHARS) {
        Some((end, _)) => format!("{}…", line[..end].trim()),
        None => line.trim().to_owned(),
    }
}

/// The shortest secret there is: an AWS secret key has 40 characters, a signature 44 in Base64.
const SECRET_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    fn answer(status: u16, document: &str) -> Failure {
        Failure::of_answer(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), document)
    }

    #[test]
    fn a_store_that_is_busy_or_broken_is_worth_another_attempt() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(answer(status, "").kind, Kind::Transient { after: None }, "{status}");
        }
        assert_eq!(answer(400, "<Error><Code>RequestTimeout</Code></Error>").kind, Kind::Transient { after: None });
        for status in [301, 400, 401, 403, 404, 409, 416] {
            assert_eq!(answer(status, "").kind, Kind::Refused, "{status}");
        }
        assert_eq!(answer(412, "").kind, Kind::Changed);
    }

    #[test]
    fn the_time_that_a_store_asks_for_is_passed_on() {
        for (text, after) in [("7", Some(7)), ("Fri, 31 Dec 1999 23:59:59 GMT", Some(0)), ("soon", None)] {
            let fields = HeaderMap::from_iter([("retry-after".parse().unwrap(), HeaderValue::from_static(text))]);
            let failure = Failure::of_answer(StatusCode::SERVICE_UNAVAILABLE, &fields, "");
            assert_eq!(failure.kind, Kind::Transient { after: after.map(Duration::from_secs) }, "{text:?}");
        }
    }

    #[test]
    fn what_each_store_says_is_in_the_reason() {
        for (document, reason) in [
            (
                "<?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>The bucket &quot;b&quot;\ndoes not exist</Message></Error>",
                "404: NoSuchBucket: The bucket \"b\" does not exist",
            ),
            ("<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", "404: AccessDenied"),
            (r#"{"error":{"code":404,"message":"Not Found","status":"NOT_FOUND"}}"#, "404: NOT_FOUND: Not Found"),
            (r#"{"error":"invalid_grant","error_description":"no"}"#, "404: invalid_grant: no"),
            (r#"{"error":7}"#, "404 Not Found"),
            ("{\"error\":{\"message\":\"torn", "404 Not Found"),
            ("<Error><Code>Torn", "404 Not Found"),
            ("<html>proxy</html>", "404 Not Found"),
            ("", "404 Not Found"),
        ] {
            assert_eq!(answer(404, document).reason, reason, "{document}");
        }
    }

    #[test]
    fn the_region_that_a_bucket_is_in_is_named() {
        let fields =
            HeaderMap::from_iter([("x-amz-bucket-region".parse().unwrap(), HeaderValue::from_static("eu-west-1"))]);
        let failure = Failure::of_answer(StatusCode::MOVED_PERMANENTLY, &fields, "<Code>PermanentRedirect</Code>");
        let reason = "301: PermanentRedirect; AWS_DEFAULT_REGION: the bucket's region is eu-west-1";
        assert_eq!((failure.kind, failure.reason.as_str()), (Kind::Refused, reason));
    }

    #[test]
    fn nothing_as_long_as_a_secret_is_in_a_reason() {
        for secret in [
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "sv=2020-08-04&sig=pdpEDlNWAHHcqbBtHOSBLW0jvAC8BUxvfVkXBvDLDJo%3D",
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
            "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UifQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB",
        ] {
            let reason =
                answer(403, &format!("<Error><Code>X</Code><Message>got {secret}, no</Message></Error>")).reason;
            let kept = secret
                .split('&')
                .next()
                .filter(|first| first.len() < SECRET_CHARS)
                .map_or(String::new(), |f| f.to_owned() + "&");
            assert_eq!(reason, format!("403: X: got {kept}…, no"));
        }
    }

    #[test]
    fn a_reason_is_one_short_line() {
        let reason =
            answer(403, &format!("<Code>A\r\nB\0C\u{1b}[31m</Code><Message>{}</Message>", "ü ".repeat(5000))).reason;
        assert!(reason.starts_with("403: A B C [31m: ü ü"), "{reason}");
        assert!(reason.chars().count() <= STORE_REASON_CHARS + 10 && !reason.contains(char::is_control), "{reason}");
    }

    #[test]
    fn an_error_of_the_transport_says_what_happened_and_quotes_no_url() {
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "Peer disconnected");
        for (error, reason) in [
            (Error::Io(eof), "the connection ended early"),
            (Error::Timeout(Timeout::Connect), "no connection within 10 s"),
            (Error::Timeout(Timeout::PerRead), "stalled for 30 s"),
            (Error::HostNotFound, "the host's name is not known"),
        ] {
            assert_eq!(Failure::of_transport(&error), Failure::transient(reason));
            assert_eq!(Failure::of_io(&error.into_io()), Failure::transient(reason), "as a body's");
        }
        let failure = Failure::of_transport(&Error::BadUri("https://h/?sig=secret".to_owned()));
        assert!(failure.kind == Kind::Refused && !failure.reason.contains("secret"), "{failure}");
    }
}
