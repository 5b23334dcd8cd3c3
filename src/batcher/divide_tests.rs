//! The transparency oracle (SPEC B0): whatever a server answers, a request gets in a batch what it gets alone, byte for byte
//! but for `batchId`.
//!
//! The server is a function of the request's text, by another parser. What it does is drawn by seed: statuses, lists of the
//! wrong length, odd numbers, ids, dimensions.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::super::again::Again;
use super::super::batch::{Outcome, Receipt, Ticket};
use super::super::json::tests::Random;
use super::super::key::Parts;
use super::super::request::{Arrival, Head, Protocol, Scan};
use super::*;
use crate::batcher::answer::{V1_BEFORE_PREDICTIONS, V1_END};
use crate::config::BATCH_ANSWERS_BYTES;
use crate::ops::budget::Budget;

type Object = BTreeMap<String, Box<RawValue>>;

fn object(text: &[u8]) -> Object {
    serde_json::from_slice(text).unwrap()
}

fn list(text: &str) -> Vec<&RawValue> {
    serde_json::from_str(text).unwrap()
}

/// What a server does.
#[derive(Debug, Clone, Copy)]
struct Server {
    seed: u64,
    /// What it does with a batch that has an instance of [`BAD`], and with more instances than it takes.
    refusal: u16,
    takes: usize,
    oddity: usize,
}

const BAD: &str = "666";

impl Server {
    fn of(random: &mut Random) -> Self {
        // Those that are said because of the requests: others are said to all of them, whatever they are.
        const REFUSALS: [u16; 6] = [400, 404, 413, 422, 500, 507];
        let takes = [1, 2, 3, 100, 100, 100][random.below(6)];
        Self { seed: random.0, refusal: REFUSALS[random.below(6)], takes, oddity: random.below(40) }
    }

    fn answer(self, protocol: Protocol, body: &[u8], batch_id: [u8; 36], budget: &Arc<Budget>) -> Response {
        let answer = |status: u16, body: String| Response {
            status,
            fields: Vec::new(),
            fields_of_body: Vec::new(),
            is_coded: self.oddity == 23,
            body: body.into_bytes(),
            batch_id,
            held: budget.hold(),
        };
        if self.oddity == 22 {
            return answer([503, 429, 204, 302, 408, 502][(self.seed % 6) as usize], "busy".to_owned());
        }
        let (instances, text) = match protocol {
            Protocol::V1 => self.v1(body),
            Protocol::V2 => self.v2(body),
        };
        let is_bad = std::str::from_utf8(body).unwrap().contains(BAD);
        if instances > self.takes || is_bad {
            return answer(self.refusal, format!("{{\"error\":\"{}\"}}", if is_bad { "bad" } else { "too many" }));
        }
        answer([200, 200, 200, 200, 200, 201, 203, 206][(self.seed % 8) as usize], text)
    }

    /// How many instances there are, and the answer to them.
    fn v1(self, body: &[u8]) -> (usize, String) {
        let request = object(body);
        let instances = list(request["instances"].get());
        let one = |value: &&RawValue| match (self.oddity, value.get()) {
            (0, "13") => "NaN".to_owned(),
            (1, "13") => "6e-07.0".to_owned(),
            (2, "13") => "-inf".to_owned(),
            (3, _) => format!("{{\"label\":{value}, \"p\":[0.1,{value}]}}"),
            _ => format!("[{value}]"),
        };
        let between = [",", ", ", " ,\n"][(self.seed / 4 % 3) as usize];
        let mut all: Vec<String> = instances.iter().map(one).collect();
        match self.oddity {
            4 => all.push("1".to_owned()),
            5 => all.truncate(all.len() - 1),
            6 => all.clear(),
            7 => all = vec![all.join(",")],
            // Whatever it is asked: for as many requests it would seem to fit.
            24 => all = vec![all.len().to_string(), all.join("+").replace(['[', ']'], "").len().to_string()],
            _ => {}
        }
        let list = format!("[{}]", all.join(between));
        let text = match self.oddity {
            8 => "{\"predictions\":null}".to_owned(),
            9 => "{}".to_owned(),
            10 => "Internal nonsense".to_owned(),
            11 => list,
            12 => format!("{{\"predictions\":{list},\"predictions\":{list}}}"),
            13 => format!("{{\"predictions\":{list}"),
            14 => format!("{{\"outputs\":{list}}}"),
            15 => String::new(),
            _ => format!(" {{\"model\":[1,{{}}], \"predictions\":{list} ,\"x\":\"]\"}}\n"),
        };
        (instances.len(), text)
    }

    fn v2(self, body: &[u8]) -> (usize, String) {
        let request = object(body);
        let mut outputs = Vec::new();
        let mut rows = 0;
        for input in list(request["inputs"].get()) {
            let input = object(input.get().as_bytes());
            let shape: Vec<usize> = serde_json::from_str(input["shape"].get()).unwrap();
            rows = shape[0];
            let mut leaves = Vec::new();
            flatten(input["data"].get(), &mut leaves);
            assert_eq!(leaves.len(), shape.iter().product::<usize>(), "what is merged fits its shape");
            outputs.push(self.output(&shape, &leaves, input["name"].get()));
        }
        match self.oddity {
            4 => outputs.push("{\"name\":\"loss\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[0.5]}".to_owned()),
            5 => outputs.push("{\"name\":\"s\",\"shape\":[],\"datatype\":\"FP32\",\"data\":[0.5]}".to_owned()),
            6 => outputs.clear(),
            7 => outputs.push(format!("{{\"name\":\"none\",\"shape\":[{rows},0,4],\"datatype\":\"FP32\",\"data\":[]}}")),
            8 => outputs.push(format!("{{\"name\":\"b\",\"shape\":[{rows},2],\"datatype\":\"FP32\",\"parameters\":{{\"binary_data_size\":8}}}}")),
            // What has an entry for each row, beside the data.
            25 => outputs.push(format!("{{\"name\":\"l\",\"shape\":[{rows}],\"datatype\":\"FP32\",\"data\":{:?},\"parameters\":{{\"p\":{{\"labels\":{:?}}}}}}}", vec![1; rows], vec![rows; rows])),
            9 => outputs.push(format!("{{\"name\":\"r\",\"shape\":[{rows},1],\"datatype\":\"FP32\",\"data\":[[1],[]]}}")),
            _ => {}
        }
        let id = match (self.oddity, request.get("id")) {
            (10, _) => "\"id\": null, ".to_owned(),
            (11, _) => "\"id\":7,".to_owned(),
            (12, _) | (_, None) => String::new(),
            (_, Some(id)) => format!("\"id\": {id}, "),
        };
        let outputs = outputs.join(", ");
        let text = match (self.oddity, self.seed / 64 % 2) {
            (13, _) => format!("{{\"outputs\":[{outputs}]"),
            (14, _) => "{\"outputs\":null}".to_owned(),
            (15, _) => format!("{{{id}\"outputs\":[{outputs}],\"outputs\":[]}}"),
            (_, 0) => format!("{{{id}\"model_name\":\"m\", \"outputs\":[{outputs}] }}"),
            (26, _) => format!("{{\"explanations\":{:?},{id}\"outputs\":[{outputs}]}}", vec![rows; rows]),
            _ => {
                let id = id.trim_end_matches([' ', ',']);
                let comma = if id.is_empty() { "" } else { "," };
                format!("{{\"model_name\":\"m\",\"outputs\":[{outputs}]{comma}{id}}}")
            }
        };
        (rows, text)
    }

    /// An output of twice as many columns as the input, nested or flat, with its members in any order.
    fn output(self, shape: &[usize], leaves: &[String], name: &str) -> String {
        let width = leaves.len() / shape[0];
        let row = |row: &[String]| row.iter().map(|leaf| format!("{leaf}, {leaf}")).collect::<Vec<_>>().join(", ");
        let rows: Vec<String> = leaves.chunks(width.max(1)).map(row).collect();
        let is_nested = self.seed / 8 % 2 == 1;
        let data = if is_nested { format!("[[{}]]", rows.join("],[")) } else { format!("[{}]", rows.join(", ")) };
        let data = if self.oddity == 16 { data.replace("13", "NaN") } else { data };
        let shape = format!("[{}, {}]", shape[0], width * 2);
        if (self.seed / 16).is_multiple_of(2) {
            format!("{{\"name\":{name},\"shape\":{shape},\"datatype\":\"FP32\",\"data\":{data}}}")
        } else {
            format!(
                "{{\"data\":{data},\"datatype\":\"FP32\",\"parameters\":{{\"a\":{{\"b\":[]}}}},\"shape\":{shape},\"name\":{name}}}"
            )
        }
    }
}

fn flatten(text: &str, leaves: &mut Vec<String>) {
    for value in list(text) {
        match value.get().starts_with('[') {
            true => flatten(value.get(), leaves),
            false => leaves.push(value.get().to_owned()),
        }
    }
}

/// A request's body: V1 or V2, flat or nested, with members that differ now and then.
fn body(protocol: Protocol, random: &mut Random, has_bad: bool) -> String {
    const VALUES: [&str; 8] = ["1.0", "13", "-0", "1e400", "12345678901234567890", "3", "0.5e-7", "2"];
    let value = |random: &mut Random| VALUES[random.below(VALUES.len())].to_owned();
    let rows = 1 + random.below(3);
    let extra = ["", "", "", ",\"parameters\":{\"p\":1}", ",\"parameters\":{\"binary_data\":false}"][random.below(5)];
    let bad = if has_bad { BAD } else { "4" };
    if protocol == Protocol::V1 {
        let mut values: Vec<String> = (0..rows).map(|_| value(random)).collect();
        values[0] = if random.below(3) == 0 { bad.to_owned() } else { values[0].clone() };
        return format!("{{\"instances\":[{}]{extra}}}", values.join(", "));
    }
    let width = 1 + random.below(2);
    let lines: Vec<String> =
        (0..rows).map(|_| (0..width).map(|_| value(random)).collect::<Vec<_>>().join(",")).collect();
    // Now and then one element too many: such a request is merged with no other, as it would move their rows.
    let mut lines = lines;
    if random.below(12) == 0 {
        lines[0].push_str(",9");
    }
    let is_nested = random.below(2) == 0;
    let data = if is_nested { format!("[{}]", lines.join("], [")) } else { lines.join(" , ") };
    let second = ["", "", ",{\"name\":\"y\",\"shape\":[R],\"datatype\":\"BYTES\",\"data\":[D]}"][random.below(3)];
    let second = second
        .replace('R', &rows.to_string())
        .replace("D]", &format!("{}]", vec![format!("\"{bad}\""); rows].join(",")));
    let id = ["", "", "\"id\":\"a\",", "\"id\":\"b\\u0061\","][random.below(4)];
    format!(
        "{{{id}\"inputs\":[{{\"name\":\"x\",\"shape\":[{rows},{width}],\"datatype\":\"FP32\",\"data\":[{data}]}}{second}]{extra}}}"
    )
}

/// `None`: it passes alone.
fn request(protocol: Protocol, body: String, serial: u64, budget: &Arc<Budget>) -> Option<Arc<Request>> {
    let (mut scan, mut key) = (Scan::new(protocol), Parts::default());
    scan.advance(body.as_bytes()).ok()?;
    let payload = scan.finish(body.as_bytes(), &mut key).ok()?;
    let (head, came, held) = (Head::default(), std::time::Instant::now(), budget.hold());
    let arrival = Arrival { key: key.finish(), head, body: body.into_bytes(), payload, held, came };
    Some(Arc::new(Request::new(Ticket { worker: 0, key: 0, serial }, arrival)))
}

/// The text of an answer, without the batch's id.
fn text_of(answer: &Answer) -> (u16, Vec<u8>) {
    let body = match answer {
        Answer::Predictions { response, range } => {
            [V1_BEFORE_PREDICTIONS, &response.body[range.clone()], V1_END].concat()
        }
        Answer::Whole(response) => response.body.clone(),
        Answer::Rebuilt { body, .. } => body.clone(),
        Answer::Streamed(_) | Answer::Failed(_) => panic!("{answer:?}"),
    };
    (answer.status(), body)
}

/// Asks for all of them as the batcher does: together, and in halves what can't be divided. Returns the calls as well.
fn ask(
    server: Server,
    protocol: Protocol,
    members: &[Arc<Request>],
    budget: &Arc<Budget>,
) -> (BTreeMap<u64, (u16, Vec<u8>)>, usize) {
    let now = std::time::Instant::now();
    let (mut again, mut answered, mut calls) = (Again::default(), BTreeMap::new(), 0);
    let receipt =
        |requests| Receipt { number: 0, lane: 0, requests, instances: 0, left: now, is_beside: false, trial: None };
    let mut next = Some((receipt(members.len()), members.to_vec()));
    while let Some((receipt, members)) = next.take() {
        calls += 1;
        let mut batch_id = *b"00000000-0000-4000-8000-000000000000";
        batch_id[0] = b"abcdefgh"[calls % 8];
        let response = server.answer(protocol, &merged(&members, &batch_id), batch_id, budget);
        let outcome = match divide(&members, response, false) {
            Ok(answers) => {
                assert_eq!(answers.len(), members.len());
                let is_success = answers.iter().all(Answer::is_success);
                answered.extend(members.iter().map(|member| member.ticket.serial).zip(answers.iter().map(text_of)));
                Outcome::Answered { is_success, is_divisible: true }
            }
            Err(why) => {
                let members = members.into_iter().map(|member| (member, 1)).collect();
                Outcome::Undivided { members, why }
            }
        };
        again.returned(receipt, outcome, now);
        next = again.next(1, now).map(|batch| (batch.receipt, batch.members));
    }
    (answered, calls)
}

/// Sets of requests in the whole suite; the release of a version asks for more.
const SETS: usize = 100_000;
const THREADS: usize = 4;

#[test]
fn a_request_gets_in_a_batch_what_it_gets_alone() {
    let sets = std::env::var("ORACLE_SETS").map_or(SETS, |sets| sets.parse().unwrap());
    let run = |thread: usize| {
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (thread as u64 + 1));
        let budget = Budget::new(BATCH_ANSWERS_BYTES);
        let (mut together, mut divided) = (0, 0);
        for set in 0..sets / THREADS {
            let protocol = if random.below(2) == 0 { Protocol::V1 } else { Protocol::V2 };
            let server = Server::of(&mut random);
            let has_bad = random.below(4) == 0;
            let count = 2 + random.below(4);
            let requests: Vec<_> = (0..count)
                .filter_map(|serial| request(protocol, body(protocol, &mut random, has_bad), serial as u64, &budget))
                .collect();
            let mut lanes: BTreeMap<Vec<u8>, Vec<Arc<Request>>> = BTreeMap::new();
            for request in &requests {
                lanes.entry(format!("{:?}", request.key).into_bytes()).or_default().push(Arc::clone(request));
            }
            for members in lanes.into_values() {
                // An answer that seems to fit is taken for one that does, be it that of a half.
                let instances: usize = members.iter().map(|member| member.payload.instances()).sum();
                if server.oddity == 24 && (instances == 2 || has_bad || server.takes < 100) {
                    continue;
                }
                let (answers, calls) = ask(server, protocol, &members, &budget);
                for member in &members {
                    let (alone, _) = ask(server, protocol, std::slice::from_ref(member), &budget);
                    let (got, wanted) = (&answers[&member.ticket.serial], &alone[&member.ticket.serial]);
                    let text = |answer: &(u16, Vec<u8>)| (answer.0, String::from_utf8_lossy(&answer.1).into_owned());
                    assert_eq!(
                        text(got),
                        text(wanted),
                        "{thread} {set} {server:?} {}",
                        String::from_utf8_lossy(&member.body)
                    );
                }
                together += usize::from(members.len() > 1);
                divided += usize::from(members.len() > 1 && calls == 1);
            }
        }
        assert_eq!(budget.bytes(), 0, "all is given back");
        (together, divided)
    };
    let counts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || run(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (together, divided) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    assert!(together > sets / 2 && divided > together / 4, "{together} batches, {divided} of them divided at once");
}
