//! A strict look at the URLs of sinks (RFC 3986 §3): scheme, host, port, and no byte that could split a request.
//!
//! Not here: taking a URL apart for use; the client that connects does that.

/// A URL that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SinkUrl {
    /// As given, but for a scheme in lower case.
    pub(super) text: String,
    /// Its scheme names an object store.
    pub(super) is_store: bool,
}

/// `--log-url`: an HTTP sink or a bucket.
pub(super) fn sink(text: &str) -> Result<SinkUrl, String> {
    with_scheme(text, &[HTTP, STORES].concat())
        .map(|(scheme, text)| SinkUrl { text, is_store: STORES.contains(&scheme) })
        .ok_or_else(|| {
            "a URL as http://host/path or https://host/path, or a bucket as s3://bucket, \
             gs://bucket or abfs://container@account"
                .to_owned()
        })
}

/// `--log-marshaller-url`: an HTTP service.
pub(super) fn service(text: &str) -> Result<String, String> {
    with_scheme(text, HTTP)
        .map(|(_, text)| text)
        .ok_or_else(|| "a URL as http://host:port/path or https://host/path".to_owned())
}

const HTTP: &[&str] = &["http", "https"];
const STORES: &[&str] = &["s3", "gs", "abfs"];

fn with_scheme<'a>(text: &str, schemes: &[&'a str]) -> Option<(&'a str, String)> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = schemes.iter().find(|known| known.eq_ignore_ascii_case(scheme))?;
    // Spaces, controls and anything that is not ASCII must come percent-encoded.
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = path.split('?').next().unwrap_or_default();
    (is_authority(authority) && is_escaped(path)).then(|| (*scheme, format!("{scheme}://{rest}")))
}

fn is_authority(text: &str) -> bool {
    let host_and_port = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let (host, port) = match host_and_port.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => host_and_port.split_at(host_and_port.find(':').unwrap_or(host_and_port.len())),
    };
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !host.is_empty() && host.bytes().all(name) && is_port(port)
}

/// Nothing, or a colon and a port.
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        // No sign, unlike in a flag.
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && super::value::port(digits).is_ok(),
        None => text.is_empty(),
    }
}

fn is_escaped(path: &str) -> bool {
    path.split('%')
        .skip(1)
        .all(|after| after.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_sinks_and_buckets_are_taken() {
        for (text, store) in [
            ("http://a", false),
            ("http://message-dumper.default/", false),
            ("https://user:p%40ss@a.b:8443/c/d?e=f%zz#g", false),
            ("http://127.0.0.1:8080", false),
            ("http://[::1]:80/x", false),
            ("http://h?q", false),
            ("s3://bucket", true),
            ("gs://bucket/prefix", true),
            ("abfs://container@account.dfs.core.windows.net/p", true),
        ] {
            let expected = SinkUrl { text: text.to_owned(), is_store: store };
            assert_eq!(sink(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn the_scheme_is_put_in_lower_case() {
        assert_eq!(sink("HTTP://Host/Path").map(|url| url.text), Ok("http://Host/Path".to_owned()));
    }

    #[test]
    fn what_is_not_a_url_with_a_host_is_refused() {
        for text in [
            "",
            "h",
            "h:80",
            "//h",
            "http:",
            "http:/h",
            "http://",
            "http:///p",
            "http://:80",
            "http://u@",
            "http://h:",
            "http://h:0",
            "http://h:65536",
            "http://h:+80",
            "http://h:x",
            "http://h h/",
            "http://h/a b",
            "http://h/\r\n",
            "http://h/\0",
            "http://ü/",
            "http://[::1",
            "http://[h]/",
            "http://a:1:2/",
            "http://h/%",
            "http://h/%g1",
            "ftp://h",
            "file:///p",
            "unix://h",
            " http://h",
            "http://h ",
            "http://h<",
            "http://h\\x",
        ] {
            assert!(sink(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bucket_is_not_a_service() {
        assert!(service("s3://bucket").is_err());
        assert!(service("http://localhost:9083/marshal").is_ok());
    }
}
