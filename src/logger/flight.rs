//! Events on their way to the sink: several requests in one write, then their answers in order.
//!
//! An event costs the sink and the agent little but the waking of two threads and the calls to the kernel, so a thread
//! that has several to send sends them together (RFC 9112 §9.3.2, pipelining). RFC 9112 asks for a means to recover if
//! the connection breaks in between before anything but idempotent requests is sent so: events are delivered at least
//! once and carry an id, which is that means. How many fly together follows the sink: one until [`super::pipeline`] has
//! seen that it works, then more as long as it answers fast, and one again when it does not or closes.
//!
//! An answer of 307 or 308 is followed at once over a connection of its own (RFC 9110 §15.4.8), and not remembered: it is
//! the sink that spreads its load so.
//!
//! Not here: the connection ([`super::line`]), and what follows for the events ([`super::deliver`]).

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::address::Resolver;
use super::carrier::{Cargo, Carrier, Cut, Landing, Said, counts};
use super::event::{Event, Receipt, Type, rfc3339};
use super::fields::Fields;
use super::line::{Line, Reply};
use super::metrics::CourierMetrics;
use super::pipeline::{Allowed, Outcome};
use super::retry::{Attempts, Verdict};
use super::route::Route;
use super::sink::Sink;
use super::spool::segment::EntryRef;
use crate::config::{LOG_FLIGHT_BYTES, LOG_FLIGHT_EVENTS, LOG_FLIGHT_FAST, LOG_PIPELINE_PATIENCE, LOG_REDIRECTS};

/// One thread's way to the sink.
pub(super) struct Pilot {
    sink: Arc<Sink>,
    resolver: Resolver,
    line: Option<Line>,
    /// The connection that the last redirect led to.
    detour: Option<(Route, Line)>,
    /// Events that may fly together while the sink is fast.
    window: usize,
    /// The next flight finds out whether several may.
    is_probe: bool,
    output: Vec<u8>,
    metrics: Arc<CourierMetrics>,
}

/// The times of a flight's answers.
#[derive(Clone, Copy)]
struct Times {
    began: Instant,
    /// Of each event.
    limit: Duration,
    is_probe: bool,
}

/// How a flight has ended.
struct End {
    answered: usize,
    /// Whether another request may follow on the connection.
    result: io::Result<bool>,
}

impl Pilot {
    pub(super) fn new(sink: Arc<Sink>, metrics: Arc<CourierMetrics>) -> Self {
        Self {
            sink,
            resolver: Resolver::default(),
            line: None,
            detour: None,
            window: 1,
            is_probe: false,
            output: Vec::new(),
            metrics,
        }
    }

    /// Returns a connection to the sink: that of the last flight, or a new one.
    fn connection(&mut self, now: Instant, deadline: Instant) -> io::Result<Line> {
        match self.line.take().and_then(|line| line.if_usable(now)) {
            Some(line) => Ok(line),
            None => {
                let Sink { route, trust, known, .. } = &*self.sink;
                Line::open(route, trust, (&mut self.resolver, known), deadline)
            }
        }
    }

    /// Sends the requests.
    fn send<'e>(
        &mut self,
        line: &mut Line,
        (route, secret): (&Route, Option<&Fields>),
        events: impl Iterator<Item = &'e Event>,
        deadline: Instant,
    ) -> io::Result<()> {
        line.until(deadline);
        self.output.clear();
        let now = rfc3339(SystemTime::now());
        for event in events {
            self.sink.write_head(&mut self.output, (route, secret), event, &now);
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

    /// Reads the answers.
    fn land(
        &mut self,
        line: &mut Line,
        (events, secret): (&[&mut Event], Option<&Fields>),
        times: Times,
        mut land: impl FnMut(Landing),
    ) -> End {
        let mut answered = 0;
        for event in events {
            let Reply { status, verdict, keeps, moved } = match line.answer() {
                Ok(reply) => reply,
                Err(error) => return End { answered, result: Err(error) },
            };
            let (verdict, said) = match moved {
                None => (verdict, Said::Status(status)),
                Some(location) => self.follow(event, secret, location, Instant::now() + times.limit),
            };
            answered += 1;
            let at = Instant::now();
            land(Landing { verdict, said, at });
            if !keeps {
                return End { answered, result: Ok(false) };
            }
            line.until(at + times.next(at));
        }
        End { answered, result: Ok(true) }
    }

    /// Sends an event where the sink has said that it should go.
    fn follow(
        &mut self,
        event: &Event,
        secret: Option<&Fields>,
        mut location: String,
        deadline: Instant,
    ) -> (Verdict, Said) {
        let mut from = self.sink.route.clone();
        for _ in 0..LOG_REDIRECTS {
            let route = match from.redirected(&location) {
                Ok(route) => route.through(&self.sink.proxies),
                Err(why) => return (Verdict::Rejected, Said::Text(why)),
            };
            match self.take_detour(event, secret, &route, deadline) {
                Ok(Reply { moved: Some(next), .. }) => (from, location) = (route, next),
                Ok(Reply { status, verdict, .. }) => return (verdict, Said::Status(status)),
                Err(error) => {
                    let why = format!("redirect to {}: {error}", route.name());
                    return (Verdict::Later { after: None }, Said::Text(why));
                }
            }
        }
        (Verdict::Later { after: None }, Said::Text(format!("more than {LOG_REDIRECTS} redirects in a row")))
    }

    /// Sends an event to another place, once more if a connection that was used before breaks.
    fn take_detour(
        &mut self,
        event: &Event,
        secret: Option<&Fields>,
        route: &Route,
        deadline: Instant,
    ) -> io::Result<Reply> {
        loop {
            let kept = self.detour.take().filter(|(old, _)| old.has_origin_of(route));
            let kept = kept.and_then(|(_, line)| line.if_usable(Instant::now()));
            let was_used = kept.is_some();
            let mut line = match kept {
                Some(line) => line,
                None => Line::open(route, &self.sink.trust, (&mut self.resolver, &self.sink.known), deadline)?,
            };
            let sent = self.send(&mut line, (route, secret), std::iter::once(event), deadline);
            match sent.and_then(|()| line.answer()) {
                Err(error) if was_used && is_cut(&error) && line.is_silent() => {}
                Err(error) => return Err(error),
                Ok(reply) => {
                    if reply.keeps {
                        self.detour = Some((route.clone(), line));
                    }
                    return Ok(reply);
                }
            }
        }
    }

    /// Takes note of how a flight has ended. `before`: answers that the connection had brought.
    fn note(&mut self, line: &Line, (sent, before): (usize, u32), end: &End, now: Instant) {
        let answered = end.answered;
        if answered > 0 {
            self.sink.known.answered(line.address);
        } else if before == 0 {
            self.sink.known.failed(line.address);
        }
        let is_late = end.result.as_ref().is_err_and(|error| error.kind() == ErrorKind::TimedOut);
        let outcome = Outcome {
            sent,
            answered,
            was_announced: matches!(end.result, Ok(false)),
            went_silent: answered == 0 && before == 1 && is_late && line.is_silent(),
        };
        let mut pipelining = self.sink.pipelining();
        if answered > 0 && before > 0 {
            pipelining.was_reused();
        }
        let is_given_up = pipelining.note(outcome, now);
        drop(pipelining);
        if is_given_up {
            self.metrics.pipelining_stopped.count();
            let name = &self.sink.name;
            log::warn!(
                "log sink {name}: it answered {answered} of {sent} requests that came together and not the others; it gets one at a time from now on"
            );
        }
    }

    /// More fly together while the sink is fast.
    fn adapt(&mut self, is_kept: bool, took: Duration) {
        self.window = match self.window {
            window if is_kept && took <= LOG_FLIGHT_FAST => (window * 2).min(LOG_FLIGHT_EVENTS),
            window if is_kept => (window / 2).max(1),
            _ => 1,
        };
    }
}

impl Times {
    /// Time for the answer after one that has come now.
    fn next(self, now: Instant) -> Duration {
        let first = now.saturating_duration_since(self.began);
        let of_probe = LOG_PIPELINE_PATIENCE + first.saturating_mul(4);
        if self.is_probe { of_probe.min(self.limit) } else { self.limit }
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

    fn window(&mut self) -> usize {
        let answers = self.line.as_ref().filter(|line| line.is_current).map_or(0, |line| line.answers);
        match self.sink.pipelining().allowed(answers, Instant::now(), self.sink.limit) {
            Allowed::One => 1,
            Allowed::Probe => {
                self.is_probe = true;
                2
            }
            Allowed::Several => self.window,
        }
    }

    fn fly<'e>(
        &mut self,
        events: impl ExactSizeIterator<Item = &'e mut Event>,
        limit: Duration,
        land: impl FnMut(Landing),
    ) -> Result<(), Cut> {
        let began = Instant::now();
        let events: Vec<&mut Event> = events.collect();
        let is_probe = std::mem::take(&mut self.is_probe);
        if is_probe && events.len() < 2 {
            self.sink.pipelining().not_probed();
        }
        let unreached = |why| Cut::Destination { why, after: None };
        let secret = self.sink.fields().map_err(unreached)?;
        let mut line = match self.connection(began, began + limit) {
            Ok(line) => line,
            Err(error) => {
                self.window = 1;
                return Err(unreached(error.to_string()));
            }
        };
        let before = line.answers;
        let sink = Arc::clone(&self.sink);
        let sent =
            self.send(&mut line, (&sink.route, secret.as_ref()), events.iter().map(|event| &**event), began + limit);
        let mut times = Times { began, limit, is_probe };
        if sent.is_err() {
            // A sink that will not take an event may say so before it has read it (RFC 9112 §9.5): what it said is there.
            times.limit = Duration::ZERO;
            line.until(Instant::now());
        }
        let End { answered, result } = self.land(&mut line, (&events, secret.as_ref()), times, land);
        let end = End { answered, result: sent.and(result) };
        let now = Instant::now();
        self.note(&line, (events.len(), before), &end, now);
        self.adapt(matches!(end.result, Ok(true)), now.saturating_duration_since(began));
        let was_silent = line.is_silent();
        if matches!(end.result, Ok(true)) && sink.pipelining().may_reuse(now) {
            self.line = Some(line);
        }
        match end.result {
            _ if answered == events.len() => Ok(()),
            Err(error) if answered == 0 && !(before > 0 && was_silent && is_cut(&error)) => {
                Err(Cut::First { why: error.to_string() })
            }
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

    fn attempts(&self) -> Option<Attempts> {
        self.receipt.attempts
    }

    fn into_entry(mut self) -> Result<EntryRef, Self> {
        self.receipt.entry.take().ok_or(self)
    }

    fn receipts(self) -> impl Iterator<Item = Receipt> {
        std::iter::once(self.receipt)
    }
}

/// The other side has ended the connection.
fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}
