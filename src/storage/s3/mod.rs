//! Amazon S3 and what speaks its language: MinIO, Ceph and others.
//!
//! `rusty-s3` signs, so a request's rights are in its URL (a "presigned" one), good for a quarter of an hour and for that
//! request only.
//!
//! Not here: uploads in parts (what the agent stores is small), and following a bucket to its region, which a failure
//! names when it is another.

mod credentials;

use std::ops::Range;

use rusty_s3::actions::{ListObjectsV2, S3Action as _};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use ureq::SendBody;
use ureq::http::Request;

use self::credentials::{Profile, Provider, Surroundings};
use super::content::Content;
use super::environment::Environment;
use super::failure::{Failure, Kind};
use super::http::Http;
use super::listing::Page;
use super::object::{Entry, Object};
use super::xml;
use crate::config::{STORE_ANSWER_BYTES, STORE_PAGE_BYTES, STORE_SIGNATURE_LIFE};
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;

/// A bucket.
#[derive(Debug)]
pub(super) struct S3 {
    http: Http,
    bucket: Bucket,
    credentials: Provider,
}

impl S3 {
    pub(super) fn open(name: &str, env: Environment<'_>) -> Result<Self, String> {
        let proxies = Proxies::read(env.0);
        let profile = Profile::of(env);
        let region = region(&profile, env);
        let place = place(name, &region, env)?;
        let roots = match (env.switch("S3_VERIFY_SSL")?, env.text("AWS_CA_BUNDLE")) {
            (Some(false), _) => {
                log::warn!("S3_VERIFY_SSL: whoever answers for {} gets what is stored there", place.endpoint);
                Roots::Unverified
            }
            (_, Some(file)) => Roots::File(file.into()),
            (_, None) => Roots::System,
        };
        let of_bundle = |error: String| match roots {
            Roots::File(_) => format!("AWS_CA_BUNDLE: {error}"),
            _ => error,
        };
        let http = Http::new(&roots, &[&place.endpoint], &proxies).map_err(of_bundle)?;
        let with = Surroundings { region: &region, roots: &roots, proxies: &proxies, env };
        let credentials = Provider::open(profile, &with)?;
        let endpoint = place.endpoint.parse().map_err(|_| wrong_endpoint())?;
        let bucket = Bucket::new(endpoint, place.style, name.to_owned(), region).map_err(|_| {
            format!(
                "the bucket {name:?} can't be part of a host's name; S3_USER_VIRTUAL_BUCKET=false puts it in the path"
            )
        })?;
        Ok(Self { http, bucket, credentials })
    }

    pub(super) fn put(&self, key: &str, content_type: &str, length: u64, file: SendBody<'_>) -> Result<(), Failure> {
        self.with_keys(|keys| {
            let url = self.bucket.put_object(keys, key).sign(STORE_SIGNATURE_LIFE);
            let request =
                Request::put(url.as_str()).header("content-type", content_type).header("content-length", length);
            self.http.text(request.body(file), STORE_ANSWER_BYTES).map(drop)
        })
    }

    pub(super) fn page(&self, prefix: &str, token: Option<&str>, most: usize) -> Result<Page, Failure> {
        self.with_keys(|keys| {
            let mut list = self.bucket.list_objects_v2(keys);
            list.with_prefix(prefix);
            list.with_max_keys(most);
            if let Some(token) = token {
                list.with_continuation_token(token);
            }
            let url = list.sign(STORE_SIGNATURE_LIFE);
            page(&self.http.text(Request::get(url.as_str()).body(()), STORE_PAGE_BYTES)?)
        })
    }

    pub(super) fn read(&self, object: &Object, range: &Range<u64>) -> Result<Content, Failure> {
        self.with_keys(|keys| {
            let url = self.bucket.get_object(keys, &object.key).sign(STORE_SIGNATURE_LIFE);
            let mut request =
                Request::get(url.as_str()).header("range", format!("bytes={}-{}", range.start, range.end - 1));
            if let Some(version) = &object.version {
                request = request.header("if-match", version);
            }
            Content::of(self.http.send(request.body(()))?, object, range, "etag")
        })
    }

    /// Acts with valid keys; keys that were refused for what they are are not used again.
    fn with_keys<T>(&self, act: impl FnOnce(Option<&Credentials>) -> Result<T, Failure>) -> Result<T, Failure> {
        let keys = self.credentials.current()?;
        act(keys.as_ref()).map_err(|failure| {
            let is_of_keys = OUTDATED.iter().any(|code| failure.reason.contains(code));
            if is_of_keys && self.credentials.forget() {
                return Failure { kind: Kind::Transient { after: None }, ..failure };
            }
            match (failure.kind, &keys) {
                (Kind::Refused, None) => failure.and("no AWS credentials were found"),
                _ => failure,
            }
        })
    }
}

/// Codes of S3 for temporary keys that have ended, or that their service has replaced.
const OUTDATED: [&str; 3] = ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"];

/// A page of a listing.
fn page(document: &str) -> Result<Page, Failure> {
    let response = xml::read(document, "ListBucketResult", ListObjectsV2::parse_response)?;
    let mut entries = Vec::with_capacity(response.contents.len());
    for object in response.contents {
        let size = object.size.ok_or_else(|| Failure::transient("the listing has an object without a size"))?;
        entries.push(Entry { key: object.key, size, version: object.etag, crc32c: None });
    }
    Ok(Page { entries, next: response.next_continuation_token })
}

/// `AWS_DEFAULT_REGION` is what KServe's secret sets, and so the bucket's; `AWS_REGION` is also set by EKS, to the
/// cluster's. The profile's comes last.
fn region(profile: &Profile, env: Environment<'_>) -> String {
    let given = env.text("AWS_DEFAULT_REGION").or_else(|| env.text("AWS_REGION"));
    given.or_else(|| profile.region()).unwrap_or_else(|| "us-east-1".to_owned())
}

/// Where requests go.
#[derive(Debug)]
struct Place {
    endpoint: String,
    style: UrlStyle,
}

/// The endpoint, and whether the bucket is in its host's name, as AWS wants it, or in the path, as other stores do unless
/// `S3_USER_VIRTUAL_BUCKET` says otherwise.
fn place(bucket: &str, region: &str, env: Environment<'_>) -> Result<Place, String> {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    // KServe's controller sets this one for every secret; in other regions than the first it only redirects.
    let given = env.url("AWS_ENDPOINT_URL")?.filter(|url| url != "https://s3.amazonaws.com");
    let is_virtual = env.switch("S3_USER_VIRTUAL_BUCKET")?;
    let is_accelerated = env.switch("S3_USE_ACCELERATE")?.unwrap_or(false);
    let is_aws = given.as_ref().is_none_or(|url| url.contains(".amazonaws.com"));
    let endpoint = match given {
        Some(_) if is_accelerated => {
            return Err("S3_USE_ACCELERATE: only without AWS_ENDPOINT_URL, it is a service of AWS".to_owned());
        }
        Some(url) => url,
        None if is_accelerated => format!("https://s3-accelerate.{domain}"),
        None => format!("https://s3.{region}.{domain}"),
    };
    // A certificate for `*.s3.…` does not cover two labels.
    let is_label = !bucket.contains(['.', '_']) && !bucket.contains(|c: char| c.is_ascii_uppercase());
    let style =
        if is_virtual.unwrap_or(is_aws && is_label) || is_accelerated { UrlStyle::VirtualHost } else { UrlStyle::Path };
    if endpoint.parse::<url::Url>().is_err() {
        return Err(wrong_endpoint());
    }
    Ok(Place { endpoint, style })
}

fn wrong_endpoint() -> String {
    "AWS_DEFAULT_REGION or AWS_REGION: it can't be part of a host's name".to_owned()
}

#[cfg(test)]
mod tests;
