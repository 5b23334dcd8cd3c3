//! Tokens for the key of a Google service account: it signs an assertion of who we are (a JSON Web Token, RFC 7519, signed
//! as RFC 7515 has it with RS256), for which the token service gives a token (RFC 7523).

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::storage::failure::Failure;
use crate::storage::http::{Http, query};
use crate::storage::token::{Fetched, parse};

/// The key of an account.
pub(super) struct ServiceKey {
    account: String,
    id: String,
    /// The URL of the token service.
    token_uri: String,
    key: RsaKeyPair,
}

/// What there is of it in the file.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    token_uri: String,
}

impl ServiceKey {
    /// Reads the file that Google gives out. The error quotes none of it.
    pub(super) fn parse(file: &serde_json::Value) -> Result<Self, String> {
        let file = File::deserialize(file).map_err(|_| "not the JSON of a key".to_owned())?;
        let pem = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.as_bytes());
        let pem = pem.map_err(|_| "its private_key is not a PKCS#8 key in PEM form".to_owned())?;
        let key = RsaKeyPair::from_pkcs8(pem.secret_pkcs8_der())
            .map_err(|error| format!("its private_key is not an RSA key that can be used: {error}"))?;
        let is_url = Url::parse(&file.token_uri).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !is_url || file.client_email.is_empty() {
            return Err("its client_email or its token_uri is missing or wrong".to_owned());
        }
        Ok(Self { account: file.client_email, id: file.private_key_id, token_uri: file.token_uri, key })
    }

    pub(super) fn token_uri(&self) -> &str {
        &self.token_uri
    }

    /// Asks for a token.
    pub(super) fn fetch(&self, http: &Http, scope: &str, now: SystemTime) -> Fetched<String> {
        let assertion = self.assertion(scope, now)?;
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let form = query(&[("grant_type", grant), ("assertion", &assertion)]);
        parse(&http.form(&self.token_uri, form)?, now)
    }

    /// That we are this account and want a token for `scope`; good for an hour, the longest that Google takes.
    fn assertion(&self, scope: &str, now: SystemTime) -> Result<String, Failure> {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until = now + Duration::from_secs(3600);
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.id });
        let claims = json!({
            "iss": self.account,
            "scope": scope,
            "aud": self.token_uri,
            "iat": now.as_secs(),
            "exp": until.as_secs(),
        });
        let encode = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        signed(&self.key, &format!("{}.{}", encode(&header), encode(&claims)))
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceKey").field("account", &self.account).finish_non_exhaustive()
    }
}

/// The text with its signature (RFC 7515 §3.1).
fn signed(key: &RsaKeyPair, text: &str) -> Result<String, Failure> {
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .map_err(|_| Failure::transient("the machine gives no random numbers to sign with"))?;
    Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published one of RFC 7515 appendix A.2, in PKCS#8.
    const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCh+BYK4uPJtGXO
jS1lYmM2K5J9vinh8CR3/BYlzJChNuOL2TSXxbbqY913EeZ8dCn5VrD7io8ImtxL
aYk8wTM/U+3QGbh3hCUv7JFP5IV3aVlL6kKA0ywPVb9ilE8TA5a8bpvfbr3SvaNn
juygxmj3AbONv/s4yDQs4v5tJ/reSlpIdJed1LnPmt7Ex1sFhSwsD174pcF1A5L5
ROjtZMEQxrZHYJqkeDrrnGya11UxMFBji4NmXG9veoKjlnAqH2QbgtPr8jkiGUkf
toaHLFcW9Qr4NY2ai50Xw0Byj3+H2JoY2PyrZ62EWQwuz3WTOTY8BwNNb2BvniHg
VFbK5emhAgMBAAECggEAEq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyW
PEAeP88vLNO97IjlA7/GQ5sLKMgvfTeXZx9SE+7YwVol2NXOoAJe46sui395IW/G
O+pWJ1O0BkTGoVEn2bKVRUCgu+GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzj
kn439X0M/V51gfpRLI9JYanrC4D4qAdGcopV/0ZHHzQlBjudU2QvXt4ehNYTCBr6
XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl/x/jTj3ccPDVZFD9pIuhLhBOneufuBiB
4cS98l2SR/RQyGWSeWjnczT0QU91p1DhOVRuOopznQKBgQDgHMQQ60imZV1URk0K
pLttoLhyt3SmqdEf/kgHePDdtzEafpAu+cS191R2JiuoF2yzWXnwFDcqGigp5BNr
0AHQfD8/Lk8l1Mk09jxxCfui5nYooNyac8YFjm3vItzVCVDnEd3BbVWG8qf6deqE
lMGAg+C2V0L4oNXnP7LZcPAZRwKBgQC5A8R+CZW2MvRTLLHzwZkUXV866cff7tx6
kqa0finGG0KgeqlaZPxgCZnFp7AeAcCMtiynVlJ7vMVgePsLq6XtON4tB5kP9jAP
rq3rbAOal78eUH5OcED6eNuCV8ixEu1eWcPNCS/l1OW1EnXUEoEHKl54Xrrz2uNw
kgMTP1FZ1wKBgAcCn1dwJKufzBWQxWQp1vsM5fggqPN1qGb5y0MAk3g7/Ls5bkUp
5u9SN0Ai3Ya6hNnvWJMb7sXQX6U/zyO2M/hTip7tUeh7CXgwo59dkpN75gJLVds2
9+DAncu3KXU4f2Fa+7bLNrur53k8KwPOq2bbuTG69QtV7Jr5MR0AHWKNAoGBAIf/
evpitUf+4JYbLpvNXWcY052Mpz22aR84mY3nh3F2LF2mjMJDpTg7FmuyPcVw6EcG
yoAe9fa65iNqCq+jdw6PVNGo2hxfjSiZ8IIzHdsPXI89//pMjZcQK9r+CCoRjaZj
OYiIDktVWZzmevJuv6WywUqd57LE3Zar3dLSIkx1AoGAIYd7DHOhrWvxkwPQsRM2
tOgrjbcrfvtQJipd+DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd/QJQ3
ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp/gh6A56
03k2+ZQwVK0JKSHuLFkuQ3U=
-----END PRIVATE KEY-----
";

    fn file(changes: &[(&str, &str)]) -> serde_json::Value {
        let mut file = json!({
            "type": "service_account",
            "client_email": "a@p.iam.gserviceaccount.com",
            "private_key": KEY,
            "private_key_id": "17",
            "token_uri": "https://oauth2.googleapis.com/token",
            "project_id": "p",
        });
        for (name, text) in changes {
            file[*name] = json!(text);
        }
        file
    }

    #[test]
    fn the_signature_is_that_of_rfc_7515() {
        let text = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7\
                         AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4\
                         BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K\
                         0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqv\
                         hJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
                         p0igcN_IoypGlUPQGe77Rw";
        let key = ServiceKey::parse(&file(&[])).unwrap();
        assert_eq!(signed(&key.key, text), Ok(format!("{text}.{signature}")));
    }

    #[test]
    fn an_assertion_says_who_for_what_to_whom_and_until_when() {
        let key = ServiceKey::parse(&file(&[])).unwrap();
        let assertion = key.assertion("s", SystemTime::UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
        let parts: Vec<&str> = assertion.split('.').collect();
        let read = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(parts.len(), 3);
        assert_eq!(read(parts[0]), json!({ "alg": "RS256", "typ": "JWT", "kid": "17" }));
        let aud = "https://oauth2.googleapis.com/token";
        let claims =
            json!({ "iss": "a@p.iam.gserviceaccount.com", "scope": "s", "aud": aud, "iat": 1000, "exp": 4600 });
        assert_eq!(read(parts[1]), claims);
    }

    #[test]
    fn a_file_that_is_no_key_is_an_error_that_does_not_quote_it() {
        for (file, part) in [
            (json!("secret"), "JSON"),
            (json!({ "private_key": 1 }), "JSON"),
            (file(&[("private_key", "secret")]), "private_key"),
            (file(&[("private_key", &KEY.replacen("MII", "MIX", 1))]), "private_key"),
            (file(&[("client_email", "")]), "client_email"),
            (file(&[("token_uri", "secret")]), "token_uri"),
        ] {
            let error = ServiceKey::parse(&file).unwrap_err();
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
        let key = ServiceKey::parse(&file(&[])).unwrap();
        assert!(!format!("{key:?}").contains("MII"));
    }
}
