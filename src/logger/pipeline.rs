//! Whether several events may be sent to the sink before the first is answered (RFC 9112 §9.3.2), and whether a
//! connection may bring a second event. One for all delivery threads. Pure.
//!
//! ```text
//!   untried ─ a connection has brought some answers ─▶ probing, by one thread ─ two sent, two answered ─▶ works
//!     ▲  ▲                                                │                                              │
//!     │  └──────────── none of several was answered ──────┼──────────────────────────────────────────────┤
//!     └── LOG_PIPELINE_AGAIN ── off ◀── some were answered and the rest were not, without a word ────────┘
//! ```
//!
//! Some servers answer the first of several requests and forget the others (gunicorn's gthread worker before 24). So
//! pipelining is used on evidence only, and given up on any evidence against it. An end that was announced by
//! `Connection: close` is none.
//!
//! Not here: how many events are sent together while it works ([`super::flight`]).

use std::time::{Duration, Instant};

use crate::config::{LOG_PIPELINE_AFTER, LOG_PIPELINE_AGAIN, LOG_SILENT_CONNECTIONS};

/// What is known of the sink.
#[derive(Debug, Default)]
pub(super) struct Pipelining {
    state: State,
    /// Connections in a row that brought one answer and then nothing.
    silent: u32,
    /// Until then no connection is used twice.
    once_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Untried,
    /// A thread finds out; if it has not said anything by then, another may.
    Probing {
        until: Instant,
    },
    Works,
    Off {
        until: Instant,
    },
}

/// How many events may be sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    One,
    /// Two, to find out.
    Probe,
    Several,
}

/// What has come of events that were sent together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    pub(super) sent: usize,
    pub(super) answered: usize,
    /// The sink has said that it would answer no more on this connection.
    pub(super) was_announced: bool,
    /// The connection had brought exactly one answer before, and then nothing within the limit.
    pub(super) went_silent: bool,
}

impl Pipelining {
    /// Returns how many events may go over a connection that has brought so many answers. `limit`: time of an attempt.
    pub(super) fn allowed(&mut self, answers: u32, now: Instant, limit: Duration) -> Allowed {
        match self.state {
            State::Works if answers > 0 => return Allowed::Several,
            State::Off { until } | State::Probing { until } if now >= until => self.state = State::Untried,
            _ => {}
        }
        if self.state != State::Untried || answers < LOG_PIPELINE_AFTER {
            return Allowed::One;
        }
        self.state = State::Probing { until: now + limit.saturating_mul(2) };
        Allowed::Probe
    }

    /// The thread that was to find out had only one event.
    pub(super) fn not_probed(&mut self) {
        if matches!(self.state, State::Probing { .. }) {
            self.state = State::Untried;
        }
    }

    /// Takes note of an attempt. Returns whether it has ended pipelining.
    pub(super) fn note(&mut self, outcome: Outcome, now: Instant) -> bool {
        self.note_reuse(outcome, now);
        let Outcome { sent, answered, was_announced, .. } = outcome;
        if sent < 2 {
            return false;
        }
        let is_probe = matches!(self.state, State::Probing { .. });
        let was_off = matches!(self.state, State::Off { .. });
        self.state = match answered {
            _ if answered == sent => return self.has_worked(),
            // Nobody can tell whether it would have answered the rest.
            _ if was_announced && is_probe => State::Untried,
            _ if was_announced => return false,
            // The sink may be ill whatever it is sent.
            0 if !is_probe && !was_off => State::Untried,
            _ => State::Off { until: now + LOG_PIPELINE_AGAIN },
        };
        !was_off && matches!(self.state, State::Off { .. })
    }

    fn has_worked(&mut self) -> bool {
        if matches!(self.state, State::Probing { .. }) {
            self.state = State::Works;
        }
        false
    }

    fn note_reuse(&mut self, outcome: Outcome, now: Instant) {
        if outcome.went_silent {
            self.silent += 1;
            if self.silent >= LOG_SILENT_CONNECTIONS {
                self.silent = 0;
                self.once_until = Some(now + LOG_PIPELINE_AGAIN);
            }
        }
    }

    /// A connection has brought a second answer.
    pub(super) fn was_reused(&mut self) {
        self.silent = 0;
    }

    /// Returns whether a connection may be used again.
    pub(super) fn may_reuse(&self, now: Instant) -> bool {
        self.once_until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn outcome(sent: usize, answered: usize) -> Outcome {
        Outcome { sent, answered, was_announced: false, went_silent: false }
    }

    fn working(now: Instant) -> Pipelining {
        let mut pipelining = Pipelining::default();
        assert_eq!(pipelining.allowed(LOG_PIPELINE_AFTER, now, LIMIT), Allowed::Probe);
        assert!(!pipelining.note(outcome(2, 2), now));
        assert_eq!(pipelining.allowed(1, now, LIMIT), Allowed::Several);
        pipelining
    }

    #[test]
    fn one_thread_finds_out_and_the_others_send_one_event_at_a_time_meanwhile() {
        let (mut pipelining, now) = (Pipelining::default(), Instant::now());
        assert_eq!(pipelining.allowed(LOG_PIPELINE_AFTER - 1, now, LIMIT), Allowed::One);
        assert_eq!(pipelining.allowed(LOG_PIPELINE_AFTER, now, LIMIT), Allowed::Probe);
        assert_eq!(pipelining.allowed(100, now, LIMIT), Allowed::One);
        pipelining.not_probed();
        assert_eq!(pipelining.allowed(100, now, LIMIT), Allowed::Probe);
        assert_eq!(pipelining.allowed(100, now + 2 * LIMIT, LIMIT), Allowed::Probe, "the thread has said nothing");
    }

    #[test]
    fn a_sink_that_answers_both_gets_several_over_connections_that_have_brought_an_answer() {
        let now = Instant::now();
        assert_eq!(working(now).allowed(0, now, LIMIT), Allowed::One);
    }

    #[test]
    fn any_answer_without_the_rest_ends_it_for_a_while() {
        let now = Instant::now();
        for (sent, answered) in [(2, 1), (64, 1), (64, 63)] {
            let mut pipelining = working(now);
            assert!(pipelining.note(outcome(sent, answered), now));
            assert!(!pipelining.note(outcome(sent, answered), now), "it is said once");
            assert_eq!(pipelining.allowed(9, now + LOG_PIPELINE_AGAIN / 2, LIMIT), Allowed::One);
            assert_eq!(pipelining.allowed(9, now + LOG_PIPELINE_AGAIN, LIMIT), Allowed::Probe);
        }
    }

    #[test]
    fn no_answer_at_all_ends_a_probe_and_else_asks_for_another() {
        let now = Instant::now();
        let mut pipelining = working(now);
        assert!(!pipelining.note(outcome(64, 0), now));
        assert_eq!(pipelining.allowed(9, now, LIMIT), Allowed::Probe);
        assert!(pipelining.note(outcome(2, 0), now));
        assert_eq!(pipelining.allowed(9, now, LIMIT), Allowed::One);
    }

    #[test]
    fn an_end_that_was_announced_says_nothing() {
        let now = Instant::now();
        let mut pipelining = working(now);
        let announced = Outcome { was_announced: true, ..outcome(64, 3) };
        assert!(!pipelining.note(announced, now));
        assert_eq!(pipelining.allowed(1, now, LIMIT), Allowed::Several);
        let mut probing = Pipelining::default();
        assert_eq!(probing.allowed(9, now, LIMIT), Allowed::Probe);
        assert!(!probing.note(Outcome { sent: 2, answered: 1, ..announced }, now));
        assert_eq!(probing.allowed(9, now, LIMIT), Allowed::Probe);
    }

    #[test]
    fn connections_that_bring_one_answer_each_are_used_once() {
        let (mut pipelining, now) = (Pipelining::default(), Instant::now());
        let silent = Outcome { went_silent: true, ..outcome(1, 0) };
        (1..LOG_SILENT_CONNECTIONS).for_each(|_| _ = pipelining.note(silent, now));
        pipelining.was_reused();
        (1..LOG_SILENT_CONNECTIONS).for_each(|_| _ = pipelining.note(silent, now));
        assert!(pipelining.may_reuse(now));
        pipelining.note(silent, now);
        assert!(!pipelining.may_reuse(now) && pipelining.may_reuse(now + LOG_PIPELINE_AGAIN));
    }
}
