//! One walk over JSON text that finds where values lie, without building any (SPEC B3).
//!
//! A [`Cursor`] moves over the text; what it passes it checks against RFC 8259: the grammar of every value, UTF-8, no
//! control character in a string. It takes what `serde_json`'s `RawValue` takes, down to [`JSON_DEPTH`]: numbers of any
//! size and precision, lone surrogate escapes, names that repeat. Nothing is decoded, so nothing can be changed.
//!
//! Not here: what the values mean ([`super::v1`], [`super::v2`]).

use std::borrow::Cow;
use std::ops::Range;

use crate::config::JSON_DEPTH;

/// The text is not JSON, or not of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A place in a JSON text.
#[derive(Debug)]
pub struct Cursor<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Cursor<'t> {
    /// The start of a text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn new(text: &'t [u8]) -> Result<Self, Malformed> {
        std::str::from_utf8(text).map(|_| Self { text, at: 0 }).map_err(|_| Malformed)
    }

    /// The inside of a list that was walked over before, so what it holds is known to be right.
    pub(super) fn inside(text: &'t [u8], list: &Range<usize>) -> Self {
        Self { text: &text[..list.end], at: list.start }
    }

    /// Where it is, in bytes from the start.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is no white space.
    pub fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Passes over a comma, if it is next.
    pub(super) fn comma(&mut self) -> bool {
        let is_next = self.peek() == Some(b',');
        self.at += usize::from(is_next);
        is_next
    }

    /// Walks over an object; `member` gets each name, in its quotes, and must walk over the value.
    ///
    /// # Errors
    /// When there is none here, or `member` failed.
    pub fn object<E: From<Malformed>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.entries(b'{', b'}', |cursor| {
            let name = cursor.name()?;
            member(cursor, name)
        })
    }

    /// Walks over a list; `element` must walk over each element. Returns what lies between the brackets.
    ///
    /// # Errors
    /// When there is none here, or `element` failed.
    pub fn list<E: From<Malformed>>(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<Range<usize>, E> {
        self.peek();
        let start = self.at + 1;
        self.entries(b'[', b']', element)?;
        Ok(start..self.at - 1)
    }

    fn entries<E: From<Malformed>>(
        &mut self,
        open: u8,
        close: u8,
        mut entry: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(open)?;
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(());
        }
        loop {
            entry(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Malformed.into()),
            }
        }
    }

    /// Walks over a value of any kind; returns where it lies.
    ///
    /// # Errors
    /// When there is none here.
    pub fn value(&mut self) -> Result<Range<usize>, Malformed> {
        self.peek();
        let start = self.at;
        let mut nesting = Nesting::default();
        loop {
            if self.opens(&mut nesting)? {
                continue;
            }
            loop {
                let Some(is_object) = nesting.innermost() else { return Ok(start..self.at) };
                match (self.peek(), is_object) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.name()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        nesting.close();
                    }
                    _ => return Err(Malformed),
                }
            }
        }
    }

    /// Walks over a simple value, or into a list or object; `true`: the next thing is a value again.
    fn opens(&mut self, nesting: &mut Nesting) -> Result<bool, Malformed> {
        let (is_object, close) = match self.peek().ok_or(Malformed)? {
            b'"' => return self.string().map(|_| false),
            b'-' | b'0'..=b'9' => return self.number().map(|()| false),
            b't' => return self.literal(b"true").map(|()| false),
            b'f' => return self.literal(b"false").map(|()| false),
            b'n' => return self.literal(b"null").map(|()| false),
            b'[' => (false, b']'),
            b'{' => (true, b'}'),
            _ => return Err(Malformed),
        };
        self.at += 1;
        nesting.open(is_object)?;
        if self.peek() == Some(close) {
            self.at += 1;
            nesting.close();
            return Ok(false);
        }
        if is_object {
            self.name()?;
        }
        Ok(true)
    }

    /// The end of the text, with nothing but white space before it.
    ///
    /// # Errors
    /// When there is more.
    pub fn end(&mut self) -> Result<(), Malformed> {
        self.peek().map_or(Ok(()), |_| Err(Malformed))
    }

    /// A whole number without sign, as dimensions are.
    pub(super) fn index(&mut self) -> Result<(Range<usize>, usize), Malformed> {
        let number = self.value()?;
        let digits = std::str::from_utf8(&self.text[number.clone()]).map_err(|_| Malformed)?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let value = digits.parse().ok().filter(|_| is_plain).ok_or(Malformed)?;
        Ok((number, value))
    }

    /// A string; returns where it lies, with its quotes.
    pub(super) fn string(&mut self) -> Result<Range<usize>, Malformed> {
        self.peek();
        let start = self.at;
        self.take(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Ok(start..self.at),
                b'\\' => self.escape()?,
                0..0x20 => return Err(Malformed),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4).ok_or(Malformed)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(()).ok_or(Malformed)
            }
            _ => Err(Malformed),
        }
    }

    /// `"name" :`
    fn name(&mut self) -> Result<Range<usize>, Malformed> {
        let name = self.string()?;
        self.take(b':')?;
        Ok(name)
    }

    /// `[ "-" ] ( "0" / 1-9 *DIGIT ) [ "." 1*DIGIT ] [ ( "e" / "E" ) [ "-" / "+" ] 1*DIGIT ]` (RFC 8259 §6)
    fn number(&mut self) -> Result<(), Malformed> {
        self.skip_one_of(b"-");
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return Err(Malformed),
        }
        if self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        if self.skip_one_of(b".") {
            self.digits()?;
        }
        if self.skip_one_of(b"eE") {
            self.skip_one_of(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.skip_digits();
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    fn skip_digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn skip_one_of(&mut self, bytes: &[u8]) -> bool {
        let is_one = self.text.get(self.at).is_some_and(|byte| bytes.contains(byte));
        self.at += usize::from(is_one);
        is_one
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Malformed> {
        let is_word = self.text[self.at..].starts_with(word);
        self.at += word.len();
        is_word.then_some(()).ok_or(Malformed)
    }

    fn take(&mut self, wanted: u8) -> Result<(), Malformed> {
        let is_there = self.peek() == Some(wanted);
        self.at += 1;
        is_there.then_some(()).ok_or(Malformed)
    }

    fn next(&mut self) -> Result<u8, Malformed> {
        let byte = *self.text.get(self.at).ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }
}

/// Whether a name, in its quotes, is this one, however it is escaped.
pub(super) fn is_named(quoted: &[u8], name: &str) -> bool {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains(&b'\\') {
        return inner == name.as_bytes();
    }
    // A name that decodes to no string, such as a lone surrogate, is none that is asked for.
    serde_json::from_slice::<Cow<'_, str>>(quoted).is_ok_and(|decoded| decoded == name)
}

/// The lists and objects that a value lies in, one bit each. The first 64 cost no allocation.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    near: u64,
    far: Vec<u64>,
}

impl Nesting {
    fn open(&mut self, is_object: bool) -> Result<(), Malformed> {
        if self.depth == JSON_DEPTH {
            return Err(Malformed);
        }
        let bit = self.depth % 64;
        if self.depth > 0 && bit == 0 {
            self.far.push(std::mem::take(&mut self.near));
        }
        self.near = self.near & !(1 << bit) | u64::from(is_object) << bit;
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        if self.depth.is_multiple_of(64)
            && let Some(near) = self.far.pop()
        {
            self.near = near;
        }
    }

    /// Whether the innermost one is an object; `None`: there is none.
    fn innermost(&self) -> Option<bool> {
        let bit = self.depth.checked_sub(1)? % 64;
        Some(self.near >> bit & 1 == 1)
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
pub(crate) mod tests;
