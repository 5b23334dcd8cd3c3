//! Keys of the role of an EC2 instance, by its metadata server (IMDSv2: a session token first).

use std::time::SystemTime;

use rusty_s3::Credentials;
use ureq::http::{Request, request};

use super::json;
use crate::config::{STORE_ANSWER_BYTES, STORE_METADATA_RETRY};
use crate::storage::environment::Environment;
use crate::storage::failure::{Failure, Kind};
use crate::storage::http::{Http, encode};
use crate::storage::token::Fetched;

/// The metadata server.
pub(super) struct Instance {
    http: Http,
    /// Without a slash at its end.
    endpoint: String,
    /// Whether a server that has no session tokens may be asked without one.
    allows_v1: bool,
}

impl Instance {
    /// The metadata server, unless it is not to be asked.
    pub(super) fn open(env: Environment<'_>) -> Result<Option<Self>, String> {
        if env.switch("AWS_EC2_METADATA_DISABLED")?.unwrap_or(false) {
            return Ok(None);
        }
        let is_v6 =
            env.text("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        let usual = if is_v6 { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" };
        let endpoint = env.url("AWS_EC2_METADATA_SERVICE_ENDPOINT")?.unwrap_or_else(|| usual.to_owned());
        let allows_v1 = !env.switch("AWS_EC2_METADATA_V1_DISABLED")?.unwrap_or(false);
        Ok(Some(Self { http: Http::of_metadata()?, endpoint, allows_v1 }))
    }

    /// Asks for the role's keys; `None` for a while where there is no server or no role.
    pub(super) fn fetch(&self, now: SystemTime) -> Fetched<Option<Credentials>> {
        match self.ask(now) {
            Ok(keys) => Ok(keys),
            // Nobody answers, or whoever answers is not EC2, or the instance has no role.
            Err(failure) if failure.status.is_none() && !failure.reason.starts_with(GARBAGE) => {
                Ok((None, STORE_METADATA_RETRY))
            }
            Err(failure) if failure.kind == Kind::Refused => Ok((None, STORE_METADATA_RETRY)),
            Err(failure) => Err(failure.of("keys of the instance's role")),
        }
    }

    fn ask(&self, now: SystemTime) -> Fetched<Option<Credentials>> {
        let session = self.session()?;
        let get = |path: &str| {
            let request = Request::get(format!("{}{ROLES}{path}", self.endpoint));
            self.http.text(with(request, session.as_deref()).body(()), STORE_ANSWER_BYTES)
        };
        let roles = get("")?;
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty());
        let Some(role) = role else { return Ok((None, STORE_METADATA_RETRY)) };
        json::keys(&get(&encode(role))?, now).map_err(|failure| failure.of(GARBAGE))
    }

    /// A token for the session, or `None` if the server has none.
    fn session(&self) -> Result<Option<String>, Failure> {
        let request = Request::put(format!("{}/latest/api/token", self.endpoint))
            .header("x-aws-ec2-metadata-token-ttl-seconds", SESSION_SECONDS)
            .body(());
        match self.http.text(request, STORE_ANSWER_BYTES) {
            Ok(token) => Ok(Some(token.trim().to_owned())),
            Err(failure) => match failure.status.map(|status| status.as_u16()) {
                Some(403..=405) if self.allows_v1 => Ok(None),
                _ => Err(failure),
            },
        }
    }
}

fn with(request: request::Builder, session: Option<&str>) -> request::Builder {
    match session {
        Some(token) => request.header("x-aws-ec2-metadata-token", token),
        None => request,
    }
}

const ROLES: &str = "/latest/meta-data/iam/security-credentials/";

/// What a failure begins with after the server has named a role.
const GARBAGE: &str = "a role without keys";

/// Life of a session: it is used for three requests.
const SESSION_SECONDS: &str = "300";
