//! `models.json`: which models there are to be (SPEC M1, M2). Pure.
//!
//! The form is that of KServe's controller, and unknown members are left alone. A list that can't be read, or has a name
//! twice, is refused as a whole, as nobody can say what was meant; an entry that is no model is refused alone.
//!
//! Not here: the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use crate::config::{MODEL_NAME_BYTES, MODELS_MAX};

/// The models that there are to be, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) models: BTreeMap<String, Spec>,
    /// Entries that are no models, and why.
    pub(super) refused: Vec<String>,
}

/// What a model is, as the list says it. Its JSON form is what KServe's agent hashes and writes into the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) storage_uri: String,
    #[serde(default)]
    framework: String,
    #[serde(default, deserialize_with = "quantity")]
    memory: String,
}

/// The SHA-256 of a specification, in hex: which version of a model this is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version(Arc<str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    model_name: Option<String>,
    model_spec: Option<Spec>,
}

impl List {
    /// The list in this text.
    ///
    /// # Errors
    /// When it is none; the text says where and why.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let entries: Vec<Json> = serde_json::from_slice(json).map_err(|error| format!("it is no list: {error}"))?;
        if entries.len() > MODELS_MAX {
            return Err(format!("it has {} models, {MODELS_MAX} are allowed", entries.len()));
        }
        let mut list = Self::default();
        for (number, entry) in entries.into_iter().enumerate() {
            let Entry { model_name, model_spec } = match serde_json::from_value(entry) {
                Ok(entry) => entry,
                Err(why) => {
                    list.refused.push(format!("entry {}: it is no model: {why}", number + 1));
                    continue;
                }
            };
            let name = model_name.unwrap_or_default();
            if let Err(why) = check(&name) {
                list.refused.push(format!("entry {}: the name {} {why}", number + 1, shown(&name)));
                continue;
            }
            let Some(spec) = model_spec.filter(|spec| !spec.storage_uri.is_empty()) else {
                list.refused.push(format!("entry {}: the model {name} has no storageUri", number + 1));
                continue;
            };
            if list.models.contains_key(&name) {
                return Err(format!("it has the model {name} twice"));
            }
            list.models.insert(name, spec);
        }
        Ok(list)
    }
}

/// A quantity of Kubernetes: a text, or a number, which is as good.
fn quantity<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Json::deserialize(from)? {
        Json::String(text) => Ok(text),
        Json::Number(number) => Ok(number.to_string()),
        _ => Err(serde::de::Error::custom("memory is no quantity")),
    }
}

/// A name that can be a folder in the models' folder, and no other place.
fn check(name: &str) -> Result<(), String> {
    match name {
        "" => Err("is empty".to_owned()),
        _ if name.len() > MODEL_NAME_BYTES => Err(format!("has {} bytes, {MODEL_NAME_BYTES} are allowed", name.len())),
        // The agent's own folders are hidden, and so are the two that lead elsewhere.
        _ if name.starts_with('.') => Err("begins with a dot".to_owned()),
        _ if name.contains(['/', '\\']) => Err("has a slash".to_owned()),
        _ if name.contains(char::is_control) => Err("has a control character".to_owned()),
        _ => Ok(()),
    }
}

/// A name in a message.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(MODEL_NAME_BYTES).collect::<String>())
}

impl Spec {
    /// As it lies in the marker.
    pub(super) fn json(&self) -> String {
        // Go escapes these in strings, and nothing else in JSON has them.
        let json = serde_json::to_string(self).unwrap_or_default();
        json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
    }

    pub(super) fn version(&self) -> Version {
        let mut hex = String::with_capacity(64);
        for byte in digest(&SHA256, self.json().as_bytes()).as_ref() {
            // A String takes every character, so this can't fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Version(hex.into())
    }
}

impl Version {
    /// That which a marker's name says.
    pub(super) fn of_hex(hex: &str) -> Option<Self> {
        let is_one = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_one.then(|| Self(hex.into()))
    }

    pub(super) fn hex(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<List, String> {
        List::parse(json.as_bytes())
    }

    #[test]
    fn the_form_is_that_of_the_controller() {
        let list = parse(
            r#"[{"modelName":"m","modelSpec":{"storageUri":"s3://b/m","framework":"sklearn","memory":"1Gi","x":1}}]"#,
        );
        let spec = &list.unwrap().models["m"];
        assert_eq!(spec.json(), r#"{"storageUri":"s3://b/m","framework":"sklearn","memory":"1Gi"}"#);
        assert_eq!(parse("[]"), Ok(List::default()));
    }

    #[test]
    fn a_version_is_the_hash_that_sha256sum_gives() {
        let spec = Spec { storage_uri: "s3://b/a&b".to_owned(), framework: String::new(), memory: String::new() };
        assert_eq!(spec.json(), r#"{"storageUri":"s3://b/a\u0026b","framework":"","memory":""}"#);
        let version = spec.version();
        assert_eq!(version.hex().len(), 64);
        assert_eq!(Version::of_hex(version.hex()), Some(version));
        for no in ["", "ab", &"g".repeat(64), &"A".repeat(64)] {
            assert_eq!(Version::of_hex(no), None);
        }
    }

    #[test]
    fn what_is_no_list_is_refused_as_a_whole() {
        for json in ["", "{}", "null", "[{]", r#"[{"modelName":"m"}"#] {
            assert!(parse(json).is_err(), "{json}");
        }
        let twice = r#"{"modelName":"m","modelSpec":{"storageUri":"s3://b"}}"#;
        assert_eq!(parse(&format!("[{twice},{twice}]")), Err("it has the model m twice".to_owned()));
    }

    #[test]
    fn an_entry_that_is_no_model_is_refused_alone() {
        let good = r#"{"modelName":"good","modelSpec":{"storageUri":"s3://b"}}"#;
        for (name, why) in [
            ("", "is empty"),
            (".", "begins with a dot"),
            ("..", "begins with a dot"),
            (".kserve-agent", "begins with a dot"),
            ("a/b", "has a slash"),
            ("/etc", "has a slash"),
            ("a\\n", "has a control character"),
            (&"x".repeat(191), "has 191 bytes, 190 are allowed"),
        ] {
            let json = format!(r#"[{{"modelName":"{name}","modelSpec":{{"storageUri":"s3://b"}}}},{good}]"#);
            let list = parse(&json).unwrap();
            assert_eq!(list.models.len(), 1, "{name}");
            assert!(list.refused[0].starts_with("entry 1: the name ") && list.refused[0].ends_with(why), "{list:?}");
        }
        for spec in ["", r#","modelSpec":{}"#, r#","modelSpec":{"storageUri":""}"#] {
            let list = parse(&format!(r#"[{{"modelName":"m"{spec}}},{good}]"#)).unwrap();
            assert_eq!(
                (list.models.len(), list.refused),
                (1, vec!["entry 1: the model m has no storageUri".to_owned()])
            );
        }
        for entry in ["1", r#"{"modelName":1}"#, r#"{"modelName":"m","modelSpec":{"storageUri":"s3://b","memory":[]}}"#]
        {
            let list = parse(&format!("[{entry},{good}]")).unwrap();
            assert!(list.models.len() == 1 && list.refused[0].starts_with("entry 1: it is no model: "), "{list:?}");
        }
    }

    #[test]
    fn memory_may_be_a_number() {
        let list = parse(r#"[{"modelName":"m","modelSpec":{"storageUri":"s3://b","memory":1}}]"#).unwrap();
        assert_eq!(list.models["m"].memory, "1");
    }
}
