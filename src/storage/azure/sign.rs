//! Signing with an account's key ("Shared Key", of protocol versions from 2015-02-21 on): what of a request is signed,
//! and how it is written down for that.

use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use ring::hmac;

use super::Ask;

/// The field that says who asks.
pub(super) fn authorization(account: &str, key: &hmac::Key, path: &str, ask: &Ask<'_>) -> String {
    let signature = hmac::sign(key, text(account, path, ask).as_bytes());
    format!("SharedKey {account}:{}", BASE64_STANDARD.encode(signature))
}

/// What is signed. `path` is that of the URL, percent-encoded.
fn text(account: &str, path: &str, ask: &Ask<'_>) -> String {
    let field = |name: &str| ask.fields.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
    let length = if ask.length == 0 { String::new() } else { ask.length.to_string() };
    // Content-Encoding, Content-Language, Content-MD5, Date, If-Modified-Since, If-None-Match, If-Unmodified-Since and
    // Range are never sent.
    let mut text =
        format!("{}\n\n\n{length}\n\n{}\n\n\n{}\n\n\n\n", ask.verb, field("content-type"), field("if-match"));
    let mut fields: Vec<_> = ask.fields.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
    fields.sort();
    for (name, value) in fields {
        text.push_str(&format!("{name}:{}\n", value.trim()));
    }
    text.push_str(&format!("/{account}{path}"));
    let mut query = ask.query.clone();
    query.sort_unstable();
    for (name, value) in query {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text
}

/// A time as fields have it (RFC 9110 §5.6.7).
pub(super) fn date(now: SystemTime) -> String {
    let now = Timestamp::try_from(now).unwrap_or_default();
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ask<'a>(
        verb: &'static str,
        query: &[(&'a str, &'a str)],
        fields: &[(&'static str, &str)],
        length: u64,
    ) -> Ask<'a> {
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Ask { verb, key: None, query: query.to_vec(), fields, length }
    }

    /// The example of Microsoft's "Authorize with Shared Key", for a listing of a container's metadata.
    #[test]
    fn microsofts_example_is_written_down_as_there() {
        let fields = [("x-ms-version", "2015-02-21"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")];
        let query = [("restype", "container"), ("comp", "metadata"), ("timeout", "20")];
        assert_eq!(
            text("myaccount", "/mycontainer", &ask("GET", &query, &fields, 0)),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    #[test]
    fn length_type_and_condition_have_their_lines() {
        let fields = [("x-ms-blob-type", "BlockBlob"), ("content-type", "text/plain"), ("if-match", "\"e\"")];
        assert_eq!(
            text("a", "/c/k%20l", &ask("PUT", &[], &fields, 11)),
            "PUT\n\n\n11\n\ntext/plain\n\n\n\"e\"\n\n\n\nx-ms-blob-type:BlockBlob\n/a/c/k%20l"
        );
    }

    /// RFC 4231, test case 2, in Base64.
    #[test]
    fn the_signature_is_hmac_sha256() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let signature = hmac::sign(&key, b"what do ya want for nothing?");
        assert_eq!(BASE64_STANDARD.encode(signature), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
        let field = authorization("acc", &key, "/", &ask("GET", &[], &[], 0));
        assert!(field.starts_with("SharedKey acc:") && field.len() == "SharedKey acc:".len() + 44, "{field}");
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(date(SystemTime::UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(date(later), "Sun, 06 Nov 1994 08:49:37 GMT", "RFC 9110's example");
    }
}
