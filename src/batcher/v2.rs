//! The Open Inference Protocol (V2) in JSON: `{"inputs":[…], …}` and `{"outputs":[…], …}` (SPEC B1, B9).
//!
//! A body's tensors are found once; then the same two steps serve requests and responses: [`merge`] puts the rows of
//! several bodies behind each other along the first dimension, [`Tensors::part`] takes some rows out of one. Both are
//! a copy of a body in which a few places are replaced: the first dimensions, the data, the id.
//!
//! Not here: binary tensor data. Such a request is not batched but passes.

use std::ops::Range;

use super::json::{self, Malformed};
use super::key::Parts;
use super::v1;
use super::v2_walk::{Side, Walk, refuse_if};
use crate::ops::memory;

/// The tensors of a body. INVARIANT: all have `rows` as their first dimension, which is not 0, and data to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensors {
    /// First dimension of every tensor: the instances.
    pub rows: usize,
    pub(super) tensors: Vec<Tensor>,
    pub(super) id: Option<Id>,
    /// Behind the body's opening brace.
    pub(super) open: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Where the first dimension's digits lie.
    pub(super) dimension: Range<usize>,
    /// What lies between the brackets of the data.
    pub(super) data: Range<usize>,
    /// Elements of that list for each row: 1 when the data are nested.
    pub(super) per_row: usize,
    /// How many dimensions it has.
    pub(super) rank: usize,
    /// The data of a response, cut.
    pub(super) runs: Vec<Range<usize>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) name_at: usize,
    /// Its value, in quotes if it is a text.
    pub(super) value: Range<usize>,
    /// The end of the member before it.
    pub(super) before: Option<usize>,
    /// The start of the member behind it.
    pub(super) behind: Option<usize>,
    pub(super) is_text: bool,
}

/// What becomes of the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewId<'i> {
    /// It stays.
    AsSent,
    /// It is taken out.
    None,
    /// It becomes this, in quotes.
    This(&'i [u8]),
}

/// A place that is replaced.
enum Edit {
    Rows,
    Data(usize),
    Id,
}

/// Looks for the tensors of a request while it comes.
#[derive(Debug)]
pub struct RequestWalk(Walk);

impl Default for RequestWalk {
    fn default() -> Self {
        Self(Walk::new(Side::Inputs))
    }
}

impl RequestWalk {
    /// Goes as far as the body has come.
    ///
    /// # Errors
    /// When the body can't be merged with another. It may be no valid request.
    pub fn advance(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.0.advance(body)
    }

    /// Bytes that it holds beside the body.
    pub fn held(&self) -> usize {
        self.0.held()
    }

    /// The tensors of the whole body, once [`Self::advance`] has seen it. What must be the same goes to the key.
    ///
    /// # Errors
    /// As there.
    pub fn finish(self, body: &[u8], key: &mut Parts) -> Result<Tensors, Malformed> {
        self.0.finish(body, key)
    }
}

impl Tensors {
    /// Finds the tensors of a whole request, and adds to the key what must be the same to merge it with others.
    ///
    /// # Errors
    /// As [`RequestWalk::advance`].
    pub fn of_request(body: &[u8], key: &mut Parts) -> Result<Self, Malformed> {
        let mut walk = RequestWalk::default();
        walk.advance(body)?;
        walk.finish(body, key)
    }

    /// Finds the tensors of a response and cuts them into runs of so many rows.
    ///
    /// # Errors
    /// When they are not as many rows in all, or not every tensor has them.
    pub fn of_response(body: &[u8], counts: &[usize]) -> Result<Self, Malformed> {
        let mut walk = Walk::new(Side::Outputs(counts.to_vec()));
        walk.advance(body)?;
        walk.finish(body, &mut Parts::default())
    }

    /// Finds the tensors of a response to one part of a request. What must be the same in the others, to join them, goes to the
    /// key: what a tensor is called, its type, its dimensions but the first, how its data are nested.
    ///
    /// # Errors
    /// As [`Self::of_response`].
    pub fn of_part(body: &[u8], rows: usize, key: &mut Parts) -> Result<Self, Malformed> {
        let mut walk = Walk::new(Side::Outputs(vec![rows]));
        walk.keep_key();
        walk.advance(body)?;
        walk.finish_part(body, key)
    }

    /// The id in its quotes, if there is one that is a text.
    pub fn id<'b>(&self, body: &'b [u8]) -> Option<&'b [u8]> {
        self.id.as_ref().filter(|id| id.is_text).map(|id| &body[id.value.clone()])
    }

    /// Bytes of all data.
    pub(super) fn data_bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.data.len()).sum()
    }

    /// Whether its rows may be sent in several calls: a single dimension may be one thing, such as a vector of features.
    pub fn can_be_split(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.rank > 1)
    }

    /// Where the data of runs of rows lie: for each tensor, for each count.
    pub fn split(&self, body: &[u8], counts: &[usize]) -> Vec<Vec<Range<usize>>> {
        let runs = |tensor: &Tensor| match tensor.per_row {
            0 => vec![tensor.data.start..tensor.data.start; counts.len()],
            per_row => v1::split(body, &tensor.data, counts.iter().map(|count| count * per_row)),
        };
        self.tensors.iter().map(runs).collect()
    }

    /// The `number`-th run of a response that was cut.
    pub fn share(&self, body: &[u8], number: usize, rows: usize, id: NewId<'_>) -> Vec<u8> {
        self.rewrite(body, rows, id, |out, tensor| {
            out.extend_from_slice(&body[self.tensors[tensor].runs[number].clone()]);
        })
    }

    /// The body with only the `number`-th of these runs of rows.
    pub fn part(&self, body: &[u8], runs: &[Vec<Range<usize>>], number: usize, rows: usize, id: NewId<'_>) -> Vec<u8> {
        self.rewrite(body, rows, id, |out, tensor| out.extend_from_slice(&body[runs[tensor][number].clone()]))
    }

    /// Copies the body and replaces dimensions, data and id; `data` writes those of a tensor.
    fn rewrite(&self, body: &[u8], rows: usize, id: NewId<'_>, mut data: impl FnMut(&mut Vec<u8>, usize)) -> Vec<u8> {
        let mut edits = Vec::with_capacity(2 * self.tensors.len() + 1);
        for (number, tensor) in self.tensors.iter().enumerate() {
            edits.push((tensor.dimension.clone(), Edit::Rows));
            edits.push((tensor.data.clone(), Edit::Data(number)));
        }
        match (id, &self.id) {
            (NewId::None, Some(own)) => edits.push((own.member(), Edit::Id)),
            (NewId::This(_), Some(own)) => edits.push((own.value.clone(), Edit::Id)),
            (NewId::This(_), None) => edits.push((self.open..self.open, Edit::Id)),
            (NewId::AsSent, _) | (NewId::None, None) => {}
        }
        edits.sort_by_key(|(place, _)| place.start);
        let (mut out, mut copied) = (memory::buffer(body.len()), 0);
        for (place, edit) in edits {
            out.extend_from_slice(&body[copied..place.start]);
            match (edit, id) {
                (Edit::Rows, _) => out.extend_from_slice(rows.to_string().as_bytes()),
                (Edit::Data(number), _) => data(&mut out, number),
                (Edit::Id, NewId::This(id)) if self.id.is_none() => {
                    out.extend_from_slice(b"\"id\":");
                    out.extend_from_slice(id);
                    out.push(b',');
                }
                (Edit::Id, NewId::This(id)) => out.extend_from_slice(id),
                (Edit::Id, _) => {}
            }
            copied = place.end;
        }
        out.extend_from_slice(&body[copied..]);
        out
    }
}

/// One body with the rows of all, in order, and otherwise the first. They must be alike.
pub fn merge(bodies: &[(&[u8], &Tensors)], id: NewId<'_>) -> Vec<u8> {
    let [(first, template), ..] = bodies else { return Vec::new() };
    let rows = bodies.iter().map(|(_, tensors)| tensors.rows).sum();
    template.rewrite(first, rows, id, |out, number| {
        let mut between: &[u8] = b"";
        for (body, tensors) in bodies {
            let tensor = &tensors.tensors[number];
            // Rows of no elements have no text.
            if tensor.per_row > 0 {
                out.extend_from_slice(between);
                out.extend_from_slice(&body[tensor.data.clone()]);
                between = b",";
            }
        }
    })
}

impl Id {
    /// The member with the comma that it leaves over.
    fn member(&self) -> Range<usize> {
        match (self.before, self.behind) {
            (Some(before), _) => before..self.value.end,
            (None, Some(behind)) => self.name_at..behind,
            (None, None) => self.name_at..self.value.end,
        }
    }
}

/// Whether a parameter of this name asks for what a batch can't give: binary data, a sequence that each request is a step of,
/// shared memory. A name with an escape may be any of them.
pub(super) fn asks_for_more(name: &[u8]) -> bool {
    name.contains(&b'\\')
        || ["binary_data", "sequence_", "shared_memory"].iter().any(|start| json::starts_with(name, start))
}

/// Such a parameter is harmless when it is turned off.
pub(super) fn check_parameter(value: &[u8]) -> Result<(), Malformed> {
    refuse_if(!matches!(value, b"false" | b"0" | b"null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = r#"{"id":"a","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1.0,2, 3,4e400]},
        {"data":["p","q,]"],"datatype":"BYTES","shape":[2],"name":"y"}],"outputs":[{"name":"o"}]}"#;
    const B: &str = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[5,6]},
        {"data":["r"],"datatype":"BYTES","shape":[1],"name":"y"}],"outputs":[{"name":"o"}],"id":"b"}"#;

    fn request(body: &str) -> Result<(Tensors, Parts), Malformed> {
        let mut key = Parts::default();
        Tensors::of_request(body.as_bytes(), &mut key).map(|tensors| (tensors, key))
    }

    #[test]
    fn requests_that_are_alike_are_merged_along_the_first_dimension() {
        let ((a, of_a), (b, of_b)) = (request(A).unwrap(), request(B).unwrap());
        assert_eq!((of_a == of_b, a.rows, b.rows), (true, 2, 1));
        let merged = merge(&[(A.as_bytes(), &a), (B.as_bytes(), &b)], NewId::None);
        let wanted = A.replace(r#""id":"a","#, "").replace("[2", "[3").replace("4e400", "4e400,5,6");
        assert_eq!(String::from_utf8(merged).unwrap(), wanted.replace(r#""q,]""#, r#""q,]","r""#));
        let merged = String::from_utf8(merge(&[(B.as_bytes(), &b), (A.as_bytes(), &a)], NewId::None)).unwrap();
        assert!(merged.ends_with(r#""outputs":[{"name":"o"}]}"#), "{merged}");
    }

    #[test]
    fn rows_are_taken_out_with_an_id_of_their_own() {
        let (a, _) = request(A).unwrap();
        let runs = a.split(A.as_bytes(), &[1, 1]);
        let part = |number, id| String::from_utf8(a.part(A.as_bytes(), &runs, number, 1, id)).unwrap();
        let first = part(0, NewId::This(b"\"z\""));
        assert!(
            first.starts_with(r#"{"id":"z","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1.0,2]}"#)
        );
        assert!(first.contains(r#"{"data":["p"],"datatype":"BYTES","shape":[1],"#), "{first}");
        assert!(part(1, NewId::AsSent).contains(r#""data":[3,4e400]"#));
        let without = r#" {"inputs":[{"shape":[1],"data":[7]}]}"#;
        let (tensors, _) = request(without).unwrap();
        let runs = tensors.split(without.as_bytes(), &[1]);
        let part = tensors.part(without.as_bytes(), &runs, 0, 1, NewId::This(b"\"n\""));
        assert_eq!(part, br#" {"id":"n","inputs":[{"shape":[1],"data":[7]}]}"#);
    }

    #[test]
    fn what_differs_in_name_type_shape_or_parameters_has_another_key() {
        let key = |body: &str| request(body).unwrap().1;
        for (from, to) in [("\"x\"", "\"z\""), ("FP32", "FP64"), ("[2,2]", "[2,1,2]"), ("\"o\"", "\"u\"")] {
            assert_ne!(key(A), key(&A.replace(from, to)), "{from}");
        }
        assert_ne!(key(A), key(&A.replace("[1.0,2, 3,4e400]", "[[1.0,2], [3,4e400]]")));
        assert_eq!(key(A), key(&A.replace("\"a\"", "\"c\"").replace("1.0", "9")));
    }

    #[test]
    fn what_can_not_be_merged_is_told() {
        for (from, to) in [
            ("[2,2]", "[3,2]"),
            ("[2,2]", "[]"),
            ("[2,2]", "[-1,2]"),
            ("[2,2]", "[2.0,2]"),
            ("\"shape\":[2]", "\"shape\":[1]"),
            ("[2,2]", "[0,2]"),
            ("[2,2]", "[18446744073709551615,2]"),
            ("\"data\":[\"p\",\"q,]\"]", "\"dat\":1"),
            ("\"id\":\"a\"", "\"id\":7"),
            ("\"id\":\"a\"", "\"id\":\"a\",\"id\":\"b\""),
            ("\"inputs\"", "\"input\""),
            ("\"o\"", "\"o\",\"parameters\":{\"binary_data\":true}"),
        ] {
            let changed = A.replacen(from, to, 1);
            assert!(changed != A && request(&changed).is_err(), "{from} {to}");
        }
    }
}
