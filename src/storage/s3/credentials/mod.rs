//! The keys that S3 is asked with (SPEC M11): the sources of AWS's SDK for Go, in its order.
//!
//! 1. keys in the environment,
//! 2. a role by a web identity that the environment names (EKS, "IRSA"),
//! 3. a profile of the shared files: its keys, or its role by a web identity,
//! 4. a container's credential endpoint (ECS, EKS Pod Identity),
//! 5. the role of the EC2 instance.
//!
//! Without any of them S3 is asked anonymously, which a line of the log says once with what was looked for.

mod container;
mod instance;
mod json;
mod profile;
mod web_identity;

use std::fmt;
use std::path::PathBuf;
use std::sync::Once;
use std::time::SystemTime;

use rusty_s3::Credentials;

use self::container::Container;
use self::instance::Instance;
pub(super) use self::profile::Profile;
use self::profile::Source;
use self::web_identity::WebIdentity;
use crate::ops::proxy::Proxies;
use crate::ops::tls::Roots;
use crate::storage::environment::Environment;
use crate::storage::failure::Failure;
use crate::storage::http::Http;
use crate::storage::token::Cached;
use crate::storage::watched::Watched;

/// Where keys come from.
pub(super) enum Provider {
    Anonymous,
    Fixed(Credentials),
    /// Keys that stand in the shared files.
    Profile(Watched<Source>),
    /// Keys that a service gives, and which one it is; `None`: it has none.
    Service(&'static str, Cached<Option<Credentials>>),
}

/// What opening a source may need.
pub(super) struct Surroundings<'a> {
    pub(super) region: &'a str,
    pub(super) roots: &'a Roots,
    pub(super) proxies: &'a Proxies,
    pub(super) env: Environment<'a>,
}

impl Provider {
    /// The first source that the environment or the files have. Nothing is asked of a service yet.
    pub(super) fn open(profile: Profile, with: &Surroundings<'_>) -> Result<Self, String> {
        let env = with.env;
        if env.switch("awsAnonymousCredential")?.unwrap_or(false) {
            return Ok(Self::Anonymous);
        }
        if let Some([key, secret]) = env.together(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])? {
            return Ok(Self::Fixed(match env.text("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(key, secret, token),
                None => Credentials::new(key, secret),
            }));
        }
        if let Some(token_file) = env.text("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let role = env.text("AWS_ROLE_ARN");
            let role = role.ok_or("AWS_ROLE_ARN is not set, AWS_WEB_IDENTITY_TOKEN_FILE needs it")?;
            return web_identity(role, token_file, None, with);
        }
        match profile.source()? {
            Source::Keys { .. } => {
                let files = profile.files();
                return Watched::open(files, move || profile.source()).map(Self::Profile);
            }
            Source::WebIdentity { role, token_file, session } => return web_identity(role, token_file, session, with),
            Source::Nothing => {}
        }
        if let Some(container) = Container::open(env, with.proxies)? {
            return Ok(Self::Service("Container", Cached::new(move |now| container.fetch(now))));
        }
        let files: Vec<String> = profile.files().iter().map(|file| file.display().to_string()).collect();
        let files = if files.is_empty() { "~/.aws (HOME is not set)".to_owned() } else { files.join(" and ") };
        let Some(instance) = Instance::open(env)? else {
            say_anonymous(&files, "the metadata server is turned off by AWS_EC2_METADATA_DISABLED");
            return Ok(Self::Anonymous);
        };
        let instance = Cached::new(move |now| {
            let fetched = instance.fetch(now);
            if matches!(fetched, Ok((None, _))) {
                say_anonymous(&files, "the metadata server does not answer, or has no role");
            }
            fetched
        });
        Ok(Self::Service("Instance", instance))
    }

    /// The keys to sign with; `None`: the request is anonymous.
    pub(super) fn current(&self) -> Result<Option<Credentials>, Failure> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Fixed(keys) => Ok(Some(keys.clone())),
            Self::Profile(source) => Ok(source.current().keys()),
            Self::Service(_, keys) => keys.current(SystemTime::now()),
        }
    }

    /// The store refused the keys. Returns whether there will be others next time.
    pub(super) fn forget(&self) -> bool {
        match self {
            Self::Service(_, keys) => {
                keys.forget();
                true
            }
            _ => false,
        }
    }
}

fn web_identity(
    role: String,
    token_file: String,
    session: Option<String>,
    with: &Surroundings<'_>,
) -> Result<Provider, String> {
    let domain = if with.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let service = with.env.url("AWS_ENDPOINT_URL_STS")?;
    let service = service.unwrap_or_else(|| format!("https://sts.{}.{domain}", with.region));
    let session =
        session.or_else(|| with.env.text("AWS_ROLE_SESSION_NAME")).unwrap_or_else(|| "kserve-agent".to_owned());
    let http = Http::new(with.roots, &[&service], with.proxies)?;
    let identity = WebIdentity { service, role, session, token_file: PathBuf::from(token_file) };
    Ok(Provider::Service("WebIdentity", Cached::new(move |now| identity.fetch(&http, now))))
}

/// Says once in a process that nothing was found.
fn say_anonymous(files: &str, instance: &str) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "S3 is asked anonymously: AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE, \
             AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI are not set, {files} have no \
             profile with keys, and {instance} (awsAnonymousCredential=true: nothing is looked for)"
        );
    });
}

/// Names the source and shows no key.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Fixed(_) => "Fixed",
            Self::Profile(_) => "Profile",
            Self::Service(name, _) => name,
        })
    }
}

#[cfg(test)]
mod tests;
