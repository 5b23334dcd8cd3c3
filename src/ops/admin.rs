//! The status page on the loopback, by tiny_http (SPEC O2).
//!
//! `kubectl port-forward` brings it to a browser, where any other site's page could ask for it too, by a name of its own
//! that leads to 127.0.0.1. So only names of the loopback are answered, and the page can load nothing and send nothing.
//!
//! Not here: anything that the network can reach. tiny_http sets no timeouts, takes a head of any size, and stops
//! accepting after one that failed (DESIGN §1).

use std::io::{self, Cursor};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tiny_http::{Header, Method, Request, Response, Server};
use uuid::Uuid;

use super::status::Status;

/// The status page's listener.
pub(crate) struct Admin {
    server: Arc<Server>,
}

/// Ends [`Admin::run`] when it is dropped.
pub(crate) struct Stop(Arc<Server>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.unblock();
    }
}

impl Admin {
    /// Listens on the loopback.
    ///
    /// # Errors
    /// When the port is taken.
    pub(crate) fn bind(port: u16) -> io::Result<(Self, Stop)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let server = Arc::new(Server::http(address).map_err(io::Error::other)?);
        Ok((Self { server: Arc::clone(&server) }, Stop(server)))
    }

    /// Answers until it is told to stop.
    pub(crate) fn run(&self, status: &Status) {
        for request in self.server.incoming_requests() {
            let answer = answer(&request, status);
            // A browser that has left needs no answer.
            let _ = request.respond(answer);
        }
    }
}

fn answer(request: &Request, status: &Status) -> Response<Cursor<Vec<u8>>> {
    let path = request.url().split('?').next().unwrap_or_default();
    if !host(request).is_some_and(is_of_loopback) {
        return text(403, "only names of the loopback are answered here, such as localhost\n");
    }
    if !matches!(request.method(), Method::Get | Method::Head) {
        return with(text(405, "only GET and HEAD are allowed\n"), &[("Allow", "GET, HEAD")]);
    }
    match path {
        "/" => page(),
        "/status.json" => with(
            Response::from_data(status.json()),
            &[
                ("Content-Type", "application/json"),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
            ],
        ),
        _ => text(404, "there are / and /status.json\n"),
    }
}

/// The page, and a policy that lets it do nothing but draw `status.json`. Its script and style are known by a word that
/// nobody can guess (CSP3 §2.3.1).
fn page() -> Response<Cursor<Vec<u8>>> {
    let nonce = Uuid::new_v4().simple().to_string();
    let page = PAGE.replacen("<style>", &format!("<style nonce=\"{nonce}\">"), 1).replacen(
        "<script>",
        &format!("<script nonce=\"{nonce}\">"),
        1,
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    with(
        Response::from_data(page),
        &[
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", &policy),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ],
    )
}

fn text(status: u16, text: &str) -> Response<Cursor<Vec<u8>>> {
    with(Response::from_string(text).with_status_code(status), &[])
}

fn with(mut page: Response<Cursor<Vec<u8>>>, fields: &[(&str, &str)]) -> Response<Cursor<Vec<u8>>> {
    for (name, value) in fields {
        // All of them are plain ASCII.
        if let Ok(field) = Header::from_bytes(name.as_bytes(), value.as_bytes()) {
            page.add_header(field);
        }
    }
    page
}

fn host(request: &Request) -> Option<&str> {
    request.headers().iter().find(|header| header.field.equiv("Host")).map(|header| header.value.as_str())
}

/// Whatever the port: `kubectl port-forward` may have chosen another.
fn is_of_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

const PAGE: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_loopback_are_answered() {
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:9090"] {
            assert!(is_of_loopback(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:9090", "127.0.0.1.evil.example", "10.0.0.1:9090"] {
            assert!(!is_of_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_page_has_one_style_and_one_script_for_the_policy_to_name() {
        for tag in ["<style", "<script"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
            assert!(PAGE.contains(&format!("{tag}>")), "{tag}");
        }
        assert!(!PAGE.contains("style=\"") && !PAGE.contains(" onclick="));
        assert!(
            !PAGE.contains("http://") || PAGE.matches("http://").count() == PAGE.matches("http://www.w3.org/").count()
        );
    }
}
