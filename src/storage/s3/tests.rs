//! Addresses and listings. What is signed is the library's to test; that it is right, the store in `tests/stores` says.

use super::*;

fn place_of(bucket: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let read = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let store = S3::open(bucket, Environment(&read))?;
    Ok(store.bucket.base_url().to_string())
}

#[test]
fn the_bucket_is_in_the_host_for_aws_and_in_the_path_for_others() {
    let endpoint = ("AWS_ENDPOINT_URL", "http://minio.svc:9000/");
    let region = ("AWS_DEFAULT_REGION", "eu-west-1");
    for (bucket, variables, url) in [
        ("b", &[][..], "https://b.s3.us-east-1.amazonaws.com/"),
        ("b", &[region], "https://b.s3.eu-west-1.amazonaws.com/"),
        ("b", &[region, ("AWS_REGION", "eu-west-2")], "https://b.s3.eu-west-1.amazonaws.com/"),
        ("b", &[("AWS_REGION", "cn-north-1")], "https://b.s3.cn-north-1.amazonaws.com.cn/"),
        ("b", &[region, ("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")], "https://b.s3.eu-west-1.amazonaws.com/"),
        ("b.c", &[], "https://s3.us-east-1.amazonaws.com/b.c/"),
        ("B", &[], "https://s3.us-east-1.amazonaws.com/B/"),
        ("b", &[("S3_USER_VIRTUAL_BUCKET", "false")], "https://s3.us-east-1.amazonaws.com/b/"),
        ("b", &[("S3_USE_ACCELERATE", "true")], "https://b.s3-accelerate.amazonaws.com/"),
        ("b", &[endpoint], "http://minio.svc:9000/b/"),
        ("b", &[endpoint, ("S3_USER_VIRTUAL_BUCKET", "True")], "http://b.minio.svc:9000/"),
        ("b", &[("AWS_ENDPOINT_URL", "http://h/s3/")], "http://h/s3/b/"),
    ] {
        assert_eq!(place_of(bucket, variables).as_deref(), Ok(url), "{variables:?}");
    }
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "minio:9000"),
        ("S3_USER_VIRTUAL_BUCKET", "yes"),
        ("S3_USE_ACCELERATE", "on"),
        ("S3_VERIFY_SSL", "no"),
        ("awsAnonymousCredential", "maybe"),
        ("AWS_CA_BUNDLE", "/nowhere.pem"),
        ("AWS_DEFAULT_REGION", "eu west"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ] {
        let error = place_of("b", &[(name, value)]).unwrap_err();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn a_bucket_that_no_host_can_be_called_after_is_an_error() {
    let variables = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"), ("S3_USER_VIRTUAL_BUCKET", "true")];
    assert!(place_of("b", &variables).unwrap_err().contains("S3_USER_VIRTUAL_BUCKET=false"));
}

/// A listing with these members.
fn listing(members: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <Name>b</Name><EncodingType>url</EncodingType>{members}</ListBucketResult>"
    )
}

fn contents(key: &str) -> String {
    format!("<Contents><Key>{key}</Key><ETag>&quot;e&quot;</ETag><Size>7</Size><Tags><Tag/></Tags></Contents>")
}

fn keys_of(document: &str) -> Result<Vec<String>, Failure> {
    Ok(page(document)?.entries.into_iter().map(|entry| entry.key).collect())
}

#[test]
fn a_page_has_keys_sizes_tags_and_where_to_go_on() {
    let more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t+/=</NextContinuationToken>";
    let expected = Entry { key: "a b/ü".to_owned(), size: 7, version: Some("\"e\"".to_owned()), crc32c: None };
    let found = page(&listing(&(contents("a+b/%C3%BC") + more))).unwrap();
    assert_eq!(found, Page { entries: vec![expected], next: Some("t+/=".to_owned()) });
    assert_eq!(page(&listing("<IsTruncated>false</IsTruncated>")).unwrap().next, None);
}

#[test]
fn keys_come_as_they_are_for_the_listing_to_judge() {
    let document = listing(&["%2E%2E/x", "a%00b", "&lt;&amp;&#x41;", "%0A"].map(contents).concat());
    assert_eq!(keys_of(&document).unwrap(), ["../x", "a\0b", "<&A", "\n"]);
}

#[test]
fn a_document_that_is_torn_or_hostile_is_a_failure_at_any_place() {
    let document = listing(&contents("k"));
    for end in 0..document.len() - 1 {
        assert_eq!(page(&document[..end]).unwrap_err().kind, Kind::Transient { after: None }, "{end}");
    }
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;\">]>";
    for document in [
        listing(&contents("&b;")).replace("<ListBucketResult", &format!("{bomb}<ListBucketResult")),
        listing("<Contents><Key>k</Key></Contents>"),
        listing("<Contents><Key>k</Key><Size>-1</Size></Contents>"),
        listing("<Contents><Key>k</Key><Size>99999999999999999999</Size></Contents>"),
        listing("<IsTruncated>true</IsTruncated>"),
        "<html><body>proxy</body></html>".to_owned(),
    ] {
        assert!(page(&document).is_err(), "{document}");
    }
}

#[test]
fn elements_inside_each_other_without_end_do_not_overflow_the_stack() {
    let deep = "<a>".repeat(100_000);
    assert!(page(&listing(&deep)).is_err());
    let closed = format!("{deep}{}", "</a>".repeat(100_000));
    let _ = page(&listing(&closed));
}
