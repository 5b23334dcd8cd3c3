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
        Self { state, keep, extension_bytes: 0 }
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
        let Some(line) = SizeLine::parse(&buf[step.consumed..])? else { return Ok(false) };
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
mod tests {
    use super::*;
    use crate::config::{HEAD_FIELDS, TRAILER_BYTES};

    /// Feeds `pieces` one after the other, as a connection would, and returns what goes on and what is left over.
    fn relay(framing: Framing, keep: Keep, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        let (mut body, mut pending, mut out) = (Body::new(framing, keep), Vec::new(), Vec::new());
        for piece in pieces {
            pending.extend_from_slice(piece);
            let step = body.advance(&mut pending)?;
            out.extend_from_slice(&pending[..step.kept]);
            pending.drain(..step.consumed);
        }
        Ok((out, pending, body.has_ended()))
    }

    /// The result must be the same in one piece, byte by byte and cut anywhere in two.
    fn everywhere(framing: Framing, keep: Keep, raw: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        let whole = relay(framing, keep, &[raw]);
        let bytes: Vec<&[u8]> = raw.chunks(1).collect();
        assert_eq!(relay(framing, keep, &bytes), whole, "byte by byte");
        for at in 0..=raw.len() {
            assert_eq!(relay(framing, keep, &[&raw[..at], &raw[at..]]), whole, "cut at {at}");
        }
        whole
    }

    fn chunked(raw: &str, keep: Keep) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        everywhere(Framing::Chunked, keep, raw.as_bytes())
    }

    #[test]
    fn a_body_is_framed_again_wherever_it_was_left() {
        let raw = b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\nX-A: 1\r\n\r\n";
        for at in 0..=raw.len() {
            let mut body = Body::new(Framing::Chunked, Keep::Data);
            let (mut pending, mut out) = (raw[..at].to_vec(), Vec::new());
            let step = body.advance(&mut pending).unwrap();
            let end = body.reframe_before(step.kept, &mut out);
            out.extend_from_slice(&pending[..step.kept]);
            out.extend_from_slice(end);
            let mut rest = [&pending[step.consumed..], &raw[at..]].concat();
            let step = body.advance(&mut rest).unwrap();
            out.extend_from_slice(&rest[..step.kept]);
            let trailer: &[u8] = if at == raw.len() { b"\r\n" } else { b"X-A: 1\r\n\r\n" };
            assert!(body.has_ended() && out.ends_with(&[b"0\r\n", trailer].concat()), "{at} {out:?}");
            let (data, left, ended) = relay(Framing::Chunked, Keep::Data, &[&out]).unwrap();
            assert_eq!((&data[..], left.len(), ended), (&b"hello world"[..], 0, true), "{at}");
        }
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let (out, rest, ended) = everywhere(Framing::Length(5), Keep::Framing, b"helloGET /").unwrap();
        assert_eq!((&out[..], &rest[..], ended), (&b"hello"[..], &b"GET /"[..], true));
    }

    #[test]
    fn a_plain_chunked_body_passes_byte_for_byte() {
        let raw = "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let (out, rest, ended) = chunked(&format!("{raw}NEXT"), Keep::Framing).unwrap();
        assert_eq!((out, rest, ended), (raw.as_bytes().to_vec(), b"NEXT".to_vec(), true));
    }

    #[test]
    fn extensions_are_left_out() {
        let (out, _, ended) = chunked("5;a=\"b;c\\\"d\" ; x\r\nhello\r\n0;last\r\n\r\n", Keep::Framing).unwrap();
        assert_eq!((&out[..], ended), (&b"5\r\nhello\r\n0\r\n\r\n"[..], true));
    }

    #[test]
    fn the_data_alone_can_be_kept() {
        let (out, _, ended) = chunked("5;x\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n", Keep::Data).unwrap();
        assert_eq!((&out[..], ended), (&b"hello world"[..], true));
    }

    #[test]
    fn trailers_pass_but_those_that_frame_or_authorise() {
        let raw = "0\r\nX-T: 1\r\nContent-Length: 50\r\nAuthorization: x\r\ngrpc-status: 0\r\n\r\n";
        let (out, _, ended) = chunked(raw, Keep::Framing).unwrap();
        assert_eq!((&out[..], ended), (&b"0\r\nX-T: 1\r\ngrpc-status: 0\r\n\r\n"[..], true));
    }

    #[test]
    fn what_breaks_the_framing_is_an_error() {
        for raw in [
            "+5\r\nhello",
            "0x5\r\n",
            " 5\r\n",
            "5.0\r\n",
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "10000000000000000\r\n",
            "5\nhello",
            "5\rX",
            "5;a\rb\r\n",
            "2;\nXX",
            "5;\r\nhello",
            "5;bad[=x\r\n",
            "5 \r\nhello",
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n",
            "5\r\nhello\rX",
            "0\r\njunk\r\n\r\n",
            "0\r\nX : 1\r\n\r\n",
            "0\r\nX: 1\n\r\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\nX: 1\r\n y\r\n\r\n",
        ] {
            assert!(chunked(raw, Keep::Framing).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_have_a_limit() {
        let long = "a".repeat(TRAILER_BYTES);
        assert_eq!(
            relay(Framing::Chunked, Keep::Framing, &[format!("5;{long}").as_bytes()]),
            Err(BodyError::TooLarge("chunk extension"))
        );
        let many = format!("1;{}\r\nx\r\n", &long[..4000]).repeat(5);
        assert_eq!(
            relay(Framing::Chunked, Keep::Framing, &[many.as_bytes()]),
            Err(BodyError::TooLarge("chunk extensions"))
        );
        assert_eq!(
            relay(Framing::Chunked, Keep::Framing, &[format!("0\r\nX: {long}").as_bytes()]),
            Err(BodyError::TooLarge("trailers"))
        );
        let fields = format!("0\r\n{}\r\n", "a:b\r\n".repeat(HEAD_FIELDS + 1));
        assert_eq!(relay(Framing::Chunked, Keep::Framing, &[fields.as_bytes()]), Err(BodyError::TooLarge("trailers")));
    }

    #[test]
    fn input_that_ends_early_is_truncated_unless_the_end_is_the_frame() {
        let ends = |framing, raw: &[u8]| {
            let mut body = Body::new(framing, Keep::Framing);
            body.advance(&mut raw.to_vec()).unwrap();
            body.end_of_input()
        };
        assert_eq!(ends(Framing::Close, b"any"), Ok(()));
        assert_eq!(ends(Framing::Empty, b""), Ok(()));
        assert_eq!(ends(Framing::Length(5), b"hell"), Err(BodyError::Truncated));
        assert_eq!(ends(Framing::Chunked, b"5\r\nhello\r\n0\r\n"), Err(BodyError::Truncated));
        assert_eq!(ends(Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\n"), Ok(()));
    }
}
