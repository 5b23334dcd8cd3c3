//! The cases of `tests/http1/*.json`, and the judgement of `tests/http1/check.py` over what came of them.

use serde::Deserialize;

use super::reader::{self, Message, Unread};

/// One case; which of the optional rules apply depends on its kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) raw: String,
    pub(crate) expect: String,
    status: Option<Vec<u16>>,
    must_close: bool,
    pub(crate) incomplete: bool,
    pub(crate) half_close: bool,
    body: Option<String>,
    bodies: Option<Vec<String>>,
    upstream_requests: Option<usize>,
    upstream_forbid: Vec<String>,
    upstream_forbid_pair: Option<[String; 2]>,
    upstream_contains: Vec<String>,
    client_forbid: Vec<String>,
    pub(crate) request_method: String,
    pub(crate) backend_closes: bool,
    client_must_see_incomplete: bool,
    pub(crate) upstream_reusable: Option<bool>,
}

/// What came of a case.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What the client got.
    pub(crate) got: Vec<u8>,
    /// Its connection has ended.
    pub(crate) closed: bool,
    /// That end was a reset.
    pub(crate) reset: bool,
    /// What the server read.
    pub(crate) requests: Vec<(Message, Vec<u8>)>,
    /// Why the server could not read on.
    pub(crate) errors: Vec<&'static str>,
    /// Everything that went to the server.
    pub(crate) raw: Vec<u8>,
    /// The connection to the server is used again.
    pub(crate) reused: bool,
    /// Whether bytes that are wrong so far are refused at once or wait for their deadline is left open.
    pub(crate) may_wait: bool,
}

/// What must be the same however the bytes were cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    answers: Vec<(u16, Vec<u8>)>,
    closed: bool,
    requests: Vec<Vec<u8>>,
}

pub(crate) fn load(file: &str) -> Vec<Case> {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// A string of the table stands for bytes, one a character.
pub(crate) fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    let lower = latin1(text).to_ascii_lowercase();
    bytes.to_ascii_lowercase().windows(lower.len()).any(|window| window == lower)
}

impl Case {
    /// Whether there is more in it than one request.
    pub(crate) fn has_more_than_one(&self) -> bool {
        self.upstream_requests.is_some_and(|requests| requests != 1)
            || self.name.contains("pipe")
            || self.name.contains("first")
            || self.must_close
    }
}

impl Outcome {
    pub(crate) fn verdict(&self, method: &str) -> Verdict {
        // A reset takes along what the client had not read yet.
        let answers = if self.reset || self.may_wait { Vec::new() } else { self.answers(method) };
        Verdict {
            answers: answers.into_iter().map(|answer| (answer.status, own_text_aside(answer))).collect(),
            closed: self.closed || self.may_wait,
            requests: self.requests.iter().map(|(_, raw)| raw.clone()).collect(),
        }
    }

    /// The first final answer; the body is left out of the agent's own.
    pub(crate) fn answer(&self, method: &str) -> Option<(u16, Option<Vec<u8>>)> {
        let answer = self.answers(method).into_iter().next()?;
        Some((answer.status, Some(answer.body).filter(|_| answer.status != 502)))
    }

    /// The final answers that a client can make out.
    fn answers(&self, method: &str) -> Vec<Message> {
        let (mut answers, mut at) = (Vec::new(), 0);
        while at < self.got.len() {
            match reader::response(&self.got[at..], method == "HEAD", self.closed && !self.reset) {
                Ok((answer, length)) => {
                    answers.push(answer);
                    at += length;
                }
                Err(_) => break,
            }
        }
        if answers.is_empty()
            && self.got.starts_with(b"HTTP/1.")
            && let Some(code) = self.got.get(9..12)
        {
            let status = std::str::from_utf8(code).unwrap().parse().unwrap();
            answers.push(Message { status, ..Message::default() });
        }
        answers.retain(|answer| answer.status >= 200);
        answers
    }
}

/// The agent's own explanation may depend on what it sees first.
fn own_text_aside(answer: Message) -> Vec<u8> {
    if answer.status < 400 { answer.body } else { Vec::new() }
}

pub(crate) fn judge_request(case: &Case, outcome: &Outcome) -> Result<(), String> {
    let answers = outcome.answers(case.raw.split(' ').next().unwrap());
    let status = answers.first().map(|answer| answer.status);
    let (seen, wanted) = (outcome.requests.len(), case.upstream_requests.unwrap_or(1));
    for text in &case.upstream_forbid {
        let in_head = outcome.requests.iter().any(|(message, raw)| contains(&raw[..message.head], text));
        if in_head || (!outcome.errors.is_empty() && contains(&outcome.raw, text)) {
            return Err(format!("server saw {text:?}"));
        }
    }
    if let Some(pair) = &case.upstream_forbid_pair
        && outcome.requests.iter().any(|(message, _)| pair.iter().all(|name| message.value(name).is_some()))
    {
        return Err("server saw both framings".to_owned());
    }
    forbid_to_client(case, outcome)?;
    let is_refusal = |status: u16| (400..500).contains(&status) || status == 501 || status == 505;
    let refused = match (status, &case.status) {
        (Some(status), Some(allowed)) => allowed.contains(&status),
        (Some(status), None) => is_refusal(status),
        (None, _) => case.incomplete || outcome.closed,
    };
    if refused && outcome.errors.is_empty() && seen == 0 {
        return match status {
            _ if case.expect == "accept" => Err(format!("refused with {status:?}")),
            _ if case.must_close && !outcome.closed && !case.incomplete => Err("refused, but kept open".to_owned()),
            _ => Ok(()),
        };
    }
    if case.expect == "reject4xx" {
        let later = case.upstream_requests.is_some_and(|wanted| seen <= wanted)
            && answers.iter().any(|answer| is_refusal(answer.status));
        return if later { Ok(()) } else { Err(format!("not refused: {status:?}, server read {seen} requests")) };
    }
    if !outcome.errors.is_empty() || seen != wanted {
        return Err(format!("server read {seen} requests, not {wanted}; {:?}", outcome.errors));
    }
    if !status.is_some_and(|status| (200..300).contains(&status)) {
        return Err(format!("client got {status:?}"));
    }
    let bodies = case.bodies.clone().or(case.body.clone().map(|body| vec![body]));
    if let (Some(bodies), Some((first, _))) = (bodies, outcome.requests.first())
        && !bodies.iter().any(|body| latin1(body) == first.body)
    {
        return Err(format!("server read body {:?}", first.body.escape_ascii().to_string()));
    }
    if let Some(text) = case.upstream_contains.iter().find(|text| !contains(&outcome.raw, text)) {
        return Err(format!("server did not see {text:?}"));
    }
    if case.must_close && !outcome.closed { Err("kept open".to_owned()) } else { Ok(()) }
}

fn forbid_to_client(case: &Case, outcome: &Outcome) -> Result<(), String> {
    let has = |text: &&String| {
        let bytes = latin1(text);
        outcome.got.windows(bytes.len()).any(|window| window == bytes)
    };
    case.client_forbid.iter().find(has).map_or(Ok(()), |text| Err(format!("client got {text:?}")))
}

pub(crate) fn judge_response(case: &Case, outcome: &Outcome) -> Result<(), String> {
    forbid_to_client(case, outcome)?;
    let mut at = 0;
    let response = loop {
        let is_head = case.request_method == "HEAD";
        match reader::response(&outcome.got[at..], is_head, outcome.closed && !outcome.reset) {
            Ok((interim, length)) if interim.status < 200 => at += length,
            Ok((response, _)) => break Some(response),
            Err(Unread::More) => break None,
            Err(Unread::Bad(why)) => return Err(format!("client can't read it: {why}")),
        }
    };
    let status = response.as_ref().map(|response| response.status);
    if case.expect == "502" {
        return if status == Some(502) { Ok(()) } else { Err(format!("client got {status:?}")) };
    }
    if case.client_must_see_incomplete && status.is_some() && status != Some(502) {
        return Err("a truncated response looked complete".to_owned());
    }
    if case.expect == "forward" {
        let Some(response) = response else { return Err("no complete response".to_owned()) };
        if case.body.as_ref().is_some_and(|body| latin1(body) != response.body) {
            return Err(format!("client got body {:?}", response.body.escape_ascii().to_string()));
        }
        if status == Some(502) {
            return Err("client got 502".to_owned());
        }
    }
    if case.upstream_reusable == Some(false) && outcome.reused {
        return Err("the connection to the server is used again".to_owned());
    }
    Ok(())
}
