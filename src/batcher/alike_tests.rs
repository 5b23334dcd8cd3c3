//! The key oracle (SPEC B4): two bodies have one key exactly if both can be told apart again in what they are merged to, by
//! another parser that builds documents.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::json::tests::Random;
use super::key::Parts;
use super::v1;
use super::v2::{self, NewId, Tensors};

/// Members of an object in their order, by name and text; a document would lose both.
fn members(object: &str) -> Vec<(String, String)> {
    struct Members(Vec<(String, String)>);
    impl<'de> serde::Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visit;
            impl<'de> serde::de::Visitor<'de> for Visit {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                        members.push((name, value.get().to_owned()));
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visit)
        }
    }
    serde_json::from_str::<Members>(object).unwrap().0
}

fn without(members: &[(String, String)], names: &[&str]) -> Vec<(String, String)> {
    members.iter().filter(|(name, _)| !names.contains(&name.as_str())).cloned().collect()
}

fn get<'m>(members: &'m [(String, String)], name: &str) -> &'m str {
    &members.iter().find(|member| member.0 == name).unwrap().1
}

/// What of a V2 body must be the same in another, if it can be merged at all.
fn meaning_v2(body: &str) -> impl PartialEq + std::fmt::Debug {
    let body = members(body);
    let tensors: Vec<&RawValue> = serde_json::from_str(get(&body, "inputs")).unwrap();
    let tensor = |tensor: &&RawValue| {
        let tensor = members(tensor.get());
        let shape: Vec<usize> = serde_json::from_str(get(&tensor, "shape")).unwrap();
        let data: Vec<Value> = serde_json::from_str(get(&tensor, "data")).unwrap();
        (without(&tensor, &["shape", "data"]), shape[1..].to_vec(), data[0].is_array())
    };
    (without(&body, &["inputs", "id"]), tensors.iter().map(tensor).collect::<Vec<_>>())
}

/// The rows of each tensor, whatever their nesting.
fn rows_v2(body: &str) -> Vec<Vec<Value>> {
    fn flatten(value: &Value, leaves: &mut Vec<Value>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| flatten(value, leaves)),
            value => leaves.push(value.clone()),
        }
    }
    let tensors: Vec<Box<RawValue>> = serde_json::from_str(get(&members(body), "inputs")).unwrap();
    let rows = |tensor: &RawValue| {
        let tensor = members(tensor.get());
        let rows = serde_json::from_str::<Vec<usize>>(get(&tensor, "shape")).unwrap()[0];
        let mut leaves = Vec::new();
        flatten(&serde_json::from_str(get(&tensor, "data")).unwrap(), &mut leaves);
        assert_eq!(leaves.len() % rows, 0);
        leaves.chunks(leaves.len() / rows).map(|row| Value::Array(row.to_vec())).collect()
    };
    tensors.iter().map(|tensor| rows(tensor)).collect()
}

/// Members that may stand in a body or in one of its tensors.
fn extra(random: &mut Random) -> &'static str {
    const EXTRA: [&str; 10] = [
        "",
        "",
        "",
        r#","parameters":{"a":1}"#,
        r#","parameters":{"a":2}"#,
        r#","parameters":{"a":1,"b":[]}"#,
        r#","outputs":[{"name":"y"}]"#,
        r#","tenant":"a""#,
        r#","tensor":{},"shapes":[1]"#,
        r#","":"","tenant":"a""#,
    ];
    // Mostly none, so that many are alike.
    if random.below(3) > 0 { "" } else { EXTRA[random.below(EXTRA.len())] }
}

fn tensor(random: &mut Random, rows: usize) -> String {
    let name = ["x", "x", "x", "x", "y"][random.below(5)];
    let (width, more) =
        [(2, ",2"), (2, ",2"), (2, ",2"), (2, ",1,2"), (2, ",2,1"), (1, ""), (1, ",1")][random.below(7)];
    let is_nested = random.below(2) == 0 && more.len() == 2;
    let line = |random: &mut Random| (0..width).map(|_| random.below(1000).to_string()).collect::<Vec<_>>().join(",");
    let lines: Vec<String> = (0..rows).map(|_| line(random)).collect();
    let data = if is_nested { format!("[{}]", lines.join("],[")) } else { lines.join(",") };
    let datatype = ["FP32", "FP64"][random.below(2)];
    format!(r#"{{"name":"{name}","shape":[{rows}{more}],"datatype":"{datatype}","data":[{data}]{}}}"#, extra(random))
}

fn v2_body(random: &mut Random) -> String {
    let rows = 1 + random.below(2);
    let tensors: Vec<String> = (0..1 + random.below(2)).map(|_| tensor(random, rows)).collect();
    let id = ["", r#""id":"1","#][random.below(2)];
    format!(r#"{{{id}"inputs":[{}]{}}}"#, tensors.join(","), extra(random))
}

fn v1_body(random: &mut Random) -> String {
    let name = ["instances", "instances", "instances", "Instances"][random.below(4)];
    let values: Vec<String> = (0..1 + random.below(3)).map(|_| random.below(1000).to_string()).collect();
    let before = ["", r#""tenant":"a","#][random.below(2)];
    format!(r#"{{{before}"{name}":[{}]{}}}"#, values.join(","), extra(random))
}

#[test]
fn two_v2_bodies_have_one_key_exactly_if_both_can_be_told_apart_again() {
    let mut random = Random(21);
    let mut alike = 0;
    for _ in 0..40_000 {
        let (one, other) = (v2_body(&mut random), v2_body(&mut random));
        let (mut key, mut other_key) = (Parts::default(), Parts::default());
        let tensors = Tensors::of_request(one.as_bytes(), &mut key).unwrap();
        let others = Tensors::of_request(other.as_bytes(), &mut other_key).unwrap();
        let is_alike = meaning_v2(&one) == meaning_v2(&other);
        assert_eq!(key == other_key, is_alike, "{one} {other}");
        if is_alike {
            alike += 1;
            let merged = v2::merge(&[(one.as_bytes(), &tensors), (other.as_bytes(), &others)], NewId::None);
            let merged = String::from_utf8(merged).unwrap();
            assert_eq!(meaning_v2(&merged), meaning_v2(&one));
            let joined: Vec<Vec<Value>> =
                rows_v2(&one).into_iter().zip(rows_v2(&other)).map(|(one, other)| [one, other].concat()).collect();
            assert_eq!(rows_v2(&merged), joined, "{one} {other}");
        }
    }
    assert!(alike > 100, "{alike}");
}

#[test]
fn two_v1_bodies_have_one_key_exactly_if_both_can_be_told_apart_again() {
    let mut random = Random(22);
    let mut alike = 0;
    let spelled = |members: &[(String, String)]| {
        members.iter().find(|(name, _)| name.eq_ignore_ascii_case("instances")).unwrap().clone()
    };
    for _ in 0..40_000 {
        let (one, other) = (v1_body(&mut random), v1_body(&mut random));
        let (mut key, mut other_key) = (Parts::default(), Parts::default());
        let list = v1::instances(one.as_bytes(), &mut key).unwrap();
        let other_list = v1::instances(other.as_bytes(), &mut other_key).unwrap();
        let (members_of_one, members_of_other) = (members(&one), members(&other));
        let rest = |members: &[(String, String)]| without(members, &["instances", "Instances"]);
        let ((name, own), (other_name, others)) = (spelled(&members_of_one), spelled(&members_of_other));
        let is_alike = name == other_name && rest(&members_of_one) == rest(&members_of_other);
        assert_eq!(key == other_key, is_alike, "{one} {other}");
        if is_alike {
            alike += 1;
            let merged = v1::merge(&[(one.as_bytes(), &list), (other.as_bytes(), &other_list)]);
            let merged = members(std::str::from_utf8(&merged).unwrap());
            assert_eq!(rest(&merged), rest(&members_of_one));
            let values = |list: &str| serde_json::from_str::<Vec<Value>>(list).unwrap();
            assert_eq!(values(&spelled(&merged).1), [values(&own), values(&others)].concat());
        }
    }
    assert!(alike > 1000, "{alike}");
}

/// Groups can't be left unclosed: the same members, one level up or down, are another request.
#[test]
fn members_of_a_tensor_do_not_pass_for_the_requests() {
    let key = |body: &str| {
        let mut key = Parts::default();
        Tensors::of_request(body.as_bytes(), &mut key).unwrap();
        key
    };
    let with = |inside: &str, outside: &str| {
        format!(r#"{{"inputs":[{{"name":"x","datatype":"INT32","shape":[1,1],"data":[1]{inside}}}]{outside}}}"#)
    };
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for member in [r#","parameters":{"priority":9}"#, r#","outputs":[{"name":"y"}]"#, r#","tenant":"a""#, ""] {
        for (inside, outside) in [(member, ""), ("", member), (member, member)] {
            let body = with(inside, outside);
            let before = seen.insert(format!("{:?}", key(&body)), body.clone());
            assert!(before.is_none_or(|before| before == body), "{body}");
        }
    }
}
