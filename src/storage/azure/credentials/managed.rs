//! Tokens of a managed identity: by the endpoint that App Service and Container Apps name, else by the machine's metadata
//! server.
//!
//! Not here: Azure Arc, Service Fabric and Cloud Shell, which have protocols of their own.

use std::time::SystemTime;

use ureq::http::Request;

use crate::config::{STORE_ANSWER_BYTES, STORE_METADATA_RETRY};
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;
use crate::storage::environment::Environment;
use crate::storage::failure::Kind;
use crate::storage::http::{Http, query};
use crate::storage::token::{self, Fetched};

/// Who gives the identity's tokens.
pub(super) struct Managed {
    http: Http,
    /// With its query.
    url: String,
    field: (&'static str, String),
    /// Whether the environment names the endpoint, so that a refusal is no sign that there is none.
    is_named: bool,
}

impl Managed {
    pub(super) fn open(env: Environment<'_>, proxies: &Proxies) -> Result<Self, String> {
        let client = env.text("AZURE_CLIENT_ID");
        let url = |endpoint: &str, version: &str| {
            let mut pairs = vec![("api-version", version), ("resource", "https://storage.azure.com")];
            pairs.extend(client.as_deref().map(|client| ("client_id", client)));
            format!("{endpoint}?{}", query(&pairs))
        };
        if let (Some(endpoint), Some(header)) = (env.url("IDENTITY_ENDPOINT")?, env.text("IDENTITY_HEADER")) {
            let http = if endpoint.starts_with("https:") {
                Http::new(&Roots::System, &[&endpoint], proxies)?
            } else {
                Http::of_metadata()?
            };
            let field = ("x-identity-header", header);
            return Ok(Self { http, url: url(&endpoint, "2019-08-01"), field, is_named: true });
        }
        let host = env.url("AZURE_POD_IDENTITY_AUTHORITY_HOST")?.unwrap_or_else(|| "http://169.254.169.254".to_owned());
        let url = url(&format!("{host}/metadata/identity/oauth2/token"), "2018-02-01");
        Ok(Self { http: Http::of_metadata()?, url, field: ("metadata", "true".to_owned()), is_named: false })
    }

    /// Asks for a token; `None` for a while where there is no metadata server or no identity.
    pub(super) fn fetch(&self, now: SystemTime) -> Fetched<Option<String>> {
        let (name, value) = &self.field;
        let answer = self.http.text(Request::get(&self.url).header(*name, value).body(()), STORE_ANSWER_BYTES);
        let is_absent = match &answer {
            Err(failure) => !self.is_named && (failure.status.is_none() || failure.kind == Kind::Refused),
            Ok(_) => false,
        };
        if is_absent {
            return Ok((None, STORE_METADATA_RETRY));
        }
        let token = answer.and_then(|answer| token::parse(&answer, now));
        let (token, life) = token.map_err(|failure| failure.of("a token of the managed identity"))?;
        Ok((Some(token), life))
    }
}
