//! V1 bodies: what is found in them, and how they are merged and cut.

use super::*;

fn found(body: &str) -> Result<(String, usize), Unfit> {
    let list = instances(body.as_bytes(), &mut Parts::default())?;
    Ok((body[list.content].to_owned(), list.count))
}

fn key(body: &str) -> Parts {
    let mut key = Parts::default();
    instances(body.as_bytes(), &mut key).unwrap();
    key
}

#[test]
fn instances_are_found_wherever_they_are() {
    let nasty = r#" {"a" : [{"instances":[9]}], "instances" : [ 1.0 , "],\"" , [1e400,{}] ] , "b":{} } "#;
    assert_eq!(found(nasty), Ok((r#" 1.0 , "],\"" , [1e400,{}] "#.to_owned(), 3)));
    assert_eq!(found(r#"{"instances":[1],"instances":[2,3]}"#), Ok(("2,3".to_owned(), 2)));
}

#[test]
fn what_is_no_request_is_told_as_the_go_agent_does() {
    for body in ["", " ", "nope", "[1]", "1", "{", r#"{"instances":{}}"#, r#"{"instances":1}"#, r#"{"instances":[1]}x"#]
    {
        assert_eq!(found(body), Err(Unfit::Bad(BadPredict::Malformed)), "{body}");
    }
    for body in ["null", "{}", r#"{"x":1}"#, r#"{"instances":[]}"#, r#"{"instances":null}"#, r#"{"instances":[ ]}"#] {
        assert_eq!(found(body), Err(Unfit::Bad(BadPredict::NoInstances)), "{body}");
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
fn instances_are_found_as_they_come_at_every_split_point() {
    let body = r#" {"a":"\"\u00e9é",  "Instances" : [ -1.0e5 , "],\"" , [1,{}],null ] , "b":[[{"c":1}]],"d":-12.5} "#;
    let mut whole = Parts::default();
    let list = instances(body.as_bytes(), &mut whole).unwrap();
    for first in 0..body.len() {
        for second in first..body.len() {
            let (mut walk, mut key) = (RequestWalk::default(), Parts::default());
            for end in [first, second, body.len()] {
                walk.advance(&body.as_bytes()[..end]).unwrap();
            }
            assert_eq!(walk.finish(body.as_bytes(), &mut key).unwrap(), list);
            assert_eq!(key, whole, "{first} {second}");
        }
    }
}

#[test]
fn the_name_may_be_spelled_as_go_takes_it_and_counts_as_it_is_spelled() {
    assert_eq!(found(r#"{"InSTances":[1]}"#), Ok(("1".to_owned(), 1)));
    assert_eq!(found("{\"in\u{17f}tances\":[1]}"), Ok(("1".to_owned(), 1)));
    assert_ne!(key(r#"{"Instances":[1]}"#), key(r#"{"instances":[1]}"#));
    assert_eq!(key(r#"{"instances" : [1,2]}"#), key(r#"{ "instances":[3]}"#));
}

#[test]
fn tensorflows_columns_are_not_for_the_batcher() {
    assert_eq!(found(r#"{"inputs":{"a":[1]}}"#), Err(Unfit::Passes));
    assert_eq!(found(r#"{"inputs":{"a":[1]},"instances":null}"#), Err(Unfit::Bad(BadPredict::NoInstances)));
    assert_eq!(found(r#"{"inputs":1,"instances":[2]}"#), Ok(("2".to_owned(), 1)));
}

#[test]
fn a_body_with_two_lists_is_said_to_be_ambiguous() {
    for body in [
        r#"{"instances":[1],"Instances":[2]}"#,
        r#"{"instances":null,"instances":[2]}"#,
        r#"{"instances":[1],"instances":[2]}"#,
    ] {
        assert!(instances(body.as_bytes(), &mut Parts::default()).unwrap().is_ambiguous, "{body}");
    }
    assert_eq!(found(r#"{"instances":{},"instances":[2]}"#), Err(Unfit::Bad(BadPredict::Malformed)));
    assert_eq!(found(r#"{"instances":[2],"instances":null}"#), Err(Unfit::Bad(BadPredict::NoInstances)));
}

#[test]
fn what_go_does_not_read_as_a_number_is_passed_over_as_one() {
    let odd = "[NaN,-Infinity,Infinity]";
    assert_eq!(found(&format!(r#"{{"instances":{odd}}}"#)), Ok((odd[1..odd.len() - 1].to_owned(), 3)));
    assert_eq!(found(r#"{"instances":[nan]}"#), Err(Unfit::Bad(BadPredict::Malformed)));
}

#[test]
fn predictions_are_cut_in_order_and_byte_for_byte() {
    let body = br#"{"predictions": [1.0, {"a":[2,"]"]} ,[3] , 4e400], "x":0}"#;
    let runs = predictions(body, &[1, 2, 1]).unwrap();
    let texts: Vec<&[u8]> = runs.into_iter().map(|run| &body[run]).collect();
    assert_eq!(texts, [&b"1.0"[..], br#"{"a":[2,"]"]} ,[3]"#, b"4e400"]);
    let list = List { content: 17..48, count: 4, is_ambiguous: false };
    assert_eq!(split(body, &list.content, [1, 2, 1].into_iter()), predictions(body, &[1, 2, 1]).unwrap());
    assert_eq!(with_only(body, &list, 17..20), br#"{"predictions": [1.0], "x":0}"#);
    let odd = b"{\"predictions\":[NaN,-inf,6e-07.0]}";
    assert_eq!(predictions(odd, &[1, 1, 1]), Some(vec![16..19, 20..24, 25..32]));
}

#[test]
fn a_response_may_have_no_list_or_one_of_another_length() {
    for body in [
        &br#"{"error":"x"}"#[..],
        br#"{"predictions":{"a":[1]}}"#,
        b"<html>",
        br#"{"predictions":[1]}"#,
        br#"{"predictions":[1,2,3]}"#,
        br#"{"predictions":[1,2],"predictions":[1,2]}"#,
        br#"{"predictions":[1,2]}x"#,
        br#"[1,2]"#,
        b"null",
        b"",
    ] {
        assert_eq!(predictions(body, &[1, 1]), None);
    }
}
