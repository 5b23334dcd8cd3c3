//! One logged payload as an object store gets it (SPEC L8, L9), pure.
//!
//! A [`Record`] is what becomes of an event in a file, and what goes over HTTP to a marshaller that is not built in. Its JSON
//! form is that of the Go agent: empty members are left out, but for the time; URLs are in [`Url`]'s form, the payload is
//! base64.
//!
//! Not here: where a record comes from, the files' formats (`marshal`), and reading, which nothing needs.

mod key;
mod time;
mod url;

use std::collections::BTreeMap;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

pub(crate) use self::key::fnv1a;
pub use self::key::object_key;
pub use self::time::Rfc3339;
pub use self::url::Url;

/// A request's or a response's payload and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Where it is logged to (`--log-url`).
    #[serde(skip_serializing_if = "is_empty")]
    pub url: Url,
    /// The payload, whatever bytes it has.
    #[serde(skip_serializing_if = "is_empty", serialize_with = "to_base64")]
    pub bytes: Vec<u8>,
    /// Its `Content-Type`.
    #[serde(skip_serializing_if = "is_empty")]
    pub content_type: String,
    /// The CloudEvents type, such as `org.kubeflow.serving.inference.request`.
    #[serde(skip_serializing_if = "is_empty")]
    pub req_type: String,
    /// The request's id, the same for its response. A client may have chosen it.
    #[serde(skip_serializing_if = "is_empty")]
    pub id: String,
    /// `--source-uri`.
    #[serde(skip_serializing_if = "is_empty")]
    pub source_uri: Url,
    /// `--inference-service`.
    #[serde(skip_serializing_if = "is_empty")]
    pub inference_service: String,
    /// `--namespace`.
    #[serde(skip_serializing_if = "is_empty")]
    pub namespace: String,
    /// `--component`.
    #[serde(skip_serializing_if = "is_empty")]
    pub component: String,
    /// `--endpoint`.
    #[serde(skip_serializing_if = "is_empty")]
    pub endpoint: String,
    /// Request headers of `--metadata-headers` and their values.
    #[serde(skip_serializing_if = "is_empty")]
    pub metadata: BTreeMap<String, Vec<String>>,
    /// `--metadata-annotations`.
    #[serde(skip_serializing_if = "is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `--logger-ca-cert-file`, as given.
    #[serde(skip_serializing_if = "is_empty")]
    pub cert_name: String,
    /// `--logger-tls-skip-verify`.
    #[serde(skip_serializing_if = "is_empty")]
    pub tls_skip_verify: bool,
    /// When the request had been read, or the response had ended.
    pub occurrence_time: Rfc3339,
}

fn is_empty<T: Default + PartialEq>(member: &T) -> bool {
    *member == T::default()
}

/// Streamed, as a payload may be 32 MiB.
fn to_base64<S: Serializer>(bytes: &[u8], json: S) -> Result<S::Ok, S::Error> {
    json.collect_str(&Base64Display::new(bytes, &STANDARD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        Record {
            url: Url::new("http://a:1/x?y"),
            bytes: b"\x00\xff{}".to_vec(),
            content_type: "application/json".to_owned(),
            req_type: "org.kubeflow.serving.inference.request".to_owned(),
            id: "1-2".to_owned(),
            source_uri: Url::new("http://localhost:9081/"),
            inference_service: "iris".to_owned(),
            namespace: "ns".to_owned(),
            component: "predictor".to_owned(),
            endpoint: "default".to_owned(),
            metadata: BTreeMap::from([
                ("X-B".to_owned(), vec!["1".to_owned(), "2".to_owned()]),
                ("X-A".to_owned(), vec![String::new()]),
            ]),
            annotations: BTreeMap::from([("k".to_owned(), "v=\"\u{1}é".to_owned())]),
            cert_name: "service-ca.crt".to_owned(),
            tls_skip_verify: true,
            occurrence_time: Rfc3339::parse("2026-01-02T03:04:05.6Z").unwrap(),
        }
    }

    #[test]
    fn the_json_form_is_that_of_the_go_agent() {
        let expected = concat!(
            r#"{"url":{"Scheme":"http","Opaque":"","User":null,"Host":"a:1","Path":"/x","Fragment":"","RawQuery":"y","#,
            r#""RawPath":"","RawFragment":"","ForceQuery":false,"OmitHost":false},"bytes":"AP97fQ==","#,
            r#""contentType":"application/json","reqType":"org.kubeflow.serving.inference.request","id":"1-2","#,
            r#""sourceUri":{"Scheme":"http","Opaque":"","User":null,"Host":"localhost:9081","Path":"/","Fragment":"","#,
            r#""RawQuery":"","RawPath":"","RawFragment":"","ForceQuery":false,"OmitHost":false},"#,
            r#""inferenceService":"iris","namespace":"ns","component":"predictor","endpoint":"default","#,
            r#""metadata":{"X-A":[""],"X-B":["1","2"]},"annotations":{"k":"v=\"\u0001é"},"#,
            r#""certName":"service-ca.crt","tlsSkipVerify":true,"occurrenceTime":"2026-01-02T03:04:05.6Z"}"#,
        );
        assert_eq!(serde_json::to_string(&full()).unwrap(), expected);
    }

    #[test]
    fn empty_members_are_left_out_but_for_the_time() {
        let json = r#"{"occurrenceTime":"0001-01-01T00:00:00Z"}"#;
        assert_eq!(serde_json::to_string(&Record::default()).unwrap(), json);
    }
}
