//! Keys of a role that a Kubernetes service account may take ("web identity", IRSA): EKS writes a token to a file, STS gives
//! temporary keys for it.

use std::path::PathBuf;
use std::time::SystemTime;

use instant_xml::FromXml;
use jiff::Timestamp;
use rusty_s3::Credentials;

use crate::storage::failure::Failure;
use crate::storage::http::{Http, query};
use crate::storage::token::Fetched;
use crate::storage::{watched, xml};

/// A role and who takes it.
pub(super) struct WebIdentity {
    /// The URL of STS, without a slash at its end.
    pub(super) service: String,
    pub(super) role: String,
    pub(super) session: String,
    /// Read for each request, as Kubernetes writes a new token into it every hour.
    pub(super) token_file: PathBuf,
}

impl WebIdentity {
    /// Asks STS for keys.
    pub(super) fn fetch(&self, http: &Http, now: SystemTime) -> Fetched<Option<Credentials>> {
        // A file that is being replaced, or a volume that is not there yet, will be there.
        let token = watched::text(&self.token_file)
            .map_err(|error| Failure::transient(format!("AWS_WEB_IDENTITY_TOKEN_FILE: {error}")))?;
        let form = query(&[
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", &self.role),
            ("RoleSessionName", &self.session),
            ("WebIdentityToken", token.trim()),
        ]);
        let answer = http.form(&format!("{}/", self.service), form).map_err(|failure| failure.of(ACTION))?;
        keys(&answer, now)
    }
}

const ACTION: &str = "taking the role AWS_ROLE_ARN";

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

fn keys(answer: &str, now: SystemTime) -> Fetched<Option<Credentials>> {
    // The document holds the keys, so not a word of it is quoted.
    let garbage = || Failure::transient("the answer can't be read").of(ACTION);
    let Given { key, secret, token, ends } =
        xml::parse::<Response>(answer, "AssumeRoleWithWebIdentityResponse").map_err(|_| garbage())?.result.credentials;
    let ends: Timestamp = ends.parse().map_err(|_| garbage())?;
    let life = SystemTime::from(ends).duration_since(now).unwrap_or_default();
    Ok((Some(Credentials::new_with_token(key, secret, token)), life))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
        let credentials = credentials.unwrap();
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
