//! A body's framing: which bytes belong to the message and which of them go on.
//!
//! A [`Body`] walks over the bytes as they come. What goes on is always a part of what came, in order, so it is moved
//! together in place; a body without chunk extensions is not moved at all and leaves from where it was read.
//!
//! ```text
//!   Length   left ──────────────────────────────▶ 0: ended
//!   Chunked  Size ─▶ Data ─▶ DataEnd ─▶ Size … Size(0) ─▶ Trailers ─▶ ended
//!   Close    ────────────────────────────────────▶ end of input: ended
//! ```
//!
//! A chunk-size line, the CRLF behind the data and the trailer section are used only when they are complete; the caller
//! keeps what was not used and comes again with more behind it.
//!
//! Not here: sockets, and the decision what a broken body means.

use super::chunk::{SizeLine, write_size};
use super::{Framing, trailers};
use crate::config::CHUNK_EXTENSION_BYTES;

/// A body on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    state: State,
    keep: Keep,
    extension_bytes: u64,
    /// A server sends it.
    of_server: bool,
}

/// What of a chunked body goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Sizes, data and trailers; extensions, which are for one hop (RFC 9112 §7.1.1), and trailers that may not be
    /// there (RFC 9110 §6.5.1) are left out.
    Framing,
    /// The data alone.
    Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// INVARIANT: never 0.
    Length(u64),
    Size,
    /// INVARIANT: never 0.
    Data(u64),
    DataEnd,
    Trailers,
    Close,
    Ended,
}

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes used up; what is behind them belongs to the next message, or must come again with more.
    pub consumed: usize,
    /// Bytes that go on: the first so many of the buffer, at most `consumed`.
    pub kept: usize,
}

/// Why the bytes are no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// Against RFC 9112 §7.1; the text says where.
    Malformed(&'static str),
    /// Extensions or trailers over their limit.
    TooLarge(&'static str),
    /// The input ended before the body.
    Truncated,
}

impl Body {
    /// A body framed like this, at its start.
    pub fn new(framing: Framing, keep: Keep) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::Close => State::Close,
        };
        Self { state, keep, extension_bytes: 0, of_server: false }
    }

    /// The body of a response, in whose framing a little more is taken (SPEC P13).
    pub fn of_server(framing: Framing, keep: Keep) -> Self {
        Self { of_server: true, ..Self::new(framing, keep) }
    }

    /// Whether the whole body was used up.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Bytes still to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Ended => Some(0),
            _ => None,
        }
    }

    /// The input has ended.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] unless the body has ended or ends with the input.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Ended | State::Close => {
                self.state = State::Ended;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Whether it is a chunked body at its start.
    pub fn is_chunked(&self) -> bool {
        self.state == State::Size
    }

    /// Whether it ends with the connection.
    pub fn ends_with_input(&self) -> bool {
        self.state == State::Close
    }

    /// Puts its framing back around so many bytes of data, all that [`Keep::Data`] has kept of a chunked body so far, and
    /// keeps it from now on: writes what comes before the data, and returns what comes behind. Trailers that have come are
    /// discarded, as whoever takes the coding off may do (RFC 9112 §7.1.2).
    pub fn reframe_before(&mut self, data: usize, out: &mut Vec<u8>) -> &'static [u8] {
        debug_assert!(!matches!(self.state, State::Length(_) | State::Close), "the body is chunked");
        self.keep = Keep::Framing;
        let (more, end, end_alone): (u64, &[u8], &[u8]) = match self.state {
            State::Data(left) => (left, b"", b""),
            State::DataEnd => (0, b"", b""),
            State::Trailers => (0, b"\r\n0\r\n", b"0\r\n"),
            State::Ended => (0, b"\r\n0\r\n\r\n", b"0\r\n\r\n"),
            State::Size | State::Length(_) | State::Close => (0, b"\r\n", b""),
        };
        let size = data as u64 + more;
        // A chunk of no data would be the last one.
        if size == 0 {
            return end_alone;
        }
        write_size(out, size);
        end
    }

    /// Uses up as much of `buf` as it can, and moves what goes on to the front.
    ///
    /// # Errors
    /// When the bytes break the framing; the body can't go on.
    pub fn advance(&mut self, buf: &mut [u8]) -> Result<Step, BodyError> {
        let mut step = Step { consumed: 0, kept: 0 };
        let mut more_is_needed = false;
        loop {
            let rest = buf.len() - step.consumed;
            match self.state {
                State::Ended => return Ok(step),
                State::Close => step.take(buf, rest),
                State::Length(left) => {
                    let count = at_most(rest, left);
                    step.take(buf, count);
                    self.state = left_over(left, count, State::Length, State::Ended);
                }
                State::Data(left) => {
                    let count = at_most(rest, left);
                    step.take(buf, count);
                    self.state = left_over(left, count, State::Data, State::DataEnd);
                }
                State::Size => more_is_needed = !self.size_line(buf, &mut step)?,
                State::DataEnd => more_is_needed = !self.data_end(buf, &mut step)?,
                State::Trailers => more_is_needed = !self.trailers(buf, &mut step)?,
            }
            if more_is_needed || step.consumed == buf.len() {
                return Ok(step);
            }
        }
    }

    /// `chunk-size [ chunk-ext ] CRLF`; `false` when it is not complete.
    fn size_line(&mut self, buf: &mut [u8], step: &mut Step) -> Result<bool, BodyError> {
        let Some(line) = SizeLine::parse(&buf[step.consumed..], self.of_server)? else { return Ok(false) };
        let extension = line.length - line.digits - 2;
        self.extension_bytes += extension as u64;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES {
            return Err(BodyError::TooLarge("chunk extensions"));
        }
        if self.keep == Keep::Framing {
            step.take(buf, line.digits);
            step.consumed += extension;
            step.take(buf, 2);
        } else {
            step.consumed += line.length;
        }
        self.state = if line.size == 0 { State::Trailers } else { State::Data(line.size) };
        Ok(true)
    }

    fn data_end(&mut self, buf: &mut [u8], step: &mut Step) -> Result<bool, BodyError> {
        match &buf[step.consumed..] {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Ok(false),
            _ => return Err(BodyError::Malformed("chunk data is longer than its size")),
        }
        self.keep_framing(buf, step, 2);
        self.state = State::Size;
        Ok(true)
    }

    /// `trailer-section CRLF`
    fn trailers(&mut self, buf: &mut [u8], step: &mut Step) -> Result<bool, BodyError> {
        let section = &mut buf[step.consumed..];
        let Some(length) = trailers::length(section)? else { return Ok(false) };
        let kept = trailers::keep_passing(&mut section[..length])?;
        self.keep_framing(buf, step, kept);
        step.consumed += length - kept;
        self.state = State::Ended;
        Ok(true)
    }

    fn keep_framing(&self, buf: &mut [u8], step: &mut Step, count: usize) {
        match self.keep {
            Keep::Framing => step.take(buf, count),
            Keep::Data => step.consumed += count,
        }
    }
}

impl Step {
    /// Uses up `count` bytes and keeps them.
    fn take(&mut self, buf: &mut [u8], count: usize) {
        if self.kept != self.consumed {
            buf.copy_within(self.consumed..self.consumed + count, self.kept);
        }
        self.consumed += count;
        self.kept += count;
    }
}

fn at_most(count: usize, limit: u64) -> usize {
    usize::try_from(limit).map_or(count, |limit| count.min(limit))
}

fn left_over(left: u64, taken: usize, going_on: fn(u64) -> State, done: State) -> State {
    match left - taken as u64 {
        0 => done,
        left => going_on(left),
    }
}

#[cfg(test)]
mod tests;
