//! Header fields for the sink from `--log-headers-file`: lines of `Name: value`, as a mounted Secret holds them, read again
//! when the file changes (SPEC L7).
//!
//! The values are secret and are never written to the log. As long as the file was never readable no event is sent: without
//! its credentials a sink would refuse events for good, and they would be lost.
//!
//! Not here: who gets them ([`super::sink`]).

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::LOG_HEADERS_BYTES;
use crate::ops::reload::Stamp;

/// The file and what was read of it.
#[derive(Debug)]
pub(super) struct SecretFields {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Fields)>>,
}

/// Fields as they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) bytes: Arc<[u8]>,
    /// One of them is `Authorization`, which takes the place of the URL's.
    pub(super) has_authorization: bool,
}

/// What an event says itself, and what would change how it is framed or where it goes: the agent's own.
const RESERVED: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

impl SecretFields {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    /// Returns the fields of this moment; those of before if the file is gone or of no use.
    ///
    /// # Errors
    /// When it never was of use.
    pub(super) fn current(&self) -> Result<Fields, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path).ok().flatten();
        if let Some((old, fields)) = &*read
            && stamp.is_none_or(|stamp| stamp == *old)
        {
            return Ok(fields.clone());
        }
        match (load(&self.path).and_then(|text| parse(&text)), stamp) {
            (Ok(fields), Some(stamp)) => Ok(read.insert((stamp, fields)).1.clone()),
            (Ok(_), None) => Err(self.error("it has gone")),
            (Err(why), _) => match &mut *read {
                None => Err(self.error(&why)),
                Some((old, fields)) => {
                    log::warn!("{}; the fields that were read before are still sent", self.error(&why));
                    // It is said once.
                    *old = stamp.unwrap_or(*old);
                    Ok(fields.clone())
                }
            },
        }
    }

    fn error(&self, why: &str) -> String {
        format!("--log-headers-file {}: {why}", self.path.display())
    }
}

fn load(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let count = file.take(LOG_HEADERS_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if count as u64 > LOG_HEADERS_BYTES {
        return Err(format!("it is longer than {LOG_HEADERS_BYTES} bytes"));
    }
    Ok(text)
}

/// Makes fields of lines. An error names the line and never its content.
fn parse(text: &str) -> Result<Fields, String> {
    let (mut bytes, mut has_authorization) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", number + 1);
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("no `Name: value`"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(wrong("the name is none of a header field"));
        }
        if is_reserved(name) {
            return Err(wrong("this field is the agent's own"));
        }
        let value = value.trim();
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(wrong("a control character in the value"));
        }
        has_authorization |= name.eq_ignore_ascii_case("authorization");
        for part in [name, ": ", value, "\r\n"] {
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    Ok(Fields { bytes: bytes.into(), has_authorization })
}

fn is_reserved(name: &str) -> bool {
    let is_attribute = name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("ce-"));
    is_attribute || RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_become_fields() {
        let fields = parse("# for the sink\nAuthorization:  Bearer a:b \r\n\nX-Tenant: t\n").unwrap();
        assert_eq!(&*fields.bytes, b"Authorization: Bearer a:b\r\nX-Tenant: t\r\n");
        assert!(fields.has_authorization && !parse("X: y").unwrap().has_authorization);
        assert!(parse("").unwrap().bytes.is_empty());
    }

    #[test]
    fn a_line_that_is_no_field_is_named_without_its_content() {
        for text in [
            "secret",
            "a b: secret",
            ": secret",
            "Host: secret",
            "content-length: secret",
            "Ce-Id: secret",
            "A: sec\u{1}ret",
        ] {
            let why = parse(&format!("A: b\n{text}")).unwrap_err();
            assert!(why.starts_with("line 2: ") && !why.contains("sec"), "{why}");
        }
    }

    #[test]
    fn a_file_is_read_when_it_appears_or_changes_and_kept_when_it_is_of_no_use() {
        let path = std::env::temp_dir().join(format!("kserve-agent-fields-{}", std::process::id()));
        let fields = SecretFields::new(path.clone());
        assert!(fields.current().unwrap_err().contains("No such file"));
        let read = |fields: &SecretFields| String::from_utf8(fields.current().unwrap().bytes.to_vec()).unwrap();
        fs::write(&path, "A: 1").unwrap();
        assert_eq!(read(&fields), "A: 1\r\n");
        fs::write(&path, "A: 23").unwrap();
        assert_eq!(read(&fields), "A: 23\r\n");
        fs::write(&path, "torn").unwrap();
        assert_eq!(read(&fields), "A: 23\r\n");
        fs::write(&path, "A: 4567").unwrap();
        assert_eq!(read(&fields), "A: 4567\r\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&fields), "A: 4567\r\n");
    }
}
