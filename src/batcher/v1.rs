//! KServe's V1 protocol: `{"instances":[…], …}` and `{"predictions":[…]}` (SPEC B1–B5).
//!
//! A merged body is the first one with the others' instances spliced into its list, so every byte outside the list is
//! as its client sent it; bodies are merged only when what lies outside is the same in all.
//!
//! Not here: the answer's own members `message` and `batchId` (the worker writes them), and who shares a batch
//! ([`super::queue`]).

use std::ops::Range;

use super::json::{Cursor, Malformed, is_named};
use super::key::Parts;

/// A list in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// What lies between its brackets.
    pub content: Range<usize>,
    /// Its elements.
    pub count: usize,
}

/// Why a body is no V1 request (SPEC B2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    /// It could not be read to its end.
    Unreadable,
    /// It is not JSON, not an object, or `instances` is not a list.
    Malformed,
    /// `instances` is missing or empty.
    NoInstances,
}

impl From<Malformed> for BadRequest {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl BadRequest {
    /// What the client is told: the Go agent's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unreadable => "can't read body",
            Self::Malformed => "can't Unmarshal body",
            Self::NoInstances => "no instances in the request",
        }
    }
}

/// Finds the instances of a request and adds all its other members to the key. Of several lists the last one counts,
/// as it does for servers; the others are members like any other.
///
/// # Errors
/// As the Go agent, which reads the text to its end before it looks for instances.
pub fn instances(body: &[u8], key: &mut Parts) -> Result<List, BadRequest> {
    let mut cursor = Cursor::new(body)?;
    if cursor.peek() == Some(b'n') {
        cursor.value()?;
        cursor.end()?;
        return Err(BadRequest::NoInstances);
    }
    let mut found: Option<(Range<usize>, List)> = None;
    cursor.object(|cursor, name| {
        if !is_named(&body[name.clone()], "instances") {
            let value = cursor.value()?;
            key.add(&body[name]);
            key.add(&body[value]);
            return Ok(());
        }
        let list = if cursor.peek() == Some(b'n') {
            let value = cursor.value()?;
            List { content: value, count: 0 }
        } else {
            list(cursor)?
        };
        if let Some((name, before)) = found.replace((name, list)) {
            key.add(&body[name]);
            key.add(&body[before.content]);
        }
        Ok::<_, Malformed>(())
    })?;
    cursor.end()?;
    found.map(|found| found.1).filter(|list| list.count > 0).ok_or(BadRequest::NoInstances)
}

/// Finds the predictions of a response; `None`: it is JSON without such a list.
///
/// # Errors
/// When it is no JSON object.
pub fn predictions(body: &[u8]) -> Result<Option<List>, Malformed> {
    let mut cursor = Cursor::new(body)?;
    let mut found = None;
    cursor.object(|cursor, name| {
        if is_named(&body[name], "predictions") {
            found = if cursor.peek() == Some(b'[') { Some(list(cursor)?) } else { cursor.value().map(|_| None)? };
            return Ok(());
        }
        cursor.value().map(drop)
    })?;
    cursor.end()?;
    Ok(found)
}

fn list(cursor: &mut Cursor<'_>) -> Result<List, Malformed> {
    let mut count = 0;
    let content = cursor.list(|cursor| {
        count += 1;
        cursor.value().map(drop)
    })?;
    Ok(List { content, count })
}

/// One body with the elements of all, in order.
pub fn merge(bodies: &[(&[u8], &List)]) -> Vec<u8> {
    let [(first, at), rest @ ..] = bodies else { return Vec::new() };
    let more: usize = rest.iter().map(|(_, list)| list.content.len() + 1).sum();
    let mut merged = Vec::with_capacity(first.len() + more);
    merged.extend_from_slice(&first[..at.content.end]);
    for (body, list) in rest {
        merged.push(b',');
        merged.extend_from_slice(&body[list.content.clone()]);
    }
    merged.extend_from_slice(&first[at.content.end..]);
    merged
}

/// The same body with only these of its elements.
pub fn with_only(body: &[u8], list: &List, part: Range<usize>) -> Vec<u8> {
    [&body[..list.content.start], &body[part], &body[list.content.end..]].concat()
}

/// Where runs of elements lie, the first `counts[0]` of them, the next `counts[1]`, and so on, without the commas
/// between the runs.
pub fn split(body: &[u8], content: &Range<usize>, counts: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut cursor = Cursor::inside(body, content);
    let run = |count| {
        let mut run = None;
        for _ in 0..count {
            // INVARIANT: the list was walked over when it was found, so this can't fail.
            let Ok(element) = cursor.value() else { break };
            run = Some(run.map_or(element.start, |run: Range<usize>| run.start)..element.end);
            if !cursor.comma() {
                break;
            }
        }
        run.unwrap_or(content.end..content.end)
    };
    counts.into_iter().map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Result<(String, usize), BadRequest> {
        let list = instances(body.as_bytes(), &mut Parts::default())?;
        Ok((body[list.content].to_owned(), list.count))
    }

    #[test]
    fn instances_are_found_wherever_they_are() {
        let nasty = r#" {"a" : [{"instances":[9]}], "instances" : [ 1.0 , "],\"" , [1e400,{}] ] , "b":{} } "#;
        assert_eq!(found(nasty), Ok((r#" 1.0 , "],\"" , [1e400,{}] "#.to_owned(), 3)));
        assert_eq!(found(r#"{"instances":[1],"instances":[2,3]}"#), Ok(("2,3".to_owned(), 2)));
    }

    #[test]
    fn what_is_no_request_is_told_as_the_go_agent_does() {
        for body in
            ["", " ", "nope", "[1]", "1", "{", r#"{"instances":{}}"#, r#"{"instances":1}"#, r#"{"instances":[1]}x"#]
        {
            assert_eq!(found(body), Err(BadRequest::Malformed), "{body}");
        }
        for body in ["null", "{}", r#"{"x":1}"#, r#"{"instances":[]}"#, r#"{"instances":null}"#, r#"{"instances":[ ]}"#]
        {
            assert_eq!(found(body), Err(BadRequest::NoInstances), "{body}");
        }
    }

    #[test]
    fn a_merged_body_is_the_first_with_all_elements() {
        let bodies = [r#"{"p":1,"instances":[ 1.0 ],"q":2}"#, r#"{"p":1, "q":2, "instances":[2,[3]]}"#];
        let lists = bodies.map(|body| instances(body.as_bytes(), &mut Parts::default()).unwrap());
        let parts: Vec<(&[u8], &List)> = bodies.iter().map(|body| body.as_bytes()).zip(&lists).collect();
        assert_eq!(merge(&parts), br#"{"p":1,"instances":[ 1.0 ,2,[3]],"q":2}"#);
        assert_eq!(merge(&parts[..1]), bodies[0].as_bytes());
    }

    #[test]
    fn predictions_are_split_in_order_and_byte_for_byte() {
        let body = br#"{"predictions": [1.0, {"a":[2,"]"]} ,[3] , 4e400], "x":0}"#;
        let list = predictions(body).unwrap().unwrap();
        assert_eq!(list.count, 4);
        let runs = split(body, &list.content, [1, 2, 1]);
        let texts: Vec<&[u8]> = runs.into_iter().map(|run| &body[run]).collect();
        assert_eq!(texts, [&b"1.0"[..], br#"{"a":[2,"]"]} ,[3]"#, b"4e400"]);
        assert_eq!(with_only(body, &list, 17..20), br#"{"predictions": [1.0], "x":0}"#);
    }

    #[test]
    fn a_response_may_have_no_list() {
        assert_eq!(predictions(br#"{"error":"x"}"#), Ok(None));
        assert_eq!(predictions(br#"{"predictions":{"a":[1]}}"#), Ok(None));
        assert_eq!(predictions(b"<html>"), Err(Malformed));
    }
}
