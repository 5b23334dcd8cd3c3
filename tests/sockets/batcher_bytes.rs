//! Bytes of instances and predictions, which arrive as they were sent whatever batch they are in: SPEC B3.

use crate::batcher_json::{items, member};
use crate::batcher_support::{
    NEVER, PATH, batch_of, batching, calls, echo, instances_body, instances_of, json, post, posts, predict,
    predictions, together,
};
use crate::support::Server;

/// Values that a parser would write differently, or that a careless scan would cut in the wrong place.
const VALUES: [&str; 40] = [
    "1.0",
    "12345678901234567890",
    "1e400",
    "-0",
    "-0.0e-00",
    "1E+5",
    "0.1000000000000000055511151231257827021181583404541015625",
    "true",
    "null",
    "\"\"",
    "\"\\u00e9\\ud83d\\ude00\"",
    "\"\u{e9}\u{1f600}\"",
    "\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\u{7f}\u{2028}\u{feff}\"",
    "\"]\"",
    "\"]}\"",
    "\",\"",
    "\"[{\\\"\"",
    "\"\\\\\"",
    "\"\\\\\\\\\"",
    "\"\\\\\\\"\"",
    "\"\\\"instances\\\":[1,2]\"",
    "\"predictions\"",
    "[]",
    "{}",
    "[ ]",
    "{ }",
    "[[],[[]],{}]",
    "[1 ,\t2\r,\n3 ]",
    "{ \"a\"\t:\r1\n, \"b\" : [ { } ] }",
    "{\"a\":1,\"a\":2,\"a\":1}",
    "{\"b\":1,\"a\":2}",
    "{\"\":{\"\":\"\"}}",
    "{\"instances\":[1,2,3]}",
    "{\"predictions\":[[1],2]}",
    "{\"\\u0061\":\"\\u0061\",\"a\":\"a\"}",
    "[\"]\",\"}\",\"\\\"\",\",\",\":\"]",
    "[1,[2,[3,[4,[5,[6,[7,[8,[9,[10]]]]]]]]]]",
];

#[test]
fn values_arrive_and_come_back_as_they_were_sent() {
    let count = VALUES.len();
    let backwards: Vec<&str> = VALUES.into_iter().rev().collect();
    let server = Server::with(echo);
    let agent = batching(&server, &[&format!("--max-batchsize={}", 2 * count), NEVER]);
    let got = together(&agent, &[predict(&VALUES), predict(&backwards)]);
    assert_eq!(predictions(&got[0]), VALUES);
    assert_eq!(predictions(&got[1]), backwards);
    // Who comes first is nobody's business.
    let orders = [[&VALUES[..], &backwards].concat(), [&backwards[..], &VALUES].concat()];
    let seen = calls(&server);
    assert!(seen.len() == 1 && orders.iter().any(|order| seen[0] == *order), "{seen:?}");
}

#[test]
fn each_value_alone_between_two_others_stays_whole() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    for value in VALUES {
        let got = together(&agent, &[predict(&["\"before\""]), predict(&[value]), predict(&["\"after\""])]);
        let mut got: Vec<String> = got.iter().flat_map(predictions).collect();
        assert_eq!(got, ["\"before\"", value, "\"after\""]);
        let mut call = calls(&server).pop().unwrap();
        call.sort();
        got.sort();
        assert_eq!(call, got);
    }
}

#[test]
fn a_body_that_is_alone_reaches_the_server_byte_for_byte() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=1"]);
    let rest = "\"z\" : 1.0 ,\r\n\"a\":{\"instances\":[9,9],\"a\":1,\"a\":1},\"s\":\"\\\"instances\\\":[9]\"";
    for value in VALUES {
        for body in [
            format!("{{\"instances\":[{value}]}}"),
            format!(" \t\r\n{{ \"instances\"\t:\r\n[ {value}\n]\r}}\n"),
            format!("{{\"instances\":[{value}],{rest}}}"),
            format!("{{{rest},\"instances\":[{value}] }}"),
        ] {
            let got = agent.ask(post(PATH, "", &body));
            assert_eq!(predictions(&got), [value], "{body}");
            assert_eq!(posts(&server).last().unwrap().text(), body);
        }
    }
}

#[test]
fn space_of_all_kinds_may_stand_between_all_tokens_of_every_member() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=4", NEVER]);
    for space in [" ", "\t", "\r", "\n", " \t\r\n"] {
        let body = ["", "{", "\"instances\"", ":", "[", "1", ",", "[2]", "]", "}", ""].join(space);
        let got = together(&agent, &[post(PATH, "", &body), post(PATH, "", &body)]);
        let got: Vec<_> = got.iter().map(batch_of).collect();
        assert_eq!(got[0].0, got[1].0, "{space:?}");
        assert_eq!((&got[0].1[..], &got[1].1[..]), (&["1".to_owned(), "[2]".to_owned()][..], &got[0].1[..]));
        assert_eq!(calls(&server).pop().unwrap(), ["1", "[2]", "1", "[2]"]);
    }
}

#[test]
fn other_members_arrive_as_they_were_sent_and_once() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=2", NEVER]);
    let rest = [
        ("signature_name", "\"s\\u00e9]\\\"\""),
        ("parameters", "{\"instances\":[9,9], \"a\":1.0 ,\"a\":[1e400,-0]}"),
        ("n", "12345678901234567890"),
        ("predictions", "[[[]]]"),
    ];
    let written: Vec<String> = rest.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let (before, after) = (written[..2].join(","), written[2..].join(","));
    let with = |instance: &str| post(PATH, "", &format!("{{{before},\"instances\":[{instance}],{after}}}"));
    let got = together(&agent, &[with("{\"x\":1}"), with("[\"y\"]")]);
    assert_eq!(predictions(&got[0]), ["{\"x\":1}"]);
    assert_eq!(predictions(&got[1]), ["[\"y\"]"]);
    let seen = server.only().text();
    let mut instances = items(member(&seen, "instances").unwrap());
    instances.sort_unstable();
    assert_eq!(instances, ["[\"y\"]", "{\"x\":1}"]);
    for (name, value) in rest {
        assert_eq!(member(&seen, name), Some(value), "{seen}");
    }
}

#[test]
fn an_answer_is_cut_where_its_values_end_whatever_stands_around_them() {
    let templates = [
        "{\"predictions\":[LIST]}",
        " \n{ \"predictions\"\t:\r[ LIST ] }\r\n",
        "{\"x\":{\"predictions\":[9]},\"s\":\"\\\"predictions\\\":[\",\"predictions\":[LIST],\"y\":[]}",
        "{\"deployed\\u005fid\":\"]\",\"n\":1e400,\"predictions\" :[LIST]}",
    ];
    let numbers: Vec<String> = (0..VALUES.len()).map(|number| number.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let shares = [0..1, 1..VALUES.len() / 2, VALUES.len() / 2..VALUES.len()];
    for template in templates {
        let server = Server::with(move |request| {
            let values = instances_of(request).into_iter().map(|number| VALUES[number.parse::<usize>().unwrap()]);
            json(&template.replace("LIST", &values.collect::<Vec<_>>().join("\r\n\t ,\n ")))
        });
        let agent = batching(&server, &[&format!("--max-batchsize={}", VALUES.len()), NEVER]);
        let requests = shares.clone().map(|share| predict(&numbers[share]));
        for (got, share) in together(&agent, &requests).iter().zip(shares.clone()) {
            assert_eq!(predictions(got), VALUES[share], "{template}");
        }
        assert_eq!(calls(&server).len(), 1);
    }
}

#[test]
fn a_value_of_five_hundred_levels_and_one_of_many_bytes_pass() {
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=3", NEVER]);
    let deep = ["[{\"a\":".repeat(250), "[]".into(), "}]".repeat(250)].concat();
    let long = format!("\"{}\"", "],\\\"\u{e9}".repeat(200_000));
    let got = together(&agent, &[predict(&[&deep]), predict(&[&long]), predict(&["1"])]);
    let got: Vec<String> = got.iter().flat_map(predictions).collect();
    assert!(got == [deep, long, "1".into()]);
}

#[test]
fn bodies_beyond_what_a_client_library_reads_at_most_by_itself_pass_both_ways() {
    let _alone = crate::support::alone();
    // ureq reads 10 MB unless it is told otherwise.
    let instance = format!("\"{}\"", "x".repeat(1 << 20));
    let instances = vec![instance.as_str(); 12];
    let server = Server::with(echo);
    let agent = batching(&server, &["--max-batchsize=12", NEVER]);
    let mut client = agent.connect();
    client.patience *= 3;
    // It is larger than what is collected, and the answer larger than what is held: both pass as they come.
    client.send(predict(&instances));
    assert!(items(member(&client.response().text(), "predictions").unwrap()) == instances);
    assert!(posts(&server).pop().unwrap().text() == instances_body(&instances));
}
