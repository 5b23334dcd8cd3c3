//! The credentials that Azure is asked with (SPEC M11), the first of these:
//!
//! 1. the URL's own signature (SAS),
//! 2. the account's key,
//! 3. a token from the environment,
//! 4. a client of the directory, with its secret or with a Kubernetes service account (workload identity),
//! 5. a managed identity.
//!
//! Without any of them Azure is asked anonymously, which a line of the log says once with what was looked for.

mod managed;

use std::fmt;
use std::path::PathBuf;
use std::sync::Once;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ureq::http::Uri;

use self::managed::Managed;
use super::{Ask, sign};
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;
use crate::storage::environment::Environment;
use crate::storage::failure::Failure;
use crate::storage::http::{Http, encode, query};
use crate::storage::token::{self, Cached, Fetched};
use crate::storage::watched;

/// Where credentials come from.
pub(super) enum Provider {
    /// A query that goes behind every request's own.
    Signature(String),
    Key {
        account: String,
        key: hmac::Key,
    },
    Token(String),
    /// Tokens that a service gives, and which one it is; `None`: it has none, and the request is anonymous.
    Service(&'static str, Cached<Option<String>>),
}

/// A client of the directory ("application", "service principal").
struct Client {
    http: Http,
    /// The directory's token endpoint.
    url: String,
    id: String,
    proof: Proof,
}

/// How a client shows who it is.
enum Proof {
    Secret(String),
    /// Read for each request, as Kubernetes writes a new token into it every hour.
    File(PathBuf),
}

impl Provider {
    /// The first source that is there. Nothing is asked of a service yet.
    pub(super) fn open(
        account: Option<String>,
        sas: Option<&str>,
        env: Environment<'_>,
        proxies: &Proxies,
    ) -> Result<Self, String> {
        if let Some(sas) = sas {
            return Ok(Self::Signature(sas.to_owned()));
        }
        let key = env.text("AZURE_STORAGE_ACCESS_KEY").map(|key| BASE64_STANDARD.decode(key));
        if let Some(Ok(key)) = key {
            let account =
                account.ok_or("AZURE_STORAGE_ACCESS_KEY needs AZURE_ACCOUNT_NAME: the URL names no account")?;
            return Ok(Self::Key { account, key: hmac::Key::new(hmac::HMAC_SHA256, &key) });
        }
        // The Go agent looks for the other sources only if the key is set to something, so it is often a dummy.
        let has_dummy = key.is_some();
        let provider = Self::without_key(env, proxies, has_dummy)?;
        if has_dummy {
            say_dummy(&provider);
        }
        Ok(provider)
    }

    fn without_key(env: Environment<'_>, proxies: &Proxies, has_dummy: bool) -> Result<Self, String> {
        if let Some(token) = env.text("AZURE_ACCESS_TOKEN") {
            return Ok(Self::Token(token));
        }
        // KServe's secrets and the webhook of workload identity both set the first two.
        let proof = match (env.text("AZURE_CLIENT_SECRET"), env.text("AZURE_FEDERATED_TOKEN_FILE")) {
            (Some(secret), _) => Some(Proof::Secret(secret)),
            (None, Some(file)) => Some(Proof::File(PathBuf::from(file))),
            (None, None) => None,
        };
        if let Some(proof) = proof {
            let client = Client::open(proof, env, proxies)?;
            return Ok(Self::Service("Client", Cached::new(move |now| client.fetch(now))));
        }
        let managed = Managed::open(env, proxies)?;
        let fetch = move |now| match managed.fetch(now)? {
            (None, _) if has_dummy => {
                Err(Failure::refused("AZURE_STORAGE_ACCESS_KEY is not Base64, and there is no managed identity"))
            }
            fetched => {
                if fetched.0.is_none() {
                    say_anonymous();
                }
                Ok(fetched)
            }
        };
        Ok(Self::Service("Managed", Cached::new(fetch)))
    }

    /// The query that is a credential in itself.
    pub(super) fn signature(&self) -> &str {
        match self {
            Self::Signature(sas) => sas,
            _ => "",
        }
    }

    /// What the `Authorization` field says; `None`: there is none.
    pub(super) fn field(&self, url: &str, ask: &Ask<'_>, now: SystemTime) -> Result<Option<String>, Failure> {
        let token = match self {
            Self::Signature(_) => return Ok(None),
            Self::Key { account, key } => {
                let url: Uri = url.parse().map_err(|_| Failure::refused("AZURE_SERVICE_URL can't be connected to"))?;
                return Ok(Some(sign::authorization(account, key, url.path(), ask)));
            }
            Self::Token(token) => Some(token.clone()),
            Self::Service(_, token) => token.current(now)?,
        };
        Ok(token.map(|token| format!("Bearer {token}")))
    }

    /// The store refused the token. Returns whether there will be another next time.
    pub(super) fn forget(&self) -> bool {
        match self {
            Self::Service(_, token) => {
                token.forget();
                true
            }
            _ => false,
        }
    }
}

impl Client {
    fn open(proof: Proof, env: Environment<'_>, proxies: &Proxies) -> Result<Self, String> {
        let Some([tenant, id]) = env.together(["AZURE_TENANT_ID", "AZURE_CLIENT_ID"])? else {
            return Err("AZURE_TENANT_ID and AZURE_CLIENT_ID are not set, but something to prove them by is".to_owned());
        };
        let host = env.url("AZURE_AUTHORITY_HOST")?.unwrap_or_else(|| "https://login.microsoftonline.com".to_owned());
        let url = format!("{host}/{}/oauth2/v2.0/token", encode(&tenant));
        Ok(Self { http: Http::new(&Roots::System, &[&url], proxies)?, url, id, proof })
    }

    fn fetch(&self, now: SystemTime) -> Fetched<Option<String>> {
        let scope = "https://storage.azure.com/.default";
        let mut form = query(&[("grant_type", "client_credentials"), ("client_id", &self.id), ("scope", scope)]);
        form.push('&');
        form.push_str(&match &self.proof {
            Proof::Secret(secret) => query(&[("client_secret", secret)]),
            Proof::File(file) => {
                let token = watched::text(file)
                    .map_err(|error| Failure::transient(format!("AZURE_FEDERATED_TOKEN_FILE: {error}")))?;
                query(&[("client_assertion_type", ASSERTION), ("client_assertion", token.trim())])
            }
        });
        let answer = self.http.form(&self.url, form).and_then(|answer| token::parse(&answer, now));
        let (token, life) = answer.map_err(|failure| failure.of("a token for AZURE_CLIENT_ID"))?;
        Ok((Some(token), life))
    }
}

/// Says once in a process that the key is not used.
fn say_dummy(provider: &Provider) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!("AZURE_STORAGE_ACCESS_KEY is not Base64 and is ignored: credentials are of the kind {provider:?}");
    });
}

/// Says once in a process that nothing was found.
fn say_anonymous() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "Azure is asked anonymously: the URL has no signature, AZURE_STORAGE_ACCESS_KEY, AZURE_ACCESS_TOKEN, \
             AZURE_CLIENT_SECRET, AZURE_FEDERATED_TOKEN_FILE and IDENTITY_ENDPOINT are not set, and the metadata server \
             does not answer, or has no identity"
        );
    });
}

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Names the source and shows no secret.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature(_) => "Signature",
            Self::Key { .. } => "Key",
            Self::Token(_) => "Token",
            Self::Service(name, _) => name,
        })
    }
}

#[cfg(test)]
mod tests;
