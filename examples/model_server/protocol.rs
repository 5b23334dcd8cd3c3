//! What the bodies mean: KServe V1 (`instances` → `predictions`) and the Open Inference Protocol
//! with JSON tensors (`inputs` → `outputs`; the binary tensor extension is not here). Errors are
//! the reason as text; the caller answers 400 with it.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::iris::{Engine, Instance};

/// `{"instances":[[5.1,3.5,1.4,0.2],…]}` → `{"predictions":[0,…]}`.
pub(crate) fn v1_predict(body: &[u8], engine: &Engine) -> Result<Value, String> {
    let instances = v1_instances(body)?;
    Ok(json!({"predictions": engine.predict(&instances)}))
}

/// The instances of a V1 body: at least one, four numbers each.
pub(crate) fn v1_instances(body: &[u8]) -> Result<Vec<Instance>, String> {
    let request: V1Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if request.instances.is_empty() {
        return Err("instances is empty".to_owned());
    }
    Ok(request.instances)
}

/// One FP32 or FP64 tensor of shape `[n, 4]` → one INT32 tensor of shape `[n]`, the id echoed.
pub(crate) fn v2_infer(body: &[u8], engine: &Engine) -> Result<Value, String> {
    let request: V2Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let [tensor] = request.inputs.as_slice() else {
        return Err(format!("inputs holds {} tensors, this model takes 1", request.inputs.len()));
    };
    let instances = tensor.instances()?;
    let mut answer = json!({
        "model_name": "iris",
        "model_version": "1",
        "outputs": [{
            "name": "species",
            "shape": [instances.len()],
            "datatype": "INT32",
            "data": engine.predict(&instances),
        }],
    });
    if let Some(id) = request.id {
        answer["id"] = Value::String(id);
    }
    Ok(answer)
}

pub(crate) fn server_metadata() -> Value {
    json!({"name": "iris-example", "version": env!("CARGO_PKG_VERSION"), "extensions": []})
}

pub(crate) fn model_metadata() -> Value {
    json!({
        "name": "iris",
        "versions": ["1"],
        "platform": "gaussian-naive-bayes",
        "inputs": [{"name": "measurements", "datatype": "FP64", "shape": [-1, 4]}],
        "outputs": [{"name": "species", "datatype": "INT32", "shape": [-1]}],
    })
}

/// The two counts of Triton's statistics extension that say how well requests were batched.
pub(crate) fn statistics(engine: &Engine) -> Value {
    let (calls, instances) = engine.counts();
    let model = json!({"name": "iris", "version": "1", "inference_count": instances, "execution_count": calls});
    json!({"model_stats": [model]})
}

#[derive(Deserialize)]
struct V1Request {
    instances: Vec<Instance>,
}

#[derive(Deserialize)]
struct V2Request {
    id: Option<String>,
    inputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    datatype: String,
    data: Data,
}

/// The protocol allows both forms of the same tensor.
#[derive(Deserialize)]
#[serde(untagged, expecting = "data: expected a flat list of numbers or a list of lists of four numbers")]
enum Data {
    Flat(Vec<f64>),
    Rows(Vec<Instance>),
}

impl Tensor {
    fn instances(&self) -> Result<Vec<Instance>, String> {
        let Self { name, shape, datatype, data } = self;
        if !matches!(datatype.as_str(), "FP32" | "FP64") {
            return Err(format!("input {name}: datatype {datatype}, expected FP32 or FP64"));
        }
        let &[count, 4] = shape.as_slice() else {
            return Err(format!("input {name}: shape {shape:?}, expected [n, 4]"));
        };
        let rows = match data {
            Data::Rows(rows) => rows.clone(),
            Data::Flat(numbers) => match numbers.as_chunks() {
                (rows, []) => rows.to_vec(),
                _ => return Err(format!("input {name}: {} numbers", numbers.len())),
            },
        };
        if count == 0 || rows.len() != count {
            return Err(format!("input {name}: {} rows of data, {count} in its shape", rows.len()));
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iris::Cost;

    fn infer(inputs: &Value) -> Result<Value, String> {
        let body = json!({"id": "a-7", "inputs": inputs}).to_string();
        v2_infer(body.as_bytes(), &Engine::new(Cost::default()))
    }

    fn tensor(shape: &Value, datatype: &str, data: &Value) -> Value {
        json!([{"name": "x", "shape": shape, "datatype": datatype, "data": data}])
    }

    #[test]
    fn a_v1_request_gets_its_classes_in_order() {
        let body = br#"{"instances":[[6.7,3.0,5.2,2.3],[5.1,3.5,1.4,0.2],[5.9,3.0,4.2,1.5]]}"#;
        let answer = v1_predict(body, &Engine::new(Cost::default()));
        assert_eq!(answer, Ok(json!({"predictions": [2, 0, 1]})));
    }

    #[test]
    fn a_v1_request_without_usable_instances_is_an_error() {
        let bodies: [&[u8]; 6] = [
            b"",
            b"{",
            b"{}",
            br#"{"instances":[]}"#,
            br#"{"instances":[[1,2,3]]}"#,
            br#"{"instances":[[1,2,3,"x"]]}"#,
        ];
        for body in bodies {
            assert!(v1_instances(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn flat_and_nested_tensors_mean_the_same() {
        let flat = infer(&tensor(&json!([2, 4]), "FP32", &json!([5, 3, 1, 0, 7, 3, 6, 2])));
        let rows = json!([[5, 3, 1, 0], [7, 3, 6, 2]]);
        let nested = infer(&tensor(&json!([2, 4]), "FP64", &rows));
        assert_eq!(flat, nested);
        let outputs = json!([{"name": "species", "shape": [2], "datatype": "INT32", "data": [0, 2]}]);
        let expected = json!({"id": "a-7", "model_name": "iris", "model_version": "1", "outputs": outputs});
        assert_eq!(flat, Ok(expected));
    }

    #[test]
    fn a_tensor_that_contradicts_itself_is_an_error() {
        let row = json!([1, 2, 3, 4]);
        for inputs in [
            json!([]),
            tensor(&json!([2, 4]), "FP32", &row),
            tensor(&json!([4]), "FP32", &row),
            tensor(&json!([1, 4, 1]), "FP32", &row),
            tensor(&json!([0, 4]), "FP32", &json!([])),
            tensor(&json!([1, 4]), "INT8", &row),
            tensor(&json!([u64::MAX, 4]), "FP32", &row),
            tensor(&json!([-1, 4]), "FP32", &row),
            tensor(&json!([1, 4]), "FP32", &json!([[[1, 2, 3, 4]]])),
        ] {
            assert!(infer(&inputs).is_err(), "{inputs}");
        }
    }
}
