//! One walk over JSON text that finds where values lie, without building any (SPEC B3).
//!
//! ```text
//!   text so far ─▶ Scanner ─▶ Open, Name, Value, Close … ─▶ more text is needed, or the end
//! ```
//!
//! A [`Scanner`] takes up where it stopped when more of the text has come (SPEC B13), so no byte is scanned twice. What
//! it passes it checks against RFC 8259: the grammar of every value, UTF-8, no control character in a string. It takes
//! what `serde_json`'s `RawValue` takes, down to [`JSON_DEPTH`]: numbers of any size and precision, lone surrogate escapes,
//! names that repeat. It also takes `NaN`, `Infinity` and `-Infinity` (SPEC B14). Nothing is decoded, so nothing can be
//! changed.
//!
//! Not here: what the values mean ([`super::v1`], [`super::v2`]).

use std::borrow::Cow;
use std::ops::Range;

use crate::config::JSON_DEPTH;

/// The text is not JSON, or not of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Which numbers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// RFC 8259's, and the three that it lacks.
    Strict,
    /// Any word. Servers write `nan`, `-inf` and `6e-07.0`; a client that gets its answer alone gets them too (SPEC B8).
    AsWritten,
}

/// What the scanner has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// The start of a list or an object.
    Open {
        /// Where its bracket is.
        at: usize,
        /// It is an object.
        is_object: bool,
    },
    /// The end of the innermost list or object.
    Close {
        /// Where its bracket is.
        at: usize,
    },
    /// The name of a member, in its quotes. Its value follows.
    Name(Range<usize>),
    /// A string, in its quotes, a number or a literal.
    Value(Range<usize>),
}

/// A place in a JSON text that may still be coming.
#[derive(Debug)]
pub struct Scanner {
    at: usize,
    /// Where the string or word starts that the text so far ends in.
    unfinished: Option<usize>,
    expects: Expects,
    nesting: Nesting,
    /// The text before this is known to be UTF-8.
    checked: usize,
    numbers: Numbers,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Value,
    ValueOrClose,
    Name,
    NameOrClose,
    Colon,
    CommaOrClose,
    Nothing,
}

impl Scanner {
    /// The start of a text.
    pub fn new(numbers: Numbers) -> Self {
        Self::at(0, Expects::Value, numbers)
    }

    /// The inside of a list that was walked over before, whose content starts there.
    pub(super) fn inside_list(start: usize) -> Self {
        let mut scanner = Self::at(start, Expects::Value, Numbers::AsWritten);
        // The first level is never too deep.
        let _ = scanner.nesting.open(false);
        scanner
    }

    fn at(at: usize, expects: Expects, numbers: Numbers) -> Self {
        Self { at, unfinished: None, expects, nesting: Nesting::default(), checked: at, numbers }
    }

    /// Where the word starts that the text has ended in.
    pub(super) fn take_unfinished(&mut self) -> Option<usize> {
        self.unfinished.take()
    }

    /// How many lists and objects it is in.
    pub fn depth(&self) -> usize {
        self.nesting.depth
    }

    /// The next token; `None`: more of the text is needed, or this is its end. `text` is the whole text so far.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn next(&mut self, text: &[u8]) -> Result<Option<Token>, Malformed> {
        loop {
            let start = self.unfinished.unwrap_or_else(|| self.skip_space(text));
            let Some(first) = text.get(start).copied() else { return self.pause(text) };
            match (self.expects, first) {
                (Expects::Value | Expects::ValueOrClose | Expects::Name | Expects::NameOrClose, b'"') => {
                    return match self.string(text, start)? {
                        Some(string) => Ok(Some(self.passed_string(string))),
                        None => self.pause(text),
                    };
                }
                (
                    Expects::Value | Expects::ValueOrClose,
                    b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z',
                ) => {
                    return match self.word(text, start)? {
                        Some(word) => Ok(Some(Token::Value(word))),
                        None => self.pause(text),
                    };
                }
                (Expects::Value | Expects::ValueOrClose, b'[' | b'{') => return self.open(first == b'{').map(Some),
                (Expects::CommaOrClose | Expects::ValueOrClose, b']') if self.nesting.innermost() == Some(false) => {
                    return Ok(Some(self.close()));
                }
                (Expects::CommaOrClose | Expects::NameOrClose, b'}') if self.nesting.innermost() == Some(true) => {
                    return Ok(Some(self.close()));
                }
                (Expects::Colon, b':') => self.step(Expects::Value),
                (Expects::CommaOrClose, b',') => match self.nesting.innermost() {
                    Some(true) => self.step(Expects::Name),
                    _ => self.step(Expects::Value),
                },
                _ => return Err(Malformed),
            }
        }
    }

    /// The text has ended; whether it is one value.
    ///
    /// # Errors
    /// When it is not.
    pub fn finish(&mut self, text: &[u8]) -> Result<(), Malformed> {
        if let Some(start) = self.unfinished
            && self.nesting.depth == 0
            && text[start] != b'"'
        {
            self.passed_word(&text[start..])?;
        }
        self.pause(text)?;
        let is_whole = self.expects == Expects::Nothing && self.at == text.len() && self.checked == text.len();
        is_whole.then_some(()).ok_or(Malformed)
    }

    fn skip_space(&mut self, text: &[u8]) -> usize {
        while matches!(text.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
        self.at
    }

    fn step(&mut self, expects: Expects) {
        self.at += 1;
        self.expects = expects;
    }

    /// All of the text so far is scanned: it must be UTF-8, but for a character that it may end in.
    fn pause(&mut self, text: &[u8]) -> Result<Option<Token>, Malformed> {
        match std::str::from_utf8(&text[self.checked..]) {
            Ok(_) => self.checked = text.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Malformed),
        }
        Ok(None)
    }

    fn open(&mut self, is_object: bool) -> Result<Token, Malformed> {
        let at = self.at;
        self.nesting.open(is_object)?;
        self.step(if is_object { Expects::NameOrClose } else { Expects::ValueOrClose });
        Ok(Token::Open { at, is_object })
    }

    fn close(&mut self) -> Token {
        let at = self.at;
        self.nesting.close();
        self.at += 1;
        self.expect_behind_value();
        Token::Close { at }
    }

    fn expect_behind_value(&mut self) {
        self.expects = if self.nesting.depth == 0 { Expects::Nothing } else { Expects::CommaOrClose };
    }

    fn passed_string(&mut self, string: Range<usize>) -> Token {
        if matches!(self.expects, Expects::Name | Expects::NameOrClose) {
            self.expects = Expects::Colon;
            return Token::Name(string);
        }
        self.expect_behind_value();
        Token::Value(string)
    }

    /// Passes a string that starts there; `None`: its end has not come.
    fn string(&mut self, text: &[u8], start: usize) -> Result<Option<Range<usize>>, Malformed> {
        if self.unfinished.replace(start).is_none() {
            self.at = start + 1;
        }
        loop {
            let rest = &text[self.at..];
            let Some(length) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) else {
                self.at = text.len();
                return Ok(None);
            };
            self.at += length;
            match rest[length] {
                b'"' => {
                    self.at += 1;
                    self.unfinished = None;
                    return Ok(Some(start..self.at));
                }
                b'\\' => match escape(&rest[length..])? {
                    Some(length) => self.at += length,
                    None => return Ok(None),
                },
                _ => return Err(Malformed),
            }
        }
    }

    /// Passes a number or a literal that starts there; `None`: its end has not come.
    fn word(&mut self, text: &[u8], start: usize) -> Result<Option<Range<usize>>, Malformed> {
        let from = self.at.max(start);
        let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
        let Some(length) = text[from..].iter().position(|byte| !is_of_word(byte)) else {
            self.unfinished = Some(start);
            self.at = text.len();
            return Ok(None);
        };
        self.at = from + length;
        self.passed_word(&text[start..self.at])?;
        Ok(Some(start..self.at))
    }

    fn passed_word(&mut self, word: &[u8]) -> Result<(), Malformed> {
        let is_right = match word {
            b"true" | b"false" | b"null" | b"NaN" | b"Infinity" | b"-Infinity" => true,
            _ => self.numbers == Numbers::AsWritten || is_number(word),
        };
        self.unfinished = None;
        self.expect_behind_value();
        is_right.then_some(()).ok_or(Malformed)
    }
}

/// The length of the escape at the start of `text`; `None`: not all of it has come.
fn escape(text: &[u8]) -> Result<Option<usize>, Malformed> {
    match text.get(1) {
        None => Ok(None),
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(Some(2)),
        Some(b'u') => match text.get(2..6) {
            None => Ok(None),
            Some(digits) => digits.iter().all(u8::is_ascii_hexdigit).then_some(Some(6)).ok_or(Malformed),
        },
        Some(_) => Err(Malformed),
    }
}

/// `[ "-" ] ( "0" / 1-9 *DIGIT ) [ "." 1*DIGIT ] [ ( "e" / "E" ) [ "-" / "+" ] 1*DIGIT ]` (RFC 8259 §6)
fn is_number(word: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then(|| &text[count..])
    }
    let unsigned = word.strip_prefix(b"-").unwrap_or(word);
    let mut rest = match unsigned {
        [b'0', rest @ ..] => Some(rest),
        _ => digits(unsigned),
    };
    if let Some([b'.', fraction @ ..]) = rest {
        rest = digits(fraction);
    }
    if let Some([b'e' | b'E', exponent @ ..]) = rest {
        rest = digits(exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent));
    }
    rest.is_some_and(<[u8]>::is_empty)
}

/// Whether a name, in its quotes, is this one, however it is escaped.
pub(super) fn is_named(quoted: &[u8], name: &str) -> bool {
    decoded(quoted).is_some_and(|decoded| decoded == name)
}

/// The same without regard to case, as Go's decoder compares (SPEC B14).
pub(super) fn is_named_in_any_case(quoted: &[u8], name: &str) -> bool {
    decoded(quoted).is_some_and(|decoded| go_folds(&decoded, name))
}

/// Whether a name begins like this.
pub(super) fn starts_with(quoted: &[u8], start: &str) -> bool {
    decoded(quoted).is_some_and(|decoded| decoded.starts_with(start))
}

/// A name that decodes to no string, such as a lone surrogate, is none that is asked for.
fn decoded(quoted: &[u8]) -> Option<Cow<'_, str>> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1))?;
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<Cow<'_, str>>(quoted).ok()
}

/// Go folds by Unicode, where `ſ` is an `s` and the Kelvin sign a `k` (`encoding/json`, `foldName`).
fn go_folds(name: &str, wanted: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    name.chars().map(fold).eq(wanted.chars())
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
