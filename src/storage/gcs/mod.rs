//! Google Cloud Storage, by its JSON API.
//!
//! Not here: resumable uploads (what the agent stores is small), and checking the sums of what was read, which takes all
//! of an object and not one range.

mod credentials;

use std::ops::Range;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use ureq::SendBody;
use ureq::http::{Request, request};

use self::credentials::Provider;
use super::content::Content;
use super::environment::Environment;
use super::failure::{Failure, Kind};
use super::http::{Http, encode, query};
use super::listing::Page;
use super::object::{Entry, Object};
use crate::config::{STORE_ANSWER_BYTES, STORE_PAGE_BYTES};
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;

/// A bucket.
#[derive(Debug)]
pub(super) struct Gcs {
    http: Http,
    /// Of the service, without a slash at its end.
    service: String,
    bucket: String,
    credentials: Provider,
}

impl Gcs {
    pub(super) fn open(bucket: &str, env: Environment<'_>) -> Result<Self, String> {
        let emulator = emulator(env)?;
        let proxies = Proxies::read(env.0);
        let credentials = match emulator {
            Some(_) => Provider::Anonymous,
            None => Provider::open(env, &proxies)?,
        };
        // As gcloud has it: the door of a private network.
        let endpoint = env.url("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE")?;
        let service = emulator.or(endpoint).unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
        let http = Http::new(&Roots::System, &[&service], &proxies)?;
        Ok(Self { http, service, bucket: bucket.to_owned(), credentials })
    }

    pub(super) fn put(&self, key: &str, content_type: &str, length: u64, file: SendBody<'_>) -> Result<(), Failure> {
        let query = query(&[("uploadType", "media"), ("name", key)]);
        let request = Request::post(format!("{}/upload/storage/v1/b/{}/o?{query}", self.service, encode(&self.bucket)));
        let request = request.header("content-type", content_type).header("content-length", length);
        self.with_token(request, |request| self.http.text(request.body(file), STORE_ANSWER_BYTES).map(drop))
    }

    pub(super) fn page(&self, prefix: &str, token: Option<&str>, most: usize) -> Result<Page, Failure> {
        let most = most.to_string();
        let mut pairs = vec![("prefix", prefix), ("maxResults", &most), ("fields", FIELDS)];
        pairs.extend(token.map(|token| ("pageToken", token)));
        let request = Request::get(format!("{}?{}", self.objects(), query(&pairs)));
        self.with_token(request, |request| page(&self.http.text(request.body(()), STORE_PAGE_BYTES)?))
    }

    pub(super) fn read(&self, object: &Object, range: &Range<u64>) -> Result<Content, Failure> {
        let mut pairs = vec![("alt", "media")];
        pairs.extend(object.version.as_deref().map(|version| ("ifGenerationMatch", version)));
        let request = Request::get(format!("{}/{}?{}", self.objects(), encode(&object.key), query(&pairs)))
            .header("range", format!("bytes={}-{}", range.start, range.end - 1))
            // An object that is stored with gzip comes as it is stored, and not unpacked on its way: sizes, ranges and
            // sums are of that.
            .header("accept-encoding", "gzip");
        self.with_token(request, |request| {
            Content::of(self.http.send(request.body(()))?, object, range, "x-goog-generation")
        })
    }

    fn objects(&self) -> String {
        format!("{}/storage/v1/b/{}/o", self.service, encode(&self.bucket))
    }

    /// Acts with a request that has a token; a token that was refused is not used again.
    fn with_token<T>(
        &self,
        request: request::Builder,
        act: impl FnOnce(request::Builder) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let token = self.credentials.token(SystemTime::now())?;
        let request = match &token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        };
        act(request).map_err(|failure| {
            let failure = match token {
                None if failure.kind == Kind::Refused => failure.and("no Google credentials were found"),
                _ => failure,
            };
            // A metadata server that was not there yet may be now.
            match failure.status.map(|status| status.as_u16()) {
                Some(401) if self.credentials.forget() => Failure { kind: Kind::Transient { after: None }, ..failure },
                _ => failure,
            }
        })
    }
}

/// What is told of an object: the rest of its metadata, which may be large, is not.
const FIELDS: &str = "nextPageToken,items(name,size,generation,crc32c)";

/// An emulator's address, with its scheme or, as Google's libraries have it, without.
fn emulator(env: Environment<'_>) -> Result<Option<String>, String> {
    const NAME: &str = "STORAGE_EMULATOR_HOST";
    match env.text(NAME) {
        Some(text) if !text.contains("://") => Environment(&|_| Some(format!("http://{text}"))).url(NAME),
        _ => env.url(NAME),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(default)]
    items: Vec<Item>,
    next_page_token: Option<String>,
}

/// Numbers come as text.
#[derive(Deserialize)]
struct Item {
    name: String,
    size: String,
    generation: Option<String>,
    crc32c: Option<String>,
}

/// A page of a listing.
fn page(document: &str) -> Result<Page, Failure> {
    let garbage = || Failure::transient("the listing can't be read");
    let Listed { items, next_page_token } = serde_json::from_str(document).map_err(|_| garbage())?;
    let mut entries = Vec::with_capacity(items.len());
    for Item { name, size, generation, crc32c } in items {
        let size = number(&size).ok_or_else(garbage)?;
        entries.push(Entry { key: name, size, version: generation, crc32c: crc32c.as_deref().and_then(sum) });
    }
    Ok(Page { entries, next: next_page_token.filter(|token| !token.is_empty()) })
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A checksum: four bytes, the first one first, in Base64.
fn sum(text: &str) -> Option<u32> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(variables: &[(&str, &str)]) -> Result<String, String> {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let store = Gcs::open("b", Environment(&read))?;
        Ok(format!("{} {:?}", store.service, store.credentials))
    }

    #[test]
    fn an_emulator_is_asked_without_credentials() {
        for text in ["http://127.0.0.1:4443/", "127.0.0.1:4443"] {
            let variables = [("STORAGE_EMULATOR_HOST", text), ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")];
            assert_eq!(open(&variables).as_deref(), Ok("http://127.0.0.1:4443 Anonymous"));
        }
        assert_eq!(open(&[]).as_deref(), Ok("https://storage.googleapis.com Metadata"));
        let error = open(&[("STORAGE_EMULATOR_HOST", "ftp://h")]).unwrap_err();
        assert!(error.starts_with("STORAGE_EMULATOR_HOST is not a URL"), "{error}");
    }

    #[test]
    fn a_page_has_names_sizes_generations_and_sums() {
        let document = r#"{"kind":"storage#objects","nextPageToken":"CgI=","items":[
            {"name":"m/ü\"\n","size":"18446744073709551615","generation":"17","crc32c":"4waSgw=="},
            {"name":"m/b","size":"0"}]}"#;
        let first = Entry {
            key: "m/ü\"\n".to_owned(),
            size: u64::MAX,
            version: Some("17".to_owned()),
            crc32c: Some(0xe306_9283),
        };
        let second = Entry { key: "m/b".to_owned(), size: 0, version: None, crc32c: None };
        assert_eq!(page(document), Ok(Page { entries: vec![first, second], next: Some("CgI=".to_owned()) }));
        assert_eq!(page("{}"), Ok(Page { entries: Vec::new(), next: None }));
    }

    #[test]
    fn a_document_that_is_torn_or_garbage_is_a_failure() {
        let document = r#"{"items":[{"name":"k","size":"7"}],"nextPageToken":"t"}"#;
        for end in 0..document.len() {
            assert_eq!(page(&document[..end]).unwrap_err().kind, Kind::Transient { after: None }, "{end}");
        }
        for size in ["-1", "+1", "1.5", "", "99999999999999999999", "x"] {
            assert!(page(&format!(r#"{{"items":[{{"name":"k","size":"{size}"}}]}}"#)).is_err(), "{size}");
        }
        for document in ["<html>", "[]", r#"{"items":{}}"#, r#"{"items":[{"size":"1"}]}"#, &"[".repeat(1_000_000)] {
            assert!(page(document).is_err());
        }
    }
}
