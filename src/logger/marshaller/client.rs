//! A marshaller that is another service: `POST` of the records as a JSON array, the answer is the file.
//!
//! The answer is not trusted: it has a limit, and the extension, which gets into an object's key, must be one.
//!
//! Not here: asking again.

use std::time::{Duration, SystemTime};

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{HeaderValue, Request, Uri};
use ureq::tls::TlsConfig;
use ureq::{Agent, SendBody};

use crate::config::{CONNECT_TIMEOUT, HEAD_BYTES, MARSHAL_ANSWER_BYTES, MARSHAL_EXTENSION_BYTES};
use crate::logger::event::header_safe;
use crate::logger::marshal::File;
use crate::logger::retry::Verdict;
use crate::logger::sink::basic;
use crate::ops::build::{NAME, VERSION};
use crate::ops::client;

/// The field in which a service says what it made.
const EXTENSION: &str = "X-Log-Marshal-Extension";

/// A client of the service.
pub(crate) struct Client {
    agent: Agent,
    url: Uri,
    /// The URL without what is secret in it.
    name: String,
    authorization: Option<String>,
}

/// A file that the service has made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    /// Without a dot; safe in a key.
    pub(crate) extension: String,
}

/// Why there is no file.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Later, or never.
    pub(crate) verdict: Verdict,
    /// The service has answered, and said no.
    pub(crate) has_answered: bool,
    /// One line, for the log.
    pub(crate) why: String,
}

impl Client {
    /// # Errors
    /// When that is no URL.
    pub(super) fn new(url: &str, limit: Duration, tls: Option<&TlsConfig>) -> Result<Self, String> {
        let whole: Uri = url.parse().map_err(|error| format!("--log-marshaller-url: {error}"))?;
        let scheme = whole.scheme_str().unwrap_or("http");
        let authority = whole.authority().map_or("", |authority| authority.as_str());
        let (userinfo, host) = authority.rsplit_once('@').map_or((None, authority), |(pair, host)| (Some(pair), host));
        let target = whole.path_and_query().map_or("/", |target| target.as_str());
        let bare = format!("{scheme}://{host}{target}").parse();
        Ok(Self {
            agent: agent(limit, tls),
            url: bare.map_err(|error| format!("--log-marshaller-url: {error}"))?,
            name: format!("{scheme}://{host}{}", whole.path()),
            authorization: userinfo.map(basic),
        })
    }

    /// The file that the service makes of a JSON array of records.
    ///
    /// # Errors
    /// When the service can't be reached, refuses, or answers what is no file.
    pub(crate) fn marshal(&self, mut records: File<'_>) -> Result<Made, Refused> {
        let later = Verdict::Later { after: None };
        let mut request =
            Request::post(&self.url).header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, records.length());
        if let Some(secret) = &self.authorization {
            request = request.header(AUTHORIZATION, secret);
        }
        let body = SendBody::from_reader(&mut records);
        let sent = request.body(body).map_err(ureq::Error::from).and_then(|request| self.agent.run(request));
        let mut response = sent.map_err(|error| self.refused((later, false), &error.to_string()))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let verdict = Verdict::of(status, retry_after, SystemTime::now());
        if verdict != Verdict::Delivered {
            return Err(self.refused((verdict, true), &format!("status {status}")));
        }
        let extension = file_extension(response.headers().get(EXTENSION))
            .ok_or_else(|| self.refused((Verdict::Rejected, true), &format!("its {EXTENSION} is none")))?;
        let read = response.body_mut().with_config().limit(MARSHAL_ANSWER_BYTES).read_to_vec();
        match read {
            Ok(bytes) => Ok(Made { bytes, extension }),
            Err(ureq::Error::BodyExceedsLimit(limit)) => {
                Err(self.refused((Verdict::Rejected, true), &format!("its file is over {limit} bytes")))
            }
            Err(error) => Err(self.refused((later, false), &error.to_string())),
        }
    }

    fn refused(&self, (verdict, has_answered): (Verdict, bool), why: &str) -> Refused {
        Refused { verdict, has_answered, why: format!("log marshaller {}: {:.200}", self.name, header_safe(why)) }
    }
}

/// ureq with its own ideas turned off: no proxy from the environment, no redirects, no fields that nobody asked for.
fn agent(limit: Duration, tls: Option<&TlsConfig>) -> Agent {
    let config = client::config()
        .accept("")
        .user_agent(format!("{NAME}/{VERSION}"))
        .timeout_connect(Some(CONNECT_TIMEOUT.min(limit)))
        .timeout_global(Some(limit))
        .max_response_header_size(HEAD_BYTES)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1);
    let config = match tls {
        Some(tls) => config.tls_config(tls.clone()),
        None => config,
    };
    config.build().into()
}

/// An extension, which may have parts (`csv.gz`); json if the service says nothing, as the Go agent has it. `None`: what
/// it says is no extension.
fn file_extension(field: Option<&HeaderValue>) -> Option<String> {
    let Some(field) = field else { return Some("json".to_owned()) };
    let text = field.to_str().ok()?;
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_extension = text.len() <= MARSHAL_EXTENSION_BYTES && text.split('.').all(is_part);
    is_extension.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::{iter, thread};

    use super::*;
    use crate::logger::record::{Common, Record};

    /// A record of which nothing but the time is known.
    fn one_record(common: &Common) -> File<'_> {
        let occurred_at = "0001-01-01T00:00:00Z".parse().unwrap();
        let empty = Record { common, bytes: &[], content_type: "", req_type: "", id: "", metadata: "{}", occurred_at };
        File::array(iter::once(empty))
    }

    /// What the client makes of this answer, and what it had sent.
    fn answered(answer: &str) -> (Result<Made, Refused>, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://us:er@{}/a?b", listener.local_addr().unwrap());
        let answer = answer.to_owned();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"Z\"}]") {
                let mut piece = [0; 4096];
                let count = stream.read(&mut piece).unwrap();
                assert!(count > 0, "the request was cut off");
                request.extend_from_slice(&piece[..count]);
            }
            // The client may have heard enough before the end.
            let _ = stream.write_all(answer.as_bytes());
            String::from_utf8(request).unwrap()
        });
        let client = Client::new(&url, Duration::from_secs(10), None).unwrap();
        let result = client.marshal(one_record(&Common::default()));
        (result, server.join().unwrap())
    }

    fn verdict(answer: &str) -> Verdict {
        answered(answer).0.unwrap_err().verdict
    }

    #[test]
    fn records_are_posted_as_an_array_and_the_answer_is_the_file() {
        let (file, request) =
            answered("HTTP/1.1 200 OK\r\nX-Log-Marshal-Extension: csv.gz\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(file.unwrap(), Made { bytes: b"abc".to_vec(), extension: "csv.gz".to_owned() });
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /a?b http/1.1\r\n") && head.contains("\r\ncontent-type: application/json"));
        assert!(head.contains("\r\nauthorization: basic ") && !head.contains("us:er"));
        assert_eq!(body, r#"[{"occurrenceTime":"0001-01-01T00:00:00Z"}]"#);
    }

    #[test]
    fn without_an_extension_it_is_json() {
        let (file, _) = answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]");
        assert_eq!(file.unwrap().extension, "json");
    }

    #[test]
    fn an_extension_that_is_none_is_refused_for_good() {
        for bad in ["", ".", "..", "a/b", "../x", "a..b", ".a", "a.", "a b", "a\u{e9}", "seventeen1seventy"] {
            let answer = format!("HTTP/1.1 200 OK\r\nX-Log-Marshal-Extension: {bad}\r\nContent-Length: 2\r\n\r\n[]");
            assert_eq!(verdict(&answer), Verdict::Rejected, "{bad:?}");
        }
    }

    #[test]
    fn what_may_pass_is_asked_again_and_what_may_not_is_given_up() {
        let after = Verdict::Later { after: Some(Duration::from_secs(7)) };
        assert_eq!(verdict("HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"), after);
        assert_eq!(verdict("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"), Verdict::Rejected);
        assert_eq!(verdict("HTTP/1.1 307 No\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"), Verdict::Rejected);
        let later = Verdict::Later { after: None };
        assert_eq!(verdict("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut off"), later);
        assert_eq!(verdict("hello"), later);
    }

    #[test]
    fn a_service_that_is_not_there_may_come() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://user:secret@{}/", listener.local_addr().unwrap());
        drop(listener);
        let refused = Client::new(&url, Duration::from_secs(5), None)
            .unwrap()
            .marshal(one_record(&Common::default()))
            .unwrap_err();
        assert_eq!(refused.verdict, Verdict::Later { after: None });
        assert!(refused.why.starts_with("log marshaller http://127.0.0.1:") && !refused.why.contains("secret"));
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let file = " ".repeat(usize::try_from(MARSHAL_ANSWER_BYTES).unwrap() + 1);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{file}", file.len());
        let (result, _) = answered(&answer);
        assert_eq!(result.map_err(|refused| refused.verdict).err(), Some(Verdict::Rejected));
    }
}
