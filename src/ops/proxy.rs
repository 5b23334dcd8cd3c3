//! The proxies that the environment names for the agent's own requests (SPEC E5): `HTTP_PROXY`, `HTTPS_PROXY` and
//! `NO_PROXY`, in capitals or small letters, by the rules of Go's `golang.org/x/net/http/httpproxy`.
//!
//! A request for an `http` URL is sent to its proxy with the whole URL as its target (RFC 9112 §3.2.2); for an `https` URL
//! the proxy is asked for a tunnel by `CONNECT` (RFC 9110 §9.3.6).
//!
//! Architecture Invariant: the loopback and link-local addresses have no proxy, whatever the environment says. Requests to
//! the model server and of the container probe don't come here at all.
//!
//! Not here: `ALL_PROXY`, which Go does not read, and proxies that speak SOCKS: a request that would need one fails, as it
//! must not go around the proxy.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The proxies, and which hosts are reached without.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    http: Option<Result<Proxy, String>>,
    https: Option<Result<Proxy, String>>,
    except: Vec<Exception>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Whether the proxy itself is spoken to with TLS.
    pub(crate) is_tls: bool,
    /// A name or an address, the latter in brackets if it is one of IPv6.
    pub(crate) host: String,
    /// A TCP port.
    pub(crate) port: u16,
    user: Option<(String, String)>,
}

/// An entry of `NO_PROXY`. Names are in lower case; `port` `None` is every port.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network {
        address: IpAddr,
        bits: u8,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// INVARIANT: `suffix` begins with a dot.
    Domain {
        suffix: String,
        port: Option<u16>,
        with_itself: bool,
    },
}

impl Proxies {
    /// Those that `env` names. A value that can't be used is an error of each request that would need it.
    pub(crate) fn read(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let text = |names: [&str; 2]| names.into_iter().filter_map(env).find(|text| !text.trim().is_empty());
        let proxy = |names: [&'static str; 2]| {
            text(names).map(|text| Proxy::parse(text.trim()).map_err(|why| format!("{}: {why}", names[0])))
        };
        let except = text(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Self {
            http: proxy(["HTTP_PROXY", "http_proxy"]),
            https: proxy(["HTTPS_PROXY", "https_proxy"]),
            except: exceptions(&except),
        }
    }

    /// The proxy for `https` URLs, if there is one that can be used.
    pub(crate) fn for_https(&self) -> Option<&Proxy> {
        self.https.as_ref()?.as_ref().ok()
    }

    /// Whether any of them is spoken to with TLS.
    pub(crate) fn use_tls(&self) -> bool {
        [&self.http, &self.https].into_iter().flatten().flatten().any(|proxy| proxy.is_tls)
    }

    /// The proxy of a URL; `None`: the host is reached without one. A host of IPv6 may stand in brackets.
    ///
    /// # Errors
    /// When a variable names a proxy for it that can't be used; the text has the variable and no password.
    pub(crate) fn for_url(&self, scheme: &str, host: &str, port: u16) -> Result<Option<&Proxy>, &str> {
        let proxy = match scheme {
            "http" => &self.http,
            "https" => &self.https,
            _ => &None,
        };
        match proxy {
            Some(proxy) if self.covers(host, port) => proxy.as_ref().map(Some).map_err(String::as_str),
            _ => Ok(None),
        }
    }

    /// Whether a host is reached through a proxy.
    fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if host == "localhost" || address.is_some_and(is_local) {
            return false;
        }
        !self.except.iter().any(|exception| exception.matches(&host, address, port))
    }
}

/// The loopback and link-local addresses.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, String> {
        // `proxy:3128` would be a URL of a scheme of that name.
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).ok().filter(|url| url.host_str().is_some_and(|host| !host.is_empty()));
        let url = url.ok_or("not a proxy as http://host:port")?;
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => return Err(format!("a proxy of scheme {other:?} is not supported, one of http, https")),
        };
        let host = url.host().map(|host: Host<&str>| host.to_string()).unwrap_or_default();
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("port 0 is not allowed")?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        let user = (!is_anonymous).then(|| (decoded(url.username()), decoded(url.password().unwrap_or_default())));
        Ok(Self { is_tls, host, port, user })
    }

    /// The value of `Proxy-Authorization`, if the proxy's URL has a user.
    pub(crate) fn authorization(&self) -> Option<String> {
        let (user, password) = self.user.as_ref()?;
        Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
    }

    /// The same for ureq, which makes a tunnel through it for whatever it is asked.
    pub(crate) fn tunnel(&self) -> Result<ureq::Proxy, String> {
        let protocol = if self.is_tls { ureq::ProxyProtocol::Https } else { ureq::ProxyProtocol::Http };
        let mut builder = ureq::Proxy::builder(protocol).host(&self.host).port(self.port);
        if let Some((user, password)) = &self.user {
            builder = builder.username(user).password(password);
        }
        builder.build().map_err(|_| format!("the proxy {self:?} can't be used"))
    }
}

/// Without the user and the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.is_tls { "https" } else { "http" }, self.host, self.port)
    }
}

/// The entries of a list. An entry that makes no sense is left out, as Go does.
fn exceptions(list: &str) -> Vec<Exception> {
    list.split(',').filter_map(|entry| Exception::parse(&entry.trim().to_ascii_lowercase())).collect()
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((address, bits)) = entry.split_once('/') {
            return Self::network(address, bits);
        }
        let (host, port) = split_port(entry)?;
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Self::Address { address: address.to_canonical(), port });
        }
        let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let with_itself = !name.starts_with('.');
        let suffix = if with_itself { format!(".{name}") } else { name.to_owned() };
        (!name.is_empty()).then_some(Self::Domain { suffix, port, with_itself })
    }

    fn network(address: &str, bits: &str) -> Option<Self> {
        let address = address.parse::<IpAddr>().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = is_number.then(|| bits.parse::<u8>().ok())?.filter(|bits| *bits <= most)?;
        Some(Self::Network { address, bits })
    }

    fn matches(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let is_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::All => true,
            Self::Network { address: network, bits } => {
                address.is_some_and(|address| is_within(address, *network, *bits))
            }
            Self::Address { address: wanted, port } => address == Some(*wanted) && is_port(port),
            Self::Domain { suffix, port, with_itself } => {
                debug_assert!(suffix.starts_with('.'));
                let is_below = host.ends_with(suffix.as_str()) || (*with_itself && host == &suffix[1..]);
                address.is_none() && is_below && is_port(port)
            }
        }
    }
}

/// Splits `host:port`, `[v6]:port`, `host` and `v6`. An entry with a port that is no number matches nothing.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    let is_bare_v6 = entry.matches(':').count() > 1 && !entry.starts_with('[');
    match entry.rsplit_once(':') {
        Some((host, port)) if !is_bare_v6 && !port.ends_with(']') => {
            let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = is_number.then(|| port.parse::<u16>().ok())??;
            (!host.is_empty()).then_some((host, Some(port)))
        }
        _ => (!entry.is_empty()).then_some((entry, None)),
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned()))
    }

    fn chosen(proxies: &Proxies, url: &str) -> String {
        let url = Url::parse(url).unwrap();
        let port = url.port_or_known_default().unwrap();
        format!("{:?}", proxies.for_url(url.scheme(), url.host_str().unwrap(), port))
    }

    #[test]
    fn a_scheme_has_its_own_proxy_in_either_case() {
        for variables in [
            [("HTTP_PROXY", "http://plain:3128"), ("HTTPS_PROXY", "https://secure")],
            [("http_proxy", "plain:3128"), ("https_proxy", "https://u:p@secure:443/")],
        ] {
            let proxies = read(&variables);
            assert_eq!(chosen(&proxies, "http://h/"), "Ok(Some(http://plain:3128))");
            assert_eq!(chosen(&proxies, "https://h/"), "Ok(Some(https://secure:443))");
        }
        let only = read(&[("HTTP_PROXY", "p"), ("HTTPS_PROXY", " "), ("ALL_PROXY", "q")]);
        assert_eq!(chosen(&only, "http://h/"), "Ok(Some(http://p:80))");
        assert_eq!(chosen(&only, "https://h/"), "Ok(None)");
        let both = read(&[("HTTP_PROXY", "capitals:1"), ("http_proxy", "small:1")]);
        assert_eq!(chosen(&both, "http://h/"), "Ok(Some(http://capitals:1))");
    }

    #[test]
    fn the_loopback_and_link_local_addresses_never_have_a_proxy() {
        let proxies = read(&[("HTTP_PROXY", "p:1"), ("HTTPS_PROXY", "p:1")]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "[fe80::1]",
        ] {
            for scheme in ["http", "https"] {
                assert_eq!(chosen(&proxies, &format!("{scheme}://{host}/")), "Ok(None)", "{host}");
            }
        }
        for host in ["local", "localhost.example.com", "128.0.0.1", "[fd00::1]", "169.253.1.1"] {
            assert_eq!(chosen(&proxies, &format!("http://{host}/")), "Ok(Some(http://p:1))", "{host}");
        }
    }

    /// The cases of Go's `httpproxy` tests.
    #[test]
    fn exceptions_are_those_of_go() {
        let list = " example.com, .dot.org,*.star.net ,10.0.0.0/8,192.0.2.7:81,[2001:db8::1],fd00::/8,ported.io:8443,:80,x:y, ,1.2.3.4/33";
        let proxies = read(&[("HTTP_PROXY", "p:1"), ("NO_PROXY", list)]);
        for (host, is_direct) in [
            ("example.com", true),
            ("EXAMPLE.com:81", true),
            ("sub.example.com", true),
            ("badexample.com", false),
            ("dot.org", false),
            ("a.dot.org", true),
            ("star.net", false),
            ("a.b.star.net", true),
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7:81", true),
            ("192.0.2.7:82", false),
            ("[2001:db8::1]", true),
            ("[2001:db8::2]", false),
            ("[fd12::1]:9", true),
            ("ported.io:8443", true),
            ("ported.io", false),
            ("x", false),
            ("1.2.3.4", false),
        ] {
            let expected = if is_direct { "Ok(None)" } else { "Ok(Some(http://p:1))" };
            assert_eq!(chosen(&proxies, &format!("http://{host}/")), expected, "{host}");
        }
        let all = read(&[("HTTP_PROXY", "p:1"), ("no_proxy", "a,*")]);
        assert_eq!(chosen(&all, "http://any.example/"), "Ok(None)");
        let wide = read(&[("HTTP_PROXY", "p:1"), ("no_proxy", "0.0.0.0/0,::/0")]);
        assert_eq!(chosen(&wide, "http://8.8.8.8/"), "Ok(None)");
        assert_eq!(chosen(&wide, "http://named/"), "Ok(Some(http://p:1))");
    }

    #[test]
    fn a_proxy_that_cant_be_used_fails_what_needs_it_and_its_password_is_not_shown() {
        for (text, reason) in [
            (
                "socks5://u:secret@p:1080",
                "HTTPS_PROXY: a proxy of scheme \"socks5\" is not supported, one of http, https",
            ),
            ("http://u:secret@p:99999", "HTTPS_PROXY: not a proxy as http://host:port"),
            ("http://u:secret@p:0", "HTTPS_PROXY: port 0 is not allowed"),
        ] {
            let proxies = read(&[("HTTPS_PROXY", text), ("NO_PROXY", "b")]);
            assert_eq!(proxies.for_url("https", "h", 443), Err(reason));
            assert_eq!(proxies.for_url("https", "b", 443), Ok(None));
            assert!(!format!("{proxies:?}").contains("secret"));
        }
    }

    #[test]
    fn a_proxys_user_is_sent_decoded_and_never_shown() {
        let proxy = Proxy::parse("http://u%40x:p%3A%20@h:1").unwrap();
        assert_eq!(proxy.authorization().as_deref(), Some("Basic dUB4OnA6IA=="));
        assert_eq!(format!("{proxy:?}"), "http://h:1");
        let tunnel = proxy.tunnel().unwrap();
        assert_eq!((tunnel.username(), tunnel.password()), (Some("u@x"), Some("p: ")));
        assert_eq!((tunnel.host(), tunnel.port()), ("h", 1));
        let six = Proxy::parse("[2001:db8::1]:3128").unwrap();
        assert_eq!((six.host.as_str(), six.port, six.authorization()), ("[2001:db8::1]", 3128, None));
        assert_eq!(six.tunnel().unwrap().host(), "[2001:db8::1]");
    }
}
