//! The Open Inference Protocol: tensors joined and cut along their first dimension: SPEC B1, B4, B5, B9.

use crate::batcher_json::{items, leaves, member, members};
use crate::batcher_support::{
    NEVER, V2_PATH, answer, batching, calls, echo, infer, instances_of, json, post, posts, sizes, together,
};
use crate::support::{Message, Server};

/// A tensor as it stands in `inputs` or `outputs`.
fn tensor(name: &str, datatype: &str, shape: &str, data: &str) -> String {
    format!("{{\"name\":\"{name}\",\"shape\":{shape},\"datatype\":\"{datatype}\",\"data\":{data}}}")
}

/// A request with this id (none if it is empty), these inputs, and members behind them, each with its comma.
fn request(id: &str, inputs: &[String], rest: &str) -> String {
    let id = if id.is_empty() { String::new() } else { format!("\"id\":\"{id}\",") };
    infer(&format!("{{{id}\"inputs\":[{}]{rest}}}", inputs.join(",")))
}

/// One row of numbers named `a`.
fn row(id: &str, numbers: &str) -> String {
    request(id, &[tensor("a", "FP32", &format!("[1,{}]", numbers.split(',').count()), &format!("[{numbers}]"))], "")
}

/// What an answer says of one output: name, datatype, shape, and its elements whatever their nesting.
fn outputs(got: &Message) -> Vec<(String, String, String, Vec<String>)> {
    let body = got.text();
    assert_eq!(got.status(), 200, "{got:?} {body}");
    assert_eq!(got.field("content-type").as_deref(), Some("application/json"));
    assert_eq!(got.field("content-length"), Some(body.len().to_string()));
    let tensors = items(member(&body, "outputs").expect(&body)).into_iter();
    let text = |tensor, name| member(tensor, name).expect(tensor).replace(['"', ' '], "");
    let read = |tensor| {
        let data = leaves(member(tensor, "data").expect(tensor)).into_iter().map(str::to_owned).collect();
        (text(tensor, "name"), text(tensor, "datatype"), text(tensor, "shape"), data)
    };
    tensors.map(read).collect()
}

/// The one output of an answer: its shape and its elements.
fn output(got: &Message) -> (String, Vec<String>) {
    let mut outputs = outputs(got);
    assert_eq!(outputs.len(), 1, "{outputs:?}");
    let (_, _, shape, data) = outputs.remove(0);
    (shape, data)
}

fn top(got: &Message, name: &str) -> Option<String> {
    member(&got.text(), name).map(str::to_owned)
}

#[test]
fn every_form_of_the_path_is_batched() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    for path in [V2_PATH, "/v2/models/m/versions/1/infer", "/v2/models/a%2Fb/infer?x=1", "/v2/models/m:predict/infer"] {
        let before = calls(&server).len();
        let requests = ["1", "2"].map(|number| row("i", number).replace(V2_PATH, path));
        for (got, number) in together(&agent, &requests).iter().zip(["1", "2"]) {
            assert_eq!(output(got), ("[1,1]".to_owned(), vec![number.to_owned()]));
        }
        assert_eq!((calls(&server).len(), posts(&server).pop().unwrap().target().as_str()), (before + 1, path));
    }
}

#[test]
fn tensors_are_joined_for_the_server_and_cut_for_the_clients() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=6", NEVER]);
    let requests = [
        request(
            "one",
            &[tensor("a", "FP32", "[2,3]", "[1.0,2e0,-0,4,5,6]"), tensor("b", "BYTES", "[2,1]", "[\"],\",\"\\\"[\"]")],
            "",
        ),
        request(
            "two",
            &[tensor("a", "FP32", "[1,3]", "[7,8,9.50]"), tensor("b", "BYTES", "[1,1]", "[\"\\u00e9,\"]")],
            "",
        ),
        request(
            "six",
            &[tensor("a", "FP32", "[3,3]", "[1,2,3,4,5,6,7,8,9]"), tensor("b", "BYTES", "[3,1]", "[\"\",\"\",\"x\"]")],
            "",
        ),
    ];
    let got = together(&agent, &requests);
    let wanted = [
        ("one", "[2,3]", "1.0 2e0 -0 4 5 6", "[2,1]", "\"],\" \"\\\"[\""),
        ("two", "[1,3]", "7 8 9.50", "[1,1]", "\"\\u00e9,\""),
        ("six", "[3,3]", "1 2 3 4 5 6 7 8 9", "[3,1]", "\"\" \"\" \"x\""),
    ];
    for (got, (id, a_shape, a, b_shape, b)) in got.iter().zip(wanted) {
        let outputs = outputs(got);
        let seen: Vec<_> =
            outputs.iter().map(|(n, t, s, d)| (n.as_str(), t.as_str(), s.as_str(), d.join(" "))).collect();
        assert_eq!(seen, [("out-a", "FP32", a_shape, a.to_owned()), ("out-b", "BYTES", b_shape, b.to_owned())]);
        assert_eq!(top(got, "id"), Some(format!("\"{id}\"")));
        assert_eq!(top(got, "model_name").as_deref(), Some("\"m\""));
        assert_eq!(top(got, "model_version").as_deref(), Some("\"7\""));
    }
    let seen = server.only().text();
    let id = member(&seen, "id").unwrap_or_default();
    assert!(
        id.len() == 38 && !["\"one\"", "\"two\"", "\"six\""].contains(&id),
        "the batch has an id of its own: {seen}"
    );
    let inputs = items(member(&seen, "inputs").unwrap());
    let read = |input, name| member(input, name).unwrap().replace(' ', "");
    assert_eq!((read(inputs[0], "shape"), read(inputs[1], "shape")), ("[6,3]".into(), "[6,1]".into()));
    assert_eq!((read(inputs[0], "datatype"), read(inputs[1], "datatype")), ("\"FP32\"".into(), "\"BYTES\"".into()));
    assert_eq!(leaves(member(inputs[0], "data").unwrap()).len(), 18);
    assert_eq!(leaves(member(inputs[1], "data").unwrap()).len(), 6);
    assert_eq!((inputs.len(), server.only().field("content-length")), (2, Some(seen.len().to_string())));
}

#[test]
fn data_may_be_nested_or_flat_and_of_any_rank() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", "--max-latency=100"]);
    let cases = [
        ("[1]", "[1]", "[1]", "[3]"),
        ("[2,2]", "[[1,2],[3,4]]", "[2,2]", "[[5,6],[7,8]]"),
        ("[1,2,2]", "[[[1,2],[3,4]]]", "[3,2,2]", "[[[1,2],[3,4]],[[5,6],[7,8]],[[9,10],[11,12]]]"),
        ("[1,2,2]", "[1,2,3,4]", "[2,2,2]", "[5,6,7,8,9,10,11,12]"),
        ("[ 1 , 2 ]", " [ [ 1 ,2] ]\n", "[2, 2]", "[[3, 4],\t[5, 6]]"),
        // A single dimension may be one vector, so it is merged with no other.
        ("[2]", "[1,2]", "[2]", "[3,4]"),
        // Who mixes both may be batched or not; the rows are his in any case.
        ("[2,2]", "[[1,2],[3,4]]", "[2,2]", "[5,6,7,8]"),
        ("[1,4]", "[[1,2,3,4]]", "[3,4]", "[5,6,7,8,9,10,11,12,13,14,15,16]"),
    ];
    for (first_shape, first, second_shape, second) in cases {
        let with = |shape, data| request("i", &[tensor("a", "INT64", shape, data)], "");
        let got = together(&agent, &[with(first_shape, first), with(second_shape, second)]);
        for (got, (shape, data)) in got.iter().zip([(first_shape, first), (second_shape, second)]) {
            let data = leaves(data).into_iter().map(str::to_owned).collect();
            assert_eq!(output(got), (shape.replace(' ', ""), data), "{first} {second}");
        }
    }
    assert!(sizes(&server).iter().all(|size| *size > 0));
    assert!(calls(&server).len() <= cases.len() + 3, "all but these and the mixed ones are batched");
}

#[test]
fn a_row_of_no_elements_is_a_row() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", "--max-latency=100"]);
    let with = |id| request(id, &[tensor("a", "INT8", "[1,0]", "[]"), tensor("b", "INT8", "[1]", "[5]")], "");
    for (got, id) in together(&agent, &[with("x"), with("y")]).iter().zip(["\"x\"", "\"y\""]) {
        let shapes: Vec<_> = outputs(got).into_iter().map(|(_, _, shape, data)| (shape, data.len())).collect();
        assert_eq!(shapes, [("[1,0]".to_owned(), 0), ("[1]".to_owned(), 1)]);
        assert_eq!(top(got, "id").as_deref(), Some(id));
    }
}

#[test]
fn every_answer_has_its_own_id_as_it_was_written_or_none() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER]);
    let ids = ["a", "", "\\u00e9\\\"],", "a"];
    let got = together(&agent, &ids.map(|id| row(id, "1")));
    for (got, id) in got.iter().zip(ids) {
        let wanted = (!id.is_empty()).then(|| format!("\"{id}\""));
        assert_eq!(top(got, "id"), wanted);
    }
    assert_eq!(sizes(&server), [4]);
}

#[test]
fn a_request_that_is_alone_passes_byte_for_byte_both_ways() {
    let reply = " {\"id\" : \"x\\u0061\",\n\"outputs\":[ {\"data\":[1.0, 1e400],\"name\":\"o\",\"shape\":[1, 2],\t\
        \"datatype\":\"FP64\",\"parameters\":{}}],\"model_name\":\"m\",\"extra\":[-0]} \n";
    let server = Server::answering(json(reply));
    let agent = batching(&server, &["--max-batchsize=1"]);
    let body = "\t{ \"parameters\":{\"a\":1.0,\"a\":2}, \"inputs\" : [{\"datatype\":\"FP64\" ,\"shape\":[1,1],\
        \"data\":[[1.0]],\"name\":\"i\"}],\"id\":\"x\\u0061\",\"outputs\":[{\"name\":\"o\"}] }\r\n";
    let got = agent.ask(post(V2_PATH, "Content-Type: application/json\r\nX-Request-Id: 7\r\n", body));
    assert_eq!((got.status(), got.text().as_str()), (200, reply));
    let seen = server.only();
    assert_eq!((seen.text().as_str(), seen.field("x-request-id").as_deref()), (body, Some("7")));
}

#[test]
fn requests_that_differ_in_what_they_ask_do_not_share_a_batch() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    // `V` stands for a number that tells whose row it is.
    let one = |name, datatype, shape, data| request("", &[tensor(name, datatype, shape, data)], "");
    let rest = |rest| request("", &[tensor("a", "INT8", "[1,2]", "[V,V]")], rest);
    let plain = || rest("");
    let inputs =
        |more: &str| infer(&format!("{{\"inputs\":[{{{more}{}]}}", &tensor("a", "INT8", "[1,2]", "[V,V]")[1..]));
    let both = [tensor("a", "INT8", "[1,2]", "[V,V]"), tensor("b", "INT8", "[1]", "[V]")];
    let pairs = [
        ("name", plain(), one("b", "INT8", "[1,2]", "[V,V]")),
        ("datatype", plain(), one("a", "UINT8", "[1,2]", "[V,V]")),
        ("trailing dimension", plain(), one("a", "INT8", "[1,3]", "[V,V,V]")),
        ("rank", plain(), one("a", "INT8", "[1,2,1]", "[V,V]")),
        ("an input more", plain(), request("", &both, "")),
        ("an input's parameters", inputs("\"parameters\":{\"x\":1},"), inputs("\"parameters\":{\"x\":2},")),
        ("an input's parameters or none", plain(), inputs("\"parameters\":{\"x\":1},")),
        ("outputs or none", plain(), rest(",\"outputs\":[{\"name\":\"o\"}]")),
        ("outputs", rest(",\"outputs\":[{\"name\":\"o\"}]"), rest(",\"outputs\":[{\"name\":\"p\"}]")),
        ("parameters or none", plain(), rest(",\"parameters\":{}")),
        ("parameters", rest(",\"parameters\":{\"x\":1}"), rest(",\"parameters\":{\"x\":2}")),
        ("unknown member", rest(",\"y\":1"), rest(",\"y\":2")),
        ("path", plain(), plain().replace("/m/", "/n/")),
        ("version", plain(), plain().replace("/m/", "/m/versions/1/")),
        ("cookie", plain(), plain().replace("Host: a", "Host: a\r\nCookie: a=1")),
    ];
    for (part, a, b) in pairs {
        let before = calls(&server).len();
        let (a, b) = (a.replace('V', "1"), b.replace('V', "2"));
        for got in together(&agent, &[&a, &b, &a, &b]) {
            assert_eq!(got.status(), 200, "{part}: {}", got.text());
        }
        let calls = calls(&server).split_off(before);
        let is_mixed = calls.iter().any(|call| call.iter().any(|element| *element != call[0]));
        assert!(calls.len() == 2 && !is_mixed, "{part}: {calls:?}");
    }
}

#[test]
fn a_request_over_the_cap_is_split_by_rows_and_joined() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", "--max-latency=50"]);
    let numbers = |count: usize| (0..count).map(|number| format!("{number}.0")).collect::<Vec<_>>();
    for (rows, nested) in [(3, false), (5, true), (4, false)] {
        let before = calls(&server).len();
        let flat = numbers(rows * 2);
        let pairs: Vec<String> = flat.chunks(2).map(|pair| format!("[{}]", pair.join(","))).collect();
        let data = if nested { pairs.join(",") } else { flat.join(",") };
        let names: Vec<String> = (0..rows).map(|row| format!("\"{row}],\"")).collect();
        let inputs = [
            tensor("a", "FP32", &format!("[{rows},2]"), &format!("[{data}]")),
            tensor("b", "BYTES", &format!("[{rows},1]"), &format!("[{}]", names.join(","))),
        ];
        let got = agent.ask(request("own", &inputs, ""));
        let wanted = [
            ("out-a".to_owned(), "FP32".to_owned(), format!("[{rows},2]"), flat),
            ("out-b".to_owned(), "BYTES".to_owned(), format!("[{rows},1]"), names),
        ];
        assert_eq!(outputs(&got), wanted);
        assert_eq!(top(&got, "id").as_deref(), Some("\"own\""));
        assert_eq!(top(&got, "model_name").as_deref(), Some("\"m\""));
        let elements: Vec<usize> = sizes(&server).split_off(before);
        assert!(elements.iter().all(|count| *count <= 4) && elements.len() == rows.div_ceil(2), "{elements:?}");
    }
}

#[test]
fn a_request_over_the_cap_with_one_dimension_passes_whole() {
    // Its numbers may be one vector of features.
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let body = format!("{{\"inputs\":[{}]}}", tensor("a", "FP32", "[5]", "[1,2,3,4,5]"));
    assert_eq!(output(&agent.ask(infer(&body))).1, ["1", "2", "3", "4", "5"]);
    assert_eq!(server.only().text(), body);
}

#[test]
fn parts_of_a_request_are_joined_only_if_they_have_the_same_outputs() {
    let of = |name: &str, shape: &str, data: &str| tensor(name, "INT8", shape, data);
    let pairs = [
        ("dimension", of("a", "[2,1]", "[1,2]"), of("a", "[2,2]", "[1,2,3,4]")),
        ("nesting", of("a", "[2,1]", "[1,2]"), of("a", "[2,1]", "[[1],[2]]")),
        (
            "order",
            of("a", "[2]", "[1,1]") + "," + &of("b", "[2]", "[2,2]"),
            of("b", "[2]", "[2,2]") + "," + &of("a", "[2]", "[1,1]"),
        ),
    ];
    for (what, one, other) in pairs {
        let server = Server::with(move |request: &Message| {
            let outputs = if instances_of(request)[0] == "9" { &other } else { &one };
            let outputs = if instances_of(request).len() > 2 { "7" } else { outputs };
            json(&format!("{{\"outputs\":[{outputs}]}}"))
        });
        let agent = batching(&server, &["--max-batchsize=2", "--max-latency=20"]);
        let got = agent.ask(request("", &[tensor("x", "INT8", "[4,1]", "[1,2,9,4]")], ""));
        assert_eq!(
            (got.status(), got.text().as_str()),
            (200, "{\"outputs\":[7]}"),
            "{what}: the whole request's answer"
        );
    }
}

#[test]
fn outputs_of_other_names_ranks_and_order_are_cut_by_rows() {
    // A classifier: two columns in, a label and three probabilities out, nested, and members of its own.
    let server = Server::with(|request: &Message| {
        let rows = instances_of(request).len() / 2;
        let first = |at: usize| instances_of(request)[at * 2].clone();
        let labels: Vec<String> = (0..rows).map(|at| format!("\"l{}\"", first(at))).collect();
        let shares: Vec<String> = (0..rows).map(|at| format!("[{0}.1 , {0}.2,\n{0}.3]", first(at))).collect();
        json(&format!(
            "{{\"outputs\":[{{\"shape\":[{rows}],\"name\":\"label\",\"data\":[{}],\"datatype\":\"BYTES\"}},\
            {{\"name\":\"share\",\"datatype\":\"FP64\",\"shape\":[ {rows}, 3 ],\"data\":[{}]}}],\
            \"model_name\":\"iris\",\"id\":\"servers-own\",\"model_version\":null}}",
            labels.join(" , "),
            shares.join(",")
        ))
    });
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    let two = request("two", &[tensor("x", "INT8", "[2,2]", "[4,0,6,0]")], "");
    let got = together(&agent, &[two, request("one", &[tensor("x", "INT8", "[1,2]", "[5,0]")], "")]);
    for (got, id, names) in [(&got[0], "\"two\"", vec![4, 6]), (&got[1], "\"one\"", vec![5])] {
        let rows = names.len();
        let labels = names.iter().map(|name| format!("\"l{name}\"")).collect();
        let shares = names.iter().flat_map(|name| (1..4).map(move |part| format!("{name}.{part}"))).collect();
        let wanted = [
            ("label".to_owned(), "BYTES".to_owned(), format!("[{rows}]"), labels),
            ("share".to_owned(), "FP64".to_owned(), format!("[{rows},3]"), shares),
        ];
        assert_eq!(outputs(got), wanted);
        assert_eq!((top(got, "id").as_deref(), top(got, "model_name").as_deref()), (Some(id), Some("\"iris\"")));
        let body = got.text();
        assert_eq!(members(&body).iter().filter(|(name, _)| *name == "id").count(), 1);
    }
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn outputs_that_can_not_be_cut_are_asked_for_again_and_passed_on_as_they_are() {
    let output = |shape: &str, data: &str| format!("{{\"outputs\":[{}]}}", tensor("o", "INT8", shape, data));
    let bodies = [
        output("[1]", "[7]"),
        output("[2]", "[7,[7]]"),
        output("[2,2]", "[[7],[7,7,7]]"),
        output("[2,0,4]", "[7]"),
        "{\"outputs\":[]}".to_owned(),
        "{\"outputs\":null,\"id\":null}".to_owned(),
        output("[3,1]", "[7,7,7]"),
        output("[2,2]", "[7,7,7]"),
        output("[]", "[7,7]"),
        output("[2]", "5"),
        "{\"outputs\":{}}".to_owned(),
        "{\"predictions\":[1,2]}".to_owned(),
        "{\"outputs\":[{\"name\":\"o\",\"datatype\":\"INT8\",\"shape\":[2]}]}".to_owned(),
        "nope".to_owned(),
    ];
    for body in bodies {
        let server = Server::answering(json(&body));
        let agent = batching(&server, &["--max-batchsize=2", NEVER]);
        for got in together(&agent, &[row("x", "1"), row("y", "2")]) {
            assert_eq!((got.status(), got.text()), (200, body.clone()));
            assert_eq!(got.field("content-type").as_deref(), Some("application/json"), "{body}");
        }
        assert_eq!(sizes(&server), [2, 1, 1], "{body}");
    }
}

#[test]
fn one_bad_request_does_not_fail_its_neighbours() {
    let server = Server::with(|request: &Message| match instances_of(request).iter().any(|element| element == "666") {
        true => answer("400 Bad", "Content-Type: application/json\r\n", "{\"error\":\"it is bad\"}"),
        false => echo(request),
    });
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    let got = together(&agent, &[row("x", "1"), row("bad", "666"), row("y", "2")]);
    assert_eq!((got[1].status(), got[1].text().as_str()), (400, "{\"error\":\"it is bad\"}"));
    for (got, id, element) in [(&got[0], "\"x\"", "1"), (&got[2], "\"y\"", "2")] {
        assert_eq!((output(got).1, top(got, "id").as_deref()), (vec![element.to_owned()], Some(id)));
    }
    // All of them, its halves, and the half with the bad one again one by one.
    let mut rows = sizes(&server);
    rows.sort_unstable();
    assert_eq!(rows, [1, 1, 1, 2, 3]);
    let tries = posts(&server).split_off(1);
    assert!(tries.iter().all(|call| member(&call.text(), "id").is_some()), "a try is a batch of one, with its id");
}
