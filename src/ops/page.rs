//! The status page (SPEC O2): what a browser gets, and whose browser, pure.
//!
//! `kubectl port-forward` brings it to a browser, where any other site's page could ask for it too, by a name of its own
//! that leads to 127.0.0.1. So only names of the loopback are answered, and the page can load nothing and send nothing.
//!
//! Not here: how it is served (the proxy's workers), and the data that it draws ([`super::status`]).

use super::random;

const PAGE: &str = include_str!("page.html");

/// The page, and a policy that lets it do nothing but draw `status.json`. Its script and style are known by a word that
/// nobody can guess (CSP3 §2.3.1).
pub(crate) fn page() -> (String, String) {
    let nonce = random::uuid().simple().to_string();
    let page = PAGE.replacen("<style>", &format!("<style nonce=\"{nonce}\">"), 1).replacen(
        "<script>",
        &format!("<script nonce=\"{nonce}\">"),
        1,
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    (page, policy)
}

/// Whatever the port: `kubectl port-forward` may have chosen another.
pub(crate) fn is_of_loopback(host: &[u8]) -> bool {
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    let name = match host.iter().rposition(|byte| *byte == b':') {
        Some(colon) if is_port(&host[colon + 1..]) => &host[..colon],
        _ => host,
    };
    [&b"localhost"[..], b"127.0.0.1", b"[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_are_answered() {
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:9090"] {
            assert!(is_of_loopback(host.as_bytes()), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:9090", "127.0.0.1.evil.example", "10.0.0.1:9090"] {
            assert!(!is_of_loopback(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn the_page_has_one_style_and_one_script_for_the_policy_to_name() {
        for tag in ["<style", "<script"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
            assert!(PAGE.contains(&format!("{tag}>")), "{tag}");
        }
        assert!(!PAGE.contains("style=\"") && !PAGE.contains(" onclick="));
        assert_eq!(PAGE.matches("http://").count(), PAGE.matches("http://www.w3.org/").count());
        let (one, policy) = page();
        assert_eq!(one.matches("nonce=").count(), 2);
        assert_ne!(policy, page().1);
    }
}
