//! What a request gets in a batch is what it would get alone (SPEC B0), where answers, refusals and streams of real servers are
//! not what a batch needs. The oracle of `batcher::divide` has the answers that are made of a request's text.

use crate::batcher_support::{
    NEVER, PATH, answer, batching, calls, echo, infer, instances_body, instances_of, json, post, posts, predict,
    predictions, sizes, submit, together,
};
use crate::support::{Message, OK, Peer, Server, Wire, until};

/// A model that answers the sum of what it is asked and its number, be it one instance or many.
fn sum(request: &Message) -> Vec<u8> {
    let instances: Vec<usize> = instances_of(request).iter().map(|number| number.parse().unwrap()).collect();
    json(&format!("{{\"predictions\":[{},{}]}}", instances.iter().sum::<usize>(), instances.len()))
}

#[test]
fn an_answer_of_the_wrong_length_is_not_sought_in_halves_where_it_might_fit() {
    let server = Server::with(sum);
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    let got = together(&agent, &[predict(&["1"]), predict(&["2"]), predict(&["3"])]);
    for (got, number) in got.iter().zip(1..) {
        assert_eq!(got.text(), format!("{{\"predictions\":[{number},1]}}"));
    }
    assert_eq!(sizes(&server), [3, 1, 1, 1]);
    // None of them has one prediction for its instance, so they are merged no more.
    let got = together(&agent, &[predict(&["4"]), predict(&["5"])]);
    assert_eq!(got[1].text(), "{\"predictions\":[5,1]}");
    assert_eq!(sizes(&server)[4..], [1, 1]);
}

#[test]
fn what_an_answer_says_of_each_row_beside_its_outputs_is_for_the_rows_client_alone() {
    let row = |id: usize, value: usize| {
        infer(&format!(
            "{{\"id\":\"{id}\",\"inputs\":[{{\"name\":\"x\",\"shape\":[1,1],\"datatype\":\"INT8\",\"data\":[{value}]}}]}}"
        ))
    };
    let beside: [fn(&str, usize) -> String; 3] = [
        |rows, count| format!("{{\"why\":[{rows}],\"outputs\":[{}]}}", output(rows, count, "")),
        |rows, count| format!("{{\"outputs\":[{}],\"p\":{{\"why\":[{rows}]}}}}", output(rows, count, "")),
        |rows, count| {
            format!("{{\"outputs\":[{}]}}", output(rows, count, &format!(",\"parameters\":{{\"w\":[{rows}]}}")))
        },
    ];
    for beside in beside {
        let server = Server::with(move |request: &Message| {
            let rows = instances_of(request);
            json(&beside(&rows.join(","), rows.len()))
        });
        let agent = batching(&server, &["--max-batchsize=2", NEVER]);
        for (got, value) in together(&agent, &[row(1, 7), row(2, 8)]).iter().zip(["7", "8"]) {
            assert_eq!(got.text(), beside(value, 1));
        }
        assert_eq!(sizes(&server), [2, 1, 1]);
    }
}

fn output(rows: &str, count: usize, more: &str) -> String {
    format!("{{\"name\":\"y\",\"shape\":[{count},1],\"datatype\":\"INT8\",\"data\":[{rows}]{more}}}")
}

#[test]
fn a_vector_is_merged_with_no_other() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=8", "--max-latency=50"]);
    let vector = |shape: &str, data: &str| {
        infer(&format!("{{\"inputs\":[{{\"name\":\"x\",\"shape\":{shape},\"datatype\":\"INT8\",\"data\":{data}}}]}}"))
    };
    together(&agent, &[vector("[2]", "[1,2]"), vector("[2]", "[3,4]")]);
    assert_eq!(sizes(&server), [2, 2]);
    // One element is one row.
    together(&agent, &[vector("[1]", "[1]"), vector("[1]", "[2]")]);
    assert_eq!(sizes(&server)[2..], [2]);
}

#[test]
fn a_refusal_is_sought_alone_where_the_call_lacked_a_field_in_which_they_differ() {
    let server = Server::with(|request: &Message| match request.field("x-api-key") {
        Some(_) => echo(request),
        None => answer("401 No", "", "no key"),
    });
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let with = |key: &str, instance: &str| post(PATH, &format!("X-Api-Key: {key}\r\n"), &instances_body(&[instance]));
    for (got, wanted) in together(&agent, &[with("a", "1"), with("b", "2")]).iter().zip(["1", "2"]) {
        assert_eq!(predictions(got), [wanted]);
    }
    assert_eq!(sizes(&server), [2, 1, 1]);
}

#[test]
fn who_takes_another_type_shares_no_batch() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", "--max-latency=50"]);
    let with = |accept: &str| post(PATH, accept, &instances_body(&["1"]));
    let fields = ["", "Accept: */*\r\n", "Accept: application/json\r\n", "accept: text/csv\r\n"];
    together(&agent, &fields.map(with));
    let mut sizes = sizes(&server);
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 3]);
}

#[test]
fn a_part_that_is_refused_leaves_the_whole_to_the_server() {
    let server = Server::with(|request: &Message| match instances_of(request).len() {
        4 => echo(request),
        count => answer("400 Bad", "", &format!("4 are wanted, not {count}")),
    });
    let agent = batching(&server, &["--max-batchsize=2", "--max-latency=50"]);
    assert_eq!(predictions(&agent.ask(predict(&["1", "2", "3", "4"]))), ["1", "2", "3", "4"]);
    assert_eq!(agent.ask(predict(&["1", "2", "3"])).text(), "4 are wanted, not 3");
}

#[test]
fn text_that_is_not_utf_8_is_the_servers_to_judge() {
    let server = Server::with(|_| json("{\"predictions\":[1]}"));
    let agent = batching(&server, &["--max-latency=5"]);
    for body in [&b"{\"instances\":[\"caf\xe9\"]}"[..], b"{\"instances\":[1],\"note\":\"\xff\"}"] {
        let head = format!("POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        assert_eq!(agent.ask([head.as_bytes(), body].concat()).text(), "{\"predictions\":[1]}");
        assert_eq!(posts(&server).last().unwrap().body, body);
    }
}

#[test]
fn a_stream_is_seen_as_it_comes() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
    let server = Server::start(move |mut peer: Peer| {
        while let Some(request) = peer.request() {
            // It has no end.
            let stream = format!("{head}5\r\nevent\r\n").into_bytes();
            let is_get = request.line().starts_with("GET");
            if peer.wire.try_send(if is_get { OK } else { &stream }).is_err() {
                return;
            }
        }
    });
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let mut clients: Vec<Wire> = (0..2).map(|_| submit(&agent, predict(&["1"]))).collect();
    for client in &mut clients {
        assert_eq!(client.response_head().field("content-type").as_deref(), Some("text/event-stream; charset=utf-8"));
        client.expect("5\r\nevent\r\n");
    }
    assert_eq!(sizes(&server), [2, 1, 1]);
    clients.into_iter().for_each(Wire::close);
}

#[test]
fn an_answer_that_a_reset_cuts_does_not_look_whole() {
    let server = Server::start(|mut peer: Peer| {
        if peer.request().is_some() {
            peer.wire.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"predictions\":[1,");
            peer.wire.reset();
        }
    });
    let agent = batching(&server, &["--max-batchsize=1"]);
    let mut client = agent.connect();
    client.send(predict(&["1"]));
    let got = client.try_response();
    assert!(got.as_ref().is_ok_and(|got| got.status() == 502), "{got:?}");
}

#[test]
fn a_request_in_parts_lets_others_of_its_key_go_between_them() {
    for policy in ["window", "eager", "adaptive"] {
        let server = Server::with(echo);
        let flags = [&format!("--batch-policy={policy}"), "--max-batchsize=4", "--batch-concurrency=1"];
        let agent = batching(&server, &[flags[0], flags[1], flags[2], "--max-latency=5000"]);
        let many: Vec<String> = (0..4000).map(|number| number.to_string()).collect();
        let mut large = agent.connect();
        large.send(predict(&many.iter().map(String::as_str).collect::<Vec<_>>()));
        until("its first part has left", || !calls(&server).is_empty());
        assert_eq!(predictions(&agent.ask(predict(&["\"small\""]))), ["\"small\""], "{policy}");
        let before = calls(&server).len();
        assert_eq!(predictions(&large.response()), many);
        assert!(before < calls(&server).len(), "{policy}: it has not waited for all of {before}");
    }
}
