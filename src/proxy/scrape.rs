//! Connections on `--metrics-port`: the hardened codec and every limit of the proxy, but the agent answers (SPEC O1).
//!
//! Not here: the text itself ([`crate::ops::metrics`]).

use super::headers::{self, Answer, Connection, PLAIN, Parked};
use super::plane::{Drain, Setup};
use crate::http1::head::RequestHead;
use crate::ops::metrics::text::Format;

impl Setup {
    /// Writes the answer to `out`; returns whether the connection closes.
    pub(super) fn scrape(&self, head: &RequestHead<'_, '_>, drain: Drain, out: &mut Vec<u8>) -> bool {
        let parked = Parked::of(head);
        let keeps = parked.keeps && !drain.is_finishing();
        let path = head.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let text;
        let answer = match (head.method, path) {
            (b"GET" | b"HEAD", b"/metrics") => {
                let format = Format::accepted(&String::from_utf8_lossy(&accept(head)));
                text = format.write(&self.sources.families());
                Answer { status: 200, field: None, media: format.content_type(), body: text.as_bytes() }
            }
            (_, b"/metrics") => Answer {
                status: 405,
                field: Some(("Allow", b"GET, HEAD")),
                media: PLAIN,
                body: b"only GET and HEAD are allowed\n",
            },
            _ => Answer { status: 404, field: None, media: PLAIN, body: b"metrics are at /metrics\n" },
        };
        let connection = Connection::of_client(keeps, head.version);
        headers::write_answer(out, answer, head.version, connection, parked.is_head);
        !keeps
    }
}

/// All lines of `Accept` as one (RFC 9110 §5.3).
fn accept(head: &RequestHead<'_, '_>) -> Vec<u8> {
    let lines = head.fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case("accept"));
    lines.map(|(_, _, value)| value).collect::<Vec<_>>().join(&b","[..])
}
