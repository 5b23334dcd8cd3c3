//! With whose rights Azure is asked. The first that is there: the URL's own signature, the account's key, a token as it
//! is, a client of the directory with its secret or with a Kubernetes service account (workload identity), nobody's.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ureq::http::{Request, Uri};

use super::{Ask, sign};
use crate::config::STORE_ANSWER_BYTES;
use crate::storage::environment::Environment;
use crate::storage::failure::Failure;
use crate::storage::http::{Http, encode, query};
use crate::storage::token::{self, Cached};

/// The rights.
pub(super) enum Rights {
    Nobody,
    /// A query that goes behind every request's own.
    Signature(String),
    Key {
        account: String,
        key: hmac::Key,
    },
    Token(String),
    Client {
        client: Client,
        token: Cached<String>,
    },
}

/// A client of the directory ("application", "service principal", "managed identity").
pub(super) struct Client {
    /// Of the directory's tokens.
    address: String,
    id: String,
    proof: Proof,
}

/// How a client shows who it is.
enum Proof {
    Secret(String),
    /// Read for each request, as Kubernetes writes a new token into it every hour.
    File(String),
}

impl Rights {
    pub(super) fn open(account: Option<String>, sas: Option<&str>, env: Environment<'_>) -> Result<Self, String> {
        if let Some(sas) = sas {
            return Ok(Self::Signature(sas.to_owned()));
        }
        if let Some(key) = env.text("AZURE_STORAGE_ACCESS_KEY") {
            let key = BASE64_STANDARD.decode(key).map_err(|_| "AZURE_STORAGE_ACCESS_KEY is not Base64".to_owned())?;
            let account =
                account.ok_or("AZURE_STORAGE_ACCESS_KEY needs AZURE_ACCOUNT_NAME: the URL names no account")?;
            return Ok(Self::Key { account, key: hmac::Key::new(hmac::HMAC_SHA256, &key) });
        }
        if let Some(token) = env.text("AZURE_ACCESS_TOKEN") {
            return Ok(Self::Token(token));
        }
        // KServe's secrets and the webhook of workload identity both set the first two.
        let proof = match (env.text("AZURE_CLIENT_SECRET"), env.text("AZURE_FEDERATED_TOKEN_FILE")) {
            (Some(secret), _) => Proof::Secret(secret),
            (None, Some(file)) => Proof::File(file),
            (None, None) => return Ok(Self::Nobody),
        };
        let Some([tenant, id]) = env.together(["AZURE_TENANT_ID", "AZURE_CLIENT_ID"])? else {
            return Err("AZURE_TENANT_ID and AZURE_CLIENT_ID are not set, but something to prove them by is".to_owned());
        };
        let host = env.url("AZURE_AUTHORITY_HOST")?.unwrap_or_else(|| "https://login.microsoftonline.com".to_owned());
        let address = format!("{host}/{}/oauth2/v2.0/token", encode(&tenant));
        Ok(Self::Client { client: Client { address, id, proof }, token: Cached::new() })
    }

    /// The address of whoever gives tokens.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Client { client, .. } => &client.address,
            _ => "",
        }
    }

    /// The query that is a right in itself.
    pub(super) fn signature(&self) -> &str {
        match self {
            Self::Signature(sas) => sas,
            _ => "",
        }
    }

    /// What the `Authorization` field says, if there is one.
    pub(super) fn field(
        &self,
        http: &Http,
        url: &str,
        ask: &Ask<'_>,
        now: SystemTime,
    ) -> Result<Option<String>, Failure> {
        let token = match self {
            Self::Nobody | Self::Signature(_) => return Ok(None),
            Self::Key { account, key } => {
                let url: Uri = url.parse().map_err(|_| Failure::refused("AZURE_SERVICE_URL can't be connected to"))?;
                return Ok(Some(sign::authorization(account, key, url.path(), ask)));
            }
            Self::Token(token) => token.clone(),
            Self::Client { client, token } => token.current(now, || client.token(http))?,
        };
        Ok(Some(format!("Bearer {token}")))
    }

    /// Whether there will be another token next time.
    pub(super) fn forget(&self) -> bool {
        match self {
            Self::Client { token, .. } => {
                token.forget();
                true
            }
            _ => false,
        }
    }

    pub(super) fn are_nobodys(&self) -> bool {
        matches!(self, Self::Nobody)
    }
}

impl Client {
    fn token(&self, http: &Http) -> Result<(String, Duration), Failure> {
        let mut form = query(&[
            ("grant_type", "client_credentials"),
            ("client_id", &self.id),
            ("scope", "https://storage.azure.com/.default"),
        ]);
        form.push('&');
        form.push_str(&match &self.proof {
            Proof::Secret(secret) => query(&[("client_secret", secret)]),
            Proof::File(file) => {
                let token = fs::read_to_string(file)
                    .map_err(|error| Failure::transient(format!("AZURE_FEDERATED_TOKEN_FILE: {file}: {error}")))?;
                query(&[("client_assertion_type", ASSERTION), ("client_assertion", token.trim())])
            }
        });
        let request =
            Request::post(&self.address).header("content-type", "application/x-www-form-urlencoded").body(form);
        let answer = http.text(request, STORE_ANSWER_BYTES).and_then(|answer| token::parse(&answer));
        answer.map_err(|failure| failure.of("a token for AZURE_CLIENT_ID"))
    }
}

const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Signature(_) => "Signature",
            Self::Key { .. } => "Key",
            Self::Token(_) => "Token",
            Self::Client { .. } => "Client",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sas: Option<&str>, variables: &[(&str, &str)]) -> Result<String, String> {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let rights = Rights::open(Some("acc".to_owned()), sas, Environment(&read))?;
        Ok(format!("{rights:?} {}", rights.address()).trim().to_owned())
    }

    const ALL: [(&str, &str); 5] = [
        ("AZURE_STORAGE_ACCESS_KEY", "c2VjcmV0"),
        ("AZURE_ACCESS_TOKEN", "t"),
        ("AZURE_TENANT_ID", "tenant/x"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_CLIENT_SECRET", "s"),
    ];

    #[test]
    fn the_first_right_that_is_there_is_taken() {
        assert_eq!(open(Some("sig=x"), &ALL), Ok("Signature".to_owned()));
        assert_eq!(open(None, &ALL), Ok("Key".to_owned()));
        assert_eq!(open(None, &ALL[1..]), Ok("Token".to_owned()));
        let client = "Client https://login.microsoftonline.com/tenant%2Fx/oauth2/v2.0/token";
        assert_eq!(open(None, &ALL[2..]), Ok(client.to_owned()));
        assert_eq!(open(None, &ALL[2..4]), Ok("Nobody".to_owned()), "nothing that proves it");
        let authority = ("AZURE_AUTHORITY_HOST", "https://login.chinacloudapi.cn/");
        let federated = ("AZURE_FEDERATED_TOKEN_FILE", "/f");
        let china = "Client https://login.chinacloudapi.cn/tenant%2Fx/oauth2/v2.0/token";
        assert_eq!(open(None, &[ALL[2], ALL[3], federated, authority]), Ok(china.to_owned()));
    }

    #[test]
    fn a_variable_that_is_wrong_or_missing_is_named_and_no_secret_is() {
        for (variables, name) in [
            (&[("AZURE_STORAGE_ACCESS_KEY", "no secret!")][..], "AZURE_STORAGE_ACCESS_KEY"),
            (&[("AZURE_CLIENT_SECRET", "secret")], "AZURE_TENANT_ID"),
            (&[("AZURE_CLIENT_SECRET", "secret"), ALL[2]], "AZURE_CLIENT_ID"),
            (&[ALL[2], ALL[3], ALL[4], ("AZURE_AUTHORITY_HOST", "secret")], "AZURE_AUTHORITY_HOST"),
        ] {
            let error = open(None, variables).unwrap_err();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
    }
}
