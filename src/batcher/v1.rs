//! KServe's V1 protocol: `{"instances":[…], …}` and `{"predictions":[…]}` (SPEC B1–B5, B14).
//!
//! A merged body is the first one with the others' instances spliced into its list, so every byte outside the list is
//! as its client sent it; bodies are merged only when what lies outside is the same in all.
//!
//! Not here: the answer's own members `message` and `batchId` (the worker writes them), and who shares a batch
//! ([`super::queue`]).

use std::ops::Range;

use super::json::{self, Malformed, Numbers, Scanner, Token};
use super::key::Parts;
use super::runs::{Cutter, Elements};
use crate::fault::BadPredict;
use crate::ops::memory;

/// A list in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// What lies between its brackets.
    pub content: Range<usize>,
    /// Its elements.
    pub count: usize,
    /// The body has more than one such list. Servers do not agree which one counts, so it is merged with no other.
    pub is_ambiguous: bool,
}

/// Why a body is not batched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is no request; its client is told so.
    Bad(BadPredict),
    /// It goes to the server like any other request, which knows better what to make of it.
    Passes,
}

/// A walk over a body that may still be coming, in search of one list among its members.
///
/// ```text
///   Start ─▶ Members ─▶ Value  ─▶ Members … ─▶ End
///                  └──▶ List ──────┘
/// ```
#[derive(Debug)]
struct Walk {
    scanner: Scanner,
    place: Place,
    /// The member whose value is passed.
    name: Range<usize>,
    /// Where the value or element that is passed starts.
    starts_at: usize,
    list: List,
    /// What the lists of that name were.
    seen: Seen,
    cutter: Option<Cutter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Members,
    Value,
    List,
    End,
}

/// What was found in the place of the list; of several the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Null,
    List,
    /// Something else, be it in another member of the same name.
    Other,
}

impl Walk {
    fn new(numbers: Numbers, cutter: Option<Cutter>) -> Self {
        Self {
            scanner: Scanner::new(numbers),
            place: Place::Start,
            name: 0..0,
            starts_at: 0,
            list: List { content: 0..0, count: 0, is_ambiguous: false },
            seen: Seen::Nothing,
            cutter,
        }
    }

    /// Goes as far as the text does. `is_wanted` says of a name whether it is the list's; `member` gets every other one
    /// with its value.
    fn advance(
        &mut self,
        text: &[u8],
        is_wanted: fn(&[u8]) -> bool,
        mut member: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Malformed> {
        while let Some(token) = self.scanner.next(text)? {
            let depth = self.scanner.depth();
            match (self.place, token) {
                (Place::Start, Token::Open { is_object: true, .. }) => self.place = Place::Members,
                (Place::Start, Token::Value(value)) if &text[value.clone()] == b"null" => {
                    self.place = Place::End;
                }
                (Place::Members, Token::Name(name)) => (self.name, self.place) = (name, Place::Value),
                (Place::Members, Token::Close { .. }) => self.place = Place::End,
                (Place::Value, Token::Open { at, is_object }) if depth == 2 => {
                    self.starts_at = at;
                    if !is_object && is_wanted(&text[self.name.clone()]) {
                        self.begin_list(at);
                    }
                }
                (Place::Value, Token::Value(value)) if depth == 1 => {
                    self.end_member(text, value, is_wanted, &mut member);
                }
                (Place::Value, Token::Close { at }) if depth == 1 => {
                    self.end_member(text, self.starts_at..at + 1, is_wanted, &mut member);
                }
                (Place::Value, _) => {}
                (Place::List, Token::Value(value)) if depth == 2 => self.pass(value),
                (Place::List, Token::Open { at, .. }) if depth == 3 => self.starts_at = at,
                (Place::List, Token::Close { at }) if depth == 2 => self.pass(self.starts_at..at + 1),
                (Place::List, Token::Close { at }) if depth == 1 => {
                    self.list.content.end = at;
                    self.place = Place::Members;
                }
                (Place::List, _) => {}
                (Place::Start | Place::Members | Place::End, _) => return Err(Malformed),
            }
        }
        Ok(())
    }

    fn begin_list(&mut self, at: usize) {
        self.list = List { content: at + 1..at + 1, count: 0, is_ambiguous: self.seen != Seen::Nothing };
        self.place = Place::List;
        self.seen = if self.seen == Seen::Other { Seen::Other } else { Seen::List };
    }

    fn pass(&mut self, element: Range<usize>) {
        self.list.count += 1;
        if let Some(cutter) = &mut self.cutter {
            cutter.pass(element);
        }
    }

    fn end_member(
        &mut self,
        text: &[u8],
        value: Range<usize>,
        is_wanted: fn(&[u8]) -> bool,
        member: &mut impl FnMut(&[u8], &[u8]),
    ) {
        self.place = Place::Members;
        let name = &text[self.name.clone()];
        if !is_wanted(name) {
            return member(name, &text[value]);
        }
        self.seen = if &text[value] == b"null" && self.seen != Seen::Other { Seen::Null } else { Seen::Other };
        self.list = List { content: 0..0, count: 0, is_ambiguous: true };
    }
}

/// Looks for the instances of a request while it comes.
#[derive(Debug)]
pub struct RequestWalk {
    walk: Walk,
    /// All members but the instances, and how theirs is spelled.
    members: Parts,
    has_inputs: bool,
}

impl Default for RequestWalk {
    fn default() -> Self {
        Self { walk: Walk::new(Numbers::Strict, None), members: Parts::default(), has_inputs: false }
    }
}

impl RequestWalk {
    /// Goes as far as the body has come.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn advance(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let Self { walk, members, has_inputs } = self;
        walk.advance(body, are_instances, |name, value| {
            *has_inputs |= json::is_named(name, "inputs");
            members.add(name);
            members.add(value);
        })
    }

    /// Bytes that it holds beside the body.
    pub fn held(&self) -> usize {
        self.members.len()
    }

    /// Where the instances lie in the whole body, once [`Self::advance`] has seen it. All other members go to the key.
    ///
    /// # Errors
    /// As the Go agent, which reads the text to its end before it looks for instances; a body with TensorFlow's `inputs`
    /// instead is not for the batcher (SPEC B14).
    pub fn finish(mut self, body: &[u8], key: &mut Parts) -> Result<List, Unfit> {
        self.walk.scanner.finish(body).map_err(|Malformed| Unfit::Bad(BadPredict::Malformed))?;
        match self.walk.seen {
            // A lone word, which ends with the text: only `null` may stand for an object.
            Seen::Nothing if self.walk.place == Place::Start && body.trim_ascii() != b"null" => {
                return Err(Unfit::Bad(BadPredict::Malformed));
            }
            Seen::Nothing if self.has_inputs => return Err(Unfit::Passes),
            Seen::Other => return Err(Unfit::Bad(BadPredict::Malformed)),
            Seen::Nothing | Seen::Null | Seen::List => {}
        }
        let list = self.walk.list;
        if list.count == 0 {
            return Err(Unfit::Bad(BadPredict::NoInstances));
        }
        debug_assert!(body[list.content.start - 1] == b'[' && body[list.content.end] == b']', "a list has brackets");
        key.add(spelling_before(body, &list));
        key.add_list(&self.members);
        Ok(list)
    }
}

/// The name of the list as it is spelled, which is the server's to find or not.
fn spelling_before<'b>(body: &'b [u8], list: &List) -> &'b [u8] {
    let before = &body[..list.content.start - 1];
    let end = before.iter().rposition(|byte| *byte == b'"').unwrap_or_default();
    let start = before[..end].iter().rposition(|byte| *byte == b'"').unwrap_or_default();
    &before[start..end]
}

fn are_instances(name: &[u8]) -> bool {
    json::is_named_in_any_case(name, "instances")
}

fn are_predictions(name: &[u8]) -> bool {
    json::is_named(name, "predictions")
}

/// Finds the instances of a whole request.
///
/// # Errors
/// As [`RequestWalk::finish`].
pub fn instances(body: &[u8], key: &mut Parts) -> Result<List, Unfit> {
    let mut walk = RequestWalk::default();
    walk.advance(body).map_err(|Malformed| Unfit::Bad(BadPredict::Malformed))?;
    walk.finish(body, key)
}

/// Where the predictions of a response lie, cut into runs of so many; `None`: it has no such list, or one of another
/// length.
pub fn predictions(body: &[u8], counts: &[usize]) -> Option<Vec<Range<usize>>> {
    let mut walk = Walk::new(Numbers::AsWritten, Some(Cutter::new(counts.iter().copied())));
    walk.advance(body, are_predictions, |_, _| {}).ok()?;
    walk.scanner.finish(body).ok()?;
    let is_sure = walk.seen == Seen::List && !walk.list.is_ambiguous;
    walk.cutter.filter(|_| is_sure)?.finish()
}

/// One body with the elements of all, in order.
pub fn merge(bodies: &[(&[u8], &List)]) -> Vec<u8> {
    let [(first, at), rest @ ..] = bodies else { return Vec::new() };
    let more: usize = rest.iter().map(|(_, list)| list.content.len() + 1).sum();
    let mut merged = memory::buffer(first.len() + more);
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

/// Where runs of elements lie in a list that was walked over before, the first `counts[0]` of them, the next `counts[1]`, and
/// so on, without the commas between the runs.
pub fn split(body: &[u8], content: &Range<usize>, counts: impl DoubleEndedIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut cutter = Cutter::new(counts);
    Elements::new(body, content).for_each(|element| cutter.pass(element));
    let runs = cutter.finish();
    debug_assert!(runs.is_some(), "the list was counted when it was found");
    runs.unwrap_or_default()
}

#[cfg(test)]
#[path = "v1_tests.rs"]
mod tests;
