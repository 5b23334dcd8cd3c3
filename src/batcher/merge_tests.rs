//! Merging and splitting by rule: what random clients get back is exactly what the server made of their own instances.

use serde_json::value::RawValue;
use std::collections::BTreeMap;

use super::json::tests::Random;
use super::key::Parts;
use super::v1::{self, List};
use super::v2::{self, NewId, Tensors};

/// Element texts of a list, or members of an object, by another parser.
fn elements(list: &str) -> Vec<String> {
    let values: Vec<&RawValue> = serde_json::from_str(list).unwrap();
    values.into_iter().map(|value| value.get().to_owned()).collect()
}

fn members(object: &[u8]) -> BTreeMap<String, Box<RawValue>> {
    serde_json::from_slice(object).unwrap()
}

fn instances(random: &mut Random) -> Vec<String> {
    (0..=random.below(4)).map(|_| random.json(3).trim().to_owned()).collect()
}

/// A list of these with white space here and there.
fn list_of(random: &mut Random, elements: &[String]) -> String {
    const BETWEEN: [&str; 4] = [",", " , ", ",\n", "\t,\r"];
    let comma = BETWEEN[random.below(BETWEEN.len())];
    format!("[{}{}]", ["", " "][random.below(2)], elements.join(comma))
}

#[test]
fn every_v1_client_gets_the_predictions_of_its_own_instances() {
    let mut random = Random(11);
    for _ in 0..3000 {
        let clients: Vec<Vec<String>> = (0..=random.below(5)).map(|_| instances(&mut random)).collect();
        let bodies: Vec<Vec<u8>> = clients
            .iter()
            .map(|instances| {
                let list = list_of(&mut random, instances);
                format!(r#"{{"signature_name":"s" ,"instances": {list}}}"#).into_bytes()
            })
            .collect();
        let lists: Vec<List> = bodies.iter().map(|body| v1::instances(body, &mut Parts::default()).unwrap()).collect();
        let parts: Vec<(&[u8], &List)> = bodies.iter().map(|body| &body[..]).zip(&lists).collect();
        let merged = members(&v1::merge(&parts));
        assert_eq!(elements(merged["instances"].get()), clients.concat());
        assert_eq!(merged["signature_name"].get(), r#""s""#);

        // The server answers with the instances in reverse, each in a list.
        let predict = |instance: &String| format!("[{instance},1.0]");
        let predictions: Vec<String> = clients.concat().iter().map(predict).collect();
        let response = format!(r#" {{"x":[1], "predictions":{}}}"#, list_of(&mut random, &predictions)).into_bytes();
        let counts: Vec<usize> = clients.iter().map(Vec::len).collect();
        let runs = v1::predictions(&response, &counts).unwrap();
        for (run, own) in runs.into_iter().zip(&clients) {
            let text = format!("[{}]", std::str::from_utf8(&response[run]).unwrap());
            assert_eq!(elements(&text), own.iter().map(predict).collect::<Vec<_>>());
        }
    }
}

/// A V2 body whose one tensor has these rows of two elements each.
fn tensor_body(list: &str, id: Option<usize>, rows: &[[String; 2]], nested: bool) -> Vec<u8> {
    let data: Vec<String> =
        rows.iter().map(|[a, b]| if nested { format!("[{a} ,{b}]") } else { format!("{a}, {b}") }).collect();
    let id = id.map_or(String::new(), |id| format!(r#""id":"{id}","#));
    let (count, data) = (rows.len(), data.join(","));
    format!(r#"{{{id}"{list}":[{{"name":"t","data":[{data}], "shape" : [ {count} ,2],"datatype":"FP32"}}]}}"#)
        .into_bytes()
}

fn rows_of(body: &[u8], list: &str) -> (usize, Vec<String>) {
    let tensors: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_str(members(body)[list].get()).unwrap();
    let shape = elements(tensors[0]["shape"].get());
    assert_eq!(shape[1], "2");
    let flat = elements(tensors[0]["data"].get())
        .into_iter()
        .flat_map(|element| if element.starts_with('[') { elements(&element) } else { vec![element] });
    (shape[0].parse().unwrap(), flat.collect())
}

#[test]
fn every_v2_client_gets_its_own_rows_and_its_own_id() {
    const NUMBERS: [&str; 5] = ["1.0", "-0", "1e400", "12345678901234567890", "3"];
    let mut random = Random(12);
    for _ in 0..3000 {
        let (nested_up, nested_down) = (random.below(2) == 0, random.below(2) == 0);
        let clients: Vec<Vec<[String; 2]>> = (0..=random.below(5))
            .map(|_| {
                let row = |random: &mut Random| [(); 2].map(|()| NUMBERS[random.below(5)].to_owned());
                (0..=random.below(3)).map(|_| row(&mut random)).collect()
            })
            .collect();
        let has_id: Vec<bool> = clients.iter().map(|_| random.below(3) > 0).collect();
        let bodies: Vec<Vec<u8>> = clients
            .iter()
            .zip(&has_id)
            .enumerate()
            .map(|(id, (rows, has_id))| tensor_body("inputs", has_id.then_some(id), rows, nested_up))
            .collect();
        let tensors: Vec<Tensors> =
            bodies.iter().map(|body| Tensors::of_request(body, &mut Parts::default()).unwrap()).collect();
        let parts: Vec<(&[u8], &Tensors)> = bodies.iter().map(|body| &body[..]).zip(&tensors).collect();
        let merged = v2::merge(&parts, NewId::This(b"\"of the batch\""));
        let all = clients.concat();
        assert_eq!(rows_of(&merged, "inputs"), (all.len(), all.concat()));
        assert_eq!(members(&merged)["id"].get(), "\"of the batch\"");

        let response = tensor_body("outputs", None, &all, nested_down);
        let counts: Vec<usize> = clients.iter().map(Vec::len).collect();
        let outputs = Tensors::of_response(&response, &counts).unwrap();
        let mut answers = Vec::new();
        for (number, rows) in clients.iter().enumerate() {
            let id = tensors[number].id(&bodies[number]).map_or(NewId::AsSent, NewId::This);
            let answer = outputs.share(&response, number, rows.len(), id);
            assert_eq!(rows_of(&answer, "outputs"), (rows.len(), rows.concat()));
            let own = has_id[number].then(|| format!("\"{number}\""));
            assert_eq!(members(&answer).get("id").map(|id| id.get().to_owned()), own);
            answers.push(answer);
        }
        // And the parts make the whole again.
        let found: Vec<Tensors> = answers
            .iter()
            .zip(&counts)
            .map(|(answer, count)| Tensors::of_response(answer, &[*count]).unwrap())
            .collect();
        let parts: Vec<(&[u8], &Tensors)> = answers.iter().map(|answer| &answer[..]).zip(&found).collect();
        assert_eq!(rows_of(&v2::merge(&parts, NewId::AsSent), "outputs"), (all.len(), all.concat()));
    }
}
