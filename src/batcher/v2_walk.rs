//! The walk over a V2 body that finds its tensors, and says whether they are what their shapes say (SPEC B9).
//!
//! ```text
//!   Start ─▶ Members ─▶ Value ─▶ Members … ─▶ End
//!               └─▶ Tensors ─▶ Tensor ─▶ Value | Shape | Data ─▶ Tensor … ─▶ Tensors … ─▶ Members
//! ```
//!
//! The data are counted to the last element: flat data are scalars only, nested data have the exact shape in every row.
//! A server that flattens what it gets, as Triton does, would otherwise shift a neighbour's rows.
//!
//! Not here: merging and cutting ([`super::v2`]).

use std::ops::Range;

use super::json::{self, Malformed, Numbers, Scanner, Token};
use super::key::Parts;
use super::v2::{Id, Tensor, Tensors, asks_for_more, check_parameter};
use super::v2_data::Data;
use crate::config::{BATCH_TENSOR_RANK_MAX, BATCH_TENSORS_MAX};

/// A walk over a body that may still be coming.
#[derive(Debug)]
pub(super) struct Walk {
    side: Side,
    scanner: Scanner,
    place: Place,
    /// The list of tensors has been seen.
    has_list: bool,
    found: Found,
    /// The member whose value is passed, and where that value starts.
    name: Range<usize>,
    value_at: usize,
    /// The value that is passed may ask for what no batch can give: see [`asks_for_more`].
    is_parameter: bool,
    /// A list has just begun that is none of tensors, dimensions or data.
    is_in_list: bool,
    /// The end of the last member of the body.
    last_end: Option<usize>,
    tensor: Current,
    /// Tensors are compared with those of other bodies.
    keeps_key: bool,
    /// What must be the same in all members of a batch: the body's own members, and the tensors.
    members: Parts,
    tensors: Parts,
}

/// Whose tensors they are.
#[derive(Debug)]
pub(super) enum Side {
    /// A request's.
    Inputs,
    /// A response's, to be cut into runs of so many rows.
    Outputs(Vec<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Members,
    Value,
    Tensors,
    Tensor,
    TensorValue,
    Shape,
    Data,
    End,
}

#[derive(Debug, Default)]
struct Found {
    rows: Option<usize>,
    tensors: Vec<Tensor>,
    id: Option<Id>,
    open: usize,
}

/// The tensor that is walked over.
#[derive(Debug, Default)]
struct Current {
    /// Where the first dimension's digits lie.
    dimension: Range<usize>,
    shape: Option<Vec<usize>>,
    data: Option<Box<Data>>,
    members: Parts,
}

impl Side {
    /// Rows of each run that it is cut into; none for a request.
    fn counts(&self) -> &[usize] {
        match self {
            Self::Inputs => &[],
            Self::Outputs(counts) => counts,
        }
    }

    /// What the list of tensors is called.
    fn list(&self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Outputs(_) => "outputs",
        }
    }
}

impl Walk {
    pub(super) fn new(side: Side) -> Self {
        let numbers = if matches!(side, Side::Inputs) { Numbers::Strict } else { Numbers::AsWritten };
        Self {
            keeps_key: matches!(side, Side::Inputs),
            side,
            scanner: Scanner::new(numbers),
            place: Place::Start,
            has_list: false,
            found: Found::default(),
            name: 0..0,
            value_at: 0,
            is_parameter: false,
            is_in_list: false,
            last_end: None,
            tensor: Current::default(),
            members: Parts::default(),
            tensors: Parts::default(),
        }
    }

    /// The tensors of a response are compared with those of others.
    pub(super) fn keep_key(&mut self) {
        self.keeps_key = true;
    }

    /// What was found in the whole response; only the tensors go to the key, as a server may say what it likes beside them.
    ///
    /// # Errors
    /// As [`Self::advance`].
    pub(super) fn finish_part(mut self, body: &[u8], key: &mut Parts) -> Result<Tensors, Malformed> {
        self.members = Parts::default();
        self.finish(body, key)
    }

    /// Bytes that it holds beside the body.
    pub(super) fn held(&self) -> usize {
        self.members.len() + self.tensors.len() + self.tensor.members.len()
    }

    /// Goes as far as the body has come.
    ///
    /// # Errors
    /// When it can't be merged with another, or cut.
    pub(super) fn advance(&mut self, body: &[u8]) -> Result<(), Malformed> {
        while let Some(token) = self.scanner.next(body)? {
            match self.place {
                Place::Data => self.in_data(&token)?,
                Place::Value | Place::TensorValue => self.in_value(body, &token)?,
                Place::Shape => self.in_shape(body, &token)?,
                Place::Tensor => self.in_tensor(body, token)?,
                Place::Tensors => self.in_tensors(&token)?,
                Place::Members => self.in_members(token)?,
                Place::Start => self.at_start(&token)?,
                Place::End => return Err(Malformed),
            }
        }
        Ok(())
    }

    /// What was found in the whole body, once [`Self::advance`] has seen it.
    ///
    /// # Errors
    /// As there.
    pub(super) fn finish(mut self, body: &[u8], key: &mut Parts) -> Result<Tensors, Malformed> {
        self.scanner.finish(body)?;
        key.add_list(&self.members);
        key.add_list(&self.tensors);
        let Found { rows, tensors, id, open } = self.found;
        let rows = rows.ok_or(Malformed)?;
        debug_assert!(rows > 0 && !tensors.is_empty(), "there is a tensor, and it has rows");
        Ok(Tensors { rows, tensors, id, open })
    }

    fn at_start(&mut self, token: &Token) -> Result<(), Malformed> {
        let Token::Open { at, is_object: true } = token else { return Err(Malformed) };
        self.found.open = at + 1;
        self.place = Place::Members;
        Ok(())
    }

    fn in_members(&mut self, token: Token) -> Result<(), Malformed> {
        match token {
            Token::Name(name) => {
                if let Some(id) = &mut self.found.id {
                    id.behind.get_or_insert(name.start);
                }
                self.begin_value(name, Place::Value);
            }
            _ => self.place = Place::End,
        }
        Ok(())
    }

    fn begin_value(&mut self, name: Range<usize>, place: Place) {
        self.name = name;
        self.place = place;
        self.is_parameter = false;
    }

    /// In the value of a member of the body or of a tensor.
    fn in_value(&mut self, body: &[u8], token: &Token) -> Result<(), Malformed> {
        let outside = if self.place == Place::Value { 1 } else { 3 };
        let depth = self.scanner.depth();
        // It may have an entry for each row, of which a client must see its own alone.
        let is_entry = std::mem::take(&mut self.is_in_list) && !matches!(token, Token::Close { .. });
        refuse_if(is_entry && matches!(self.side, Side::Outputs(_)))?;
        self.is_in_list = matches!(token, Token::Open { is_object: false, .. });
        match token {
            Token::Open { at, is_object } if depth == outside + 1 => {
                self.value_at = *at;
                return if *is_object { Ok(()) } else { self.begin_list(body, *at) };
            }
            Token::Name(name) if matches!(self.side, Side::Inputs) => {
                self.is_parameter = asks_for_more(&body[name.clone()])
            }
            Token::Value(value) if depth == outside => return self.end_value(body, value.clone()),
            Token::Close { at } if depth == outside => return self.end_value(body, self.value_at..at + 1),
            Token::Value(value) if std::mem::take(&mut self.is_parameter) => {
                return check_parameter(&body[value.clone()]);
            }
            // A list or an object is none of the values that turn it off.
            Token::Open { .. } if self.is_parameter => return Err(Malformed),
            _ => {}
        }
        Ok(())
    }

    /// A list is the value of a member: the tensors, a shape, data, or any other.
    fn begin_list(&mut self, body: &[u8], at: usize) -> Result<(), Malformed> {
        let name = &body[self.name.clone()];
        if self.place == Place::Value {
            if json::is_named(name, self.side.list()) {
                (self.place, self.is_in_list) = (Place::Tensors, false);
                // A second member of the same name would make it a matter of taste which one counts.
                return refuse_if(std::mem::replace(&mut self.has_list, true));
            }
        } else if json::is_named(name, "shape") {
            (self.place, self.is_in_list) = (Place::Shape, false);
            return refuse_if(self.tensor.shape.replace(Vec::new()).is_some());
        } else if json::is_named(name, "data") {
            (self.place, self.is_in_list) = (Place::Data, false);
            return refuse_if(self.tensor.data.replace(Box::new(Data::new(at))).is_some());
        }
        Ok(())
    }

    fn end_value(&mut self, body: &[u8], value: Range<usize>) -> Result<(), Malformed> {
        let name = &body[self.name.clone()];
        if self.place == Place::TensorValue {
            self.place = Place::Tensor;
            if self.keeps_key {
                self.tensor.members.add(name);
                self.tensor.members.add(&body[value]);
            }
            return refuse_if(json::is_named(name, "shape") || json::is_named(name, "data"));
        }
        self.place = Place::Members;
        let before = self.last_end.replace(value.end);
        if json::is_named(name, "id") {
            // Only a text can be another's. A server may have no id to give, or numbers of its own.
            let is_text = body[value.start] == b'"';
            refuse_if(!is_text && matches!(self.side, Side::Inputs))?;
            let id = Id { name_at: self.name.start, value, before, behind: None, is_text };
            return refuse_if(self.found.id.replace(id).is_some());
        }
        if matches!(self.side, Side::Inputs) {
            self.members.add(name);
            self.members.add(&body[value]);
        }
        refuse_if(json::is_named(name, self.side.list()))
    }

    fn in_tensors(&mut self, token: &Token) -> Result<(), Malformed> {
        match token {
            Token::Open { is_object: true, .. } => {
                self.tensor = Current::default();
                self.place = Place::Tensor;
                refuse_if(self.found.tensors.len() == BATCH_TENSORS_MAX)
            }
            Token::Close { at } => {
                self.place = Place::Members;
                self.last_end = Some(at + 1);
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    fn in_tensor(&mut self, body: &[u8], token: Token) -> Result<(), Malformed> {
        match token {
            Token::Name(name) => {
                self.begin_value(name, Place::TensorValue);
                Ok(())
            }
            _ => self.end_tensor(body),
        }
    }

    fn in_shape(&mut self, body: &[u8], token: &Token) -> Result<(), Malformed> {
        let shape = self.tensor.shape.get_or_insert_default();
        match token {
            Token::Value(value) => {
                if shape.is_empty() {
                    self.tensor.dimension = value.clone();
                }
                shape.push(dimension(&body[value.clone()])?);
                refuse_if(shape.len() > BATCH_TENSOR_RANK_MAX)
            }
            Token::Close { .. } => {
                self.place = Place::Tensor;
                refuse_if(shape.is_empty())
            }
            Token::Open { .. } | Token::Name(_) => Err(Malformed),
        }
    }

    fn in_data(&mut self, token: &Token) -> Result<(), Malformed> {
        let Some(data) = &mut self.tensor.data else { return Err(Malformed) };
        match token {
            Token::Value(value) => {
                data.scalar()?;
                if data.level == 0 {
                    data.begin_cutting(self.side.counts(), self.tensor.shape.as_deref());
                    data.cut(value.clone());
                }
            }
            Token::Open { at, is_object: false } => {
                data.open(*at)?;
                if data.level == 1 {
                    data.begin_cutting(self.side.counts(), None);
                }
            }
            Token::Close { at } => {
                if data.close()? {
                    data.end(*at);
                    self.place = Place::Tensor;
                } else if data.level == 0 {
                    data.cut(data.element_at()..at + 1);
                }
            }
            Token::Open { .. } | Token::Name(_) => return Err(Malformed),
        }
        Ok(())
    }

    fn end_tensor(&mut self, body: &[u8]) -> Result<(), Malformed> {
        self.place = Place::Tensors;
        let Current { dimension, shape, data, members } = std::mem::take(&mut self.tensor);
        let (Some(shape), Some(data)) = (shape, data) else { return Err(Malformed) };
        let rows = shape[0];
        // A request of no rows or no data has no place in a batch; an answer may find nothing in any row.
        let is_request = matches!(self.side, Side::Inputs);
        refuse_if(rows == 0 || (is_request && data.is_empty()) || !data.has_shape(&shape))?;
        refuse_if(*self.found.rows.get_or_insert(rows) != rows)?;
        let is_nested = data.is_nested();
        let per_row = if is_nested { 1 } else { shape[1..].iter().product() };
        if self.keeps_key {
            self.tensors.add_list(&members);
            self.tensors.add_numbers(&shape[1..]);
            self.tensors.add(&[u8::from(is_nested)]);
        }
        let (content, cutter) = data.finish();
        let runs = match &self.side {
            Side::Inputs => Vec::new(),
            Side::Outputs(counts) if counts.iter().sum::<usize>() != rows => return Err(Malformed),
            Side::Outputs(counts) if per_row == 0 => vec![content.start..content.start; counts.len()],
            Side::Outputs(counts) => match cutter {
                Some(cutter) => cutter.finish().ok_or(Malformed)?,
                // The data came before the shape that says how many of them are a row.
                None => super::v1::split(body, &content, counts.iter().map(|count| count * per_row)),
            },
        };
        self.found.tensors.push(Tensor { dimension, data: content, per_row, rank: shape.len(), runs });
        Ok(())
    }
}

/// A dimension: a whole number without sign.
fn dimension(text: &[u8]) -> Result<usize, Malformed> {
    refuse_if(text.is_empty() || !text.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(text).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)
}

/// A body that is right in every other way can't be merged or cut if this holds.
pub(super) fn refuse_if(is_wrong: bool) -> Result<(), Malformed> {
    if is_wrong { Err(Malformed) } else { Ok(()) }
}
