//! Keys from an endpoint beside the container: ECS, and EKS Pod Identity, whose agent runs on each node.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::SystemTime;

use rusty_s3::Credentials;
use ureq::http::Request;
use url::{Host, Url};

use super::json;
use crate::config::STORE_ANSWER_BYTES;
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;
use crate::storage::environment::Environment;
use crate::storage::failure::Failure;
use crate::storage::http::Http;
use crate::storage::token::Fetched;
use crate::storage::watched;

/// The endpoint, and what shows it who asks.
pub(super) struct Container {
    http: Http,
    url: Url,
    token: Option<String>,
    /// Read for each request, as Kubernetes writes a new token into it. It comes before `token`.
    token_file: Option<PathBuf>,
}

impl Container {
    /// The endpoint that the environment names, if it does.
    pub(super) fn open(env: Environment<'_>, proxies: &Proxies) -> Result<Option<Self>, String> {
        const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        let (name, text, is_relative) = match (env.text(RELATIVE), env.text(FULL)) {
            (Some(path), _) => (RELATIVE, format!("http://{ECS}{path}"), true),
            (None, Some(url)) => (FULL, url, false),
            (None, None) => return Ok(None),
        };
        // A path that begins with `@`, `:` or a digit must not lead to another host.
        let leads_there = |url: &Url| !is_relative || (url.host_str() == Some(ECS) && url.port().is_none());
        let url = Url::parse(&text).ok().filter(|url| url.has_host() && url.username().is_empty() && leads_there(url));
        let url = url.ok_or_else(|| format!("{name} is not a URL of an endpoint for credentials"))?;
        let http = match url.scheme() {
            "https" => Http::new(&Roots::System, &[url.as_str()], proxies)?,
            "http" => Http::of_metadata()?,
            _ => return Err(format!("{name} is not an http or https URL")),
        };
        let token = env.text("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        let token_file = env.text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from);
        Ok(Some(Self { http, url, token, token_file }))
    }

    /// Asks the endpoint for keys.
    pub(super) fn fetch(&self, now: SystemTime) -> Fetched<Option<Credentials>> {
        self.ask(now).map_err(|failure| failure.of("keys of the container's credential endpoint"))
    }

    fn ask(&self, now: SystemTime) -> Fetched<Option<Credentials>> {
        if self.url.scheme() == "http" && !is_near(&self.url) {
            return Err(Failure::refused(
                "plain http is allowed for the loopback, 169.254.170.2, 169.254.170.23 and fd00:ec2::23 alone",
            ));
        }
        let mut request = Request::get(self.url.as_str()).header("accept", "application/json");
        if let Some(token) = self.token()? {
            request = request.header("authorization", token);
        }
        json::keys(&self.http.text(request.body(()), STORE_ANSWER_BYTES)?, now)
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let Some(file) = &self.token_file else { return Ok(self.token.clone()) };
        let token = watched::text(file)
            .map_err(|error| Failure::transient(format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: {error}")))?;
        Ok(Some(token.trim().to_owned()))
    }
}

/// The address of ECS.
const ECS: &str = "169.254.170.2";

/// Hosts that may give keys without TLS, as in AWS's SDK: nobody can listen on the way. A name must mean the loopback.
fn is_near(url: &Url) -> bool {
    let is_near = |address: IpAddr| address.to_canonical().is_loopback();
    match url.host() {
        Some(Host::Ipv4(address)) => {
            is_near(address.into()) || [ECS, "169.254.170.23"].contains(&address.to_string().as_str())
        }
        Some(Host::Ipv6(address)) => is_near(address.into()) || address.to_string() == "fd00:ec2::23",
        Some(Host::Domain(name)) => match (name, 80).to_socket_addrs() {
            Ok(mut addresses) => {
                let mut any = false;
                let all = addresses.all(|address| {
                    any = true;
                    is_near(address.ip())
                });
                any && all
            }
            Err(_) => false,
        },
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_tls_come_from_near_hosts_alone() {
        for (url, expected) in [
            ("http://127.0.0.1:8080/x", true),
            ("http://127.1.2.3/x", true),
            ("http://[::1]/x", true),
            ("http://localhost:9/x", true),
            ("http://169.254.170.2/x", true),
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://169.254.170.3/x", false),
            ("http://169.254.169.254/x", false),
            ("http://10.0.0.1/x", false),
            ("http://[fd00:ec2::254]/x", false),
        ] {
            assert_eq!(is_near(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    fn open(name: &'static str, value: &'static str) -> Result<Option<String>, String> {
        let read = move |asked: &str| (asked == name).then(|| value.to_owned());
        let container = Container::open(Environment(&read), &Proxies::default())?;
        Ok(container.map(|container| container.url.to_string()))
    }

    #[test]
    fn a_path_is_that_of_the_ecs_agent_and_leads_nowhere_else() {
        const PATH: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
        assert_eq!(open(PATH, "/v2/credentials/1"), Ok(Some("http://169.254.170.2/v2/credentials/1".to_owned())));
        for path in ["@evil/x", ":81/x", ".evil/x", "3/x"] {
            assert!(open(PATH, path).unwrap_err().starts_with(PATH), "{path}");
        }
        assert_eq!(open("HOME", "/"), Ok(None));
    }

    #[test]
    fn a_url_that_cant_be_used_is_named() {
        const NAME: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        for url in ["secret", "ftp://h/", "http://", "http://u:secret@127.0.0.1/"] {
            let error = open(NAME, url).unwrap_err();
            assert!(error.starts_with(NAME) && !error.contains("secret"), "{error}");
        }
    }
}
