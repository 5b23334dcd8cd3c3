//! Which source is taken, and what each is asked: against endpoints on the loopback that answer as a script says.

use super::*;
use crate::storage::scripted::Server;

fn provider(sas: Option<&str>, variables: &[(&str, &str)]) -> Result<Provider, String> {
    let read = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Provider::open(Some("acc".to_owned()), sas, Environment(&read), &Proxies::default())
}

fn open(sas: Option<&str>, variables: &[(&str, &str)]) -> Result<String, String> {
    provider(sas, variables).map(|provider| format!("{provider:?}"))
}

/// The field of a request with these variables.
fn field(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
    let ask = Ask { verb: "GET", key: None, query: Vec::new(), fields: Vec::new(), length: 0 };
    let field = provider(None, variables)?.field("http://h/c", &ask, SystemTime::now());
    field.map_err(|failure| failure.reason)
}

fn bearer() -> Result<Option<String>, String> {
    Ok(Some("Bearer at".to_owned()))
}

const ALL: [(&str, &str); 5] = [
    ("AZURE_STORAGE_ACCESS_KEY", "c2VjcmV0"),
    ("AZURE_ACCESS_TOKEN", "at"),
    ("AZURE_TENANT_ID", "tenant/x"),
    ("AZURE_CLIENT_ID", "c"),
    ("AZURE_CLIENT_SECRET", "s"),
];
/// What the Go agent wants to be set before it looks for anything else.
const DUMMY: (&str, &str) = ("AZURE_STORAGE_ACCESS_KEY", "not used!");
const TOKEN: &str = r#"{"access_token":"at","expires_in":"3599","expires_on":"4070908800","resource":"r"}"#;

#[test]
fn the_first_source_that_is_there_is_taken() {
    let host = ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1");
    assert_eq!(open(Some("sig=x"), &ALL), Ok("Signature".to_owned()));
    assert_eq!(open(None, &ALL), Ok("Key".to_owned()));
    assert_eq!(open(None, &ALL[1..]), Ok("Token".to_owned()));
    assert_eq!(open(None, &[&ALL[2..], &[host]].concat()), Ok("Client".to_owned()));
    assert_eq!(open(None, &ALL[2..4]), Ok("Managed".to_owned()), "nothing that proves the client");
    assert_eq!(open(None, &[]), Ok("Managed".to_owned()));
}

#[test]
fn a_client_proves_itself_by_a_secret_or_a_file_that_rotates() {
    let server = Server::start(vec![(200, TOKEN), (200, TOKEN)]);
    let host = server.url("/");
    assert_eq!(field(&[ALL[2], ALL[3], ALL[4], ("AZURE_AUTHORITY_HOST", &host)]), bearer());
    let file = std::env::temp_dir().join(format!("kserve-agent-azure-{}", std::process::id()));
    std::fs::write(&file, "jwt\n").unwrap();
    let federated = ("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap());
    assert_eq!(field(&[ALL[2], ALL[3], federated, ("AZURE_AUTHORITY_HOST", &host)]), bearer());
    std::fs::remove_file(&file).unwrap();
    let asked = server.asked();
    assert!(asked[0].starts_with("POST /tenant%2Fx/oauth2/v2.0/token HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].ends_with("&client_secret=s"), "{}", asked[0]);
    assert!(asked[1].ends_with("jwt-bearer&client_assertion=jwt"), "{}", asked[1]);
}

#[test]
fn a_managed_identity_is_asked_for_at_the_metadata_server() {
    let server = Server::start(vec![(200, TOKEN)]);
    let host = server.url("/");
    assert_eq!(field(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &host), ALL[3]]), bearer());
    let path = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com&client_id=c ";
    let asked = server.asked();
    assert!(asked[0].starts_with(path) && asked[0].contains("\r\nmetadata: true\r\n"), "{}", asked[0]);
}

#[test]
fn an_app_services_endpoint_comes_before_the_metadata_server() {
    let server = Server::start(vec![(200, r#"{"access_token":"at","expires_on":"4070908800"}"#), (400, "")]);
    let endpoint = server.url("/msi/token");
    let variables = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "h")];
    assert_eq!(field(&variables), bearer());
    let path = "GET /msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com ";
    let asked = server.asked();
    assert!(asked[0].starts_with(path) && asked[0].contains("\r\nx-identity-header: h\r\n"), "{}", asked[0]);
    assert_eq!(field(&variables), Err("a token of the managed identity: 400 Bad Request".to_owned()));
}

#[test]
fn without_an_identity_or_a_server_azure_is_asked_anonymously_but_not_when_the_server_is_broken() {
    let server = Server::start(vec![(400, ""), (404, ""), (500, "")]);
    let host = server.url("");
    let managed = [("AZURE_POD_IDENTITY_AUTHORITY_HOST", host.as_str())];
    assert_eq!(field(&managed), Ok(None));
    assert_eq!(field(&managed), Ok(None));
    assert_eq!(field(&managed), Err("a token of the managed identity: 500 Internal Server Error".to_owned()));
    assert_eq!(field(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")]), Ok(None));
}

#[test]
fn a_key_that_is_a_dummy_gives_way_to_any_other_source() {
    let server = Server::start(vec![(200, TOKEN), (200, TOKEN), (400, "")]);
    let host = server.url("");
    assert_eq!(field(&[DUMMY, ALL[1]]), bearer());
    assert_eq!(field(&[DUMMY, ALL[2], ALL[3], ALL[4], ("AZURE_AUTHORITY_HOST", &host)]), bearer());
    let managed = ("AZURE_POD_IDENTITY_AUTHORITY_HOST", host.as_str());
    assert_eq!(field(&[DUMMY, managed]), bearer());
    let reason = "AZURE_STORAGE_ACCESS_KEY is not Base64, and there is no managed identity";
    assert_eq!(field(&[DUMMY, managed]), Err(reason.to_owned()), "not anonymous: a key was meant");
}

#[test]
fn a_variable_that_is_wrong_or_missing_is_named_and_no_secret_is() {
    for (variables, name) in [
        (&[("AZURE_CLIENT_SECRET", "secret")][..], "AZURE_TENANT_ID"),
        (&[("AZURE_CLIENT_SECRET", "secret"), ALL[2]], "AZURE_CLIENT_ID"),
        (&[ALL[2], ALL[3], ALL[4], ("AZURE_AUTHORITY_HOST", "secret")], "AZURE_AUTHORITY_HOST"),
        (&[("IDENTITY_ENDPOINT", "secret")], "IDENTITY_ENDPOINT"),
    ] {
        let error = open(None, variables).unwrap_err();
        assert!(error.contains(name) && !error.contains("secret"), "{error}");
    }
}
