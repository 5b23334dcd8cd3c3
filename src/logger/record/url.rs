//! A URL in the form that Go's `net/url` has it in JSON (SPEC L9).
//!
//! A [`Url`] is its text, which csv and parquet show. JSON shows the members of Go's `url.URL`, taken apart as Go does it.
//! What Go could not take apart is all in `Opaque`, from where Go reads it back as it was.
//!
//! Who is named before an `@` is not in Go's JSON; `"User":{}` says that there is somebody.
//!
//! Not here: whether it is a URL that can be connected to ([`crate::cli`]).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;

/// A URL without its password.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Url {
    text: String,
    json: String,
}

/// The members of Go's `url.URL`, in their order.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Parts {
    scheme: String,
    opaque: String,
    user: Option<User>,
    host: String,
    path: String,
    fragment: String,
    raw_query: String,
    /// How the path was written, if that is not how Go would write it.
    raw_path: String,
    raw_fragment: String,
    /// It ends in a `?`.
    force_query: bool,
    /// A scheme and a path with one slash.
    omit_host: bool,
}

/// Go's `url.Userinfo`, whose members JSON does not show.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct User {}

impl Url {
    /// The URL of this text. A password in it is left out: stored records are read by more people than flags are.
    pub fn new(text: &str) -> Self {
        let text = without_password(text).unwrap_or_else(|| text.to_owned());
        let opaque = || Parts { opaque: text.clone(), ..Parts::default() };
        // Texts and flags always have a JSON form.
        let json = serde_json::to_string(&Parts::of(&text).unwrap_or_else(opaque)).unwrap_or_default();
        Self { text, json }
    }

    /// As csv and parquet show it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As JSON shows it.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }
}

fn without_password(text: &str) -> Option<String> {
    let start = text.find("://")? + "://".len();
    let end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let at = start + text[start..end].rfind('@')?;
    let colon = start + text[start..at].find(':')?;
    Some(format!("{}{}", &text[..colon], &text[at..]))
}

/// What Go leaves as it is in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');
/// And in a fragment.
const FRAGMENT: &AsciiSet = &PATH.remove(b'?').remove(b'!').remove(b'(').remove(b')').remove(b'*');

impl Parts {
    /// `None` where Go sees an error.
    fn of(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (fragment, raw_fragment) = unescape(fragment, FRAGMENT)?;
        let (scheme, rest) = split_scheme(rest)?;
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let mut parts = Self {
            raw_query: query.unwrap_or_default().to_owned(),
            force_query: query == Some(""),
            fragment,
            raw_fragment,
            ..Self::default()
        };
        let has_scheme = !scheme.is_empty();
        parts.scheme = scheme;
        let path = match rest.strip_prefix("//") {
            Some(after) if has_scheme || !after.starts_with('/') => {
                let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
                parts.set_authority(authority)?;
                path
            }
            _ if rest.starts_with('/') => {
                parts.omit_host = has_scheme;
                rest
            }
            _ if has_scheme => {
                parts.opaque = rest.to_owned();
                ""
            }
            _ if rest.split('/').next().is_some_and(|first| first.contains(':')) => return None,
            _ => rest,
        };
        (parts.path, parts.raw_path) = unescape(path, PATH)?;
        Some(parts)
    }

    fn set_authority(&mut self, authority: &str) -> Option<()> {
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(_, host)| (Some(User {}), host));
        let port = match host.rsplit_once(']') {
            Some((_, port)) => port,
            None => &host[host.find(':').unwrap_or(host.len())..],
        };
        let is_port = port.is_empty() || port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit());
        if !is_port || host.contains(['%', ' ']) {
            return None;
        }
        self.user = user;
        self.host = host.to_owned();
        Some(())
    }
}

/// The scheme, in lower case, and what follows its colon; the scheme may be missing, but not before a colon.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    match after.strip_prefix(':') {
        Some("") if name.is_empty() => None,
        Some(rest) if name.starts_with(|c: char| c.is_ascii_alphabetic()) => Some((name.to_ascii_lowercase(), rest)),
        Some(_) => None,
        None => Some((String::new(), text)),
    }
}

/// What `raw` stands for, and `raw` itself if it is not what Go would write for it.
fn unescape(raw: &str, left_alone: &'static AsciiSet) -> Option<(String, String)> {
    let plain = decode(raw)?;
    let is_usual = utf8_percent_encode(&plain, left_alone).to_string() == raw;
    Some((plain, if is_usual { String::new() } else { raw.to_owned() }))
}

/// `None`: there is a `%` without its two digits.
fn decode(raw: &str) -> Option<String> {
    let is_escape = |after: &str| after.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    raw.split('%').skip(1).all(is_escape).then(|| percent_decode_str(raw).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        Url::new(text).json
    }

    fn members(scheme: &str, user: &str, host: &str, path: &str, raw_query: &str, raw_path: &str) -> String {
        format!(
            "{{\"Scheme\":\"{scheme}\",\"Opaque\":\"\",\"User\":{user},\"Host\":\"{host}\",\"Path\":\"{path}\",\
             \"Fragment\":\"\",\"RawQuery\":\"{raw_query}\",\"RawPath\":\"{raw_path}\",\"RawFragment\":\"\",\
             \"ForceQuery\":false,\"OmitHost\":false}}"
        )
    }

    /// Expected texts are what Go 1.26 printed.
    #[test]
    fn the_members_are_those_that_go_has() {
        for (text, expected) in [
            ("http://a:1/x?y", members("http", "null", "a:1", "/x", "y", "")),
            ("abfs://container@account/p", members("abfs", "{}", "account", "/p", "", "")),
            ("http://h?a?", members("http", "null", "h", "", "a?", "")),
            ("/rel/path", members("", "null", "", "/rel/path", "", "")),
            ("///p", members("", "null", "", "///p", "", "")),
            ("//h/p", members("", "null", "h", "/p", "", "")),
            ("", members("", "null", "", "", "", "")),
            ("http://h/a%20b", members("http", "null", "h", "/a b", "", "")),
            ("http://h/a%2Fb", members("http", "null", "h", "/a/b", "", "/a%2Fb")),
            ("http://h/ü", members("http", "null", "h", "/ü", "", "/ü")),
            ("http://h/a;b@c!d", members("http", "null", "h", "/a;b@c!d", "", "/a;b@c!d")),
            ("HTTP://Host/", members("http", "null", "Host", "/", "", "")),
            ("http://[::1]:80/x", members("http", "null", "[::1]:80", "/x", "", "")),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        assert!(json("http://h?").contains(r#""RawQuery":"","RawPath":"","RawFragment":"","ForceQuery":true"#));
        assert!(json("x:/p").contains(r#""Path":"/p""#) && json("x:/p").contains(r#""OmitHost":true"#));
        assert!(json("urn:x:y?q").contains(r#""Scheme":"urn","Opaque":"x:y""#));
        assert!(json("http://h#a%2fb").contains(r#""Fragment":"a/b""#));
        assert!(json("http://h#a%2fb").contains(r#""RawFragment":"a%2fb""#));
    }

    #[test]
    fn what_go_could_not_take_apart_is_kept_as_it_is() {
        for text in ["http://h/%", "1:b", "http://h:x/", "http://h/\u{1}", "http://h%20x/", ":", "http://h/%é"] {
            let opaque = serde_json::to_string(text).unwrap();
            assert!(json(text).starts_with(&format!(r#"{{"Scheme":"","Opaque":{opaque},"#)), "{text}");
        }
    }

    #[test]
    fn a_password_is_left_out() {
        for (text, kept) in [
            ("http://user:p%40ss@h:80/a:b@c", "http://user@h:80/a:b@c"),
            ("http://u:p@q@h", "http://u@h"),
            ("abfs://container@account/p", "abfs://container@account/p"),
            ("http://h:80/a@b", "http://h:80/a@b"),
            ("http://h:80?a:b@c", "http://h:80?a:b@c"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(Url::new(text).as_str(), kept);
        }
    }
}
