//! The data of a V2 tensor while they are walked over: how many there are, how they are nested, where rows end (SPEC B9).
//!
//! The dimensions are those of the lists themselves, so they are known whether the declared shape comes before the data or
//! after them. One walk is enough.
//!
//! Not here: the text ([`super::v2_walk`]).

use std::ops::Range;

use super::json::Malformed;
use super::runs::Cutter;
use super::v2_walk::refuse_if;
use crate::config::BATCH_TENSOR_RANK_MAX;

/// The list of data of a tensor.
#[derive(Debug)]
pub(super) struct Data {
    content: Range<usize>,
    /// The dimensions that the lists have, outermost first; those that are not yet closed once are missing.
    dimensions: [Option<usize>; BATCH_TENSOR_RANK_MAX],
    /// Elements so far of each list that is open.
    counts: [usize; BATCH_TENSOR_RANK_MAX],
    /// The innermost list that is open.
    pub(super) level: usize,
    /// The level of the scalars, once one has been seen.
    scalars_at: Option<usize>,
    /// The deepest level.
    depth: usize,
    /// Where the element of the outermost list starts that is passed.
    element_at: usize,
    cutter: Option<Cutter>,
}

impl Data {
    pub(super) fn new(at: usize) -> Self {
        Self {
            content: at + 1..at + 1,
            dimensions: [None; BATCH_TENSOR_RANK_MAX],
            counts: [0; BATCH_TENSOR_RANK_MAX],
            level: 0,
            scalars_at: None,
            depth: 0,
            element_at: 0,
            cutter: None,
        }
    }

    /// The next element is a scalar: all of them are on one level.
    pub(super) fn scalar(&mut self) -> Result<(), Malformed> {
        self.counts[self.level] += 1;
        refuse_if(*self.scalars_at.get_or_insert(self.level) != self.level || self.depth > self.level)
    }

    /// The next element is a list.
    pub(super) fn open(&mut self, at: usize) -> Result<(), Malformed> {
        if self.level == 0 {
            self.element_at = at;
        }
        self.counts[self.level] += 1;
        self.level += 1;
        refuse_if(self.level == BATCH_TENSOR_RANK_MAX || self.scalars_at.is_some_and(|level| level < self.level))?;
        self.counts[self.level] = 0;
        self.depth = self.depth.max(self.level);
        Ok(())
    }

    /// The innermost list ends: those of one level have as many elements each. `true`: it was the outermost.
    pub(super) fn close(&mut self) -> Result<bool, Malformed> {
        let count = self.counts[self.level];
        refuse_if(*self.dimensions[self.level].get_or_insert(count) != count)?;
        let is_outermost = self.level == 0;
        self.level = self.level.saturating_sub(1);
        Ok(is_outermost)
    }

    /// The first element says what a row is. `shape`, where it came before, says how many scalars are one.
    pub(super) fn begin_cutting(&mut self, counts: &[usize], shape: Option<&[usize]>) {
        if self.counts[0] > 1 || counts.is_empty() {
            return;
        }
        let per_row = match shape {
            _ if self.level > 0 => Some(1),
            Some(shape) => shape.iter().skip(1).try_fold(1, |all: usize, size| all.checked_mul(*size)),
            None => None,
        };
        let cuts =
            |per_row: &usize| counts.iter().try_for_each(|count| count.checked_mul(*per_row).map(drop)).is_some();
        if let Some(per_row) = per_row.filter(|per_row| *per_row > 0).filter(cuts) {
            self.cutter = Some(Cutter::new(counts.iter().map(|count| count * per_row)));
        }
    }

    pub(super) fn cut(&mut self, element: Range<usize>) {
        if let Some(cutter) = &mut self.cutter {
            cutter.pass(element);
        }
    }

    /// Whether the data are what the shape says: flat, or nested like it as far as there is anything.
    pub(super) fn has_shape(&self, shape: &[usize]) -> bool {
        let Some(size) = shape.iter().try_fold(1, |all: usize, size| all.checked_mul(*size)) else { return false };
        if self.depth == 0 {
            return self.counts[0] == size;
        }
        let nested = &self.dimensions[..=self.depth];
        let is_alike = nested.len() <= shape.len() && nested.iter().zip(shape).all(|(own, size)| *own == Some(*size));
        is_alike && (nested.len() == shape.len() || nested.last() == Some(&Some(0)))
    }

    /// Where the element of the outermost list starts that has just ended.
    pub(super) fn element_at(&self) -> usize {
        self.element_at
    }

    /// The outermost list ends there.
    pub(super) fn end(&mut self, at: usize) {
        self.content.end = at;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts[0] == 0
    }

    /// Whether there are lists in the list.
    pub(super) fn is_nested(&self) -> bool {
        self.depth > 0
    }

    /// What lies between the brackets, and its runs, if they were cut on the way.
    pub(super) fn finish(self) -> (Range<usize>, Option<Cutter>) {
        (self.content, self.cutter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data that a text of brackets and scalars makes, if they are regular.
    fn data(text: &str) -> Option<Data> {
        let mut data = Data::new(0);
        for (at, byte) in text.bytes().enumerate().skip(1) {
            match byte {
                b'[' => data.open(at).ok()?,
                b']' => drop(data.close().ok()?),
                b'x' => data.scalar().ok()?,
                _ => {}
            }
        }
        Some(data)
    }

    fn fits(text: &str, shape: &[usize]) -> bool {
        data(text).is_some_and(|data| data.has_shape(shape))
    }

    #[test]
    fn regular_data_have_one_shape_or_are_flat() {
        for (text, shape) in [
            ("[x,x,x,x]", &[2, 2][..]),
            ("[[x,x],[x,x]]", &[2, 2]),
            ("[x]", &[1]),
            ("[]", &[2, 0, 4]),
            ("[[],[]]", &[2, 0, 4]),
            ("[[],[]]", &[2, 0]),
            ("[[[x],[x]]]", &[1, 2, 1]),
        ] {
            assert!(fits(text, shape), "{text} {shape:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, shape) in [
            ("[[x,x,x],[x]]", &[2, 2][..]),
            ("[x,[x,x,x]]", &[2]),
            ("[[x,x,x],x]", &[2, 2]),
            ("[x,x,x]", &[2, 2]),
            ("[[x,x],[x,x]]", &[4]),
            ("[[x,x],[x,x]]", &[2, 2, 1]),
            ("[[x],[x]]", &[2]),
            ("[[],[x]]", &[2, 0]),
            ("[[x],[]]", &[2, 1]),
            ("[[x,x],[[x],[x]]]", &[2, 2]),
            ("[[[x],[x]],[x,x]]", &[2, 2]),
            ("[]", &[1]),
            ("[]", &[usize::MAX, 2]),
        ] {
            assert!(!fits(text, shape), "{text} {shape:?}");
        }
    }
}
