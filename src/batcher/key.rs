//! What must be equal in all requests of a batch (SPEC B4), as bytes.
//!
//! Not here: which parts those are (the workers, [`super::v1`], [`super::v2`]).

use std::sync::Arc;

/// A whole key, shared by all that hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

/// A key that is being made: parts, each behind its length, so that two lists of parts are equal only if every part is.
///
/// INVARIANT: where a number of parts is not fixed, it is a part itself, so that parts of one kind can't pass for another's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts(Vec<u8>);

impl Key {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no part.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Parts {
    /// Adds a part.
    pub fn add(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_ne_bytes());
        self.0.extend_from_slice(part);
    }

    /// Adds any number of parts.
    pub fn add_all<'p>(&mut self, parts: impl Iterator<Item = &'p [u8]> + Clone) {
        self.add(&parts.clone().count().to_ne_bytes());
        parts.for_each(|part| self.add(part));
    }

    /// The key that they make.
    pub fn finish(self) -> Key {
        Key(self.0.into())
    }

    /// Their length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&[&str]]) -> Key {
        let mut key = Parts::default();
        parts.iter().for_each(|list| key.add_all(list.iter().map(|part| part.as_bytes())));
        key.finish()
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_eq!(key(&[&["ab", "c"]]), key(&[&["ab", "c"]]));
        assert_ne!(key(&[&["ab", "c"]]), key(&[&["a", "bc"]]));
        assert_ne!(key(&[&["a"]]), key(&[&["a", ""]]));
    }

    #[test]
    fn a_value_more_here_is_none_less_there() {
        assert_ne!(key(&[&["type", "x"], &["p"]]), key(&[&["type"], &["x", "p"]]));
    }
}
