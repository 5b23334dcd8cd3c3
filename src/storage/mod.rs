//! Object stores: small objects are put into them by the payload logger (SPEC L8), models are listed and read by the
//! puller (SPEC M6–M8).
//!
//! One request at a time and none twice: a [`Failure`] says whether another attempt is worth it, and whoever calls has a
//! policy. One range of one object at a time, each for the very version that was listed: whoever wants several at once
//! has threads, as a store may be used by many of them.
//!
//! Not here: files, threads, retries, checksums of what was read, and what a model is.

mod absolute;
mod address;
mod azure;
mod content;
mod environment;
mod failure;
mod far;
mod gcs;
mod http;
mod listing;
mod object;
mod pace;
mod s3;
#[cfg(test)]
mod scripted;
mod token;
mod watched;
mod xml;

use std::io::Read;
use std::ops::Range;

use ureq::SendBody;

use self::address::{Address, Service};
use self::azure::Azure;
pub use self::content::Content;
pub(crate) use self::environment::Environment;
pub(crate) use self::failure::readable;
pub use self::failure::{Failure, Kind};
use self::gcs::Gcs;
pub(crate) use self::http::{Http, encode, encode_path};
pub use self::listing::Listing;
use self::listing::Page;
pub use self::object::Object;
use self::object::check_key;
pub(crate) use self::object::{is_path, shown};
use self::s3::S3;

/// A place in a store, and the right to use it.
#[derive(Debug)]
pub struct Store {
    address: Address,
    client: Client,
}

/// What each store is asked in its own words.
#[derive(Debug)]
enum Client {
    S3(S3),
    Gcs(Gcs),
    Azure(Azure),
}

impl Store {
    /// Whether a URL is one of a store; an `https` URL of a web server is not.
    #[must_use]
    pub fn is_at(url: &str) -> bool {
        Address::is_one(url)
    }

    /// A store by its URL, with credentials from the environment. Nothing is asked of it yet.
    ///
    /// The error says which part of the URL or which variable can't be used, and what is allowed; it holds no secret.
    pub fn open(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let address = Address::parse(url)?;
        let env = Environment(env);
        let client = match &address.service {
            Service::S3 => Client::S3(S3::open(&address.bucket, env)?),
            Service::Gcs => Client::Gcs(Gcs::open(&address.bucket, env)?),
            Service::Azure { host, sas } => Client::Azure(Azure::open(&address, host.as_deref(), sas.as_deref(), env)?),
        };
        Ok(Self { address, client })
    }

    /// What people call it; without a signature.
    #[must_use]
    pub fn name(&self) -> String {
        self.address.text()
    }

    /// Stores a file of so many bytes as an object, whole or not at all, under the store's prefix and this key; one of that
    /// name is replaced.
    pub fn put(&self, key: &str, content_type: &str, length: u64, file: &mut dyn Read) -> Result<(), Failure> {
        let key =
            if self.address.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.address.prefix) };
        check_key(&key)?;
        let file = SendBody::from_reader(file);
        let result = match &self.client {
            Client::S3(s3) => s3.put(&key, content_type, length, file),
            Client::Gcs(gcs) => gcs.put(&key, content_type, length, file),
            Client::Azure(azure) => azure.put(&key, content_type, length, file),
        };
        result.map_err(|failure| failure.of(format_args!("storing {}", shown(&key))))
    }

    /// Lists what is under the store's prefix: the objects of that folder, or the one object of that name.
    #[must_use]
    pub fn list(&self) -> Listing<'_> {
        Listing::new(self)
    }

    /// Whether an object is the one that the store's prefix names, and none below it.
    pub(crate) fn is_of_name(&self, object: &Object) -> bool {
        object.key == self.address.prefix
    }

    /// Reads bytes of an object that was listed, if it is still that one.
    pub fn read(&self, object: &Object, range: Range<u64>) -> Result<Content, Failure> {
        let range = range.start..range.end.min(object.size);
        if range.is_empty() {
            return Ok(Content::empty());
        }
        let result = match &self.client {
            Client::S3(s3) => s3.read(object, &range),
            Client::Gcs(gcs) => gcs.read(object, &range),
            Client::Azure(azure) => azure.read(object, &range),
        };
        result.map_err(|failure| failure.of(format_args!("reading {}", shown(&object.key))))
    }

    /// One page of what begins with `prefix`.
    fn page(&self, prefix: &str, token: Option<&str>, most: usize) -> Result<Page, Failure> {
        let result = match &self.client {
            Client::S3(s3) => s3.page(prefix, token, most),
            Client::Gcs(gcs) => gcs.page(prefix, token, most),
            Client::Azure(azure) => azure.page(prefix, token, most),
        };
        result.map_err(|failure| failure.of(format_args!("listing {}", shown(prefix))))
    }
}
