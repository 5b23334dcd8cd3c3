//! Azure Blob Storage.
//!
//! Not here: uploads in blocks (what the agent stores is small), and the Data Lake's own protocol, whose objects are the
//! same ones.

mod credentials;
mod sign;

use std::ops::Range;
use std::time::SystemTime;

use instant_xml::FromXml;
use ureq::SendBody;
use ureq::http::{Request, request};

use self::credentials::Provider;
use super::address::Address;
use super::content::Content;
use super::environment::Environment;
use super::failure::{Failure, Kind};
use super::http::{Http, encode_path, query};
use super::listing::Page;
use super::object::{Entry, Object};
use super::xml;
use crate::config::{STORE_ANSWER_BYTES, STORE_PAGE_BYTES};
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;

/// A container.
#[derive(Debug)]
pub(super) struct Azure {
    http: Http,
    /// Of the account, without a slash at its end: `https://account.blob.core.windows.net`.
    service: String,
    container: String,
    credentials: Provider,
}

/// A request before it is signed.
struct Ask<'a> {
    verb: &'static str,
    /// In the container; none for the container itself.
    key: Option<&'a str>,
    query: Vec<(&'a str, &'a str)>,
    /// Names in lower case.
    fields: Vec<(&'static str, String)>,
    length: u64,
}

impl Azure {
    pub(super) fn open(
        address: &Address,
        host: Option<&str>,
        sas: Option<&str>,
        env: Environment<'_>,
    ) -> Result<Self, String> {
        let account = host.and_then(|host| host.split('.').next()).map(str::to_owned);
        let account = account.or_else(|| env.text("AZURE_ACCOUNT_NAME"));
        let service = match (env.url("AZURE_SERVICE_URL")?, host, &account) {
            (Some(url), _, _) => url,
            (None, Some(host), _) => format!("https://{host}"),
            (None, None, Some(account)) => format!("https://{account}.blob.core.windows.net"),
            (None, None, None) => {
                return Err("the URL names no account; AZURE_ACCOUNT_NAME or AZURE_SERVICE_URL may".to_owned());
            }
        };
        let proxies = Proxies::read(env.0);
        let credentials = Provider::open(account, sas, env, &proxies)?;
        let http = Http::new(&Roots::System, &[&service], &proxies)?;
        Ok(Self { http, service, container: address.bucket.clone(), credentials })
    }

    pub(super) fn put(&self, key: &str, content_type: &str, length: u64, file: SendBody<'_>) -> Result<(), Failure> {
        let fields = vec![("content-type", content_type.to_owned()), ("x-ms-blob-type", "BlockBlob".to_owned())];
        let ask = Ask { verb: "PUT", key: Some(key), query: Vec::new(), fields, length };
        self.with_credentials(ask, |request| {
            let request = request.header("content-length", length);
            self.http.text(request.body(file), STORE_ANSWER_BYTES).map(drop)
        })
    }

    pub(super) fn page(&self, prefix: &str, token: Option<&str>, most: usize) -> Result<Page, Failure> {
        let most = most.to_string();
        let mut query = vec![("comp", "list"), ("maxresults", &most), ("prefix", prefix), ("restype", "container")];
        query.extend(token.map(|token| ("marker", token)));
        let ask = Ask { verb: "GET", key: None, query, fields: Vec::new(), length: 0 };
        self.with_credentials(ask, |request| page(&self.http.text(request.body(()), STORE_PAGE_BYTES)?))
    }

    pub(super) fn read(&self, object: &Object, range: &Range<u64>) -> Result<Content, Failure> {
        let mut fields = vec![("x-ms-range", format!("bytes={}-{}", range.start, range.end - 1))];
        fields.extend(object.version.clone().map(|version| ("if-match", version)));
        let ask = Ask { verb: "GET", key: Some(&object.key), query: Vec::new(), fields, length: 0 };
        self.with_credentials(ask, |request| Content::of(self.http.send(request.body(()))?, object, range, "etag"))
    }

    /// Acts with a request that has credentials; a token that was refused is not used again.
    fn with_credentials<T>(
        &self,
        mut ask: Ask<'_>,
        act: impl FnOnce(request::Builder) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let now = SystemTime::now();
        ask.fields.push(("x-ms-date", sign::date(now)));
        ask.fields.push(("x-ms-version", VERSION.to_owned()));
        let key = ask.key.map(|key| format!("/{}", encode_path(key))).unwrap_or_default();
        let url = format!("{}/{}{key}", self.service, self.container);
        let field = self.credentials.field(&url, &ask, now)?;
        let signature = self.credentials.signature();
        let is_anonymous = field.is_none() && signature.is_empty();
        ask.fields.extend(field.map(|field| ("authorization", field)));
        let parts: Vec<String> =
            [query(&ask.query), signature.to_owned()].into_iter().filter(|part| !part.is_empty()).collect();
        let mut request = Request::builder().method(ask.verb).uri(format!("{url}?{}", parts.join("&")));
        for (name, value) in ask.fields {
            request = request.header(name, value);
        }
        act(request).map_err(|failure| match (failure.kind, failure.status.map(|status| status.as_u16())) {
            (_, Some(401)) if self.credentials.forget() => Failure { kind: Kind::Transient { after: None }, ..failure },
            (Kind::Refused, _) if is_anonymous => failure.and("no Azure credentials were found"),
            _ => failure,
        })
    }
}

/// Of the protocol: the first that says which names are percent-encoded in a listing is 2021-02-12.
const VERSION: &str = "2021-12-02";

#[derive(FromXml)]
#[xml(rename = "EnumerationResults")]
struct Results {
    blobs: Option<Blobs>,
    #[xml(rename = "NextMarker")]
    next: Option<String>,
}

#[derive(FromXml)]
#[xml(rename = "Blobs")]
struct Blobs {
    blobs: Vec<Blob>,
}

#[derive(FromXml)]
#[xml(rename = "Blob")]
struct Blob {
    name: Name,
    properties: Properties,
}

#[derive(FromXml)]
#[xml(rename = "Name")]
struct Name {
    /// Of names with characters that XML does not have.
    #[xml(attribute, rename = "Encoded")]
    is_encoded: Option<bool>,
    #[xml(direct)]
    text: String,
}

#[derive(FromXml)]
#[xml(rename = "Properties")]
struct Properties {
    #[xml(rename = "Etag")]
    etag: Option<String>,
    #[xml(rename = "Content-Length")]
    size: Option<u64>,
    /// `directory` for the folders of an account that has real ones.
    #[xml(rename = "ResourceType")]
    kind: Option<String>,
}

/// A page of a listing.
fn page(document: &str) -> Result<Page, Failure> {
    let results: Results = xml::parse(document.trim_start_matches('\u{feff}'), "EnumerationResults")?;
    let mut entries = Vec::new();
    for Blob { name, properties } in results.blobs.map(|blobs| blobs.blobs).unwrap_or_default() {
        if properties.kind.as_deref() == Some("directory") {
            continue;
        }
        let size = properties.size.ok_or_else(|| Failure::transient("the listing has an object without a size"))?;
        let key = match name.is_encoded {
            Some(true) => percent_encoding::percent_decode_str(&name.text).decode_utf8_lossy().into_owned(),
            _ => name.text,
        };
        entries.push(Entry { key, size, version: properties.etag.map(quoted), crc32c: None });
    }
    Ok(Page { entries, next: results.next.filter(|next| !next.is_empty()) })
}

/// An entity tag as fields have it (RFC 9110 §8.8.3); listings leave the quotes out.
fn quoted(tag: String) -> String {
    if tag.ends_with('"') { tag } else { format!("\"{tag}\"") }
}

#[cfg(test)]
mod tests;
