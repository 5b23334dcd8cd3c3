//! Addresses and listings.

use super::*;

fn service_of(url: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let read = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let address = Address::parse(url)?;
    let super::super::address::Service::Azure { host, sas } = &address.service else { panic!("{url}") };
    let store = Azure::open(&address, host.as_deref(), sas.as_deref(), Environment(&read))?;
    Ok(format!("{} {:?}", store.service, store.credentials))
}

#[test]
fn the_account_is_the_urls_or_the_environments() {
    let name = ("AZURE_ACCOUNT_NAME", "env");
    let emulator = ("AZURE_SERVICE_URL", "http://127.0.0.1:10000/devstoreaccount1/");
    let key = ("AZURE_STORAGE_ACCESS_KEY", "c2VjcmV0");
    for (url, variables, service) in [
        ("abfs://c@acc.dfs.core.windows.net/p", &[name][..], "https://acc.blob.core.windows.net Managed"),
        ("abfs://c/p", &[name], "https://env.blob.core.windows.net Managed"),
        ("abfs://c/p", &[name, emulator, key], "http://127.0.0.1:10000/devstoreaccount1 Key"),
        ("https://acc.blob.core.windows.net/c?sig=s", &[emulator], "http://127.0.0.1:10000/devstoreaccount1 Signature"),
    ] {
        assert_eq!(service_of(url, variables).as_deref(), Ok(service), "{url}");
    }
    assert!(service_of("abfs://c/p", &[]).unwrap_err().contains("AZURE_ACCOUNT_NAME"));
    assert!(service_of("abfs://c/p", &[emulator, key]).unwrap_err().contains("AZURE_ACCOUNT_NAME"));
    assert!(service_of("abfs://c@a/p", &[("AZURE_SERVICE_URL", "x")]).unwrap_err().contains("AZURE_SERVICE_URL"));
}

/// A listing of these blobs, as Azure writes it.
fn listing(blobs: &str, next: &str) -> String {
    format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ServiceEndpoint=\"https://a/\" \
         ContainerName=\"c\"><Prefix>m/</Prefix><MaxResults>3</MaxResults><Blobs>{blobs}</Blobs>{next}</EnumerationResults>"
    )
}

fn blob(name: &str, kind: &str) -> String {
    format!(
        "<Blob><Name{name}</Name><Properties><Creation-Time>x</Creation-Time><Etag>0x8D</Etag>{kind}\
         <Content-Length>7</Content-Length><Content-Type>a/b</Content-Type></Properties><OrMetadata /></Blob>"
    )
}

#[test]
fn a_page_has_names_sizes_tags_and_where_to_go_on() {
    let encoded = blob(" Encoded=\"true\">m/%EF%BF%BF%0a", "");
    let folder = blob(">m/folder", "<ResourceType>directory</ResourceType>");
    let file = blob(">m/&lt;a&gt; b%20", "<ResourceType>file</ResourceType>");
    let found = page(&listing(&[encoded, folder, file].concat(), "<NextMarker>2!abc</NextMarker>")).unwrap();
    let entry = |key: &str| Entry { key: key.to_owned(), size: 7, version: Some("\"0x8D\"".to_owned()), crc32c: None };
    let entries = vec![entry("m/\u{ffff}\n"), entry("m/<a> b%20")];
    assert_eq!(found, Page { entries, next: Some("2!abc".to_owned()) });
    for end in ["<NextMarker />", "<NextMarker></NextMarker>", ""] {
        assert_eq!(page(&listing("", end)), Ok(Page { entries: Vec::new(), next: None }), "{end}");
    }
}

#[test]
fn a_document_that_is_torn_or_garbage_is_a_failure_at_any_place() {
    let document = listing(&blob(">k", ""), "<NextMarker />");
    for (end, _) in document.char_indices() {
        assert_eq!(page(&document[..end]).unwrap_err().kind, Kind::Transient { after: None }, "{end}");
    }
    for document in ["<html></html>".to_owned(), document.replace("<Content-Length>7</Content-Length>", "")] {
        assert!(page(&document).is_err(), "{document}");
    }
}
