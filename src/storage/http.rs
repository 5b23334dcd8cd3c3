//! Requests by ureq, with ureq's own ideas turned off: no redirects (none of the stores needs one, and a signature is for
//! one address), no status that is an error of the transport. The puller's requests to web servers are made here too.
//!
//! Proxies are those that the environment names (SPEC E5). ureq itself would make a tunnel for `http` URLs too, which many
//! proxies refuse for port 80: such a request goes to the proxy with its whole URL as the target.
//!
//! Limits are of three kinds: the time in which a connection must stand, the time in which one more byte must move, and the
//! pace that what comes must keep. There is none for a whole body, since an object may have any size.
//!
//! Not here: what is asked for, credentials, attempts after the first.

use std::io::Read as _;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::{Request, Response};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector, TcpConnector};
use ureq::{Agent, AsSendBody, Body};

use super::absolute::{AbsoluteForm, through};
use super::failure::Failure;
use super::far::Addresses;
use super::pace::Paced;
use super::watched::Watched;
use crate::config::{
    METADATA_CONNECT_TIMEOUT, METADATA_STALL_TIMEOUT, STORE_ANSWER_BYTES, STORE_CONNECT_TIMEOUT,
    STORE_IDLE_CONNECTIONS, STORE_IDLE_TIMEOUT, STORE_PACE_TIME, STORE_STALL_TIMEOUT,
};
use crate::ops::client;
use crate::ops::proxy::{Proxies, Proxy};
use crate::ops::tls::{self, Roots};

/// A client with its connections.
#[derive(Debug)]
pub(crate) struct Http {
    /// Made anew when a file of certificates changes.
    agents: Watched<Agents>,
    proxies: Proxies,
}

#[derive(Debug)]
struct Agents {
    direct: Agent,
    /// For `https` URLs that have a proxy.
    tunnel: Option<Agent>,
}

/// Times that a client keeps.
#[derive(Clone, Copy)]
struct Limits {
    connect: Duration,
    /// In which one more byte must move.
    stall: Duration,
    /// Of waiting in which many bytes must come.
    pace: Duration,
    /// Link-local addresses are connected to.
    is_open: bool,
}

const OF_STORES: Limits =
    Limits { connect: STORE_CONNECT_TIMEOUT, stall: STORE_STALL_TIMEOUT, pace: STORE_PACE_TIME, is_open: true };

impl Http {
    /// A client for these addresses; roots are needed only if one of them uses TLS.
    pub(crate) fn new(roots: &Roots, addresses: &[&str], proxies: &Proxies) -> Result<Self, String> {
        Self::with_limits(&OF_STORES, roots, addresses, proxies)
    }

    /// The same for addresses that whoever lists models has chosen, which are never link-local ones.
    pub(crate) fn of_models(roots: &Roots, addresses: &[&str], proxies: &Proxies) -> Result<Self, String> {
        Self::with_limits(&Limits { is_open: false, ..OF_STORES }, roots, addresses, proxies)
    }

    /// A client for a metadata server, which is near or not there at all, and never behind a proxy.
    pub(super) fn of_metadata() -> Result<Self, String> {
        let limits = Limits { connect: METADATA_CONNECT_TIMEOUT, stall: METADATA_STALL_TIMEOUT, ..OF_STORES };
        Self::with_limits(&limits, &Roots::System, &[], &Proxies::default())
    }

    fn with_limits(limits: &Limits, roots: &Roots, addresses: &[&str], proxies: &Proxies) -> Result<Self, String> {
        let is_secure = addresses.iter().any(|address| address.starts_with("https:"));
        let uses_tls = is_secure || proxies.use_tls();
        let through = proxies.for_https().filter(|_| is_secure).map(Proxy::tunnel).transpose()?;
        let files = if uses_tls { roots.files() } else { Vec::new() };
        let (limits, roots) = (*limits, roots.clone());
        let agents = move || {
            let tls = if uses_tls { tls::tls(&roots)? } else { TlsConfig::builder().build() };
            let tunnel = through.clone().map(|proxy| agent(&limits, tls.clone(), Some(proxy)));
            Ok(Agents { direct: agent(&limits, tls, None), tunnel })
        };
        Ok(Self { agents: Watched::open(files, agents)?, proxies: proxies.clone() })
    }

    /// Sends a request; an answer that is not a success is a failure.
    pub(super) fn send<B: AsSendBody>(
        &self,
        request: ureq::http::Result<Request<B>>,
    ) -> Result<Response<Body>, Failure> {
        Self::success(self.run(request)?)
    }

    /// Sends a request, whatever the answer is.
    pub(crate) fn run<B: AsSendBody>(
        &self,
        request: ureq::http::Result<Request<B>>,
    ) -> Result<Response<Body>, Failure> {
        let request = request.map_err(|_| unsendable())?;
        let uri = request.uri();
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let proxy = self.proxies.for_url(scheme, uri.host().unwrap_or_default(), port).map_err(Failure::refused)?;
        let agents = self.agents.current();
        let result = match (proxy, &agents.tunnel) {
            (None, _) => agents.direct.run(request),
            (Some(proxy), _) if scheme == "http" => agents.direct.run(through(request, proxy)?),
            (Some(_), Some(tunnel)) => tunnel.run(request),
            (Some(_), None) => return Err(Failure::refused("an https URL of a client that was made without TLS")),
        };
        result.map_err(|error| Failure::of_transport(&error))
    }

    /// An answer, if it is a success.
    pub(crate) fn success(response: Response<Body>) -> Result<Response<Body>, Failure> {
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        // Whatever comes of a document that breaks off.
        let mut document = Vec::new();
        let _ = body.into_reader().take(STORE_ANSWER_BYTES).read_to_end(&mut document);
        Err(Failure::of_answer(head.status, &head.headers, &String::from_utf8_lossy(&document)))
    }

    /// The short text of an answer.
    pub(crate) fn body(response: Response<Body>, limit: u64) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        // One more than allowed, as a body of just that length is one.
        let mut reader = response.into_body().into_reader().take(limit + 1);
        reader.read_to_end(&mut bytes).map_err(|error| Failure::of_io(&error))?;
        if bytes.len() as u64 > limit {
            return Err(Failure::transient(format!("an answer of over {limit} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| Failure::transient("an answer that is not UTF-8"))
    }

    /// Sends a request for a short text.
    pub(super) fn text<B: AsSendBody>(
        &self,
        request: ureq::http::Result<Request<B>>,
        limit: u64,
    ) -> Result<String, Failure> {
        Self::body(self.send(request)?, limit)
    }

    /// Posts a form of `query`'s making to a token service, and returns its answer.
    pub(super) fn form(&self, url: &str, form: String) -> Result<String, Failure> {
        self.text(Request::post(url).header("content-type", FORM).body(form), STORE_ANSWER_BYTES)
    }
}

fn agent(limits: &Limits, tls: TlsConfig, proxy: Option<ureq::Proxy>) -> Agent {
    let config = client::config()
        .tls_config(tls)
        .proxy(proxy)
        .user_agent(USER_AGENT)
        .timeout_connect(Some(limits.connect))
        .timeout_per_read(Some(limits.stall))
        .timeout_per_write(Some(limits.stall))
        .max_idle_connections(STORE_IDLE_CONNECTIONS)
        .max_idle_connections_per_host(STORE_IDLE_CONNECTIONS)
        .max_idle_age(STORE_IDLE_TIMEOUT)
        .build();
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(Paced { time: limits.pace })
            .chain(RustlsConnector::default())
            .chain(AbsoluteForm);
    Agent::with_parts(config, connector, Addresses::new(limits.is_open))
}

/// Keys and names are percent-encoded, so what is left is a field's value from the environment or a request.
fn unsendable() -> Failure {
    Failure::refused("a credential or a content type can't be sent in a field")
}

const FORM: &str = "application/x-www-form-urlencoded";

const USER_AGENT: &str = concat!("kserve-agent/", env!("CARGO_PKG_VERSION"));

/// What a URL's path keeps as it is: the unreserved characters and the slash (RFC 3986 §2.3, §3.3).
const PATH: &AsciiSet = &VALUE.remove(b'/');
/// What a query's value keeps.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a key for a path, whose segments stay segments.
pub(crate) fn encode_path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// Percent-encodes a value for a query or a form, or one segment of a path.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, VALUE).to_string()
}

/// A query or a form of these pairs.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tls::tests::CERTIFICATE;
    use crate::storage::failure::Kind;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    /// What comes of the body of a request, to whose connection `serve` may do anything.
    fn ask(serve: impl FnOnce(&mut TcpStream) + Send + 'static) -> Result<String, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            serve(&mut connection);
            // Until the client has gone.
            let _ = connection.read(&mut [0]);
        });
        let limits = Limits {
            connect: STORE_CONNECT_TIMEOUT,
            stall: Duration::from_millis(100),
            pace: Duration::from_millis(300),
            is_open: true,
        };
        let http = Http::with_limits(&limits, &Roots::System, &[], &Proxies::default()).unwrap();
        let answer = http.text(Request::get(address).body(()), 1000);
        drop(http);
        server.join().unwrap();
        answer
    }

    fn sends(bytes: &'static str) -> impl FnOnce(&mut TcpStream) + Send {
        move |connection| connection.write_all(bytes.as_bytes()).unwrap()
    }

    #[test]
    fn a_store_that_goes_silent_anywhere_is_not_waited_for() {
        for bytes in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
            let failure = ask(sends(bytes)).unwrap_err();
            assert_eq!(failure.kind, Kind::Transient { after: None });
            assert!(failure.reason.starts_with("stalled for "), "{failure}");
        }
    }

    #[test]
    fn a_store_that_drips_anywhere_is_not_waited_for() {
        let drips = |bytes: &'static str| {
            ask(move |connection| {
                connection.write_all(bytes.as_bytes()).unwrap();
                while connection.write_all(b"1").is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n";
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;";
        for bytes in ["HTTP/1.1 200 OK\r\nX: ", head, chunk] {
            let failure = drips(bytes).unwrap_err();
            assert_eq!(failure.kind, Kind::Transient { after: None });
            assert!(failure.reason.starts_with("slower than 65536 bytes in "), "{bytes}: {failure}");
        }
        let failure = drips("HTTP/1.1 403 No\r\nContent-Length: 999\r\n\r\n").unwrap_err();
        assert_eq!((failure.kind, failure.reason.as_str()), (Kind::Refused, "403 Forbidden"));
    }

    #[test]
    fn a_connection_that_ends_early_is_a_failure() {
        for bytes in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
            let failure = ask(move |connection| {
                connection.write_all(bytes.as_bytes()).unwrap();
                connection.shutdown(std::net::Shutdown::Both).unwrap();
            });
            assert_eq!(failure, Err(Failure::transient("the connection ended early")), "{bytes}");
        }
    }

    #[test]
    fn a_body_that_is_too_long_is_not_read_on() {
        let long = |connection: &mut TcpStream| {
            let _ =
                connection.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{:1001}", "").as_bytes());
        };
        assert_eq!(ask(long), Err(Failure::transient("an answer of over 1000 bytes")));
        let allowed = |connection: &mut TcpStream| {
            let _ =
                connection.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{:1000}", "").as_bytes());
        };
        assert_eq!(ask(allowed).map(|text| text.len()), Ok(1000));
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let failure =
            ask(sends("HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")).unwrap_err();
        assert_eq!((failure.kind, failure.reason.as_str()), (Kind::Refused, "307 Temporary Redirect"));
    }

    #[test]
    fn whatever_a_key_holds_stays_in_its_place() {
        assert_eq!(encode_path("a b/ü?#%2F&=+~.txt"), "a%20b/%C3%BC%3F%23%252F%26%3D%2B~.txt");
        assert_eq!(encode("a/b c"), "a%2Fb%20c");
        assert_eq!(query(&[("prefix", "a&b=c/"), ("n", "1")]), "prefix=a%26b%3Dc%2F&n=1");
    }

    #[test]
    fn without_tls_no_roots_are_needed() {
        let nowhere = Roots::File("/nowhere.pem".into());
        let http = |addresses: &[&str]| Http::new(&nowhere, addresses, &Proxies::default());
        assert!(http(&["http://h"]).is_ok());
        assert!(http(&["http://h", "https://h"]).unwrap_err().starts_with("/nowhere.pem: "));
    }

    #[test]
    fn a_file_of_certificates_that_changes_is_read_again() {
        let file = std::env::temp_dir().join(format!("kserve-agent-bundle-{}", std::process::id()));
        std::fs::write(&file, CERTIFICATE).unwrap();
        let http = Http::new(&Roots::File(file.clone()), &["https://h"], &Proxies::default()).unwrap();
        let first = http.agents.current();
        assert!(Arc::ptr_eq(&first, &http.agents.current()), "connections are kept");
        std::fs::write(&file, "being written").unwrap();
        assert!(Arc::ptr_eq(&first, &http.agents.current()));
        std::fs::write(&file, format!("{CERTIFICATE}{CERTIFICATE}")).unwrap();
        assert!(!Arc::ptr_eq(&first, &http.agents.current()));
        std::fs::remove_file(&file).unwrap();
    }
}
