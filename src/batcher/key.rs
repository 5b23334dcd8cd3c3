//! What must be equal in all requests of a batch (SPEC B4), as bytes.
//!
//! Not here: which parts those are (the workers, [`super::v1`], [`super::v2`]).

/// The parts, each behind its length, so that two lists of parts are equal only if every part is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// Adds a part.
    pub fn add(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_ne_bytes());
        self.0.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let key = |parts: &[&str]| {
            let mut key = Key::default();
            parts.iter().for_each(|part| key.add(part.as_bytes()));
            key
        };
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
    }
}
