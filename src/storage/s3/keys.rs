//! Whose rights S3 is asked with: nobody's, those of keys from the environment, or those of a role that a Kubernetes
//! service account may take (web identity: EKS writes a token to a file, STS gives temporary keys for it).

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use instant_xml::FromXml;
use jiff::Timestamp;
use rusty_s3::Credentials;
use ureq::http::Request;

use crate::config::STORE_ANSWER_BYTES;
use crate::storage::environment::Environment;
use crate::storage::failure::Failure;
use crate::storage::http::{Http, query};
use crate::storage::token::Cached;
use crate::storage::xml;

/// The rights.
pub(super) enum Keys {
    Nobody,
    Fixed(Credentials),
    Role { role: Role, keys: Cached<Credentials> },
}

/// A role and who takes it.
pub(super) struct Role {
    /// Of STS.
    address: String,
    role: String,
    session: String,
    /// Read for each request, as Kubernetes writes a new token into it every hour.
    token_file: String,
}

impl Keys {
    pub(super) fn open(region: &str, env: Environment<'_>) -> Result<Self, String> {
        if env.switch("awsAnonymousCredential")?.unwrap_or(false) {
            return Ok(Self::Nobody);
        }
        if let Some([key, secret]) = env.together(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])? {
            return Ok(Self::Fixed(match env.text("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(key, secret, token),
                None => Credentials::new(key, secret),
            }));
        }
        let Some([role, token_file]) = env.together(["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"])? else {
            return Ok(Self::Nobody);
        };
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let address = env.url("AWS_ENDPOINT_URL_STS")?.unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
        let session = env.text("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "kserve-agent".to_owned());
        Ok(Self::Role { role: Role { address, role, session, token_file }, keys: Cached::new() })
    }

    /// The address of whoever gives keys.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Role { role, .. } => &role.address,
            _ => "",
        }
    }

    pub(super) fn current(&self, http: &Http) -> Result<Option<Credentials>, Failure> {
        match self {
            Self::Nobody => Ok(None),
            Self::Fixed(keys) => Ok(Some(keys.clone())),
            Self::Role { role, keys } => {
                let now = SystemTime::now();
                keys.current(now, || role.take(http, now)).map(Some)
            }
        }
    }

    /// Whether there will be others next time.
    pub(super) fn forget(&self) -> bool {
        match self {
            Self::Role { keys, .. } => {
                keys.forget();
                true
            }
            _ => false,
        }
    }
}

impl Role {
    /// Keys, and how long they are good for.
    fn take(&self, http: &Http, now: SystemTime) -> Result<(Credentials, Duration), Failure> {
        // A file that is being replaced, or a volume that is not there yet, is.
        let token = fs::read_to_string(&self.token_file).map_err(|error| {
            Failure::transient(format!("AWS_WEB_IDENTITY_TOKEN_FILE: {}: {error}", self.token_file))
        })?;
        let form = query(&[
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &self.role),
            ("RoleSessionName", &self.session),
            ("WebIdentityToken", token.trim()),
        ]);
        let request = Request::post(format!("{}/", self.address))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let answer =
            http.text(request, STORE_ANSWER_BYTES).map_err(|failure| failure.of("taking the role AWS_ROLE_ARN"))?;
        keys(&answer, now)
    }
}

const STS: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

#[derive(FromXml)]
#[xml(rename = "AssumeRoleWithWebIdentityResponse", ns(STS))]
struct Response {
    result: Outcome,
}

#[derive(FromXml)]
#[xml(rename = "AssumeRoleWithWebIdentityResult", ns(STS))]
struct Outcome {
    credentials: Given,
}

#[derive(FromXml)]
#[xml(rename = "Credentials", ns(STS))]
struct Given {
    #[xml(rename = "AccessKeyId")]
    key: String,
    #[xml(rename = "SecretAccessKey")]
    secret: String,
    #[xml(rename = "SessionToken")]
    token: String,
    #[xml(rename = "Expiration")]
    ends: String,
}

fn keys(answer: &str, now: SystemTime) -> Result<(Credentials, Duration), Failure> {
    // The document holds the keys, so not a word of it is quoted.
    let garbage = || Failure::transient("taking the role AWS_ROLE_ARN: the answer can't be read");
    let Given { key, secret, token, ends } =
        xml::parse::<Response>(answer, "AssumeRoleWithWebIdentityResponse").map_err(|_| garbage())?.result.credentials;
    let ends: Timestamp = ends.parse().map_err(|_| garbage())?;
    let life = SystemTime::from(ends).duration_since(now).unwrap_or_default();
    Ok((Credentials::new_with_token(key, secret, token), life))
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Fixed(_) => "Fixed",
            Self::Role { .. } => "Role",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(variables: &[(&str, &str)]) -> Result<String, String> {
        let read =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let keys = Keys::open("eu-west-1", Environment(&read))?;
        Ok(format!("{keys:?} {}", keys.address()).trim().to_owned())
    }

    const FIXED: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
    const ROLE: [(&str, &str); 2] = [("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/f")];

    #[test]
    fn keys_come_before_a_role_and_anonymity_before_both() {
        let all = [&FIXED[..], &ROLE, &[("awsAnonymousCredential", "true")]].concat();
        assert_eq!(open(&all), Ok("Nobody".to_owned()));
        assert_eq!(open(&all[..4]), Ok("Fixed".to_owned()));
        assert_eq!(open(&ROLE), Ok("Role https://sts.eu-west-1.amazonaws.com".to_owned()));
        assert_eq!(open(&[]), Ok("Nobody".to_owned()));
    }

    #[test]
    fn half_of_a_pair_is_an_error_that_names_the_other_half() {
        for pair in [FIXED, ROLE] {
            for (given, missing) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                let error = open(&[given]).unwrap_err();
                assert!(error.starts_with(&format!("{} is not set", missing.0)), "{error}");
            }
        }
    }

    const ANSWER: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>s</SubjectFromWebIdentityToken>\
        <Credentials><SessionToken>t</SessionToken><SecretAccessKey>secret</SecretAccessKey>\
        <Expiration>1970-01-01T01:00:00Z</Expiration><AccessKeyId>k</AccessKeyId></Credentials>\
        </AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>\
        </AssumeRoleWithWebIdentityResponse>";

    #[test]
    fn the_answer_of_sts_is_read() {
        let now = SystemTime::UNIX_EPOCH;
        let (credentials, life) = keys(ANSWER, now).unwrap();
        assert_eq!((credentials.key(), credentials.secret(), credentials.token()), ("k", "secret", Some("t")));
        assert_eq!(life, Duration::from_secs(3600));
        let (_, life) = keys(ANSWER, now + Duration::from_secs(7200)).unwrap();
        assert_eq!(life, Duration::ZERO, "a clock that is ahead");
    }

    #[test]
    fn garbage_of_sts_is_a_failure_that_quotes_nothing() {
        for answer in [&ANSWER[..300], "", "<a/>", &ANSWER.replace("1970-01-01T01:00:00Z", "soon")] {
            let failure = keys(answer, SystemTime::UNIX_EPOCH).unwrap_err();
            assert_eq!(failure.reason, "taking the role AWS_ROLE_ARN: the answer can't be read");
        }
    }
}
