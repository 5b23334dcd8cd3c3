//! The bytes of one range of an object, as they come.
//!
//! Not here: attempts after the first. Whoever reads knows how many bytes have come, and asks for the rest.

use std::fmt;
use std::io::Read as _;
use std::ops::Range;

use ureq::http::{Response, StatusCode};
use ureq::{Body, BodyReader};

use super::failure::Failure;
use super::object::Object;

/// What is left of a range.
pub struct Content {
    body: Option<BodyReader<'static>>,
    left: u64,
}

impl Content {
    /// The content of an empty range, for which no store is asked: they refuse ranges of nothing.
    pub(super) fn empty() -> Self {
        Self { body: None, left: 0 }
    }

    /// Of an answer, if it is that range of that version of the object and not something else. `version_field` is the
    /// field with the version: not every store knows the condition that it was asked with, but all say what they send.
    pub(super) fn of(
        response: Response<Body>,
        object: &Object,
        range: &Range<u64>,
        version_field: &str,
    ) -> Result<Self, Failure> {
        let is_whole = *range == (0..object.size);
        let given = response.headers().get(version_field).and_then(|value| value.to_str().ok());
        if let (Some(given), Some(listed)) = (given, &object.version)
            && given != listed
        {
            return Err(Failure::changed("another version than was listed"));
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let given = response.headers().get("content-range").and_then(|value| value.to_str().ok());
                let wanted = format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
                if given != Some(wanted.as_str()) {
                    return Err(of_another_size(given.and_then(total), object.size));
                }
            }
            // All of it, by a store that was asked for all of it.
            StatusCode::OK if is_whole => match response.body().content_length() {
                Some(length) if length != object.size => return Err(of_another_size(Some(length), object.size)),
                _ => {}
            },
            status => return Err(Failure::refused(format!("no range but {status}"))),
        }
        Ok(Self { body: Some(response.into_body().into_reader()), left: range.end - range.start })
    }

    /// The next bytes, 0 at the end of the range and only there.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Some(body) = &mut self.body else { return Ok(0) };
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 && self.left > 0 {
            return Ok(0);
        }
        if self.left == 0 {
            // Reading to the very end gives the connection back for the next request.
            let more = body.read(&mut [0]).map_err(|error| Failure::of_io(&error))?;
            self.body = None;
            return if more == 0 { Ok(0) } else { Err(Failure::transient("more bytes than were asked for")) };
        }
        let count = body.read(&mut buffer[..most]).map_err(|error| Failure::of_io(&error))?;
        if count == 0 {
            return Err(Failure::transient(format!("the connection ended {} bytes early", self.left)));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The number behind the slash (RFC 9110 §14.4).
fn total(content_range: &str) -> Option<u64> {
    let digits = content_range.rsplit_once('/')?.1;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Stores without versions show a change in this way only.
fn of_another_size(size: Option<u64>, listed: u64) -> Failure {
    match size {
        Some(size) if size != listed => Failure::changed(format!("has {size} bytes, not {listed} as it was listed")),
        _ => Failure::transient("another range than was asked for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::failure::Kind;

    fn answer(status: u16, fields: &[(&str, &str)], bytes: &str) -> Response<Body> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(Body::builder().data(bytes.to_owned())).unwrap()
    }

    fn object(size: u64) -> Object {
        Object { key: "k".to_owned(), path: "k".to_owned(), size, version: None, crc32c: None }
    }

    fn read(content: Result<Content, Failure>) -> Result<String, Failure> {
        let mut content = content?;
        let (mut text, mut buffer) = (String::new(), [0; 3]);
        loop {
            match content.read(&mut buffer)? {
                0 => return Ok(text),
                count => text.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
            }
        }
    }

    #[test]
    fn a_range_is_read_to_its_end() {
        let response = answer(206, &[("content-range", "bytes 2-6/10")], "cdefg");
        assert_eq!(read(Content::of(response, &object(10), &(2..7), "etag")), Ok("cdefg".to_owned()));
        assert_eq!(read(Ok(Content::empty())), Ok(String::new()));
    }

    #[test]
    fn a_whole_object_may_come_without_being_called_a_range() {
        assert_eq!(read(Content::of(answer(200, &[], "abc"), &object(3), &(0..3), "etag")), Ok("abc".to_owned()));
        let failure = read(Content::of(answer(200, &[], "abc"), &object(10), &(2..5), "etag")).unwrap_err();
        assert_eq!((failure.kind, failure.reason.as_str()), (Kind::Refused, "no range but 200 OK"));
    }

    #[test]
    fn a_body_that_ends_early_or_late_is_a_failure() {
        let short = answer(206, &[("content-range", "bytes 0-4/10")], "abc");
        let failure = read(Content::of(short, &object(10), &(0..5), "etag")).unwrap_err();
        assert_eq!(failure, Failure::transient("the connection ended 2 bytes early"));
        let long = answer(206, &[("content-range", "bytes 0-1/10")], "abc");
        let failure = read(Content::of(long, &object(10), &(0..2), "etag")).unwrap_err();
        assert_eq!(failure, Failure::transient("more bytes than were asked for"));
    }

    #[test]
    fn an_object_of_another_size_has_changed() {
        for (status, fields, bytes) in
            [(206, &[("content-range", "bytes 0-1/11")][..], "ab"), (206, &[("content-range", "bytes 0-0/1")], "a")]
        {
            let failure = Content::of(answer(status, fields, bytes), &object(10), &(0..2), "etag").unwrap_err();
            assert_eq!(failure.kind, Kind::Changed, "{failure}");
        }
        let failure = Content::of(answer(200, &[], "abc"), &object(2), &(0..2), "etag").unwrap_err();
        assert_eq!(failure.reason, "has 3 bytes, not 2 as it was listed");
    }

    #[test]
    fn another_version_is_not_taken() {
        let fields = [("content-range", "bytes 0-1/10"), ("etag", "\"new\"")];
        let mut object = object(10);
        assert!(Content::of(answer(206, &fields, "ab"), &object, &(0..2), "etag").is_ok(), "listed without one");
        object.version = Some("\"new\"".to_owned());
        assert!(Content::of(answer(206, &fields, "ab"), &object, &(0..2), "etag").is_ok());
        object.version = Some("\"old\"".to_owned());
        let failure = Content::of(answer(206, &fields, "ab"), &object, &(0..2), "etag").unwrap_err();
        assert_eq!(failure.kind, Kind::Changed);
    }

    #[test]
    fn another_range_is_not_taken() {
        for range in ["bytes 1-2/10", "bytes 0-1/*", "bytes */10", "0-1/10", "bytes 0-1/+10", ""] {
            let response = answer(206, &[("content-range", range)], "ab");
            let failure = Content::of(response, &object(10), &(0..2), "etag").unwrap_err();
            assert_eq!(failure, Failure::transient("another range than was asked for"), "{range}");
        }
    }
}
