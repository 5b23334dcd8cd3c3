//! Faults that a request asks for by `X-Agent-Fault`: `panic` for the tests, `spin` for the benchmark, which must be able
//! to see 20 µs more per request. Only with the feature `fault-injection`, never in a released binary.

use std::hint;
use std::time::{Duration, Instant};

use crate::http1::head::{HeadError, Parsed, RequestHead};

const SPIN: Duration = Duration::from_micros(20);

/// Does to this worker what the request asks for.
#[expect(clippy::panic, reason = "what the feature is for")]
pub(super) fn fault(parsed: &Result<Parsed<RequestHead<'_, '_>>, HeadError>) {
    let Ok(Parsed::Complete(head)) = parsed else { return };
    let mut fields = head.fields.iter();
    let asked = fields.find(|(_, name, _)| name.eq_ignore_ascii_case("x-agent-fault")).map(|(_, _, value)| value);
    match asked {
        Some(b"panic") => panic!("fault injected"),
        Some(b"spin") => {
            let began = Instant::now();
            while began.elapsed() < SPIN {
                hint::spin_loop();
            }
        }
        _ => {}
    }
}
