//! With whose rights Google is asked: those of a service account's key, else those of the machine or of the Kubernetes
//! service account (workload identity), which Google's metadata server gives, else nobody's.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use ureq::http::Request;

use super::jwt::ServiceKey;
use crate::config::{STORE_ANSWER_BYTES, STORE_METADATA_RETRY};
use crate::storage::environment::Environment;
use crate::storage::failure::{Failure, Kind};
use crate::storage::http::{Http, query};
use crate::storage::token::{self, Cached};

/// The rights.
pub(super) enum Rights {
    Nobody,
    Key {
        key: Box<ServiceKey>,
        token: Cached<Option<String>>,
    },
    Machine {
        /// Of the token.
        address: String,
        token: Cached<Option<String>>,
    },
}

impl Rights {
    pub(super) fn open(env: Environment<'_>) -> Result<Self, String> {
        const NAME: &str = "GOOGLE_APPLICATION_CREDENTIALS";
        if let Some(path) = env.text(NAME) {
            let text = fs::read_to_string(&path).map_err(|error| format!("{NAME}: {path}: {error}"))?;
            let key = ServiceKey::parse(&text).map_err(|error| format!("{NAME}: {path}: {error}"))?;
            return Ok(Self::Key { key: Box::new(key), token: Cached::new() });
        }
        let host = env.text("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".to_owned());
        let address = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        Ok(Self::Machine { address, token: Cached::new() })
    }

    /// The address of whoever gives tokens.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Nobody => "",
            Self::Key { key, .. } => key.token_uri(),
            Self::Machine { address, .. } => address,
        }
    }

    pub(super) fn token(&self, http: &Http, now: SystemTime) -> Result<Option<String>, Failure> {
        match self {
            Self::Nobody => Ok(None),
            Self::Key { key, token } => token.current(now, || of_key(key, http, now)),
            Self::Machine { address, token } => token.current(now, || of_machine(address, http)),
        }
    }

    /// Whether there will be another token next time.
    pub(super) fn forget(&self) -> bool {
        match self {
            Self::Nobody => false,
            Self::Key { token, .. } | Self::Machine { token, .. } => {
                token.forget();
                true
            }
        }
    }
}

/// A token for a statement that the key has signed (RFC 7523).
fn of_key(key: &ServiceKey, http: &Http, now: SystemTime) -> Result<(Option<String>, Duration), Failure> {
    let statement = key.statement(SCOPE, now)?;
    let form = query(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &statement)]);
    let request = Request::post(key.token_uri()).header("content-type", "application/x-www-form-urlencoded").body(form);
    let answer = http.text(request, STORE_ANSWER_BYTES).and_then(|answer| token::parse(&answer));
    let (token, life) =
        answer.map_err(|failure| failure.of("a token for the account of GOOGLE_APPLICATION_CREDENTIALS"))?;
    Ok((Some(token), life))
}

/// Reading and writing objects, whatever else the account may.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// A token of the metadata server. Where there is none, or no account, nobody's rights are used for a while: what is
/// public can be read from anywhere.
fn of_machine(address: &str, http: &Http) -> Result<(Option<String>, Duration), Failure> {
    let request = Request::get(address).header("metadata-flavor", "Google").body(());
    match http.text(request, STORE_ANSWER_BYTES) {
        Ok(answer) => {
            // Whoever else answers under that name does not know the form.
            let parsed = token::parse(&answer).map_err(|failure| failure.of("the metadata server"))?;
            Ok((Some(parsed.0), parsed.1))
        }
        Err(failure) if failure.status.is_none() || failure.kind == Kind::Refused => Ok((None, STORE_METADATA_RETRY)),
        Err(failure) => Err(failure.of("the metadata server")),
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Key { .. } => "Key",
            Self::Machine { .. } => "Machine",
        })
    }
}
