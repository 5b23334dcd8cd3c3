//! What a header field means to a proxy, and lists of tokens.
//!
//! Each field of a head is classified once, by its name's length and then its letters; the rest of the agent asks for
//! the [`Kind`] and never compares names again.
//!
//! Not here: the syntax of names and values, which the parser has checked.

use super::trim;

/// The fields that the agent looks at; every other one passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Passes as it is.
    Other,
    /// `Connection` (RFC 9110 §7.6.1).
    Connection,
    /// Hop-by-hop and of no use to the next hop: `Keep-Alive`, `Proxy-Connection`, `HTTP2-Settings`.
    Hop,
    /// `Connection` names it.
    Nominated,
    /// `TE`.
    Te,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Content-Length`.
    ContentLength,
    /// `Content_Length` or `Transfer_Encoding`, which a CGI or WSGI server reads as the real one (RFC 9110 §16.3.2.1).
    Lookalike,
    /// `Upgrade`.
    Upgrade,
    /// `Host`.
    Host,
    /// `Expect`.
    Expect,
    /// `Accept-Encoding`.
    AcceptEncoding,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `User-Agent`.
    UserAgent,
    /// `K-Network-Probe` (Knative).
    NetworkProbe,
    /// `K-Network-Hash` (Knative).
    NetworkHash,
}

impl Kind {
    /// The kind of the field called `name`, whatever its case.
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            9 if is("forwarded") => Self::Forwarded,
            10 if is("user-agent") => Self::UserAgent,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::Hop,
            14 if is("content-length") => Self::ContentLength,
            14 if is("content_length") => Self::Lookalike,
            14 if is("http2-settings") => Self::Hop,
            14 if is("k-network-hash") => Self::NetworkHash,
            15 if is("x-forwarded-for") => Self::ForwardedFor,
            15 if is("accept-encoding") => Self::AcceptEncoding,
            15 if is("k-network-probe") => Self::NetworkProbe,
            16 if is("x-forwarded-host") => Self::ForwardedHost,
            16 if is("proxy-connection") => Self::Hop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is("transfer_encoding") => Self::Lookalike,
            17 if is("x-forwarded-proto") => Self::ForwardedProto,
            _ => Self::Other,
        }
    }

    /// Whether `Connection` may name it to have it removed. The fields that frame or route a message are made anew or
    /// kept whatever `Connection` says.
    pub(crate) fn can_be_nominated(self) -> bool {
        !matches!(
            self,
            Self::Connection
                | Self::Hop
                | Self::Te
                | Self::TransferEncoding
                | Self::ContentLength
                | Self::Upgrade
                | Self::Host
        )
    }
}

/// Fields that may not stand in a trailer section, because a recipient that merges it would be framed, routed or
/// authorised by them (RFC 9110 §6.5.1).
pub(crate) fn forbidden_in_trailers(name: &[u8]) -> bool {
    const EXACT: [&str; 25] = [
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "location",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "vary",
        "warning",
        "www-authenticate",
    ];
    const PREFIXES: [&str; 2] = ["if-", "x-forwarded-"];
    let starts =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()));
    EXACT.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || PREFIXES.iter().any(|prefix| starts(prefix))
        || matches!(
            Kind::of(name),
            Kind::Connection | Kind::Hop | Kind::TransferEncoding | Kind::Upgrade | Kind::Lookalike
        )
}

/// The members of a comma-separated list, trimmed; empty ones are left out (RFC 9110 §5.6.1.2).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// Whether `value` holds the member `token`, whatever its case.
pub(crate) fn list_has(value: &[u8], token: &str) -> bool {
    list(value).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_whatever_their_case() {
        assert_eq!(Kind::of(b"tRANSFER-eNCODING"), Kind::TransferEncoding);
        assert_eq!(Kind::of(b"Content-Length"), Kind::ContentLength);
        assert_eq!(Kind::of(b"Content_Length"), Kind::Lookalike);
        assert_eq!(Kind::of(b"Content-Lengthy"), Kind::Other);
        assert_eq!(Kind::of(b""), Kind::Other);
    }

    #[test]
    fn a_list_is_split_at_commas_and_its_empty_members_are_ignored() {
        let members: Vec<&[u8]> = list(b" a, ,b\t,,c d ").collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c d"]);
        assert!(list_has(b"Keep-Alive, Upgrade", "upgrade"));
        assert!(!list_has(b"upgrades", "upgrade"));
    }

    #[test]
    fn a_trailer_may_not_frame_route_or_authorise() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "HOST",
            "Authorization",
            "X-Forwarded-For",
            "If-Match",
            "Connection",
        ] {
            assert!(forbidden_in_trailers(name.as_bytes()), "{name}");
        }
        for name in ["grpc-status", "X-Checksum", "Server-Timing", "Digest"] {
            assert!(!forbidden_in_trailers(name.as_bytes()), "{name}");
        }
    }
}
