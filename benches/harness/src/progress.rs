//! One line that says what runs and how long it will go on.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Runs done and to do. The time left is the planned one of what is to be done, times what the plan was off by so far.
pub(crate) struct Progress {
    began: Instant,
    planned: f64,
    done: f64,
    runs: usize,
    of: usize,
}

impl Progress {
    /// So many runs, planned to take so many seconds.
    pub(crate) fn new(of: usize, planned: f64) -> Self {
        Self { began: Instant::now(), planned, done: 0.0, runs: 0, of }
    }

    /// A run of so many planned seconds begins.
    pub(crate) fn step(&mut self, seconds: f64, what: &str) {
        self.runs += 1;
        let left = time_left(self.began.elapsed().as_secs_f64(), self.done, self.planned);
        self.done += seconds;
        let line = format!("[{}/{}] {} left · {what}", self.runs, self.of, clock(left));
        // A terminal has its line written anew; a log gets one now and then.
        let mut out = io::stderr();
        let written = if out.is_terminal() {
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
        } else if self.runs % 25 == 1 {
            writeln!(out, "{line}")
        } else {
            Ok(())
        };
        // Nobody looks.
        drop(written);
    }

    pub(crate) fn say(&self, line: &str) {
        let out = io::stderr();
        let clear = if out.is_terminal() { "\r\x1b[K" } else { "" };
        // Nobody looks.
        let _ = writeln!(&out, "{clear}{line}");
    }

    pub(crate) fn took(&self) -> String {
        clock(self.began.elapsed().as_secs_f64())
    }
}

fn time_left(elapsed: f64, done: f64, planned: f64) -> f64 {
    let slower = if done < 5.0 { 1.0 } else { elapsed / done };
    (planned - done).max(0.0) * slower
}

fn clock(seconds: f64) -> String {
    format!("{:.0}:{:02.0}", (seconds.round() / 60.0).floor(), seconds.round() % 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_pace() {
        assert_eq!(time_left(0.0, 0.0, 60.0), 60.0);
        assert_eq!(time_left(20.0, 10.0, 60.0), 100.0);
        assert_eq!(clock(125.4), "2:05");
    }
}
