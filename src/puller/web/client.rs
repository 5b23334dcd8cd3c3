//! Requests to web servers: redirects are followed, and who was given credentials is the only one to get them.

use ureq::Body;
use ureq::http::header::{HeaderName, HeaderValue, LOCATION};
use ureq::http::{Request, Response};
use url::Url;

use crate::config::WEB_REDIRECTS;
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;
use crate::storage::{Failure, Http};

/// Fields of a request.
#[derive(Clone, Default)]
pub(in crate::puller) struct Fields(pub(in crate::puller) Vec<(HeaderName, HeaderValue)>);

/// Connections of one attempt to get a model.
#[derive(Debug)]
pub(in crate::puller) struct Client {
    plain: Http,
    /// An image without authorities is a fault only for who uses TLS.
    tls: Result<Http, String>,
}

impl Client {
    pub(in crate::puller) fn new(proxies: &Proxies) -> Result<Self, Failure> {
        let plain = Http::of_models(&Roots::System, &[], proxies).map_err(Failure::refused)?;
        Ok(Self { plain, tls: Http::of_models(&Roots::System, &["https:"], proxies) })
    }

    /// Asks for a URL and for those that answers lead to. `secret` fields are sent to its own host alone.
    ///
    /// Whatever the last answer is it is given; a failure names the host, if it is another.
    pub(in crate::puller) fn get(&self, url: &Url, secret: &Fields, open: &Fields) -> Result<Response<Body>, Failure> {
        let mut at = url.clone();
        let mut is_own = true;
        for _ in 0..=WEB_REDIRECTS {
            is_own &= is_same_host(url, &at);
            let given = secret.0.iter().filter(|_| is_own).chain(&open.0);
            let request = given.fold(Request::get(at.as_str()), |request, (name, value)| request.header(name, value));
            let elsewhere = |failure: Failure| match at.host_str() {
                Some(host) if !is_own => failure.of(host),
                _ => failure,
            };
            let http = if at.scheme() == "https" { self.tls.as_ref().map_err(Failure::refused)? } else { &self.plain };
            let response = http.run(request.body(())).map_err(elsewhere)?;
            match location(&response) {
                Some(location) => at = next(&at, location)?,
                None if response.status().is_redirection() => return Http::success(response).map_err(elsewhere),
                None if response.status().is_success() || response.status() == 416 => return Ok(response),
                None => return Http::success(response).map_err(elsewhere),
            }
        }
        Err(Failure::refused(format!("more than {WEB_REDIRECTS} redirects")))
    }
}

/// Where the answer leads to (RFC 9110 §15.4).
fn location(response: &Response<Body>) -> Option<&str> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if is_redirect { response.headers().get(LOCATION)?.to_str().ok() } else { None }
}

fn next(at: &Url, location: &str) -> Result<Url, Failure> {
    let mut next = at.join(location).map_err(|_| Failure::refused("a redirect to what is no URL"))?;
    match (at.scheme(), next.scheme()) {
        ("https", "http") => return Err(Failure::refused("a redirect from https to http")),
        (_, "http" | "https") => {}
        _ => return Err(Failure::refused("a redirect to what is not http or https")),
    }
    // Credentials that a server makes up for another are not sent.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(next)
}

/// Whether what is meant for the one may be given to the other: the same host, not another port of it that somebody else
/// may serve, except TLS in the place of none.
fn is_same_host(one: &Url, other: &Url) -> bool {
    let is_upgrade = one.port().is_none() && other.port().is_none() && other.scheme() == "https";
    one.host() == other.host() && (one.origin() == other.origin() || is_upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn credentials_are_for_their_host_and_its_upgrade_to_tls() {
        let own = url("http://h/a");
        for (other, is_same) in [
            ("http://h/b?c", true),
            ("http://h:80/b", true),
            ("https://h/b", true),
            ("http://h:81/b", false),
            ("https://h:81/b", false),
            ("http://h.evil/", false),
            ("http://sub.h/", false),
        ] {
            assert_eq!(is_same_host(&own, &url(other)), is_same, "{other}");
        }
        assert!(!is_same_host(&url("https://h/"), &url("http://h/")));
    }

    #[test]
    fn a_redirect_stays_on_the_web_and_keeps_tls() {
        let at = url("https://h/a/b?q");
        assert_eq!(next(&at, "../c").unwrap().as_str(), "https://h/c");
        assert_eq!(next(&at, "//other/c").unwrap().as_str(), "https://other/c");
        assert_eq!(next(&at, "https://u:p@other/c").unwrap().as_str(), "https://other/c");
        for location in ["http://h/", "file:///etc/passwd", "https://", "gopher://h/"] {
            assert_eq!(next(&at, location).unwrap_err().kind, crate::storage::Kind::Refused, "{location}");
        }
    }
}
