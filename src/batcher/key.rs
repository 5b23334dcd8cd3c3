//! What must be equal in all requests of a batch (SPEC B4), as bytes.
//!
//! Not here: which parts those are (the workers, [`super::v1`], [`super::v2`]).

use std::sync::Arc;

/// A whole key, shared by all that hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

/// A list of parts, each behind its length, so that two lists are equal only if every part is.
///
/// INVARIANT: parts whose number is not fixed are a list of their own, which is one part of the list around it
/// ([`Parts::add_list`]). So a group of parts always has an end, and what stands in it can't pass for what stands behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts(Vec<u8>);

/// Bytes that most keys have at most.
const KEY_BYTES: usize = 256;

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
        self.add_length(part.len());
        self.0.extend_from_slice(part);
    }

    /// Adds numbers as one part.
    pub fn add_numbers(&mut self, numbers: &[usize]) {
        self.add_length(size_of_val(numbers));
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_ne_bytes()));
    }

    /// Adds a list as one part.
    pub fn add_list(&mut self, list: &Self) {
        self.add(&list.0);
    }

    /// Adds any number of parts as a list.
    pub fn add_all(&mut self, parts: impl Iterator<Item = impl AsRef<[u8]>>) {
        let mut list = Self::default();
        parts.for_each(|part| list.add(part.as_ref()));
        self.add_list(&list);
    }

    /// Seven bits a byte, the lowest first, and a bit that says whether more follow: no length is the start of another.
    fn add_length(&mut self, length: usize) {
        // One allocation is enough for most keys.
        if self.0.capacity() == 0 {
            self.0.reserve(KEY_BYTES.max(length + 16));
        }
        let mut rest = length;
        while rest >= 0x80 {
            self.0.push(0x80 | rest.to_le_bytes()[0]);
            rest >>= 7;
        }
        self.0.push(rest.to_le_bytes()[0]);
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
        assert_ne!(key(&[&["a"], &[]]), key(&[&[], &["a"]]));
    }

    #[test]
    fn a_long_part_has_its_own_length() {
        let long = "x".repeat(0x80);
        assert_ne!(key(&[&[&long]]), key(&[&[&long[1..], ""]]));
        assert_ne!(key(&[&[&long, "y"]]), key(&[&[&format!("{long}y")]]));
    }
}
