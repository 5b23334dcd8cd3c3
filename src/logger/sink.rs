//! The sink of events: one HTTP request for each (SPEC L1, L5, L7).
//!
//! Not here: when an event is sent again ([`super::deliver`]).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use log::Level;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::header::{AUTHORIZATION, HeaderName, HeaderValue, RETRY_AFTER};
use ureq::http::{HeaderMap, Request, Response, Uri};
use ureq::tls::TlsConfig;

use super::event::{Attributes, Event, header_safe};
use super::retry::Verdict;
use crate::config::{CONNECT_TIMEOUT, HEAD_BYTES, LOG_ANSWER_BYTES, LoggerConfig};
use crate::ops::build::{NAME, VERSION};
use crate::ops::notice::Notices;
use crate::ops::tls::{Roots, tls};

/// One thread's client of the sink.
pub(crate) struct Sink {
    agent: Agent,
    limit: Duration,
    shared: Arc<SinkShared>,
}

/// What all clients of the sink have in common.
pub(crate) struct SinkShared {
    url: Uri,
    /// Without what is secret in it.
    name: String,
    common: HeaderMap,
    attributes: Attributes,
    limit: Duration,
    tls: Option<TlsConfig>,
    notices: Arc<Notices>,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tried {
    pub(crate) verdict: Verdict,
    /// The sink has answered.
    pub(crate) is_reached: bool,
}

/// Kinds of lines that the log gets.
pub(super) mod notice {
    pub(in crate::logger) const UNREACHED: usize = 0;
    pub(in crate::logger) const REFUSED: usize = 1;
    pub(in crate::logger) const REJECTED: usize = 2;
    pub(in crate::logger) const FULL: usize = 3;
    pub(in crate::logger) const TOO_LARGE: usize = 4;
}

impl SinkShared {
    /// # Errors
    /// When the URL is none for HTTP, or there is nothing to verify an https sink with.
    pub(crate) fn new(config: &LoggerConfig, notices: Arc<Notices>) -> Result<Arc<Self>, String> {
        let url: Uri = config.url.parse().map_err(|error| format!("--log-url: {error}"))?;
        let attributes = Attributes::of(config);
        let mut common = HeaderMap::new();
        for (name, value) in attributes.common() {
            common.insert(HeaderName::from_static(name), field_value(value));
        }
        if let Some(secret) = userinfo(&url).and_then(|pair| basic(&pair)) {
            common.insert(AUTHORIZATION, secret);
        }
        let tls = (url.scheme_str() == Some("https")).then(|| tls(&roots(config))).transpose();
        let tls = tls.map_err(|why| format!("--log-url {}: {why}", shown(&url)))?;
        let limit = config.client_timeout;
        Ok(Arc::new(Self { name: shown(&url), url: bare(url), common, attributes, limit, tls, notices }))
    }
}

impl SinkShared {
    /// Its URL, without what is secret in it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// The mounted authority if it is there (SPEC L7).
fn roots(config: &LoggerConfig) -> Roots {
    if config.tls_skip_verify {
        log::warn!("--logger-tls-skip-verify: whoever answers for --log-url gets the payloads");
        return Roots::Unverified;
    }
    let file = &config.ca_cert_file;
    if file.exists() {
        log::info!("--log-url is verified against {}", file.display());
        return Roots::File(file.clone());
    }
    Roots::System
}

impl Sink {
    pub(crate) fn new(shared: Arc<SinkShared>) -> Self {
        Self { agent: agent(&shared), limit: shared.limit, shared }
    }

    /// Sends an event. `limit`: less time than the configuration allows.
    pub(crate) fn post(&self, event: &Event, limit: Option<Duration>) -> Tried {
        let shared = &*self.shared;
        let mut request = Request::post(&shared.url);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&shared.common);
            for (name, value) in shared.attributes.of_event(event, SystemTime::now()) {
                headers.insert(HeaderName::from_static(name), field_value(&value));
            }
        }
        let result = request.body(&event.payload[..]).map_err(ureq::Error::from).and_then(|request| match limit {
            Some(limit) if limit < self.limit => {
                self.agent.run(self.agent.configure_request(request).timeout_global(Some(limit)).build())
            }
            _ => self.agent.run(request),
        });
        match result {
            Ok(response) => self.judge(response),
            Err(error) => {
                let why = error.to_string();
                let why = header_safe(&why);
                let (name, notices) = (&shared.name, &shared.notices);
                notices.write(
                    notice::UNREACHED,
                    Level::Warn,
                    Instant::now(),
                    format_args!("log sink {name}: {why:.200}; events wait and are sent again"),
                );
                Tried { verdict: Verdict::Later { after: None }, is_reached: false }
            }
        }
    }

    fn judge(&self, response: Response<ureq::Body>) -> Tried {
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let verdict = Verdict::of(status, retry_after, SystemTime::now());
        // Read to its end the connection can be used again; if that is too far, a new one costs less.
        let mut answer = response.into_body().into_with_config().limit(LOG_ANSWER_BYTES).reader();
        let _ = io::copy(&mut answer, &mut io::sink());
        let (kind, what) = match verdict {
            Verdict::Delivered => return Tried { verdict, is_reached: true },
            Verdict::Later { .. } => (notice::REFUSED, "the event is sent again"),
            Verdict::Rejected => (notice::REJECTED, "the event is given up"),
        };
        let (name, notices) = (&self.shared.name, &self.shared.notices);
        notices.write(kind, Level::Warn, Instant::now(), format_args!("log sink {name}: status {status}; {what}"));
        Tried { verdict, is_reached: true }
    }
}

/// A client of the sink, with ureq's own ideas turned off: no proxy from the environment, no redirects, no fields that
/// are not the event's.
fn agent(shared: &SinkShared) -> Agent {
    let config = Config::builder()
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .accept("")
        .accept_encoding("")
        .user_agent(format!("{NAME}/{VERSION}"))
        .timeout_connect(Some(CONNECT_TIMEOUT.min(shared.limit)))
        .timeout_global(Some(shared.limit))
        .max_response_header_size(HEAD_BYTES)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1);
    let config = match &shared.tls {
        Some(tls) => config.tls_config(tls.clone()),
        None => config,
    };
    config.build().into()
}

/// The value of a field that was made safe before.
fn field_value(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What is before the host: `user:password`, percent-encoded.
fn userinfo(url: &Uri) -> Option<String> {
    let (pair, _) = url.authority()?.as_str().rsplit_once('@')?;
    Some(pair.to_owned())
}

/// RFC 7617.
fn basic(pair: &str) -> Option<HeaderValue> {
    let (user, password) = pair.split_once(':').unwrap_or((pair, ""));
    let mut secret = unescaped(user);
    secret.push(b':');
    secret.extend(unescaped(password));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(secret))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The bytes that percent-encoded text stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match code.filter(|_| *first == b'%' && after[..2].iter().all(u8::is_ascii_hexdigit)) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// The URL without user and password.
fn bare(url: Uri) -> Uri {
    let Some(host) = url.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else { return url };
    let Ok(host) = host.1.parse() else { return url };
    let mut parts = url.into_parts();
    parts.authority = Some(host);
    Uri::from_parts(parts).unwrap_or_default()
}

/// The URL for those who read the log: a query may hold a token.
fn shown(url: &Uri) -> String {
    let host = url.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{}://{host}{}", url.scheme_str().unwrap_or("http"), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_the_url_becomes_a_field_and_is_not_shown() {
        let url: Uri = "https://us%40er:p%3Aw%@a.b:8443/c?token=1".parse().unwrap();
        let secret = basic(&userinfo(&url).unwrap()).unwrap();
        assert_eq!(secret.to_str().unwrap(), format!("Basic {}", STANDARD.encode("us@er:p:w%")));
        assert_eq!(shown(&url), "https://a.b:8443/c");
        assert_eq!(bare(url).to_string(), "https://a.b:8443/c?token=1");
        let plain: Uri = "http://a".parse().unwrap();
        assert_eq!((userinfo(&plain), shown(&plain), bare(plain.clone())), (None, "http://a/".to_owned(), plain));
    }
}
