use super::*;
use crate::config::{HEAD_FIELDS, TRAILER_BYTES};

/// Feeds `pieces` one after the other, as a connection would, and returns what goes on and what is left over.
fn relay(framing: Framing, keep: Keep, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
    let (mut body, mut pending, mut out) = (Body::new(framing, keep), Vec::new(), Vec::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        let step = body.advance(&mut pending)?;
        out.extend_from_slice(&pending[..step.kept]);
        pending.drain(..step.consumed);
    }
    Ok((out, pending, body.has_ended()))
}

/// The result must be the same in one piece, byte by byte and cut anywhere in two.
fn everywhere(framing: Framing, keep: Keep, raw: &[u8]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
    let whole = relay(framing, keep, &[raw]);
    let bytes: Vec<&[u8]> = raw.chunks(1).collect();
    assert_eq!(relay(framing, keep, &bytes), whole, "byte by byte");
    for at in 0..=raw.len() {
        assert_eq!(relay(framing, keep, &[&raw[..at], &raw[at..]]), whole, "cut at {at}");
    }
    whole
}

fn chunked(raw: &str, keep: Keep) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
    everywhere(Framing::Chunked, keep, raw.as_bytes())
}

#[test]
fn a_body_is_framed_again_wherever_it_was_left() {
    let raw = b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\nX-A: 1\r\n\r\n";
    for at in 0..=raw.len() {
        let mut body = Body::new(Framing::Chunked, Keep::Data);
        let (mut pending, mut out) = (raw[..at].to_vec(), Vec::new());
        let step = body.advance(&mut pending).unwrap();
        let end = body.reframe_before(step.kept, &mut out);
        out.extend_from_slice(&pending[..step.kept]);
        out.extend_from_slice(end);
        let mut rest = [&pending[step.consumed..], &raw[at..]].concat();
        let step = body.advance(&mut rest).unwrap();
        out.extend_from_slice(&rest[..step.kept]);
        let trailer: &[u8] = if at == raw.len() { b"\r\n" } else { b"X-A: 1\r\n\r\n" };
        assert!(body.has_ended() && out.ends_with(&[b"0\r\n", trailer].concat()), "{at} {out:?}");
        let (data, left, ended) = relay(Framing::Chunked, Keep::Data, &[&out]).unwrap();
        assert_eq!((&data[..], left.len(), ended), (&b"hello world"[..], 0, true), "{at}");
    }
}

#[test]
fn a_length_ends_where_it_says() {
    let (out, rest, ended) = everywhere(Framing::Length(5), Keep::Framing, b"helloGET /").unwrap();
    assert_eq!((&out[..], &rest[..], ended), (&b"hello"[..], &b"GET /"[..], true));
}

#[test]
fn a_plain_chunked_body_passes_byte_for_byte() {
    let raw = "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n";
    let (out, rest, ended) = chunked(&format!("{raw}NEXT"), Keep::Framing).unwrap();
    assert_eq!((out, rest, ended), (raw.as_bytes().to_vec(), b"NEXT".to_vec(), true));
}

#[test]
fn extensions_are_left_out() {
    let (out, _, ended) = chunked("5;a=\"b;c\\\"d\" ; x\r\nhello\r\n0;last\r\n\r\n", Keep::Framing).unwrap();
    assert_eq!((&out[..], ended), (&b"5\r\nhello\r\n0\r\n\r\n"[..], true));
}

#[test]
fn the_data_alone_can_be_kept() {
    let (out, _, ended) = chunked("5;x\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n", Keep::Data).unwrap();
    assert_eq!((&out[..], ended), (&b"hello world"[..], true));
}

#[test]
fn trailers_pass_but_those_that_frame_or_authorise() {
    let raw = "0\r\nX-T: 1\r\nContent-Length: 50\r\nAuthorization: x\r\ngrpc-status: 0\r\n\r\n";
    let (out, _, ended) = chunked(raw, Keep::Framing).unwrap();
    assert_eq!((&out[..], ended), (&b"0\r\nX-T: 1\r\ngrpc-status: 0\r\n\r\n"[..], true));
}

#[test]
fn what_breaks_the_framing_is_an_error() {
    for raw in [
        "+5\r\nhello",
        "0x5\r\n",
        " 5\r\n",
        "5.0\r\n",
        "\r\n",
        ";a\r\n",
        "g\r\n",
        "10000000000000000\r\n",
        "5\nhello",
        "5\rX",
        "5;a\rb\r\n",
        "2;\nXX",
        "5;\r\nhello",
        "5;bad[=x\r\n",
        "5 \r\nhello",
        "5\r\nhelloX",
        "5\r\nhello\n0\r\n",
        "5\r\nhello\rX",
        "0\r\njunk\r\n\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\nX: 1\n\r\n\r\n",
        "0\r\n: 1\r\n\r\n",
        "0\r\nX: 1\r\n y\r\n\r\n",
    ] {
        assert!(chunked(raw, Keep::Framing).is_err(), "{raw:?}");
    }
}

#[test]
fn extensions_and_trailers_have_a_limit() {
    let long = "a".repeat(TRAILER_BYTES);
    assert_eq!(
        relay(Framing::Chunked, Keep::Framing, &[format!("5;{long}").as_bytes()]),
        Err(BodyError::TooLarge("chunk extension"))
    );
    let many = format!("1;{}\r\nx\r\n", &long[..4000]).repeat(5);
    assert_eq!(
        relay(Framing::Chunked, Keep::Framing, &[many.as_bytes()]),
        Err(BodyError::TooLarge("chunk extensions"))
    );
    assert_eq!(
        relay(Framing::Chunked, Keep::Framing, &[format!("0\r\nX: {long}").as_bytes()]),
        Err(BodyError::TooLarge("trailers"))
    );
    let fields = format!("0\r\n{}\r\n", "a:b\r\n".repeat(HEAD_FIELDS + 1));
    assert_eq!(relay(Framing::Chunked, Keep::Framing, &[fields.as_bytes()]), Err(BodyError::TooLarge("trailers")));
}

#[test]
fn input_that_ends_early_is_truncated_unless_the_end_is_the_frame() {
    let ends = |framing, raw: &[u8]| {
        let mut body = Body::new(framing, Keep::Framing);
        body.advance(&mut raw.to_vec()).unwrap();
        body.end_of_input()
    };
    assert_eq!(ends(Framing::Close, b"any"), Ok(()));
    assert_eq!(ends(Framing::Empty, b""), Ok(()));
    assert_eq!(ends(Framing::Length(5), b"hell"), Err(BodyError::Truncated));
    assert_eq!(ends(Framing::Chunked, b"5\r\nhello\r\n0\r\n"), Err(BodyError::Truncated));
    assert_eq!(ends(Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\n"), Ok(()));
}
