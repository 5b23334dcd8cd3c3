//! Who turns records into a file (SPEC L9): the agent itself, or an HTTP service; and the service that the agent is for
//! others.
//!
//! | module | what |
//! |---|---|
//! | `client` | asks another service |
//! | `service` | the agent's own, on the loopback |
//! | `exchange` | one request to it and the answer; pure |
//!
//! Not here: the files' formats ([`super::marshal`]), and when a refused batch is tried again.

mod client;
mod exchange;
mod service;

use std::borrow::Cow;
use std::time::Duration;

use ureq::tls::TlsConfig;

use self::client::Client;
pub(crate) use self::client::Refused;
pub use self::service::{Service, Stop};
use super::marshal::{extension, marshal};
use super::record::Record;
use crate::config::{LOG_MARSHALLER_URL, StoreConfig, StoreFormat};

/// The field in which a marshaller says what it made.
const EXTENSION: &str = "X-Log-Marshal-Extension";

/// Who turns records into a file.
pub(crate) enum Marshaller {
    /// This process, with the same code as the service that the URL names.
    BuiltIn(StoreFormat),
    /// Another service.
    Service(Client),
}

/// What was made of records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// Without a dot; safe in a key.
    pub(crate) extension: Cow<'static, str>,
}

impl Marshaller {
    /// That of this configuration. `limit`: of one call; `tls`: for a service with https.
    ///
    /// # Errors
    /// When its URL is none, or nobody makes the format.
    pub(crate) fn new(store: &StoreConfig, limit: Duration, tls: Option<&TlsConfig>) -> Result<Self, String> {
        if is_own(store) {
            let other = "--log-store-format is none of json, csv, parquet: another --log-marshaller-url has to make it";
            return store.format.map(Self::BuiltIn).ok_or_else(|| other.to_owned());
        }
        Client::new(&store.marshaller_url, limit, tls).map(Self::Service)
    }

    /// The file of these records.
    ///
    /// # Errors
    /// When another service gives none; what it says decides whether to ask again.
    pub(crate) fn marshal(&self, records: &[Record]) -> Result<File, Refused> {
        match self {
            Self::BuiltIn(format) => {
                Ok(File { bytes: marshal(*format, records), extension: Cow::from(extension(*format)) })
            }
            Self::Service(client) => client.marshal(records),
        }
    }
}

/// The default, or what names the agent's own service at another port.
fn is_own(store: &StoreConfig) -> bool {
    let url = store.marshaller_url.as_str();
    let own = |host: &&str| url == format!("http://{host}:{}/marshal", store.marshaller_port);
    url == LOG_MARSHALLER_URL || ["localhost", "127.0.0.1"].iter().any(own)
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroUsize};

    use super::*;

    fn is_built_in(url: &str, port: u16) -> bool {
        let store = StoreConfig {
            path: "logs".to_owned(),
            format: Some(StoreFormat::Csv),
            batch_size: NonZeroUsize::MIN,
            batch_interval: None,
            marshaller_url: url.to_owned(),
            marshaller_port: NonZeroU16::new(port).unwrap(),
        };
        matches!(Marshaller::new(&store, Duration::from_secs(1), None), Ok(Marshaller::BuiltIn(StoreFormat::Csv)))
    }

    #[test]
    fn the_default_and_the_agents_own_service_are_in_process() {
        assert!(is_built_in("http://localhost:9083/marshal", 9083));
        assert!(is_built_in("http://127.0.0.1:9000/marshal", 9000));
        for url in ["http://localhost:9001/marshal", "http://other:9083/marshal", "http://localhost:9083/other"] {
            assert!(!is_built_in(url, 9083), "{url}");
        }
    }

    #[test]
    fn what_is_made_in_process_is_the_services_file() {
        let file = Marshaller::BuiltIn(StoreFormat::Json).marshal(&[]).unwrap();
        assert_eq!(file, File { bytes: b"[]".to_vec(), extension: Cow::from("json") });
    }
}
