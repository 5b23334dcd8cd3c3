//! One URL's bytes on their way into a file that may have a part of them already.
//!
//! Not here: attempts after the first. What has come is in the file, and the next attempt asks for the rest.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use ureq::http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use ureq::http::{Response, StatusCode};
use ureq::{Body, BodyReader};
use url::Url;

use super::client::{Client, Fields};
use crate::config::PULLER_PIECE_BYTES;
use crate::puller::scratch::{check_room, failed};
use crate::puller::source::{Progress, Stop};
use crate::storage::Failure;

/// What is asked for, and for whom.
pub(in crate::puller) struct Ask<'a> {
    pub(in crate::puller) client: &'a Client,
    pub(in crate::puller) url: &'a Url,
    pub(in crate::puller) secret: &'a Fields,
    /// Bytes that it may have: of a body that nobody announces the end of there is no other limit.
    pub(in crate::puller) most: u64,
    pub(in crate::puller) progress: &'a Progress,
    pub(in crate::puller) stop: &'a Stop,
}

/// What tells a file from another of the same URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::puller) struct Version {
    /// Its entity tag, or else when it was changed; neither if its name is one of its content.
    pub(in crate::puller) validator: Option<String>,
    pub(in crate::puller) size: Option<u64>,
}

/// What is left to come.
pub(in crate::puller) struct Download<'a> {
    ask: &'a Ask<'a>,
    path: &'a Path,
    file: File,
    body: Option<BodyReader<'static>>,
    left: Option<u64>,
    /// Bytes that may come, whatever was announced.
    allowed: u64,
    /// Of an answer that starts at the first byte.
    pub(in crate::puller) fields: Option<HeaderMap>,
}

impl<'a> Download<'a> {
    /// Goes on with a file that holds a part of this version; without one, from the start.
    pub(in crate::puller) fn open(ask: &'a Ask<'a>, path: &'a Path, of: Option<&Version>) -> Result<Self, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| failed(path, &error))?;
        let have = file.metadata().map_err(|error| failed(path, &error))?.len();
        let known = of.filter(|_| have > 0);
        if known.is_some_and(|version| version.size == Some(have)) {
            ask.progress.add(have);
            return Ok(Self { ask, path, file, body: None, left: None, allowed: 0, fields: None });
        }
        let range = known.map(|version| rest(have, version)).transpose()?.unwrap_or_default();
        let response = ask.client.get(ask.url, ask.secret, &range)?;
        let (left, has_start) = match (response.status(), known) {
            (StatusCode::OK, _) => (length(response.headers()), true),
            (StatusCode::PARTIAL_CONTENT, Some(version)) => match check_rest(&response, have, version) {
                Ok(left) => (Some(left), false),
                Err(failure) => return empty(&file, path).and(Err(failure)),
            },
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                empty(&file, path)?;
                return Err(Failure::changed("the server has less of it than has come"));
            }
            (status, _) => return Err(Failure::refused(format!("the answer is {status}, 200 OK is expected"))),
        };
        if has_start {
            empty(&file, path)?
        } else {
            ask.progress.add(have)
        }
        let allowed = ask.most.saturating_sub(if has_start { 0 } else { have });
        check_room(path.parent().unwrap_or(path), ask.check(left.unwrap_or(0), allowed)?)?;
        let (head, body) = response.into_parts();
        let fields = has_start.then_some(head.headers);
        Ok(Self { ask, path, file, body: Some(body.into_reader()), left, allowed, fields })
    }

    /// The next bytes, which are in the file by then; 0 at the end and only there.
    pub(in crate::puller) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        self.ask.stop.check()?;
        let Some(body) = &mut self.body else { return Ok(0) };
        let count = body.read(buffer).map_err(|error| Failure::of_io(&error))?;
        match &mut self.left {
            Some(left) if count == 0 && *left > 0 => {
                return Err(Failure::transient(format!("the connection ended {left} bytes early")));
            }
            Some(left) => {
                *left = left.checked_sub(count as u64).ok_or_else(|| Failure::transient("more bytes than it has"))?
            }
            None => {}
        }
        if count == 0 && !buffer.is_empty() {
            self.body = None;
        }
        self.allowed -= self.ask.check(count as u64, self.allowed)?;
        self.file.write_all(&buffer[..count]).map_err(|error| self.unwritten(&error))?;
        self.ask.progress.add(count as u64);
        Ok(count)
    }

    /// A volume that is full of what may have no end is left to others.
    fn unwritten(&self, error: &io::Error) -> Failure {
        let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let emptied = if is_full && self.left.is_none() { empty(&self.file, self.path) } else { Ok(()) };
        emptied.err().unwrap_or_else(|| failed(self.path, error))
    }

    /// All that is left; `each` sees it piece by piece.
    pub(in crate::puller) fn rest(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut piece = vec![0; PULLER_PIECE_BYTES];
        loop {
            match self.read(&mut piece)? {
                0 => return Ok(()),
                count => each(&piece[..count]),
            }
        }
    }
}

impl Ask<'_> {
    /// So many bytes, if they are allowed.
    fn check(&self, bytes: u64, allowed: u64) -> Result<u64, Failure> {
        if bytes > allowed {
            return Err(Failure::refused(format!("it has more than {} bytes", self.most)));
        }
        Ok(bytes)
    }
}

/// A download for those who know only how to read, and what became of it.
pub(super) struct Reader<'r, 'a> {
    pub(super) download: &'r mut Download<'a>,
    pub(super) failure: Option<Failure>,
    /// Bytes that have come.
    pub(super) came: &'r Cell<u64>,
}

impl Read for Reader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.download.read(buffer);
        self.came.set(self.came.get() + *read.as_ref().unwrap_or(&0) as u64);
        read.map_err(|failure| {
            let error = io::Error::other(failure.reason.clone());
            self.failure = Some(failure);
            error
        })
    }
}

impl Version {
    /// The version that an answer is of. A weak tag says only that it is as good as another (RFC 9110 §8.8.1).
    pub(in crate::puller) fn of(fields: &HeaderMap) -> Self {
        let text = |name: HeaderName| fields.get(name).and_then(|value| value.to_str().ok());
        let tag = text(ETAG).filter(|tag| tag.starts_with('"'));
        Self { validator: tag.or_else(|| text(LAST_MODIFIED)).map(str::to_owned), size: length(fields) }
    }
}

fn empty(file: &File, path: &Path) -> Result<(), Failure> {
    file.set_len(0).map_err(|error| failed(path, &error))
}

/// Asks for what is behind `have` bytes, of that version alone (RFC 9110 §13.1.5).
fn rest(have: u64, version: &Version) -> Result<Fields, Failure> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Failure::refused("a version that can't be sent"));
    let mut fields = vec![(RANGE, value(&format!("bytes={have}-"))?)];
    if let Some(validator) = &version.validator {
        fields.push((IF_RANGE, value(validator)?));
    }
    Ok(Fields(fields))
}

/// How many bytes are to come, if it is the rest of that version (RFC 9110 §14.4, §15.3.7).
fn check_rest(response: &Response<Body>, have: u64, version: &Version) -> Result<u64, Failure> {
    let changed = || Failure::changed("it has changed since a part of it came");
    if version.validator.as_ref().is_some_and(|known| is_another(response.headers(), known)) {
        return Err(changed());
    }
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(parse_range);
    match (range, version.size) {
        (Some((start, _, _)), _) if start != have => Err(Failure::transient("another range than was asked for")),
        (Some((_, _, total)), Some(size)) if total != size => Err(changed()),
        (Some((_, end, total)), _) if end.checked_add(1) == Some(total) && end >= have => Ok(total - have),
        _ => Err(Failure::transient("another range than was asked for")),
    }
}

/// Whether an answer is of another version, by what is of the same kind: not every server knows `If-Range`. One that says
/// nothing, or no more than a weak tag, is believed.
fn is_another(fields: &HeaderMap, known: &str) -> bool {
    let is_tag = known.starts_with('"');
    let given = fields.get(if is_tag { ETAG } else { LAST_MODIFIED }).and_then(|value| value.to_str().ok());
    given.is_some_and(|given| given != known && given.starts_with('"') == is_tag)
}

/// First, last, total of `bytes 1-2/3`.
fn parse_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    Some((number(start)?, number(end)?, number(total)?))
}

fn length(fields: &HeaderMap) -> Option<u64> {
    number(fields.get(CONTENT_LENGTH)?.to_str().ok()?)
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Kind;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_version_is_a_strong_tag_or_a_time() {
        const TIME: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (pairs, validator) in [
            (&[("etag", "\"a\""), ("last-modified", TIME)][..], Some("\"a\"")),
            (&[("etag", "W/\"a\""), ("last-modified", TIME)], Some(TIME)),
            (&[("etag", "W/\"a\"")], None),
            (&[], None),
        ] {
            assert_eq!(Version::of(&fields(pairs)).validator.as_deref(), validator);
        }
        assert_eq!(Version::of(&fields(&[("content-length", "7")])).size, Some(7));
        assert_eq!(Version::of(&fields(&[("content-length", "+7")])).size, None);
    }

    fn check(range: &'static str, tag: &'static str) -> Result<u64, Failure> {
        let mut response = Response::new(Body::builder().data(""));
        *response.headers_mut() = fields(&[("content-range", range), ("etag", tag)]);
        check_rest(&response, 4, &Version { validator: Some("\"a\"".to_owned()), size: Some(10) })
    }

    #[test]
    fn only_the_rest_of_the_same_version_is_taken() {
        assert_eq!(check("bytes 4-9/10", "\"a\""), Ok(6));
        for (range, tag, kind) in [
            ("bytes 4-9/10", "\"b\"", Kind::Changed),
            ("bytes 4-10/11", "\"a\"", Kind::Changed),
            ("bytes 3-9/10", "\"a\"", Kind::Transient { after: None }),
            ("bytes 4-8/10", "\"a\"", Kind::Transient { after: None }),
            ("bytes 4-9/*", "\"a\"", Kind::Transient { after: None }),
            ("bytes +4-9/10", "\"a\"", Kind::Transient { after: None }),
            ("", "\"a\"", Kind::Transient { after: None }),
        ] {
            assert_eq!(check(range, tag).unwrap_err().kind, kind, "{range} {tag}");
        }
    }

    #[test]
    fn a_version_is_another_by_what_is_of_the_same_kind() {
        const TIME: &str = "Wed, 21 Oct 2015 07:28:00 GMT";
        for (known, name, given, expected) in [
            (TIME, "last-modified", TIME, false),
            (TIME, "last-modified", "Wed, 21 Oct 2015 07:28:01 GMT", true),
            (TIME, "etag", "\"a\"", false),
            ("\"a\"", "etag", "\"b\"", true),
            ("\"a\"", "etag", "W/\"a\"", false),
            ("\"a\"", "last-modified", TIME, false),
        ] {
            assert_eq!(is_another(&fields(&[(name, given)]), known), expected, "{known} {name}: {given}");
        }
    }
}
