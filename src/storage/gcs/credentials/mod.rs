//! The tokens that Google is asked with (SPEC M11): those for the account of a credential file, else those of the machine or
//! of the Kubernetes service account (workload identity), which the metadata server gives.
//!
//! Without any of them Google is asked anonymously, which a line of the log says once with what was looked for.

mod external;
mod service_account;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Request;

use self::external::External;
use self::service_account::ServiceKey;
use crate::config::{STORE_ANSWER_BYTES, STORE_METADATA_RETRY};
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;
use crate::storage::environment::Environment;
use crate::storage::failure::{Failure, Kind};
use crate::storage::http::{Http, query};
use crate::storage::token::{self, Cached, Fetched};
use crate::storage::watched::{self, Watched};

/// Where tokens come from.
pub(super) enum Provider {
    Anonymous,
    File(Box<FileAccount>),
    Metadata(Cached<Option<String>>),
}

/// The account of a credential file. A changed file is used for the next token, which is asked for at once.
pub(super) struct FileAccount {
    account: Arc<Watched<(Account, Http)>>,
    /// Changes of the file that the token knows.
    seen: AtomicU64,
    token: Cached<String>,
}

/// An account, by the `type` of its file.
enum Account {
    Service(Box<ServiceKey>),
    User(User),
    External(External),
    Impersonated { source: Box<Self>, url: String, delegates: Vec<String> },
}

/// A person who has signed in with gcloud: `authorized_user`.
#[derive(Deserialize)]
struct User {
    client_id: String,
    client_secret: String,
    refresh_token: String,
    #[serde(default = "google_tokens")]
    token_uri: String,
}

fn google_tokens() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

impl Provider {
    /// The file that the environment names, else the one that gcloud writes, else the metadata server. Nothing is asked of
    /// a service yet.
    pub(super) fn open(env: Environment<'_>, proxies: &Proxies) -> Result<Self, String> {
        const NAME: &str = "GOOGLE_APPLICATION_CREDENTIALS";
        if let Some(path) = env.text(NAME) {
            let account = FileAccount::open(PathBuf::from(path), proxies);
            return account.map(|account| Self::File(Box::new(account))).map_err(|error| format!("{NAME}: {error}"));
        }
        let usual = env.text("HOME").map(|home| Path::new(&home).join(GCLOUD_FILE));
        if let Some(path) = usual.filter(|path| path.exists()) {
            return Ok(Self::File(Box::new(FileAccount::open(path, proxies)?)));
        }
        let host = env.text("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".to_owned());
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let http = Http::of_metadata()?;
        Ok(Self::Metadata(Cached::new(move |now| of_metadata(&url, &http, now))))
    }

    /// The token to ask with; `None`: the request is anonymous.
    pub(super) fn token(&self, now: SystemTime) -> Result<Option<String>, Failure> {
        match self {
            Self::Anonymous => Ok(None),
            Self::File(file) => file.token(now).map(Some),
            Self::Metadata(token) => token.current(now),
        }
    }

    /// The store refused the token. Returns whether there will be another next time.
    pub(super) fn forget(&self) -> bool {
        match self {
            Self::Anonymous => return false,
            Self::File(file) => file.token.forget(),
            Self::Metadata(token) => token.forget(),
        }
        true
    }
}

impl FileAccount {
    fn open(path: PathBuf, proxies: &Proxies) -> Result<Self, String> {
        let proxies = proxies.clone();
        let files = vec![path.clone()];
        let read = move || {
            let shown = |error: String| format!("{}: {error}", path.display());
            let account = Account::parse(&watched::text(&path)?).map_err(shown)?;
            let http = Http::new(&Roots::System, &account.urls(), &proxies)?;
            Ok((account, http))
        };
        let account = Arc::new(Watched::open(files, read)?);
        let source = Arc::clone(&account);
        let token = Cached::new(move |now| {
            let current = source.current();
            let (account, http) = &*current;
            let token = account.fetch(http, SCOPE, now);
            token.map_err(|failure| failure.of("a token for the account of GOOGLE_APPLICATION_CREDENTIALS"))
        });
        Ok(Self { account, seen: AtomicU64::new(0), token })
    }

    fn token(&self, now: SystemTime) -> Result<String, Failure> {
        let changes = self.account.changes();
        if self.seen.swap(changes, Ordering::Relaxed) != changes {
            self.token.renew_soon();
        }
        self.token.current(now)
    }
}

impl Account {
    /// Reads a credential file. The error quotes none of it but its type.
    fn parse(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|_| "not the JSON of a credential file".to_owned())?;
        Self::of(&file, true)
    }

    fn of(file: &Value, may_impersonate: bool) -> Result<Self, String> {
        match file.get("type").and_then(Value::as_str).unwrap_or_default() {
            "service_account" => ServiceKey::parse(file).map(|key| Self::Service(Box::new(key))),
            "authorized_user" => {
                let user = User::deserialize(file);
                let user = user.map_err(|_| "an authorized_user without client_id, client_secret and refresh_token")?;
                external::check_url(&user.token_uri, "token_uri")?;
                Ok(Self::User(user))
            }
            "external_account" => External::parse(file).map(Self::External),
            "impersonated_service_account" if may_impersonate => {
                let text = |name: &str| file.get(name).and_then(Value::as_str).unwrap_or_default();
                let url = text("service_account_impersonation_url").to_owned();
                external::check_url(&url, "service_account_impersonation_url")?;
                let source = Self::of(file.get("source_credentials").unwrap_or(&Value::Null), false)?;
                let delegates = file.get("delegates").and_then(Value::as_array).into_iter().flatten();
                let delegates = delegates.filter_map(Value::as_str).map(str::to_owned).collect();
                Ok(Self::Impersonated { source: Box::new(source), url, delegates })
            }
            other => Err(format!(
                "a {other:?} is not supported, one of service_account, authorized_user, external_account, \
                 impersonated_service_account"
            )),
        }
    }

    /// The URLs of the services that are asked for a token.
    fn urls(&self) -> Vec<&str> {
        match self {
            Self::Service(key) => vec![key.token_uri()],
            Self::User(user) => vec![&user.token_uri],
            Self::External(external) => external.urls(),
            Self::Impersonated { source, url, .. } => [source.urls(), vec![url]].concat(),
        }
    }

    fn fetch(&self, http: &Http, scope: &str, now: SystemTime) -> Fetched<String> {
        match self {
            Self::Service(key) => key.fetch(http, scope, now),
            Self::User(user) => {
                let form = query(&[
                    ("grant_type", "refresh_token"),
                    ("client_id", &user.client_id),
                    ("client_secret", &user.client_secret),
                    ("refresh_token", &user.refresh_token),
                ]);
                token::parse(&http.form(&user.token_uri, form)?, now)
            }
            Self::External(external) => external.fetch(http, scope, now),
            Self::Impersonated { source, url, delegates } => {
                let (token, _) = source.fetch(http, CLOUD_SCOPE, now)?;
                let body = json!({ "scope": [scope], "lifetime": "3600s", "delegates": delegates });
                external::impersonate(http, url, &token, &body, now)
            }
        }
    }
}

/// Where `gcloud auth application-default login` writes, below the home folder.
const GCLOUD_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// Reading and writing objects, whatever else the account may.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// What it takes to become another account.
const CLOUD_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A token of the metadata server. Where there is none, or no account, requests are anonymous for a while: what is public
/// can be read from anywhere.
fn of_metadata(url: &str, http: &Http, now: SystemTime) -> Fetched<Option<String>> {
    let request = Request::get(url).header("metadata-flavor", "Google").body(());
    match http.text(request, STORE_ANSWER_BYTES) {
        Ok(answer) => {
            // Whoever else answers under that name does not know the form.
            let parsed = token::parse(&answer, now).map_err(|failure| failure.of("the metadata server"))?;
            Ok((Some(parsed.0), parsed.1))
        }
        Err(failure) if failure.status.is_none() || failure.kind == Kind::Refused => {
            say_anonymous(&failure.reason);
            Ok((None, STORE_METADATA_RETRY))
        }
        Err(failure) => Err(failure.of("the metadata server")),
    }
}

/// Says once in a process that nothing was found.
fn say_anonymous(why: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "Google Cloud Storage is asked anonymously: GOOGLE_APPLICATION_CREDENTIALS is not set, there is no \
             ~/{GCLOUD_FILE}, and the metadata server gives no token ({why})"
        );
    });
}

/// Names the source and shows no secret.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::File(_) => "File",
            Self::Metadata(_) => "Metadata",
        })
    }
}

#[cfg(test)]
mod tests;
