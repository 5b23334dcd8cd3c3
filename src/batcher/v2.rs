//! The Open Inference Protocol (V2) in JSON: `{"inputs":[…], …}` and `{"outputs":[…], …}` (SPEC B1, B9).
//!
//! A body's tensors are found once; then the same two steps serve requests and responses: [`merge`] puts the rows of
//! several bodies behind each other along the first dimension, [`Tensors::part`] takes some rows out of one. Both are
//! a copy of a body in which a few places are replaced: the first dimensions, the data, the id.
//!
//! Not here: binary tensor data. Such a request is not batched but passes.

use std::ops::Range;

use super::json::{Cursor, Malformed, is_named};
use super::key::Parts;
use super::v1;

/// The tensors of a body. INVARIANT: all have `rows` as their first dimension, which is not 0, and data to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensors {
    /// First dimension of every tensor: the instances.
    pub rows: usize,
    tensors: Vec<Tensor>,
    id: Option<Id>,
    /// Behind the body's opening brace.
    open: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tensor {
    /// Where the first dimension's digits lie.
    dimension: Range<usize>,
    /// What lies between the brackets of the data.
    data: Range<usize>,
    /// Elements of that list for each row: 1 when the data are nested.
    per_row: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Id {
    /// Its value, in quotes.
    value: Range<usize>,
    /// The member with the comma that it leaves over.
    member: Range<usize>,
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

impl Tensors {
    /// Finds the tensors of a request, and adds to the key what must be the same to merge it with others.
    ///
    /// # Errors
    /// When the body can't be merged with any other, be it as it is no valid request.
    pub fn of_request(body: &[u8], key: &mut Parts) -> Result<Self, Malformed> {
        Self::find(body, "inputs", key)
    }

    /// Finds the tensors of a response.
    ///
    /// # Errors
    /// When it can't be split into rows.
    pub fn of_response(body: &[u8]) -> Result<Self, Malformed> {
        Self::find(body, "outputs", &mut Parts::default())
    }

    fn find(body: &[u8], list: &str, key: &mut Parts) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body)?;
        cursor.peek();
        let (open, mut last_end) = (cursor.at() + 1, None);
        let (mut id, mut found) = (None, None);
        cursor.object(|cursor, name| {
            let quoted = &body[name.clone()];
            let end = if is_named(quoted, list) {
                let tensors = tensors(cursor, body, key)?;
                set_once(&mut found, tensors)?;
                cursor.at()
            } else if is_named(quoted, "id") {
                let value = cursor.string()?;
                let member = match (cursor.peek(), last_end) {
                    (Some(b','), _) => name.start..cursor.at() + 1,
                    (_, Some(last_end)) => last_end..value.end,
                    (_, None) => name.start..value.end,
                };
                let end = value.end;
                set_once(&mut id, Id { value, member })?;
                end
            } else {
                let value = cursor.value()?;
                add_member(key, quoted, &body[value.clone()])?;
                value.end
            };
            last_end = Some(end);
            Ok::<_, Malformed>(())
        })?;
        cursor.end()?;
        let (rows, tensors) = found.ok_or(Malformed)?;
        Ok(Self { rows, tensors, id, open })
    }

    /// The id in its quotes, if there is one.
    pub fn id<'b>(&self, body: &'b [u8]) -> Option<&'b [u8]> {
        self.id.as_ref().map(|id| &body[id.value.clone()])
    }

    /// Where the data of runs of rows lie: for each tensor, for each count.
    pub fn split(&self, body: &[u8], counts: &[usize]) -> Vec<Vec<Range<usize>>> {
        let runs = |tensor: &Tensor| v1::split(body, &tensor.data, counts.iter().map(|count| count * tensor.per_row));
        self.tensors.iter().map(runs).collect()
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
            (NewId::None, Some(own)) => edits.push((own.member.clone(), Edit::Id)),
            (NewId::This(_), Some(own)) => edits.push((own.value.clone(), Edit::Id)),
            (NewId::This(_), None) => edits.push((self.open..self.open, Edit::Id)),
            (NewId::AsSent, _) | (NewId::None, None) => {}
        }
        edits.sort_by_key(|(place, _)| place.start);
        let (mut out, mut copied) = (Vec::with_capacity(body.len()), 0);
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
    let [(first, template), rest @ ..] = bodies else { return Vec::new() };
    let rows = bodies.iter().map(|(_, tensors)| tensors.rows).sum();
    template.rewrite(first, rows, id, |out, number| {
        out.extend_from_slice(&first[template.tensors[number].data.clone()]);
        for (body, tensors) in rest {
            out.push(b',');
            out.extend_from_slice(&body[tensors.tensors[number].data.clone()]);
        }
    })
}

/// Whether two responses have as many tensors each, so that they can be merged.
pub fn are_alike(one: &Tensors, other: &Tensors) -> bool {
    one.tensors.len() == other.tensors.len()
}

/// A list of tensors, and the first dimension that all of them have.
fn tensors(cursor: &mut Cursor<'_>, body: &[u8], key: &mut Parts) -> Result<(usize, Vec<Tensor>), Malformed> {
    let (mut found, mut rows) = (Vec::new(), None);
    cursor.list(|cursor| {
        let (own_rows, tensor) = tensor(cursor, body, key)?;
        if own_rows == 0 || *rows.get_or_insert(own_rows) != own_rows {
            return Err(Malformed);
        }
        found.push(tensor);
        Ok(())
    })?;
    rows.map(|rows| (rows, found)).ok_or(Malformed)
}

/// `{"name":…,"shape":[rows,…],"datatype":…,"data":[…]}`
fn tensor(cursor: &mut Cursor<'_>, body: &[u8], key: &mut Parts) -> Result<(usize, Tensor), Malformed> {
    let (mut shape, mut data) = (None, None);
    key.add(b"tensor");
    cursor.object(|cursor, name| {
        let quoted = &body[name];
        if is_named(quoted, "shape") {
            let dimensions = dimensions(cursor, key)?;
            return set_once(&mut shape, dimensions);
        }
        if is_named(quoted, "data") {
            let elements = elements(cursor)?;
            key.add(if elements.nested { b"nested" } else { b"flat" });
            return set_once(&mut data, elements);
        }
        let value = cursor.value()?;
        add_member(key, quoted, &body[value])
    })?;
    let (Some(shape), Some(data)) = (shape, data) else { return Err(Malformed) };
    let per_row = if data.nested { 1 } else { shape.per_row };
    if data.count == 0 || shape.rows.checked_mul(per_row) != Some(data.count) {
        return Err(Malformed);
    }
    Ok((shape.rows, Tensor { dimension: shape.first, data: data.content, per_row }))
}

struct Shape {
    first: Range<usize>,
    rows: usize,
    per_row: usize,
}

fn dimensions(cursor: &mut Cursor<'_>, key: &mut Parts) -> Result<Shape, Malformed> {
    let mut shape: Option<Shape> = None;
    let mut trailing = Vec::new();
    cursor.list(|cursor| {
        let (place, size) = cursor.index()?;
        if let Some(shape) = &mut shape {
            shape.per_row = shape.per_row.checked_mul(size).ok_or(Malformed)?;
            trailing.extend_from_slice(&size.to_ne_bytes());
        } else {
            shape = Some(Shape { first: place, rows: size, per_row: 1 });
        }
        Ok::<_, Malformed>(())
    })?;
    // Names of members are quoted, so this is none.
    key.add(b"shape");
    key.add(&trailing);
    shape.ok_or(Malformed)
}

struct Elements {
    content: Range<usize>,
    count: usize,
    nested: bool,
}

fn elements(cursor: &mut Cursor<'_>) -> Result<Elements, Malformed> {
    let (mut count, mut nested) = (0, false);
    let content = cursor.list(|cursor| {
        nested |= count == 0 && cursor.peek() == Some(b'[');
        count += 1;
        cursor.value().map(drop)
    })?;
    Ok(Elements { content, count, nested })
}

/// A member that must be the same in all. One that asks for binary data makes the body one that can't be merged.
fn add_member(key: &mut Parts, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    const BINARY: &[u8] = b"binary_data";
    key.add(name);
    key.add(value);
    if value.windows(BINARY.len()).any(|window| window == BINARY) { Err(Malformed) } else { Ok(()) }
}

/// A second member of the same name would make it a matter of taste which one counts.
fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    place.replace(value).map_or(Ok(()), |_| Err(Malformed))
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
