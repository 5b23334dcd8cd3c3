//! One logged payload as an object store gets it (SPEC L8, L9), pure.
//!
//! A [`Record`] is what the marshallers turn into files, and what goes over HTTP to one that is not built in. Its JSON
//! form is that of the Go agent: empty members are left out, but for the time; URLs are in [`Url`]'s form, the payload is
//! base64. Reading is as tolerant as Go's: unknown members are skipped, `null` is as good as nothing.
//!
//! Not here: where a record comes from, the files' formats (`marshal`).

mod key;
mod time;
mod url;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Deserialize as FromJson, Serialize as ToJson, Serializer};

pub(crate) use self::key::fnv1a;
pub use self::key::object_key;
pub use self::time::Rfc3339;
pub use self::url::Url;

/// A request's or a response's payload and what is known about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromJson, ToJson)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Where it is logged to (`--log-url`).
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub url: Url,
    /// The payload, whatever bytes it has.
    #[serde(skip_serializing_if = "is_empty", serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub bytes: Vec<u8>,
    /// Its `Content-Type`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub content_type: String,
    /// The CloudEvents type, such as `org.kubeflow.serving.inference.request`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub req_type: String,
    /// The request's id, the same for its response. A client may have chosen it.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub id: String,
    /// `--source-uri`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub source_uri: Url,
    /// `--inference-service`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub inference_service: String,
    /// `--namespace`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub namespace: String,
    /// `--component`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub component: String,
    /// `--endpoint`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub endpoint: String,
    /// Request headers of `--metadata-headers` and their values.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub metadata: BTreeMap<String, Vec<String>>,
    /// `--metadata-annotations`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `--logger-ca-cert-file`, as given.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub cert_name: String,
    /// `--logger-tls-skip-verify`.
    #[serde(skip_serializing_if = "is_empty", deserialize_with = "null_is_empty")]
    pub tls_skip_verify: bool,
    /// When the request had been read, or the response had ended.
    #[serde(deserialize_with = "null_is_empty")]
    pub occurrence_time: Rfc3339,
}

impl Record {
    /// The records of a JSON array.
    ///
    /// # Errors
    /// When it is no array of records; the error says where and why.
    pub fn list(json: &[u8]) -> Result<Vec<Self>, serde_json::Error> {
        let objects: Vec<Object> = serde_json::from_slice(json)?;
        Ok(objects.into_iter().map(|object| object.0).collect())
    }
}

/// A record that is a JSON object: alone it would be read from an array of its members as well.
struct Object(Record);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(FromObject)
    }
}

struct FromObject;

impl<'de> Visitor<'de> for FromObject {
    type Value = Object;

    fn expecting(&self, expected: &mut fmt::Formatter<'_>) -> fmt::Result {
        expected.write_str("a record, which is an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object, A::Error> {
        Record::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

fn is_empty<T: Default + PartialEq>(member: &T) -> bool {
    *member == T::default()
}

fn null_is_empty<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<T, D::Error> {
    Option::deserialize(json).map(Option::unwrap_or_default)
}

/// Streamed, as a payload may be 32 MiB.
fn to_base64<S: Serializer>(bytes: &[u8], json: S) -> Result<S::Ok, S::Error> {
    json.collect_str(&Base64Display::new(bytes, &STANDARD))
}

fn from_base64<'de, D: Deserializer<'de>>(json: D) -> Result<Vec<u8>, D::Error> {
    json.deserialize_any(FromBase64)
}

struct FromBase64;

impl Visitor<'_> for FromBase64 {
    type Value = Vec<u8>;

    fn expecting(&self, expected: &mut fmt::Formatter<'_>) -> fmt::Result {
        expected.write_str("bytes in base64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        STANDARD.decode(text).map_err(|error| E::custom(format_args!("bytes are not base64: {error}")))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Vec<u8>, E> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Record, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

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
        assert_eq!(read(expected), Ok(full()));
    }

    #[test]
    fn empty_members_are_left_out_but_for_the_time() {
        let json = r#"{"occurrenceTime":"0001-01-01T00:00:00Z"}"#;
        assert_eq!(serde_json::to_string(&Record::default()).unwrap(), json);
        assert_eq!(read(json), Ok(Record::default()));
        assert_eq!(read("{}"), Ok(Record::default()));
    }

    #[test]
    fn null_and_unknown_members_are_as_good_as_nothing() {
        let names = "url bytes contentType reqType id sourceUri inferenceService namespace component endpoint metadata \
                     annotations certName tlsSkipVerify occurrenceTime unknown";
        let members: Vec<String> = names.split(' ').map(|name| format!("\"{name}\":null")).collect();
        assert_eq!(read(&format!("{{{}}}", members.join(","))), Ok(Record::default()));
    }

    #[test]
    fn a_member_of_another_kind_is_refused_with_the_reason() {
        for (json, reason) in [
            (r#"{"bytes":"*"}"#, "bytes are not base64"),
            (r#"{"bytes":"AP97fQ"}"#, "bytes are not base64"),
            (r#"{"bytes":[1]}"#, "expected bytes in base64"),
            (r#"{"id":1}"#, "expected a string"),
            (r#"{"metadata":{"a":"b"}}"#, "expected a sequence"),
            (r#"{"occurrenceTime":"yesterday"}"#, "RFC 3339"),
            (r#"{"url":"http://a"}"#, "expected struct Parts"),
            ("7", "expected struct Record"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn a_list_is_of_records_and_nothing_else() {
        let list = serde_json::to_vec(&[full(), Record::default()]).unwrap();
        assert_eq!(Record::list(&list).unwrap(), [full(), Record::default()]);
        assert_eq!(Record::list(b" [ ] ").unwrap(), []);
        for json in ["", "{}", "[[]]", "[7]", "[null]", "[{}]x", "[{}", "[{},]", "\"[]\""] {
            assert!(Record::list(json.as_bytes()).is_err(), "{json}");
        }
    }
}
