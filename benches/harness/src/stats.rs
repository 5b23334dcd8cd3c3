//! Medians, quartiles and ratios. Pure.

use serde::Serialize;

/// The middle of several runs and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    /// First and third quartile.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` if there are no runs.
    pub(crate) fn of(runs: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = runs.iter().copied().filter(|run| run.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let at = |share| quantile(&sorted, share);
        Some(Self { median: at(0.5), low: at(0.25), high: at(0.75), least, most })
    }

    /// How far the runs lie apart, as a share of their median: without the least and the most where there are five
    /// or more, as one disturbed run of five says nothing about the median.
    pub(crate) fn relative(self) -> f64 {
        (self.high - self.low) / self.median
    }

    /// Whether `bound` lies between the quartiles, so that another run might fall on its other side.
    pub(crate) fn straddles(self, bound: f64) -> bool {
        self.low < bound && bound < self.high
    }
}

/// Of a sorted, not empty list; between two values it is interpolated (R's type 7).
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// One value per round. Rounds alternate between peers, so what slows the machine for a while slows both.
pub(crate) fn paired(one: &[f64], other: &[f64], how: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| how(*one, *other)).collect()
}

/// `12 345`, `123`, `12.3`, `1.23`: three digits that count.
pub(crate) fn show(value: f64) -> String {
    let size = value.abs();
    if size.round() >= 1000.0 {
        return thousands(value);
    }
    let digits = if size >= 100.0 || value == 0.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

fn thousands(value: f64) -> String {
    let text = format!("{value:.0}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let mut shown = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            // A thin space that no line break parts.
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quartiles_are_interpolated() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Some(Spread { median: 2.5, low: 1.75, high: 3.25, least: 1.0, most: 4.0 }));
        assert_eq!(Spread::of(&[7.0]).map(|one| (one.median, one.relative())), Some((7.0, 0.0)));
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN]), None);
    }

    #[test]
    fn one_disturbed_run_of_five_does_not_make_a_spread() {
        let spread = Spread::of(&[100.0, 101.0, 100.0, 99.0, 10.0]);
        assert!(spread.is_some_and(|spread| spread.relative() < 0.02), "{spread:?}");
    }

    #[test]
    fn a_bound_between_the_quartiles_is_not_decided() {
        let spread = Spread::of(&[0.8, 0.9, 1.0, 1.1, 1.2]);
        assert!(spread.is_some_and(|spread| spread.straddles(1.05) && !spread.straddles(1.15)));
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown: Vec<String> = [1_234_567.0, 999.6, 12.345, 1.2345, 0.0, -3.5, -45_678.0].map(show).into();
        assert_eq!(shown, ["1\u{202f}234\u{202f}567", "1\u{202f}000", "12.3", "1.23", "0", "-3.50", "-45\u{202f}678"]);
    }

    #[test]
    fn rounds_are_paired() {
        assert_eq!(paired(&[2.0, 9.0, 1.0], &[1.0, 3.0], |a, b| a / b), [2.0, 3.0]);
    }
}
