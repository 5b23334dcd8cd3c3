//! Keys as a container's credential endpoint and an instance's metadata server write them.

use std::time::SystemTime;

use jiff::Timestamp;
use rusty_s3::Credentials;
use serde::Deserialize;

use crate::config::STORE_TOKEN_LIFE_MAX;
use crate::storage::failure::{Failure, readable};
use crate::storage::token::Fetched;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
    /// `Success`, of a metadata server.
    code: Option<String>,
}

/// Reads keys and how long they are valid; without an end, as long as any.
pub(super) fn keys(answer: &str, now: SystemTime) -> Fetched<Option<Credentials>> {
    // The document holds the keys, so not a word of it is quoted.
    let garbage = || Failure::transient("the answer can't be read");
    let given: Given = serde_json::from_str(answer).map_err(|_| garbage())?;
    if let Some(code) = given.code.filter(|code| code != "Success") {
        return Err(Failure::transient(format!("no keys: {}", readable(&code))));
    }
    if given.access_key_id.is_empty() || given.secret_access_key.is_empty() {
        return Err(garbage());
    }
    let life = match given.expiration.filter(|end| !end.is_empty()) {
        None => STORE_TOKEN_LIFE_MAX,
        Some(end) => {
            let end: Timestamp = end.parse().map_err(|_| garbage())?;
            SystemTime::from(end).duration_since(now).unwrap_or_default()
        }
    };
    let keys = match given.token.filter(|token| !token.is_empty()) {
        Some(token) => Credentials::new_with_token(given.access_key_id, given.secret_access_key, token),
        None => Credentials::new(given.access_key_id, given.secret_access_key),
    };
    Ok((Some(keys), life))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(answer: &str) -> Result<(String, Duration), String> {
        let (keys, life) = keys(answer, SystemTime::UNIX_EPOCH).map_err(|failure| failure.reason)?;
        let keys = keys.unwrap();
        Ok((format!("{} {} {:?}", keys.key(), keys.secret(), keys.token()), life))
    }

    #[test]
    fn keys_have_an_end_and_a_token_or_not() {
        let temporary = r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"k","SecretAccessKey":"s","Token":"t",
            "Expiration":"1970-01-01T01:00:00Z"}"#;
        assert_eq!(read(temporary), Ok(("k s Some(\"t\")".to_owned(), Duration::from_secs(3600))));
        let fixed = r#"{"AccessKeyId":"k","SecretAccessKey":"s"}"#;
        assert_eq!(read(fixed), Ok(("k s None".to_owned(), STORE_TOKEN_LIFE_MAX)));
    }

    #[test]
    fn what_holds_no_keys_is_a_failure_that_quotes_none() {
        for answer in
            ["", "[]", "{}", r#"{"AccessKeyId":"secret"}"#, r#"{"SecretAccessKey":"secret","AccessKeyId":""}"#]
        {
            assert_eq!(read(answer), Err("the answer can't be read".to_owned()), "{answer}");
        }
        let soon = r#"{"AccessKeyId":"k","SecretAccessKey":"secret","Expiration":"soon"}"#;
        assert_eq!(read(soon), Err("the answer can't be read".to_owned()));
        assert_eq!(
            read(r#"{"Code":"AssumeRoleUnauthorizedAccess"}"#),
            Err("no keys: AssumeRoleUnauthorizedAccess".to_owned())
        );
    }
}
