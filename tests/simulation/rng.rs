//! Numbers that look random and are the same in every run (splitmix64, Steele, Lea and Flood 2014).

pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// `true` in so many of a thousand cases.
    pub(crate) fn once_in_thousand(&mut self, cases: usize) -> bool {
        self.below(1000) < cases
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// How much of `length` bytes moves at once: often all, often little, never nothing.
    pub(crate) fn piece(&mut self, length: usize) -> usize {
        match self.below(8) {
            0..=2 => length,
            3 => 1,
            4 => 1 + self.below(length.min(8)),
            5 | 6 => 1 + self.below(length.min(64)),
            _ => 1 + self.below(length),
        }
    }
}
