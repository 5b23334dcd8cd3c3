//! Which source is taken, and what each is asked: against endpoints on the loopback that answer as a script says.

use super::*;
use crate::storage::scripted::Server;

fn open(variables: &[(&str, &str)]) -> Result<Provider, String> {
    let read = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let env = Environment(&read);
    let with = Surroundings { region: "eu-west-1", roots: &Roots::System, proxies: &Proxies::default(), env };
    Provider::open(Profile::of(env), &with)
}

fn name(variables: &[(&str, &str)]) -> Result<String, String> {
    open(variables).map(|provider| format!("{provider:?}"))
}

/// The keys that a source gives, as text.
fn keys(variables: &[(&str, &str)]) -> Result<String, String> {
    shown(&open(variables)?)
}

fn shown(provider: &Provider) -> Result<String, String> {
    let keys = provider.current().map_err(|failure| failure.reason)?;
    Ok(keys.map_or("anonymous".to_owned(), |keys| format!("{} {}", keys.key(), keys.token().unwrap_or("-"))))
}

const FIXED: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
const ROLE: [(&str, &str); 3] =
    [("AWS_ROLE_ARN", "r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/f"), ("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")];
const POD: (&str, &str) = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/");
const NO_INSTANCE: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");
const KEYS: &str =
    r#"{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#;

/// A file of a test, removed at its end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(test: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kserve-agent-aws-{}-{test}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn sources_are_taken_in_the_order_of_awss_sdk() {
    let file = Temporary::new("order", "[default]\naws_access_key_id=f\naws_secret_access_key=s\n");
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", file.path());
    let all = [&[("awsAnonymousCredential", "true")][..], &FIXED, &ROLE, &[shared, POD]].concat();
    let expected = ["Anonymous", "Fixed", "Fixed", "WebIdentity", "WebIdentity"];
    for (start, expected) in [0, 1].into_iter().chain([1, 3, 3]).zip(expected) {
        assert_eq!(name(&all[start..]), Ok(expected.to_owned()), "{start}");
    }
    assert_eq!(name(&all[6..]), Ok("Profile".to_owned()));
    assert_eq!(name(&all[7..]), Ok("Container".to_owned()));
    assert_eq!(name(&[]), Ok("Instance".to_owned()));
    assert_eq!(name(&[NO_INSTANCE]), Ok("Anonymous".to_owned()));
}

#[test]
fn a_role_without_a_token_is_no_source_and_half_of_a_pair_is_an_error() {
    assert_eq!(name(&[ROLE[0], NO_INSTANCE]), Ok("Anonymous".to_owned()), "as in AWS's SDK");
    let error = name(&[ROLE[1]]).unwrap_err();
    assert_eq!(error, "AWS_ROLE_ARN is not set, AWS_WEB_IDENTITY_TOKEN_FILE needs it");
    for (given, missing) in [(FIXED[0], FIXED[1]), (FIXED[1], FIXED[0])] {
        assert!(name(&[given]).unwrap_err().starts_with(&format!("{} is not set", missing.0)));
    }
}

#[test]
fn a_pods_identity_gives_keys_for_the_token_of_its_file_which_rotates() {
    let token = Temporary::new("pod", "first\n");
    let server = Server::start(vec![(200, KEYS), (200, KEYS)]);
    let url = server.url("/v1/credentials");
    let provider = open(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the variable"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path()),
    ])
    .unwrap();
    assert_eq!(shown(&provider).as_deref(), Ok("ASIA t"));
    assert_eq!(shown(&provider).as_deref(), Ok("ASIA t"), "of the cache");
    std::fs::write(&token.0, "second").unwrap();
    assert!(provider.forget());
    assert_eq!(shown(&provider).as_deref(), Ok("ASIA t"));
    let asked = server.asked();
    assert!(asked[0].starts_with("GET /v1/credentials HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].contains("\r\nauthorization: first\r\n"), "{}", asked[0]);
    assert!(asked[1].contains("\r\nauthorization: second\r\n"), "{}", asked[1]);
    assert_eq!(asked.len(), 2);
}

#[test]
fn an_endpoint_of_keys_that_fails_is_a_failure_and_not_anonymous() {
    let server = Server::start(vec![(500, ""), (403, "")]);
    for expected in ["500 Internal Server Error", "403 Forbidden"] {
        let error = keys(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &server.url("/"))]).unwrap_err();
        assert_eq!(error, format!("keys of the container's credential endpoint: {expected}"));
    }
    let far = keys(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://192.0.2.1/")]).unwrap_err();
    assert!(far.contains("plain http is allowed for the loopback"), "{far}");
}

#[test]
fn an_instances_role_is_asked_for_with_a_sessions_token() {
    let server = Server::start(vec![(200, "v2-token"), (200, "node role\n"), (200, KEYS)]);
    assert_eq!(keys(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.url("/"))]).as_deref(), Ok("ASIA t"));
    let asked = server.asked();
    assert!(asked[0].starts_with("PUT /latest/api/token HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].contains("\r\nx-aws-ec2-metadata-token-ttl-seconds: 300\r\n"), "{}", asked[0]);
    assert!(asked[1].starts_with("GET /latest/meta-data/iam/security-credentials/ HTTP/1.1\r\n"), "{}", asked[1]);
    assert!(asked[2].starts_with("GET /latest/meta-data/iam/security-credentials/node%20role HTTP/1.1\r\n"));
    assert!(asked[1..].iter().all(|head| head.contains("\r\nx-aws-ec2-metadata-token: v2-token\r\n")));
}

#[test]
fn without_a_role_or_a_server_s3_is_asked_anonymously_but_not_when_the_server_is_broken() {
    let of = |answers: Vec<(u16, &'static str)>| {
        let server = Server::start(answers);
        keys(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.url(""))])
    };
    assert_eq!(of(vec![(200, "t"), (404, "")]).as_deref(), Ok("anonymous"));
    assert_eq!(of(vec![(200, "t"), (200, "")]).as_deref(), Ok("anonymous"));
    assert_eq!(of(vec![(400, "")]).as_deref(), Ok("anonymous"));
    assert_eq!(of(vec![(403, ""), (200, "r"), (200, KEYS)]).as_deref(), Ok("ASIA t"), "a server of version 1 alone");
    assert_eq!(keys(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")]).as_deref(), Ok("anonymous"));
    let error = of(vec![(200, "t"), (503, "")]).unwrap_err();
    assert_eq!(error, "keys of the instance's role: 503 Service Unavailable");
    let error = of(vec![(200, "t"), (200, "r"), (200, r#"{"Code":"Failed"}"#)]).unwrap_err();
    assert_eq!(error, "keys of the instance's role: a role without keys: no keys: Failed");
}

#[test]
fn keys_of_a_shared_file_that_is_rotated_are_used_at_once() {
    let file = Temporary::new("rotated", "[p]\naws_access_key_id=one\naws_secret_access_key=s\n");
    let variables = [("AWS_SHARED_CREDENTIALS_FILE", file.path()), ("AWS_PROFILE", "p")];
    let provider = open(&variables).unwrap();
    assert_eq!(shown(&provider).as_deref(), Ok("one -"));
    std::fs::write(&file.0, "[p]\naws_access_key_id=second\naws_secret_access_key=s\n").unwrap();
    assert_eq!(shown(&provider).as_deref(), Ok("second -"));
    std::fs::write(&file.0, "[q]\n").unwrap();
    assert_eq!(shown(&provider).as_deref(), Ok("second -"), "what can't be used leaves the former keys");
}
