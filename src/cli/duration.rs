//! Durations in the syntax of Go's `time.ParseDuration`.
//!
//! An optional sign, then one or more numbers with a unit, in any order: `1h30m`, `-1.5s`, `.5ms`. `0` needs no unit.
//! The result is Go's too, to the nanosecond: 64 bits of nanoseconds, fractions scaled in floating point.

use std::time::Duration;

/// A duration that is not negative.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    let nanos = nanoseconds(text).and_then(|nanos| u64::try_from(nanos).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| allowed("a duration from 0"))
}

/// A duration, or `None` for 0, which turns the limit off.
pub(super) fn limit(text: &str) -> Result<Option<Duration>, String> {
    period(text).map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
}

/// A duration longer than 0.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    match period(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(allowed("a duration over 0")),
    }
}

/// `--probe-period`: any duration, and the `-1` that Go prints as its default (1 ns before 0) without a unit.
pub(super) fn probe_period(text: &str) -> Result<(), String> {
    match nanoseconds(text) {
        None if text != "-1" => Err(allowed("a duration")),
        _ => Ok(()),
    }
}

fn allowed(what: &str) -> String {
    format!("{what}, as 300ms, 1.5h or 1m30s (units ns, us, ms, s, m, h)")
}

/// Nanoseconds, or `None` for what Go refuses: no digits, no unit, an unknown one, too long.
fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, left) = term(rest)?;
        total = total.checked_add(nanos).filter(|&total| total <= MAGNITUDE_MAX)?;
        rest = left;
    }
    if negative { 0_i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() }
}

/// The first number with its unit, and what follows.
fn term(text: &str) -> Option<(u64, &str)> {
    let (whole, text) = split_digits(text);
    let (fraction, text) = match text.strip_prefix('.') {
        Some(text) => split_digits(text),
        None => ("", text),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = text.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let unit = UNITS.iter().find(|(unit, _)| *unit == name).map(|&(_, nanos)| nanos)?;
    let nanos = integer(whole)?.checked_mul(unit)?.checked_add(scaled(fraction, unit))?;
    Some((nanos, rest)).filter(|_| nanos <= MAGNITUDE_MAX)
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn integer(digits: &str) -> Option<u64> {
    let number =
        digits.bytes().try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    number.filter(|&number| number <= MAGNITUDE_MAX)
}

/// Nanoseconds of a fraction's digits; those past what 63 bits hold are below a nanosecond and dropped.
fn scaled(digits: &str, unit: u64) -> u64 {
    let (mut number, mut scale) = (0_u64, 1.0_f64);
    for digit in digits.bytes() {
        if number > (MAGNITUDE_MAX - 1) / 10 {
            break;
        }
        let next = number * 10 + u64::from(digit - b'0');
        if next > MAGNITUDE_MAX {
            break;
        }
        number = next;
        scale *= 10.0;
    }
    floor(number as f64 * (unit as f64 / scale))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of one unit: not negative, at most 3.6e12"
)]
fn floor(nanos: f64) -> u64 {
    nanos as u64
}

/// The largest magnitude: that of the smallest `i64`, which Go takes as well.
const MAGNITUDE_MAX: u64 = 1 << 63;

/// Micro is written with `u`, the micro sign or the Greek letter.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const MINUTE: i64 = 60 * SECOND;
    const HOUR: i64 = 60 * MINUTE;

    #[test]
    fn every_form_of_go_is_read() {
        for (text, expected) in [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("5s", 5 * SECOND),
            ("+5s", 5 * SECOND),
            ("-5s", -5 * SECOND),
            ("5.s", 5 * SECOND),
            (".5s", SECOND / 2),
            ("-.5s", -SECOND / 2),
            ("1.004s", 1_004_000_000),
            ("100.00100s", 100_001_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s", 12_000),
            ("13ms", 13_000_000),
            ("15m", 15 * MINUTE),
            ("1.5h", 90 * MINUTE),
            ("3h30m", 3 * HOUR + 30 * MINUTE),
            ("10.5s4m", 4 * MINUTE + 10_500_000_000),
            ("-2m3.4s", -(2 * MINUTE + 3_400_000_000)),
            ("1h2m3s4ms5us6ns", HOUR + 2 * MINUTE + 3 * SECOND + 4_005_006),
            ("1s1s", 2 * SECOND),
        ] {
            assert_eq!(nanoseconds(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn fractions_come_out_as_in_go() {
        for (text, expected) in [
            ("0.3333333333333333333h", 20 * MINUTE),
            ("0.100000000000000000000h", 6 * MINUTE),
            ("0.830103483285477580700h", 49 * MINUTE + 48_372_539_827),
            ("0.9999999999999999999ns", 1),
            ("0.5ns", 0),
        ] {
            assert_eq!(nanoseconds(text), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn the_range_is_64_bits_of_nanoseconds() {
        for (text, expected) in [
            ("9223372036854775807ns", Some(i64::MAX)),
            ("9223372036854775.807us", Some(i64::MAX)),
            ("9223372036s854ms775us807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("9223372036854775.808us", None),
            ("9223372036854ms775us808ns", None),
            ("-9223372036854775809ns", None),
            ("99999999999999999999ns", None),
            ("3000000h", None),
            ("2562047h2562047h", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "", "3", "-", "+", "s", ".", "-.", ".s", "+.s", "1d", "1S", "00", "1 s", " 1s", "1s ", "--1s", "1h30",
            "abc", "1.2.3s", "0x1s", "1e3s", "٣s", "1µ", "9ms-1s",
        ] {
            assert_eq!(nanoseconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_the_probe_period_may_be_negative() {
        assert!(period("-1s").is_err());
        assert!(limit("-1s").is_err());
        assert!(wait("-1s").is_err());
        assert_eq!(probe_period("-1s"), Ok(()));
        assert_eq!(probe_period("-1"), Ok(()));
        assert!(probe_period("-2").is_err());
    }

    #[test]
    fn zero_is_a_period_and_turns_a_limit_off_but_is_no_wait() {
        assert_eq!(period("0"), Ok(Duration::ZERO));
        assert_eq!(limit("0s"), Ok(None));
        assert!(wait("0s").is_err());
        assert_eq!(limit("1m30s"), Ok(Some(Duration::from_secs(90))));
    }
}
