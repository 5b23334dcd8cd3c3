//! What each kind of account asks for, against token services on the loopback that answer as a script says.

use super::*;
use crate::storage::scripted::Server;

const TOKEN: &str = r#"{"access_token":"at","token_type":"Bearer","expires_in":3600}"#;

/// A folder of its own for a test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kserve-agent-gcs-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(file: &str) -> Result<Provider, String> {
    let read = |name: &str| (name == "GOOGLE_APPLICATION_CREDENTIALS").then(|| file.to_owned());
    Provider::open(Environment(&read), &Proxies::default())
}

fn token(provider: &Provider) -> Result<Option<String>, String> {
    provider.token(SystemTime::now()).map_err(|failure| failure.reason)
}

fn at() -> Result<Option<String>, String> {
    Ok(Some("at".to_owned()))
}

#[test]
fn a_users_refresh_token_is_changed_for_a_token() {
    let (folder, server) = (Folder::new("user"), Server::start(vec![(200, TOKEN)]));
    let user = json!({ "type": "authorized_user", "client_id": "cid", "client_secret": "cs", "refresh_token": "rt-1/x",
        "token_uri": server.url("/token"), "quota_project_id": "q" });
    assert_eq!(token(&open(&folder.write("adc", &user.to_string())).unwrap()), at());
    let asked = server.asked();
    assert!(asked[0].starts_with("POST /token HTTP/1.1\r\n"), "{}", asked[0]);
    let form = "grant_type=refresh_token&client_id=cid&client_secret=cs&refresh_token=rt-1%2Fx";
    assert!(asked[0].ends_with(&format!("\r\n\r\n{form}")), "{}", asked[0]);
}

#[test]
fn gclouds_own_file_is_found_below_the_home_folder() {
    let folder = Folder::new("home");
    let read = |name: &str| (name == "HOME").then(|| folder.0.to_str().unwrap().to_owned());
    let open = || format!("{:?}", Provider::open(Environment(&read), &Proxies::default()).unwrap());
    assert_eq!(open(), "Metadata");
    std::fs::create_dir_all(folder.0.join(".config/gcloud")).unwrap();
    let user = json!({ "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r" });
    folder.write(GCLOUD_FILE, &user.to_string());
    assert_eq!(open(), "File");
}

/// An account of a federation whose subject is read from `source`.
fn external(source: Value, server: &Server) -> Value {
    json!({ "type": "external_account", "audience": "//iam/p", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": server.url("/sts"), "credential_source": source })
}

#[test]
fn a_subject_of_a_file_is_exchanged_and_read_again_for_each_token() {
    let (folder, server) = (Folder::new("file"), Server::start(vec![(200, TOKEN), (200, TOKEN)]));
    let file = folder.write("jwt", "first.jwt\n");
    let account = external(json!({ "file": file }), &server);
    let provider = open(&folder.write("adc", &account.to_string())).unwrap();
    assert_eq!(token(&provider), at());
    folder.write("jwt", "second.jwt");
    assert!(provider.forget());
    assert_eq!(token(&provider), at());
    let asked = server.asked();
    assert!(asked[0].starts_with("POST /sts HTTP/1.1\r\n"), "{}", asked[0]);
    for part in [
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&",
        "audience=%2F%2Fiam%2Fp&",
        "scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdevstorage.read_write&",
        "requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&",
        "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&",
        "subject_token=first.jwt",
    ] {
        assert!(asked[0].contains(part), "{part}: {}", asked[0]);
    }
    assert!(asked[1].ends_with("subject_token=second.jwt"), "{}", asked[1]);
}

#[test]
fn a_subject_of_a_url_is_exchanged_and_impersonates_an_account() {
    let impersonated = r#"{"accessToken":"at","expireTime":"2099-01-01T00:00:00Z"}"#;
    let federated = r#"{"access_token":"federated","expires_in":3600}"#;
    let answers = vec![(200, r#"{"id_token":"of.the.url"}"#), (200, federated), (200, impersonated)];
    let (folder, server) = (Folder::new("url"), Server::start(answers));
    let source = json!({ "url": server.url("/subject"), "headers": { "Metadata": "True" },
        "format": { "type": "json", "subject_token_field_name": "id_token" } });
    let mut account = external(source, &server);
    account["service_account_impersonation_url"] = json!(server.url("/impersonate"));
    account["service_account_impersonation"] = json!({ "token_lifetime_seconds": 600 });
    assert_eq!(token(&open(&folder.write("adc", &account.to_string())).unwrap()), at());
    let asked = server.asked();
    assert!(asked[0].starts_with("GET /subject HTTP/1.1\r\n") && asked[0].contains("\r\nmetadata: True\r\n"));
    assert!(asked[1].contains("auth%2Fcloud-platform&") && asked[1].ends_with("subject_token=of.the.url"));
    assert!(asked[2].starts_with("POST /impersonate HTTP/1.1\r\n"), "{}", asked[2]);
    assert!(asked[2].contains("\r\nauthorization: Bearer federated\r\n"), "{}", asked[2]);
    assert!(asked[2].contains("devstorage.read_write") && asked[2].contains("\"600s\""), "{}", asked[2]);
}

#[test]
fn a_user_may_impersonate_an_account() {
    let impersonated = r#"{"accessToken":"at","expireTime":"2099-01-01T00:00:00Z"}"#;
    let (folder, server) = (Folder::new("other"), Server::start(vec![(200, TOKEN), (200, impersonated)]));
    let account = json!({ "type": "impersonated_service_account", "delegates": ["d"],
        "service_account_impersonation_url": server.url("/impersonate"),
        "source_credentials": { "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r",
            "token_uri": server.url("/token") } });
    assert_eq!(token(&open(&folder.write("adc", &account.to_string())).unwrap()), at());
    assert!(server.asked()[1].contains("\"delegates\":[\"d\"]"));
}

#[test]
fn a_file_that_changes_is_used_for_the_next_token_and_the_old_token_until_then() {
    let other = r#"{"access_token":"other","expires_in":3600}"#;
    let (folder, server) = (Folder::new("rotated"), Server::start(vec![(200, TOKEN), (200, other)]));
    let user = |refresh: &str| {
        json!({ "type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": refresh,
            "token_uri": server.url("/token") })
        .to_string()
    };
    let provider = open(&folder.write("adc", &user("r1"))).unwrap();
    assert_eq!(token(&provider), at());
    folder.write("adc", &user("second"));
    assert_eq!(token(&provider), at(), "no request waits");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while token(&provider) != Ok(Some("other".to_owned())) {
        assert!(std::time::Instant::now() < deadline, "{:?}", server.asked());
        std::thread::yield_now();
    }
    assert!(server.asked()[1].ends_with("refresh_token=second"));
}

#[test]
fn a_file_that_cant_be_used_is_an_error_that_does_not_quote_it() {
    let (folder, server) = (Folder::new("bad"), Server::start(Vec::<(u16, String)>::new()));
    let source = |source: Value| external(source, &server).to_string();
    for (text, part) in [
        ("secret".to_owned(), "JSON"),
        ("{}".to_owned(), "a \"\" is not supported, one of service_account"),
        (r#"{"type":"gdch_service_account"}"#.to_owned(), "a \"gdch_service_account\" is not supported"),
        (r#"{"type":"authorized_user","client_id":"secret"}"#.to_owned(), "client_secret"),
        (r#"{"type":"external_account","audience":"secret"}"#.to_owned(), "credential_source"),
        (source(json!({ "environment_id": "aws1" })), "environment_id is not supported"),
        (source(json!({ "executable": { "command": "secret" } })), "executable is not supported"),
        (source(json!({ "url": "secret" })), "credential_source's url is not a URL"),
        (source(json!({ "file": "/secret", "format": { "type": "json" } })), "subject_token_field_name"),
        (source(json!({})), "without file and url"),
        (
            r#"{"type":"impersonated_service_account","service_account_impersonation_url":"http://h"}"#.to_owned(),
            "a \"\" is",
        ),
    ] {
        let error = open(&folder.write("adc", &text)).err().unwrap();
        assert!(error.contains(part) && !error.contains("secret\"") && !error.contains("/secret"), "{error}");
        assert!(error.starts_with("GOOGLE_APPLICATION_CREDENTIALS: /"), "{error}");
    }
}
