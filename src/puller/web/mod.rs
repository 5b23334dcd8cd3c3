//! A model from a web server (SPEC M9): a file, or an archive that is unpacked.
//!
//! What comes goes into a file of the agent's own in the model's folder, beside a note of which version it is of; so a
//! connection that broke, or a process that was killed, goes on where it stopped, if the server knows ranges.
//!
//! A tar is unpacked while it comes, which finds a hostile one early and waits for the disk but once. One that broke is
//! fetched to its end first and unpacked then: unpacking again what had come would make the server wait, for minutes at
//! some size, until it cut the connection again, and so for ever. Of an archive without a length the packed size, which
//! bounds the unpacked, is known only at its end. All of them take the disk the archive's size more until it is
//! unpacked.
//!
//! Not here: attempts after the first.

mod client;
mod disposition;
mod download;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use ureq::http::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use url::Url;

pub(super) use self::client::{Client, Fields};
use self::download::Reader;
pub(super) use self::download::{Ask, Download, Version};
use super::archive::{Archive, HEAD_BYTES, Packed, Tree};
use super::scratch::{clear, failed, publish};
use super::source::{Progress, Stop};
use crate::config::{ARCHIVE_SEGMENT_BYTES, FETCH_BYTES, PULLER_OWN_PREFIX};
use crate::ops::proxy::Proxies;
use crate::storage::{Failure, Kind, is_path, shown};

/// A URL, and what its host is told that nobody else is.
pub(super) struct Web {
    url: Url,
    /// Of the file if the server gives it no other, which is empty if the URL ends with a slash.
    name: String,
    secret: Fields,
    proxies: Proxies,
}

/// What is known of what has come, kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: Version,
    is_archive: bool,
    /// What the file is called.
    name: String,
}

impl Web {
    /// By a URL, with fields from the environment's `<host>-headers`, a JSON object (as KServe makes it of a secret).
    ///
    /// The error quotes no URL, as it may hold a password.
    pub(crate) fn open(uri: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut url = Url::parse(uri).map_err(|error| format!("a URL that can't be used: {error}"))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let mut secret = Fields::default();
        if let Some(password) = basic(&url) {
            secret.0.push((AUTHORIZATION, password));
        }
        let variable = format!("{host}-headers");
        if let Some(json) = env(&variable).filter(|json| !json.trim().is_empty()) {
            let given = parse_fields(&json)
                .ok_or_else(|| format!("{variable}: not a JSON object of field names and values"))?;
            secret.0.retain(|(name, _)| given.iter().all(|(other, _)| name != other));
            secret.0.extend(given);
        }
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let name = url.path().rsplit('/').next().unwrap_or_default();
        let name = percent_encoding::percent_decode_str(name).decode_utf8().map_err(|_| "a name that is not UTF-8")?;
        if !name.is_empty() && !is_file_name(&name) {
            return Err(format!("{} can't be a file's name", shown(&name)));
        }
        Ok(Self { name: name.into_owned(), url, secret, proxies: Proxies::read(env) })
    }

    /// Fetches it, and unpacks what is an archive.
    pub(crate) fn fetch(&self, folder: &Path, progress: &Progress, stop: &Stop) -> Result<(), Failure> {
        clear(folder)?;
        progress.begin(0);
        let kept = Kept { part: own(folder, "part"), note: own(folder, "note") };
        let client = Client::new(&self.proxies)?;
        let ask = Ask { client: &client, url: &self.url, secret: &self.secret, most: FETCH_BYTES, progress, stop };
        let known = kept.read();
        let resumable = known.as_ref().map(|note| &note.version).filter(|version| version.validator.is_some());
        let download = Download::open(&ask, &kept.part, resumable)?;
        match self.take(&ask, download, known, folder, &kept) {
            // What has come would fail another attempt too.
            Err(failure) if failure.kind == Kind::Refused => kept.discard().and(clear(folder)).and(Err(failure)),
            Err(failure) => Err(failure),
            Ok(()) => kept.discard(),
        }
    }

    /// Makes the model of what comes.
    fn take(
        &self,
        ask: &Ask<'_>,
        mut download: Download<'_>,
        known: Option<Note>,
        folder: &Path,
        kept: &Kept,
    ) -> Result<(), Failure> {
        let note = match (&download.fields, known) {
            (None, Some(note)) => note,
            (fields, _) => {
                let note = self.note(fields.as_ref().unwrap_or(&HeaderMap::new()))?;
                kept.write(&note)?;
                note
            }
        };
        ask.progress.expect(note.version.size.unwrap_or(0));
        if note.is_archive {
            return unpack(download, &kept.part, &note, &Target { folder, stop: ask.stop });
        }
        if note.name.is_empty() {
            return Err(Failure::refused("neither its URL nor the server names a file or an archive"));
        }
        download.rest(|_| {})?;
        publish(&kept.part, &folder.join(&note.name))
    }

    /// What an answer says that is from the start.
    fn note(&self, fields: &HeaderMap) -> Result<Note, Failure> {
        let text = |name: HeaderName| fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = text(CONTENT_TYPE).to_ascii_lowercase();
        let name = disposition::file_name(text(CONTENT_DISPOSITION)).filter(|name| is_file_name(name));
        let name = name.unwrap_or_else(|| self.name.clone());
        // A compressed file that is none of tar is one to be kept, whatever it is called by a server that goes by names.
        let is_other = name.to_ascii_lowercase().ends_with(".gz");
        let is_packed = !is_other && ARCHIVE_TYPES.iter().any(|known| content_type.starts_with(known));
        let is_archive = Archive::is_named(&name) || is_packed;
        if !matches!(text(CONTENT_ENCODING), "" | "identity") && !is_archive {
            return Err(Failure::refused("the server sends it compressed, which it was not asked for"));
        }
        Ok(Note { version: Version::of(fields), is_archive, name })
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("host", &self.url.host_str()).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is kept for another attempt.
struct Kept {
    part: PathBuf,
    note: PathBuf,
}

impl Kept {
    /// The note, unless it broke off.
    fn read(&self) -> Option<Note> {
        serde_json::from_slice(&fs::read(&self.note).ok()?).ok()
    }

    fn write(&self, note: &Note) -> Result<(), Failure> {
        let text = serde_json::to_vec(note).unwrap_or_default();
        fs::write(&self.note, text).map_err(|error| failed(&self.note, &error))
    }

    /// The part may be the model's by now.
    fn discard(&self) -> Result<(), Failure> {
        [&self.part, &self.note].into_iter().try_for_each(|path| match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, &error)),
            _ => Ok(()),
        })
    }
}

/// Where an archive is unpacked.
struct Target<'t> {
    folder: &'t Path,
    stop: &'t Stop,
}

/// Unpacks an archive while it comes, or when all of it has come, as told above.
fn unpack(mut download: Download<'_>, part: &Path, note: &Note, to: &Target<'_>) -> Result<(), Failure> {
    let is_fresh = download.fields.is_some();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    if let (true, Some(size)) = (is_fresh, note.version.size) {
        let came = Cell::new(0);
        let mut reader = Reader { download: &mut download, failure: None, came: &came };
        let begun = reader.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head);
        begun.map_err(|_| reader.failure.take().unwrap_or_else(no_archive))?;
        let kind = Archive::of(&head).ok_or_else(no_archive)?;
        if kind.is_stream() {
            let mut stream = head.chain(&mut reader);
            let mut tree = Tree::new(to.folder, size, to.stop).while_it_comes(&came);
            let unpacked = kind.unpack(Packed::Stream(&mut stream), &mut tree);
            return reader.failure.map_or(unpacked, Err);
        }
    }
    download.rest(|_| {})?;
    let file = File::open(part).map_err(|error| failed(part, &error))?;
    unpack_file(file, part, to.folder, to.stop)
}

/// Unpacks an archive that is a file. `path`: for messages.
pub(super) fn unpack_file(mut file: File, path: &Path, folder: &Path, stop: &Stop) -> Result<(), Failure> {
    let size = file.metadata().map_err(|error| failed(path, &error))?.len();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let begun = file.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head).and_then(|_| file.rewind());
    begun.map_err(|error| failed(path, &error))?;
    let kind = Archive::of(&head).ok_or_else(no_archive)?;
    kind.unpack(Packed::File(&file), &mut Tree::new(folder, size, stop))
}

fn no_archive() -> Failure {
    Failure::refused("it is called an archive, and is no zip, tar or tar.gz")
}

/// Types of archives, by the lists of the Go agent and of KServe's storage initializer.
const ARCHIVE_TYPES: [&str; 7] = [
    "application/zip",
    "application/x-zip-compressed",
    "application/x-tar",
    "application/x-gtar",
    "application/x-gzip",
    "application/gzip",
    "application/x-compressed-tar",
];

fn own(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{PULLER_OWN_PREFIX}{name}"))
}

fn is_file_name(name: &str) -> bool {
    let is_file = is_path(name) && !name.contains('/') && name.len() <= ARCHIVE_SEGMENT_BYTES;
    is_file && !name.starts_with(PULLER_OWN_PREFIX)
}

/// A URL's user and password, as the Go agent sends them.
fn basic(url: &Url) -> Option<HeaderValue> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    if user.is_empty() && password.is_empty() {
        return None;
    }
    let value = STANDARD.encode([user, password].join(&b':'));
    HeaderValue::from_str(&format!("Basic {value}")).ok()
}

fn parse_fields(json: &str) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let object: BTreeMap<String, String> = serde_json::from_str(json).ok()?;
    object.into_iter().map(|(name, value)| Some((name.parse().ok()?, HeaderValue::from_str(&value).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(uri: &str, headers: &'static str) -> Result<Web, String> {
        Web::open(uri, &|name| (name == "example.com-headers").then(|| headers.to_owned()))
    }

    fn secrets(web: &Web) -> Vec<(String, String)> {
        web.secret.0.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn a_file_is_called_by_the_end_of_its_path() {
        for (uri, name) in [
            ("https://example.com/a/model.zip?x=y/z", "model.zip"),
            ("https://example.com/a/my%20model", "my model"),
            ("https://example.com/a/", ""),
            ("https://example.com", ""),
        ] {
            assert_eq!(open(uri, "").unwrap().name, name);
        }
        for uri in
            ["http://example.com/a%2Fb", "http://example.com/%2e%2e%2f", "http://example.com/a%0a", "http://h/%ff"]
        {
            assert!(open(uri, "").is_err(), "{uri}");
        }
        assert!(open("http://example.com/.kserve-agent-part", "").is_err());
    }

    #[test]
    fn a_hosts_fields_come_from_the_environment() {
        let web = open("https://u:p%40@EXAMPLE.com:444/a", r#"{"Authorization": "Bearer x", "X-A": "b"}"#).unwrap();
        let expected =
            [("authorization", "Bearer x"), ("x-a", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(secrets(&web), expected);
        assert_eq!(secrets(&open("https://other/a", "{").unwrap()), []);
        assert!(!format!("{web:?}").contains("Bearer"));
    }

    #[test]
    fn a_password_in_the_url_is_sent_as_basic() {
        let web = open("https://u:p%40@example.com/a", "").unwrap();
        assert_eq!(secrets(&web), [("authorization".to_owned(), "Basic dTpwQA==".to_owned())]);
        assert_eq!(web.url.as_str(), "https://example.com/a");
    }

    #[test]
    fn fields_that_cant_be_used_are_named_and_not_quoted() {
        for json in ["secret", "[]", r#"{"a":1}"#, r#"{"a b":"secret"}"#, "{\"a\":\"secret\\n\"}"] {
            let error = open("http://example.com/a", json).unwrap_err();
            assert_eq!(error, "example.com-headers: not a JSON object of field names and values", "{json}");
        }
    }

    #[test]
    fn a_server_may_name_the_file() {
        let note = |url: &str, disposition: &'static str| {
            let fields = HeaderMap::from_iter([(CONTENT_DISPOSITION, HeaderValue::from_static(disposition))]);
            let note = open(url, "").unwrap().note(&fields).unwrap();
            (note.name, note.is_archive)
        };
        for (url, disposition, name, is_archive) in [
            ("http://h/download?id=7", "attachment; filename=\"model.zip\"", "model.zip", true),
            ("http://h/a/", "attachment; filename=m.bin", "m.bin", false),
            ("http://h/m.bin", "inline", "m.bin", false),
            ("http://h/m.bin", "attachment; filename=\"../../etc/passwd\"", "passwd", false),
            ("http://h/m.bin", "attachment; filename=\".kserve-agent-part\"", "m.bin", false),
            ("http://h/m.bin", "attachment; filename=\"..\"", "m.bin", false),
        ] {
            assert_eq!(note(url, disposition), (name.to_owned(), is_archive), "{disposition}");
        }
    }

    #[test]
    fn an_archive_is_known_by_its_name_or_its_type() {
        let is_archive = |name: &str, content_type: &'static str| {
            let fields = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            open(&format!("http://h/{name}"), "").unwrap().note(&fields).unwrap().is_archive
        };
        for (name, content_type, expected) in [
            ("m.zip", "application/octet-stream", true),
            ("m.TAR.GZ", "", true),
            ("m.tgz", "text/plain", true),
            ("m", "application/zip", true),
            ("m", "application/x-tar; x=y", true),
            ("m.pt", "application/octet-stream", false),
            ("m.mar", "", false),
            ("m.pkl.gz", "application/gzip", false),
        ] {
            assert_eq!(is_archive(name, content_type), expected, "{name} {content_type}");
        }
    }
}
