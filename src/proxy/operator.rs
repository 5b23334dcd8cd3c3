//! Connections on `--metrics-port` and `--admin-port`: the hardened codec and every limit of the proxy, but the agent
//! answers (SPEC O1, O2).
//!
//! Not here: what is answered ([`crate::ops::metrics`], [`crate::ops::page`], [`crate::ops::status`]).

use super::connection::Role;
use super::headers::{self, Answer, Connection, PLAIN, Parked};
use super::plane::{Drain, Setup};
use crate::http1::head::{RequestHead, path_of};
use crate::ops::metrics::text::Format;
use crate::ops::page::{is_of_loopback, page};

/// An answer, and what it borrows.
struct Reply {
    status: u16,
    fields: Vec<(&'static str, String)>,
    media: &'static str,
    body: String,
}

impl Setup {
    /// Writes the answer to `out`; returns whether the connection closes.
    pub(super) fn operate(&self, role: Role, head: &RequestHead<'_, '_>, drain: Drain, out: &mut Vec<u8>) -> bool {
        let parked = Parked::of(head);
        let keeps = parked.keeps && !drain.is_finishing();
        let Reply { status, fields, media, body } = match role {
            Role::Admin => self.admin(head),
            Role::Metrics | Role::Traffic => self.metrics(head),
        };
        let fields: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let answer = Answer { status, fields: &fields, media, body: body.as_bytes() };
        headers::write_answer(out, answer, head.version, Connection::of_client(keeps, head.version), parked.is_head);
        !keeps
    }

    fn metrics(&self, head: &RequestHead<'_, '_>) -> Reply {
        match (path_of(head.target), is_read(head)) {
            (b"/metrics", true) => {
                let format = Format::accepted(&String::from_utf8_lossy(&lines(head, "accept")));
                let body = format.write(&self.status.families());
                Reply { status: 200, fields: Vec::new(), media: format.content_type(), body }
            }
            (b"/metrics", false) => Reply::of_other_method(),
            _ => Reply::text(404, "metrics are at /metrics\n"),
        }
    }

    fn admin(&self, head: &RequestHead<'_, '_>) -> Reply {
        if !is_of_loopback(&lines(head, "host")) {
            return Reply::text(403, "only names of the loopback are answered here, such as localhost\n");
        }
        let fresh = ("Cache-Control", "no-store".to_owned());
        match (path_of(head.target), is_read(head)) {
            (b"/", true) => {
                let (body, policy) = page();
                let fields =
                    vec![("Content-Security-Policy", policy), ("Referrer-Policy", "no-referrer".to_owned()), fresh];
                Reply { status: 200, fields, media: "text/html; charset=utf-8", body }
            }
            (b"/status.json", true) => {
                Reply { status: 200, fields: vec![fresh], media: "application/json", body: self.status.json() }
            }
            (b"/" | b"/status.json", false) => Reply::of_other_method(),
            _ => Reply::text(404, "there are / and /status.json\n"),
        }
    }
}

impl Reply {
    fn text(status: u16, text: &str) -> Self {
        Self { status, fields: Vec::new(), media: PLAIN, body: text.to_owned() }
    }

    fn of_other_method() -> Self {
        let fields = vec![("Allow", "GET, HEAD".to_owned())];
        Self { fields, ..Self::text(405, "only GET and HEAD are allowed\n") }
    }
}

fn is_read(head: &RequestHead<'_, '_>) -> bool {
    matches!(head.method, b"GET" | b"HEAD")
}

/// All lines of a field as one (RFC 9110 §5.3).
fn lines(head: &RequestHead<'_, '_>, name: &str) -> Vec<u8> {
    let lines = head.fields.iter().filter(|(_, known, _)| known.eq_ignore_ascii_case(name));
    lines.map(|(_, _, value)| value).collect::<Vec<_>>().join(&b","[..])
}
