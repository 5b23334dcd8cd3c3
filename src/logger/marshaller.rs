//! Who turns records into a file (SPEC L9): the agent itself, or an HTTP service.
//!
//! Architecture Invariant: the agent is only a client of such a service. The Go agent runs one on port 9083, which nobody
//! but the Go agent calls. With the default URL records are marshalled here, and no port is opened.
//!
//! Not here: the files' formats ([`super::marshal`]), and when a refused batch is tried again.

mod client;

use std::time::Duration;

use ureq::tls::TlsConfig;

pub(crate) use self::client::{Client, Made, Refused};
use crate::config::{LOG_MARSHALLER_URL, StoreConfig, StoreFormat};

/// Who turns records into a file.
pub(crate) enum Marshaller {
    /// This process.
    BuiltIn(StoreFormat),
    /// Another service.
    Service(Client),
}

impl Marshaller {
    /// That of this configuration. `limit`: of one call; `tls`: for a service with https.
    ///
    /// # Errors
    /// When its URL is none, or nobody makes the format.
    pub(crate) fn new(store: &StoreConfig, limit: Duration, tls: Option<&TlsConfig>) -> Result<Self, String> {
        if store.marshaller_url == LOG_MARSHALLER_URL {
            let other = "--log-store-format is none of json, csv, parquet: another --log-marshaller-url has to make it";
            return store.format.map(Self::BuiltIn).ok_or_else(|| other.to_owned());
        }
        Client::new(&store.marshaller_url, limit, tls).map(Self::Service)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn is_built_in(url: &str) -> bool {
        let store = StoreConfig {
            path: "logs".to_owned(),
            format: Some(StoreFormat::Csv),
            batch_size: NonZeroUsize::MIN,
            batch_interval: None,
            marshaller_url: url.to_owned(),
        };
        matches!(Marshaller::new(&store, Duration::from_secs(1), None), Ok(Marshaller::BuiltIn(StoreFormat::Csv)))
    }

    #[test]
    fn only_the_default_url_means_this_process() {
        assert!(is_built_in("http://localhost:9083/marshal"));
        for url in ["http://localhost:9001/marshal", "http://other:9083/marshal", "http://localhost:9083/other"] {
            assert!(!is_built_in(url), "{url}");
        }
    }
}
