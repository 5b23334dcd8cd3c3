//! Where a request for the sink goes: scheme, host, port and target, of `--log-url` or of a redirect (SPEC L5).
//!
//! Not here: the connection ([`super::line`]), and what else a request says ([`super::sink`]).

use rustls::pki_types::ServerName;
use ureq::http::Uri;
use url::Url;

use crate::ops::build::{NAME, VERSION};
use crate::ops::proxy::{Proxies, Proxy};

/// An origin and the target of requests to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    is_tls: bool,
    /// A name or an address; the brackets of IPv6 are the URL's.
    pub(super) host: String,
    pub(super) port: u16,
    /// Field `Host`.
    authority: String,
    /// Path and query.
    target: String,
    /// The proxy that it leads through (SPEC E5), or why it can't be used; `None`: it leads there directly.
    proxy: Option<Result<Proxy, String>>,
}

impl Route {
    /// Returns the route of `--log-url`, and `user:password` of it.
    ///
    /// # Errors
    /// When the URL is none.
    pub(super) fn of_flag(text: &str) -> Result<(Self, Option<String>), String> {
        let url: Uri = text.parse().map_err(|error| format!("--log-url: {error}"))?;
        let authority = url.authority().map_or("", |authority| authority.as_str());
        let (userinfo, authority) = match authority.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo.to_owned()), place),
            None => (None, authority),
        };
        let is_tls = url.scheme_str() == Some("https");
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        // A query alone is no target (RFC 9112 §3.2.1).
        let slash = if target.starts_with('/') { "" } else { "/" };
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let route = Self {
            is_tls,
            host,
            port,
            authority: authority.to_owned(),
            target: format!("{slash}{target}"),
            proxy: None,
        };
        route.server_name()?;
        Ok((route, userinfo))
    }

    /// Returns the route that a response from here leads to by its `Location` (RFC 9110 §10.2.2).
    ///
    /// # Errors
    /// When it leads nowhere, or from TLS to a place without.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        let base = Url::parse(&format!("{scheme}://{}{}", self.authority, self.target));
        let url = base.and_then(|base| base.join(location)).map_err(|error| format!("redirect: {error}"))?;
        let is_tls = match url.scheme() {
            "https" => true,
            "http" if !self.is_tls => false,
            "http" => return Err("redirect from https to http, which is not followed".to_owned()),
            _ => return Err("redirect to another protocol than HTTP".to_owned()),
        };
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err("redirect without a host".to_owned());
        };
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}{query}", url.path());
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let route = Self { is_tls, host, port, authority, target, proxy: None };
        route.server_name()?;
        Ok(route)
    }

    /// Leads through the proxy that the environment has for its origin.
    pub(super) fn through(self, proxies: &Proxies) -> Self {
        let scheme = if self.is_tls { "https" } else { "http" };
        let proxy = proxies.for_url(scheme, &self.host, self.port).map(Option::<&Proxy>::cloned);
        Self { proxy: proxy.map_err(str::to_owned).transpose(), ..self }
    }

    /// Returns the proxy to connect to.
    ///
    /// # Errors
    /// When there has to be one that can't be used.
    pub(super) fn proxy(&self) -> Result<Option<&Proxy>, String> {
        match &self.proxy {
            Some(Ok(proxy)) if proxy.is_tls => {
                Err(format!("{proxy:?}: a proxy with TLS is not supported for a log sink"))
            }
            Some(Ok(proxy)) => Ok(Some(proxy)),
            Some(Err(why)) => Err(why.clone()),
            None => Ok(None),
        }
    }

    /// Returns the request for a tunnel through a proxy (RFC 9110 §9.3.6).
    pub(super) fn connect(&self, proxy: &Proxy) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let place = format!("{host}:{}", self.port);
        let credentials = proxy.authorization().map(|value| format!("Proxy-Authorization: {value}\r\n"));
        format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{}\r\n", credentials.unwrap_or_default())
    }

    /// Returns whether both go to the same server, which may have the same credentials (RFC 6454).
    pub(super) fn has_origin_of(&self, other: &Self) -> bool {
        self.is_tls == other.is_tls && self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }

    /// Returns the name that the server's certificate must have; `None`: there is no TLS.
    pub(super) fn server_name(&self) -> Result<Option<ServerName<'static>>, String> {
        let name = || ServerName::try_from(self.host.clone()).map_err(|error| error.to_string());
        self.is_tls.then(name).transpose()
    }

    /// Appends the request line and the fields that every client sends. A proxy is told the whole URL, unless there is a
    /// tunnel through it (RFC 9112 §3.2.2).
    pub(super) fn write_start(&self, out: &mut Vec<u8>) {
        let proxy = self.proxy.as_ref().and_then(|proxy| proxy.as_ref().ok()).filter(|_| !self.is_tls);
        let [scheme, host] = if proxy.is_some() { ["http://", &self.authority] } else { ["", ""] };
        for part in ["POST ", scheme, host, &self.target, " HTTP/1.1\r\nHost: ", &self.authority, "\r\nUser-Agent: "] {
            out.extend_from_slice(part.as_bytes());
        }
        for part in [NAME, "/", VERSION, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        if let Some(value) = proxy.and_then(Proxy::authorization) {
            for part in ["Proxy-Authorization: ", &value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    }

    /// Returns the URL without a query, which may hold a secret.
    pub(super) fn name(&self) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{}://{}{path}", if self.is_tls { "https" } else { "http" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(url: &str) -> String {
        let mut out = Vec::new();
        Route::of_flag(url).unwrap().0.write_start(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_proxy_is_told_the_whole_url_and_for_tls_the_place_alone() {
        let env = |name: &str| match name {
            "HTTP_PROXY" => Some("http://u:p@proxy:3128".to_owned()),
            "HTTPS_PROXY" => Some("https://proxy".to_owned()),
            "NO_PROXY" => Some(".local".to_owned()),
            _ => None,
        };
        let through = |url: &str| Route::of_flag(url).unwrap().0.through(&Proxies::read(&env));
        let start = |route: &Route| {
            let mut out = Vec::new();
            route.write_start(&mut out);
            String::from_utf8(out).unwrap()
        };
        let route = through("http://sink:8080/a?b");
        assert!(start(&route).starts_with("POST http://sink:8080/a?b HTTP/1.1\r\nHost: sink:8080\r\n"));
        assert!(start(&route).ends_with("Proxy-Authorization: Basic dTpw\r\n"));
        for direct in ["http://a.local/b", "http://127.0.0.1/b", "http://localhost/b"] {
            assert!(start(&through(direct)).starts_with("POST /b HTTP/1.1\r\n"), "{direct}");
            assert_eq!(through(direct).proxy(), Ok(None));
        }
        let secure = through("https://sink/a");
        assert!(start(&secure).starts_with("POST /a HTTP/1.1\r\n") && !start(&secure).contains("Proxy-"));
        assert!(secure.proxy().unwrap_err().contains("with TLS is not supported"));
        let request = secure.connect(route.proxy().unwrap().unwrap());
        assert_eq!(request, "CONNECT sink:443 HTTP/1.1\r\nHost: sink:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n");
    }

    #[test]
    fn a_target_begins_with_a_slash() {
        for (url, target) in [
            ("http://a", "/"),
            ("http://a?token=x", "/?token=x"),
            ("http://a/?token=x", "/?token=x"),
            ("http://u:p@a:8080?x=/y", "/?x=/y"),
            ("http://a/b?c#d", "/b?c"),
            ("http://a#d", "/"),
            ("http://[::1]:80?x", "/?x"),
        ] {
            assert!(start(url).starts_with(&format!("POST {target} HTTP/1.1\r\nHost: ")), "{url}: {}", start(url));
        }
    }

    #[test]
    fn a_redirect_leads_to_the_place_that_it_names() {
        let (from, _) = Route::of_flag("http://u:p@a.b:8080/c/d?e").unwrap();
        for (location, name) in [
            ("http://x/y?z=1", "http://x/y"),
            ("https://x:444", "https://x:444/"),
            ("/f", "http://a.b:8080/f"),
            ("g?h", "http://a.b:8080/c/g"),
            ("//x/y", "http://x/y"),
            ("http://[::1]:81/", "http://[::1]:81/"),
        ] {
            assert_eq!(from.redirected(location).unwrap().name(), name, "{location}");
        }
        for location in ["ftp://x/", "http://", "mailto:a@b"] {
            assert!(from.redirected(location).is_err(), "{location}");
        }
        let (secure, _) = Route::of_flag("https://a/").unwrap();
        assert!(secure.redirected("http://a/").is_err());
    }

    #[test]
    fn another_scheme_port_or_host_is_another_origin() {
        let (from, _) = Route::of_flag("http://a.b:8080/c").unwrap();
        for (location, is_same) in [
            ("/x", true),
            ("http://A.B:8080/", true),
            ("http://a.b/", false),
            ("https://a.b:8080/", false),
            ("http://c.a.b:8080/", false),
        ] {
            assert_eq!(from.redirected(location).unwrap().has_origin_of(&from), is_same, "{location}");
        }
    }
}
