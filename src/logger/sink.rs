//! The sink of events: where it is, how it is verified, and what every request to it begins with (SPEC L1, L7).
//!
//! Not here: connections to it ([`super::line`]).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use ureq::http::Uri;

use super::event::Attributes;
use super::line::Target;
use crate::config::LoggerConfig;
use crate::ops::build::{NAME, VERSION};
use crate::ops::tls::{Roots, client};

/// The sink, which all delivery threads share.
pub(crate) struct Sink {
    pub(super) target: Target,
    /// Its URL, without what is secret in it.
    pub(super) name: String,
    /// What all requests begin with.
    pub(super) head: Vec<u8>,
    pub(super) attributes: Attributes,
    /// Longest wait for an answer.
    pub(super) limit: Duration,
}

/// Kinds of lines that the log gets.
pub(super) mod notice {
    pub(in crate::logger) const UNREACHED: usize = 0;
    pub(in crate::logger) const REFUSED: usize = 1;
    pub(in crate::logger) const REJECTED: usize = 2;
    pub(in crate::logger) const FULL: usize = 3;
    pub(in crate::logger) const TOO_LARGE: usize = 4;
    pub(in crate::logger) const SPOOL: usize = 5;
}

impl Sink {
    /// # Errors
    /// When the URL is none for HTTP, or there is nothing to verify an https sink with.
    pub(crate) fn new(config: &LoggerConfig) -> Result<Arc<Self>, String> {
        let url: Uri = config.url.parse().map_err(|error| format!("--log-url: {error}"))?;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let (userinfo, place) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, authority),
        };
        let name = format!("{}://{place}{}", url.scheme_str().unwrap_or("http"), url.path());
        let attributes = Attributes::of(config);
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: {NAME}/{VERSION}\r\n");
        if let Some(pair) = userinfo {
            // A String takes every character, so this can't fail.
            let _ = write!(head, "Authorization: {}\r\n", basic(pair));
        }
        for (name, value) in attributes.common() {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let target = target(&url, config).map_err(|why| format!("--log-url {name}: {why}"))?;
        let limit = config.client_timeout;
        Ok(Arc::new(Self { target, name, head: head.into_bytes(), attributes, limit }))
    }
}

fn target(url: &Uri, config: &LoggerConfig) -> Result<Target, String> {
    let is_tls = url.scheme_str() == Some("https");
    // As a name or an address; the brackets of IPv6 are the URL's.
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    if !is_tls {
        return Ok(Target { host, port, tls: None });
    }
    let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    Ok(Target { tls: Some((client(&roots(config))?, name)), host, port })
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
    use crate::logger::tests::config;

    fn sink(url: &str) -> Result<Arc<Sink>, String> {
        Sink::new(&config(url))
    }

    #[test]
    fn a_user_in_the_url_becomes_a_field_and_is_not_shown() {
        let sink = sink("http://us%40er:p%3Aw%@a.b:8443/c?token=1").unwrap();
        let head = String::from_utf8(sink.head.clone()).unwrap();
        assert!(head.starts_with("POST /c?token=1 HTTP/1.1\r\nHost: a.b:8443\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nAuthorization: Basic {}\r\n", STANDARD.encode("us@er:p:w%"))), "{head}");
        assert_eq!(sink.name, "http://a.b:8443/c");
    }

    #[test]
    fn a_sink_has_its_schemes_port_and_the_root_path() {
        let sink = sink("http://[::1]").unwrap();
        assert_eq!((&*sink.target.host, sink.target.port), ("::1", 80));
        assert!(sink.head.starts_with(b"POST / HTTP/1.1\r\nHost: [::1]\r\n"));
    }

    #[test]
    fn a_mounted_authority_that_is_none_is_an_error() {
        let file = std::env::temp_dir().join(format!("kserve-agent-sink-{}", std::process::id()));
        std::fs::write(&file, "no certificate").unwrap();
        let of_file = LoggerConfig { ca_cert_file: file.clone(), ..config("https://sink") };
        let error = Sink::new(&of_file).map(|_| ()).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(error.starts_with("--log-url https://sink/: "), "{error}");
    }
}
