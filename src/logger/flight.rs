//! Events on their way to the sink: several requests in one write, then their answers in order.
//!
//! An event costs the sink and the agent little but the waking of two threads and the calls to the kernel, so a thread
//! that has several to send sends them together (RFC 9112 §9.3.2, pipelining). RFC 9112 asks for a means to recover if
//! the connection breaks in between before anything but idempotent requests is sent so: events are delivered at least
//! once and carry an id, which is that means. How many fly together follows the sink: one until it answers fast, and one
//! again when it does not, closes, or stops answering.
//!
//! Not here: the connection ([`super::line`]), and what follows for the events ([`super::deliver`]).

use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::carrier::{Cargo, Carrier, Cut, Landing, Said, counts};
use super::event::{Event, Receipt, Type, rfc3339};
use super::line::{Line, Reply};
use super::sink::Sink;
use crate::config::{LOG_FLIGHT_BYTES, LOG_FLIGHT_EVENTS, LOG_FLIGHT_FAST, LOG_PIPELINE_AGAIN};

/// One thread's way to the sink.
pub(super) struct Pilot {
    sink: Arc<Sink>,
    line: Option<Line>,
    /// Events that may fly together.
    window: usize,
    /// The sink has forgotten requests that came together: until then they are sent one at a time.
    one_by_one_until: Option<Instant>,
    output: Vec<u8>,
}

impl Pilot {
    pub(super) fn new(sink: Arc<Sink>) -> Self {
        Self { sink, line: None, window: 1, one_by_one_until: None, output: Vec::new() }
    }

    /// Sends the requests.
    fn send<'e>(
        &mut self,
        line: &mut Line,
        events: impl Iterator<Item = &'e mut Event>,
        deadline: Instant,
    ) -> io::Result<()> {
        line.until(deadline);
        self.output.clear();
        let now = rfc3339(SystemTime::now());
        for event in events {
            self.sink.write_head(&mut self.output, event, &now);
            if event.payload.len() <= LOG_FLIGHT_BYTES {
                self.output.extend_from_slice(&event.payload);
            } else {
                // Not copied: it goes by itself.
                line.send(&self.output)?;
                self.output.clear();
                line.send(&event.payload)?;
            }
        }
        line.send(&self.output)?;
        line.flush()
    }

    /// More fly together while the sink is fast.
    fn adapt(&mut self, is_kept: bool, took: Duration) {
        self.window = match self.window {
            window if is_kept && took <= LOG_FLIGHT_FAST => (window * 2).min(LOG_FLIGHT_EVENTS),
            window if is_kept => (window / 2).max(1),
            _ => 1,
        };
        if self.one_by_one_until.is_some_and(|until| Instant::now() < until) {
            self.window = 1;
        }
    }
}

impl Carrier for Pilot {
    type Cargo = Event;

    fn name(&self) -> &str {
        &self.sink.name
    }

    fn limit(&self) -> Duration {
        self.sink.limit
    }

    fn window(&self) -> usize {
        self.window
    }

    fn fly<'e>(
        &mut self,
        events: impl ExactSizeIterator<Item = &'e mut Event>,
        limit: Duration,
        mut land: impl FnMut(Landing),
    ) -> Result<(), Cut> {
        let (count, began) = (events.len(), Instant::now());
        let line = self.line.take().and_then(Line::if_usable);
        let was_used = line.is_some();
        let mut line = match line.map_or_else(|| Line::open(&self.sink.target, began + limit), Ok) {
            Ok(line) => line,
            Err(error) => {
                self.window = 1;
                return Err(Cut::Destination { why: error.to_string(), after: None });
            }
        };
        let sent = self.send(&mut line, events, began + limit);
        // A sink that will not take an event may say so before it has read it (RFC 9112 §9.5): what it said is there.
        let patience = if sent.is_ok() { limit } else { Duration::ZERO };
        if sent.is_err() {
            line.until(Instant::now());
        }
        let mut landed = 0;
        let answered = answers(&mut line, count, patience, |landing| {
            landed += 1;
            land(landing);
        });
        let result = sent.and(answered);
        if let Ok(true) = result {
            self.line = Some(line);
        }
        self.adapt(matches!(result, Ok(true)), began.elapsed());
        match result {
            _ if landed == count => Ok(()),
            Err(error) if landed > 0 && error.kind() == ErrorKind::TimedOut => {
                // It has taken the first and forgotten the others, or was held up for once: nobody can tell.
                self.one_by_one_until = Some(Instant::now() + LOG_PIPELINE_AGAIN);
                self.window = 1;
                Err(Cut::Line)
            }
            Err(error) if landed == 0 && !(was_used && is_cut(&error)) => Err(Cut::First { why: error.to_string() }),
            _ => Err(Cut::Line),
        }
    }
}

impl Cargo for Event {
    fn bytes(&self) -> usize {
        self.payload.len()
    }

    fn counts(&self) -> [(Type, u64); 2] {
        counts([&self.receipt])
    }

    fn receipts(self) -> impl Iterator<Item = Receipt> {
        std::iter::once(self.receipt)
    }
}

/// Reads so many answers; the first has the line's deadline, each further one so long. `false`: no request may follow.
fn answers(line: &mut Line, count: usize, each: Duration, mut land: impl FnMut(Landing)) -> io::Result<bool> {
    for _ in 0..count {
        let Reply { status, verdict, keeps } = line.answer()?;
        let at = Instant::now();
        land(Landing { verdict, said: Said::Status(status), at });
        if !keeps {
            return Ok(false);
        }
        line.until(at + each);
    }
    Ok(true)
}

/// The other side has ended the connection.
fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}

impl Sink {
    /// Appends the head of an event's request. `now`: when it is sent.
    fn write_head(&self, out: &mut Vec<u8>, event: &Event, now: &str) {
        out.extend_from_slice(&self.head);
        for (name, value) in self.attributes.of_event(event, now) {
            for part in [name, ": ", &value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        let mut length = String::new();
        // A String takes every character, so this can't fail.
        let _ = write!(length, "Content-Length: {}\r\n\r\n", event.payload.len());
        out.extend_from_slice(length.as_bytes());
    }
}
