//! Text to value, one value at a time; a failure says what is allowed.

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;

/// What [`boolean`] takes, for messages.
pub(super) const BOOLEANS: &str = "true or false (or 1, t, T, TRUE, True, 0, f, F, FALSE, False)";

/// A port to listen on or to connect to.
pub(super) fn port(text: &str) -> Result<NonZeroU16, String> {
    port_number(text).and_then(NonZeroU16::new).ok_or_else(|| "a port from 1 to 65535".to_owned())
}

/// A port, or `None` for 0.
pub(super) fn port_or_off(text: &str) -> Result<Option<NonZeroU16>, String> {
    port_number(text).map(NonZeroU16::new).ok_or_else(|| "a port from 1 to 65535, or 0 to turn it off".to_owned())
}

fn port_number(text: &str) -> Option<u16> {
    integer(text).and_then(|number| u16::try_from(number).ok())
}

/// A number of something from 1 to `max`.
pub(super) fn count(what: &str, max: usize) -> impl Fn(&str) -> Result<NonZeroUsize, String> {
    move |text| {
        number_up_to(text, max)
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| format!("a whole number of {what} from 1 to {max}"))
    }
}

/// A number of something up to `max`, or `None` for 0.
pub(super) fn count_or_default(what: &str, max: usize) -> impl Fn(&str) -> Result<Option<NonZeroUsize>, String> {
    move |text| {
        number_up_to(text, max)
            .map(NonZeroUsize::new)
            .ok_or_else(|| format!("a whole number of {what} from 0 (chosen by the agent) to {max}"))
    }
}

fn number_up_to(text: &str, max: usize) -> Option<usize> {
    integer(text).and_then(|number| usize::try_from(number).ok()).filter(|&number| number <= max)
}

/// A decimal integer as Go's `strconv.Atoi` takes it: a sign if need be, then digits and nothing else.
pub(super) fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() {
        return None;
    }
    digits.bytes().try_fold(0_i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(sign * digit)
    })
}

/// A number that nothing is done with.
pub(super) fn any_integer(text: &str) -> Result<(), String> {
    integer(text).map(drop).ok_or_else(|| "a whole number".to_owned())
}

/// The words of Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// One of a list of words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        words.iter().find(|(word, _)| *word == text).map(|&(_, value)| value).ok_or_else(|| {
            let all: Vec<&str> = words.iter().map(|&(word, _)| word).collect();
            format!("one of {}", all.join(", "))
        })
    }
}

/// A share of a whole, over 0 and up to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    // NaN and infinity, which `f64` reads too, are not in the range.
    text.parse()
        .ok()
        .filter(|&share: &f64| share > 0.0 && share <= 1.0)
        .ok_or_else(|| "a number over 0 and up to 1".to_owned())
}

/// A path, which need not exist.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a path that is not empty".to_owned()) } else { Ok(text.into()) }
}

/// Whether text can be the name of a header (`token`, RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_decimal_digits_with_a_sign_if_need_be() {
        for (text, expected) in [
            ("0", Some(0)),
            ("+5", Some(5)),
            ("-5", Some(-5)),
            ("007", Some(7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("99999999999999999999999999", None),
            ("", None),
            ("+", None),
            ("-", None),
            ("--1", None),
            ("+-1", None),
            ("0x10", None),
            ("1_000", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("٣", None),
        ] {
            assert_eq!(integer(text), expected, "{text:?}");
        }
    }

    #[test]
    fn ports_end_at_65535() {
        assert_eq!(port("65535"), Ok(NonZeroU16::MAX));
        assert_eq!(port("+1"), Ok(NonZeroU16::MIN));
        for text in ["0", "65536", "-1", "http", "", "4294967297"] {
            assert!(port(text).is_err(), "{text:?}");
        }
        assert_eq!(port_or_off("0"), Ok(None));
        assert!(port_or_off("65536").is_err());
    }

    #[test]
    fn counts_stop_at_their_limit() {
        assert_eq!(count("x", 3)("3").map(NonZeroUsize::get), Ok(3));
        assert_eq!(count("x", 3)("4"), Err("a whole number of x from 1 to 3".to_owned()));
        assert!(count("x", 3)("0").is_err());
        assert_eq!(count_or_default("x", 3)("0"), Ok(None));
        assert!(count_or_default("x", 3)("-1").is_err());
    }

    #[test]
    fn a_share_is_over_0_and_up_to_1() {
        for (text, expected) in [("1.0", 1.0), ("1", 1.0), (".5", 0.5), ("1e-3", 0.001)] {
            assert_eq!(share(text), Ok(expected), "{text:?}");
        }
        for text in ["0", "-0", "1.1", "-1", "NaN", "inf", "", "half", "1e-400"] {
            assert!(share(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_token_has_no_space_colon_or_control() {
        assert!(is_token("X-Tenant_1"));
        for text in ["", "a b", "a:", "a\r", "a\n", "a\0", "ä"] {
            assert!(!is_token(text), "{text:?}");
        }
    }
}
