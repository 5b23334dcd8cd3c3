//! The sink of events: where it is, how it is verified, what every request to it says, and what its delivery threads
//! know of it together (SPEC L1, L5, L7).
//!
//! Not here: connections to it ([`super::line`]).

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::Env;
use super::address::Known;
use super::event::{Attributes, Event};
use super::fields::{Fields, SecretFields};
use super::pipeline::Pipelining;
use super::route::Route;
use crate::config::LoggerConfig;
use crate::ops::proxy::Proxies;
use crate::ops::trust::Trust;

/// The sink, which all delivery threads share.
pub(crate) struct Sink {
    pub(super) route: Route,
    /// Those of the environment.
    pub(super) proxies: Proxies,
    /// Its URL, without what is secret in it.
    pub(super) name: String,
    pub(super) trust: Trust,
    /// Field `Authorization` of the URL's user and password.
    authorization: Option<String>,
    secret: Option<SecretFields>,
    /// What all events have in common.
    common: Vec<u8>,
    attributes: Attributes,
    /// Longest time of an attempt.
    pub(super) limit: Duration,
    pub(super) known: Known,
    pipelining: Mutex<Pipelining>,
}

/// Kinds of lines that the log gets.
pub(super) mod notice {
    pub(in crate::logger) const UNREACHED: usize = 0;
    pub(in crate::logger) const REFUSED: usize = 1;
    pub(in crate::logger) const REJECTED: usize = 2;
    pub(in crate::logger) const FULL: usize = 3;
    pub(in crate::logger) const TOO_LARGE: usize = 4;
    pub(in crate::logger) const SPOOL: usize = 5;
    pub(in crate::logger) const CORRUPT: usize = 6;
}

impl Sink {
    /// # Errors
    /// When the URL is none for HTTP.
    pub(crate) fn new(config: &LoggerConfig, env: Env) -> Result<Arc<Self>, String> {
        let (route, userinfo) = Route::of_flag(&config.url)?;
        let proxies = Proxies::read(&env);
        let route = route.through(&proxies);
        let name = route.name();
        let attributes = Attributes::of(config);
        let mut common = String::new();
        for (name, value) in attributes.common() {
            // A String takes every character, so this can't fail.
            let _ = write!(common, "{name}: {value}\r\n");
        }
        let secret = config.headers_file.clone().map(SecretFields::new);
        let sink = Self {
            trust: trust(&name, config),
            authorization: userinfo.map(|pair| format!("Authorization: {}\r\n", basic(&pair))),
            route,
            proxies,
            name,
            secret,
            common: common.into_bytes(),
            attributes,
            limit: config.client_timeout,
            known: Known::default(),
            pipelining: Mutex::default(),
        };
        sink.say_what_is_missing();
        Ok(Arc::new(sink))
    }

    /// A file that can't be used yet keeps nothing from starting: events wait for it.
    fn say_what_is_missing(&self) {
        if matches!(self.route.server_name(), Ok(Some(_)))
            && let Err(why) = self.trust.client()
        {
            log::error!("log sink {}: {why}; events wait until there is one", self.name);
        }
        if let Err(why) = self.fields() {
            log::error!("log sink {}: {why}; events wait until it can be read", self.name);
        }
    }

    /// Returns the fields of `--log-headers-file` of this moment.
    ///
    /// # Errors
    /// When there should be some and are none.
    pub(super) fn fields(&self) -> Result<Option<Fields>, String> {
        self.secret.as_ref().map(SecretFields::current).transpose()
    }

    /// What is known of pipelining. Held for a few instructions.
    pub(super) fn pipelining(&self) -> MutexGuard<'_, Pipelining> {
        self.pipelining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the head of an event's request. `secret`: of the file; `now`: when it is sent. Another origin than that
    /// of `--log-url` gets no credentials.
    pub(super) fn write_head(
        &self,
        out: &mut Vec<u8>,
        (route, secret): (&Route, Option<&Fields>),
        event: &Event,
        now: &str,
    ) {
        route.write_start(out);
        if route.has_origin_of(&self.route) {
            if let Some(field) =
                self.authorization.as_deref().filter(|_| !secret.is_some_and(|of| of.has_authorization))
            {
                out.extend_from_slice(field.as_bytes());
            }
            out.extend_from_slice(secret.map_or(&[][..], |fields| &fields.bytes));
        }
        out.extend_from_slice(&self.common);
        for (name, value) in self.attributes.of_event(event, now) {
            for part in [name, ": ", &value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        let mut length = String::new();
        // A String takes every character, so this can't fail.
        let _ = write!(length, "Content-Length: {}\r\n\r\n", event.payload.len());
        out.extend_from_slice(length.as_bytes());
    }
}

/// The mounted authority as soon as it is there (SPEC L7).
fn trust(name: &str, config: &LoggerConfig) -> Trust {
    let what = format!("log sink {name}");
    if config.tls_skip_verify {
        log::warn!("--logger-tls-skip-verify: whoever answers for --log-url gets the payloads");
        return Trust::unverified(&what);
    }
    Trust::file_or_system(&what, config.ca_cert_file.clone())
}

/// RFC 7617, of `user:password` percent-encoded.
pub(super) fn basic(pair: &str) -> String {
    let (user, password) = pair.split_once(':').unwrap_or((pair, ""));
    let mut secret: Vec<u8> = percent_decode_str(user).collect();
    secret.push(b':');
    secret.extend(percent_decode_str(password));
    format!("Basic {}", STANDARD.encode(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logger::event::Type;
    use crate::logger::event::tests::event;
    use crate::logger::tests::config;

    fn head(sink: &Sink, route: &Route, secret: Option<&Fields>) -> String {
        let mut out = Vec::new();
        sink.write_head(&mut out, (route, secret), &event(Type::Request), "now");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_user_in_the_url_becomes_a_field_and_is_not_shown() {
        let sink = Sink::new(&config("http://us%40er:p%3Aw%@a.b:8443/c?token=1"), |_| None).unwrap();
        let head = head(&sink, &sink.route, None);
        assert!(head.starts_with("POST /c?token=1 HTTP/1.1\r\nHost: a.b:8443\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nAuthorization: Basic {}\r\n", STANDARD.encode("us@er:p:w%"))), "{head}");
        assert_eq!(sink.name, "http://a.b:8443/c");
    }

    #[test]
    fn a_sink_has_its_schemes_port_and_the_root_path() {
        let sink = Sink::new(&config("http://[::1]"), |_| None).unwrap();
        assert_eq!((&*sink.route.host, sink.route.port), ("::1", 80));
        assert!(head(&sink, &sink.route, None).starts_with("POST / HTTP/1.1\r\nHost: [::1]\r\n"));
    }

    #[test]
    fn another_origin_gets_no_credentials_and_a_file_goes_before_the_url() {
        let sink = Sink::new(&config("http://user:password@a/"), |_| None).unwrap();
        let secret = Fields { bytes: (*b"Authorization: Bearer b\r\n").into(), has_authorization: true };
        let own = head(&sink, &sink.route, Some(&secret));
        assert_eq!(own.matches("Authorization").count(), 1, "{own}");
        assert!(own.contains("Authorization: Bearer b\r\n"), "{own}");
        for (location, has_some) in [("http://a/other", true), ("http://b/", false), ("http://a:81/", false)] {
            let route = sink.route.redirected(location).unwrap();
            assert_eq!(head(&sink, &route, Some(&secret)).contains("Authorization"), has_some, "{location}");
            assert_eq!(head(&sink, &route, None).contains("Authorization"), has_some, "{location}");
        }
    }
}
