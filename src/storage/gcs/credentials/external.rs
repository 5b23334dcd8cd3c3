//! Tokens for an identity of somebody else ("workload identity federation", a file of type `external_account`): what shows
//! the identity comes from a file or a URL, Google's STS exchanges it for a token (RFC 8693), and with that a service
//! account may be impersonated.
//!
//! Not here: subjects that AWS signs for or that a program prints; a file that asks for them is an error that says so.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Request;
use url::Url;

use super::CLOUD_SCOPE;
use crate::config::STORE_ANSWER_BYTES;
use crate::storage::failure::Failure;
use crate::storage::http::{Http, query};
use crate::storage::token::{self, Fetched};
use crate::storage::watched;

/// The identity and where it is exchanged.
pub(super) struct External {
    audience: String,
    subject_token_type: String,
    token_url: String,
    /// `client_id` and `client_secret` as `Basic` has them, if the file has them.
    client: Option<String>,
    workforce_project: Option<String>,
    impersonation: Option<Impersonation>,
    subject: Subject,
}

struct Impersonation {
    url: String,
    seconds: u64,
}

/// Where the subject's token is read.
struct Subject {
    from: From,
    /// The name of its member, if it stands in a JSON object.
    member: Option<String>,
}

enum From {
    /// Read for each token, as Kubernetes writes a new one into it every hour.
    File(PathBuf),
    Url {
        url: String,
        fields: Vec<(String, String)>,
    },
}

#[derive(Deserialize)]
struct File {
    audience: String,
    subject_token_type: String,
    token_url: String,
    credential_source: Value,
    client_id: Option<String>,
    client_secret: Option<String>,
    workforce_pool_user_project: Option<String>,
    service_account_impersonation_url: Option<String>,
    #[serde(default)]
    service_account_impersonation: Lifetime,
}

#[derive(Deserialize, Default)]
struct Lifetime {
    token_lifetime_seconds: Option<u64>,
}

impl External {
    /// Reads the file. The error quotes none of it.
    pub(super) fn parse(file: &Value) -> Result<Self, String> {
        let wrong = "an external_account without audience, subject_token_type, token_url and credential_source";
        let file = File::deserialize(file).map_err(|_| wrong.to_owned())?;
        check_url(&file.token_url, "token_url")?;
        let impersonation = match file.service_account_impersonation_url.filter(|url| !url.is_empty()) {
            None => None,
            Some(url) => {
                check_url(&url, "service_account_impersonation_url")?;
                let seconds = file.service_account_impersonation.token_lifetime_seconds.unwrap_or(3600);
                Some(Impersonation { url, seconds })
            }
        };
        let client = file.client_id.filter(|id| !id.is_empty()).map(|id| {
            let secret = file.client_secret.unwrap_or_default();
            format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")))
        });
        Ok(Self {
            audience: file.audience,
            subject_token_type: file.subject_token_type,
            token_url: file.token_url,
            // With a client's own credentials the project is that of the client.
            workforce_project: file.workforce_pool_user_project.filter(|_| client.is_none()),
            client,
            impersonation,
            subject: Subject::parse(&file.credential_source)?,
        })
    }

    /// The URLs that are asked.
    pub(super) fn urls(&self) -> Vec<&str> {
        let mut urls = vec![self.token_url.as_str()];
        urls.extend(self.impersonation.as_ref().map(|impersonation| impersonation.url.as_str()));
        if let From::Url { url, .. } = &self.subject.from {
            urls.push(url);
        }
        urls
    }

    pub(super) fn fetch(&self, http: &Http, scope: &str, now: SystemTime) -> Fetched<String> {
        let subject = self.subject.read(http).map_err(|failure| failure.of("the subject's token"))?;
        let asked = if self.impersonation.is_some() { CLOUD_SCOPE } else { scope };
        let (token, life) = self.exchange(http, &subject, asked, now)?;
        match &self.impersonation {
            None => Ok((token, life)),
            Some(Impersonation { url, seconds }) => {
                let body = json!({ "scope": [scope], "lifetime": format!("{seconds}s") });
                impersonate(http, url, &token, &body, now)
            }
        }
    }

    /// Exchanges the subject's token (RFC 8693 §2.1).
    fn exchange(&self, http: &Http, subject: &str, scope: &str, now: SystemTime) -> Fetched<String> {
        let options = self.workforce_project.as_ref().map(|project| json!({ "userProject": project }).to_string());
        let mut pairs = vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", &self.audience),
            ("scope", scope),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", &self.subject_token_type),
            ("subject_token", subject),
        ];
        pairs.extend(options.as_deref().map(|options| ("options", options)));
        let mut request = Request::post(&self.token_url).header("content-type", "application/x-www-form-urlencoded");
        if let Some(client) = &self.client {
            request = request.header("authorization", client);
        }
        let answer = http.text(request.body(query(&pairs)), STORE_ANSWER_BYTES);
        token::parse(&answer.map_err(|failure| failure.of("the exchange of tokens"))?, now)
    }
}

impl Subject {
    fn parse(source: &Value) -> Result<Self, String> {
        let text = |name: &str| source.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let format = source.get("format").unwrap_or(&Value::Null);
        let of_format = |name: &str| format.get(name).and_then(Value::as_str);
        let member = match of_format("type") {
            None | Some("" | "text") => None,
            Some("json") => {
                Some(of_format("subject_token_field_name").ok_or("a JSON format without a subject_token_field_name")?)
            }
            Some(_) => return Err("a credential_source of a format that is not text or json".to_owned()),
        };
        let from =
            if let Some(name) = ["environment_id", "executable"].into_iter().find(|name| source.get(name).is_some()) {
                return Err(format!("a credential_source with {name} is not supported, one of file, url"));
            } else if let Some(file) = text("file") {
                From::File(PathBuf::from(file))
            } else if let Some(url) = text("url") {
                check_url(url, "credential_source's url")?;
                let fields = source.get("headers").and_then(Value::as_object).into_iter().flatten();
                let fields = fields.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
                From::Url { url: url.to_owned(), fields: fields.collect() }
            } else {
                return Err("a credential_source without file and url".to_owned());
            };
        Ok(Self { from, member: member.map(str::to_owned) })
    }

    fn read(&self, http: &Http) -> Result<String, Failure> {
        let text = match &self.from {
            From::File(file) => watched::text(file).map_err(Failure::transient)?,
            From::Url { url, fields } => {
                let request =
                    fields.iter().fold(Request::get(url), |request, (name, value)| request.header(name, value));
                http.text(request.body(()), STORE_ANSWER_BYTES)?
            }
        };
        let Some(member) = &self.member else { return Ok(text.trim().to_owned()) };
        let object: Option<Value> = serde_json::from_str(&text).ok();
        let token = object.as_ref().and_then(|object| object.get(member)?.as_str());
        token.map(str::to_owned).ok_or_else(|| Failure::transient("the JSON has no such member"))
    }
}

/// Exchanges a token for one of a service account, by the API of IAM.
pub(super) fn impersonate(http: &Http, url: &str, token: &str, body: &Value, now: SystemTime) -> Fetched<String> {
    let request = Request::post(url)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {token}"))
        .body(body.to_string());
    let answer = http.text(request, STORE_ANSWER_BYTES);
    let answer = answer.map_err(|failure| failure.of("impersonating the service account"))?;
    // The answer holds the token, so not a word of it is quoted.
    let garbage = || Failure::transient("impersonating the service account: the answer holds no token");
    let given: Impersonated = serde_json::from_str(&answer).map_err(|_| garbage())?;
    let ends: Timestamp = given.expire_time.parse().map_err(|_| garbage())?;
    let life = SystemTime::from(ends).duration_since(now).unwrap_or(Duration::ZERO);
    Ok((given.access_token, life))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: String,
    expire_time: String,
}

/// Whether a member of a credential file is the URL of a service.
pub(super) fn check_url(url: &str, name: &str) -> Result<(), String> {
    let is_url = Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if is_url { Ok(()) } else { Err(format!("its {name} is not a URL")) }
}
