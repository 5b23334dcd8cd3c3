//! The elements of a JSON list, one by one, and cut into runs: pure.
//!
//! Not here: the walk that finds the list ([`super::json`]).

use std::ops::Range;

use super::json::{Malformed, Scanner, Token};

/// The elements of a list that was walked over before, one after the other.
#[derive(Debug)]
pub(super) struct Elements<'t> {
    text: &'t [u8],
    scanner: Scanner,
}

impl<'t> Elements<'t> {
    /// Those of the list whose content lies there.
    pub(super) fn new(text: &'t [u8], content: &Range<usize>) -> Self {
        Self { text: &text[..content.end], scanner: Scanner::inside_list(content.start) }
    }
}

impl Iterator for Elements<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let mut start = None;
        loop {
            // INVARIANT: the list was walked over when it was found, so this can't fail.
            match self.scanner.next(self.text) {
                Ok(Some(Token::Value(value))) if self.scanner.depth() == 1 => return Some(value),
                Ok(Some(Token::Open { at, .. })) => start = start.or(Some(at)),
                Ok(Some(Token::Close { at })) if self.scanner.depth() == 1 => return start.map(|start| start..at + 1),
                Ok(Some(_)) => {}
                // The last one may be a number, which nothing ends.
                Ok(None) => return self.scanner.take_unfinished().map(|start| start..self.text.len()),
                Err(Malformed) => {
                    debug_assert!(false, "the list was walked over when it was found");
                    return None;
                }
            }
        }
    }
}

/// Finds where runs of elements lie while a list is walked over.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// Elements of each run, the next one last.
    counts: Vec<usize>,
    /// Elements of the run under way that are still to come, and where it starts.
    under_way: Option<(usize, usize)>,
    runs: Vec<Range<usize>>,
}

impl Cutter {
    /// Cuts runs of so many elements, in this order. None of them is 0.
    pub(super) fn new(counts: impl DoubleEndedIterator<Item = usize>) -> Self {
        let counts: Vec<usize> = counts.rev().collect();
        debug_assert!(!counts.contains(&0), "a run has elements");
        Self { runs: Vec::with_capacity(counts.len()), counts, under_way: None }
    }

    /// The next element lies there.
    pub(super) fn pass(&mut self, element: Range<usize>) {
        let (left, start) = match self.under_way.take() {
            Some(under_way) => under_way,
            None => (self.counts.pop().unwrap_or(usize::MAX), element.start),
        };
        match left {
            1 => self.runs.push(start..element.end),
            _ => self.under_way = Some((left - 1, start)),
        }
    }

    /// Where the runs lie, if the elements were as many as all runs have.
    pub(super) fn finish(self) -> Option<Vec<Range<usize>>> {
        (self.counts.is_empty() && self.under_way.is_none()).then_some(self.runs)
    }
}
