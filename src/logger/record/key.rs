//! Under which name an object is stored (SPEC L8): `[prefix/]namespace/inferenceservice/component/storepath/` and
//! `<id>-<request|response>.<ext>`.
//!
//! The folders are configuration. They are joined as Go's `path.Join` does it, but nothing leads out of the bucket.
//!
//! The id is whatever a client put into `Ce-Id`. One that is a plain name (a uuid, a trace id) is used as it is, like
//! the Go agent does. Any other is made one: its first bytes with `_` for each that a name has not, and a digest of all
//! of it, so that two ids stay two objects. So a client can't choose the folder, nor make a key that a store refuses
//! (1024 bytes) or that is no file name once the bucket is copied to a disk. Two requests with the same id
//! are one object, here and with the Go agent; the later one is kept.

use std::fmt::Write as _;

use super::Record;
use crate::config::OBJECT_ID_BYTES;

/// The key of an object whose first record this is. `prefix`: the path of the bucket's URL; `store_path`:
/// `--log-store-path`; `extension`: of the file, without a dot.
pub fn object_key(prefix: &str, store_path: &str, first: Record<'_>, extension: &str) -> String {
    let common = first.common;
    let mut key = folder(&[prefix, &common.namespace, &common.inference_service, &common.component, store_path]);
    let kind = first.req_type.rsplit('.').next().unwrap_or_default();
    // Writing to a string does not fail.
    let _ = write!(key, "{}-{}.{extension}", name(first.id), name(kind));
    key
}

/// The parts, each of which may be several folders, or none, with a slash behind each.
fn folder(parts: &[&str]) -> String {
    let mut folders: Vec<&str> = Vec::new();
    for folder in parts.iter().flat_map(|part| part.split('/')) {
        match folder {
            "" | "." => {}
            ".." => drop(folders.pop()),
            _ => folders.push(folder),
        }
    }
    folders.iter().flat_map(|folder| [*folder, "/"]).collect()
}

/// A name that is safe in a key, the text itself if it is one.
fn name(text: &str) -> String {
    if text.len() <= OBJECT_ID_BYTES && text.starts_with(is_first) && text.chars().all(is_safe) {
        return text.to_owned();
    }
    let readable: String = text.chars().take(OBJECT_ID_BYTES).map(|c| if is_safe(c) { c } else { '_' }).collect();
    let readable = readable.trim_start_matches(|c| !is_first(c));
    let dash = if readable.is_empty() { "" } else { "-" };
    format!("{readable}{dash}{:016x}", fnv1a(text.as_bytes()))
}

/// Not a dot or `_`, as Spark and Hive skip such files; not a dash, which a shell's program takes for an option.
fn is_first(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// What every store takes and no part of a URL or path means something in; `=` and `:` are in trace ids and URNs.
fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.:=@+".contains(c)
}

/// FNV-1a: the same in every build. It keeps ids apart, and need not keep anybody from making two alike: who wants that
/// sends the same id.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::logger::record::Common;

    const REQUEST: &str = "org.kubeflow.serving.inference.request";

    fn common() -> Common {
        Common {
            inference_service: "iris".to_owned(),
            namespace: "ns".to_owned(),
            component: "predictor".to_owned(),
            ..Common::default()
        }
    }

    fn record<'r>(common: &'r Common, id: &'r str, req_type: &'r str) -> Record<'r> {
        let occurred_at = Timestamp::UNIX_EPOCH;
        Record { common, bytes: &[], content_type: "", req_type, id, metadata: "{}", occurred_at }
    }

    fn name_of(id: &str) -> String {
        let key = object_key("", "", record(&common(), id, REQUEST), "json");
        key.strip_prefix("ns/iris/predictor/").unwrap().strip_suffix("-request.json").unwrap().to_owned()
    }

    #[test]
    fn the_key_is_that_of_the_go_agent() {
        let mut common = common();
        let first = record(&common, "0123-ab", REQUEST);
        assert_eq!(object_key("pre/fix", "logs", first, "csv"), "pre/fix/ns/iris/predictor/logs/0123-ab-request.csv");
        common.component.clear();
        common.namespace.clear();
        let first = record(&common, "0123-ab", "org.kubeflow.serving.inference.response");
        assert_eq!(object_key("", "logs", first, "parquet"), "iris/logs/0123-ab-response.parquet");
    }

    #[test]
    fn folders_are_joined_and_stay_in_the_bucket() {
        let common = Common::default();
        for (prefix, path, folder) in [
            ("", "", ""),
            ("/a/", "/b//c/", "a/b/c/"),
            ("a", "./b/../c", "a/c/"),
            ("a", "../../b", "b/"),
            ("..", "..", ""),
        ] {
            let key = object_key(prefix, path, record(&common, "i", "request"), "json");
            assert_eq!(key, format!("{folder}i-request.json"));
        }
    }

    #[test]
    fn a_plain_id_is_used_as_it_is() {
        for id in ["d9b1c9a2-6d2f-4c5e-8a37-2f6f3b1f1c11", "Root=1-67891233-abcdef", "urn:uuid:1", "7", "a_b.c+d@e"] {
            assert_eq!(name_of(id), id);
        }
    }

    #[test]
    fn an_id_that_is_no_name_is_made_one() {
        for (id, expected) in [
            ("", "cbf29ce484222325"),
            ("../../etc/passwd", "etc_passwd-"),
            ("a/b", "a_b-"),
            ("a\\b", "a_b-"),
            ("a%2fb", "a_2fb-"),
            ("a\0\r\nb", "a___b-"),
            ("a b", "a_b-"),
            ("é", ""),
            ("..", ""),
            ("_hidden", "hidden-"),
            ("-rf", "rf-"),
            ("{a}?#[]*<>|\"'`^~$&;!,", "a"),
        ] {
            let name = name_of(id);
            assert!(name.starts_with(expected), "{id:?}: {name}");
            assert!(name.chars().all(is_safe) && name.starts_with(is_first), "{id:?}: {name}");
            assert!(name.len() >= 16, "{id:?}: {name}");
        }
    }

    #[test]
    fn two_ids_are_two_objects() {
        let long = "x".repeat(10_000);
        let ids = ["a/b", "a_b", "a//b", "a\u{0}b", &long, &format!("{long}y"), "", "/", "//"];
        let mut names: Vec<String> = ids.iter().map(|id| name_of(id)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ids.len());
        assert!(names.iter().all(|name| name.len() <= OBJECT_ID_BYTES + 17));
    }
}
