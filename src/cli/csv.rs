//! One line of comma-separated values, as Go's `encoding/csv` reads a list flag (RFC 4180).
//!
//! Entries are trimmed and empty ones dropped. One in double quotes keeps its commas and spaces, `""` is a quote in it.

/// The entries.
pub(super) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut entries = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let text = text.trim_start();
        let (entry, left) = match text.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => bare(text),
        };
        if !entry.is_empty() {
            entries.push(entry);
        }
        rest = left;
    }
    Ok(entries)
}

/// An entry up to its comma, and what follows that, if there is one.
fn bare(text: &str) -> (String, Option<&str>) {
    match text.split_once(',') {
        Some((entry, rest)) => (entry.trim_end().to_owned(), Some(rest)),
        None => (text.trim_end().to_owned(), None),
    }
}

/// The same for an entry whose opening quote was taken off.
fn unquote(mut text: &str) -> Result<(String, Option<&str>), String> {
    let mut entry = String::new();
    loop {
        let (part, rest) = text.split_once('"').ok_or(ALLOWED)?;
        entry.push_str(part);
        match rest.strip_prefix('"') {
            Some(rest) => {
                entry.push('"');
                text = rest;
            }
            None => match bare(rest) {
                (after, rest) if after.is_empty() => return Ok((entry, rest)),
                _ => return Err(ALLOWED.to_owned()),
            },
        }
    }
}

const ALLOWED: &str = "a comma-separated list, an entry in double quotes closed before its comma";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_split_trimmed_and_dropped_when_empty() {
        for (text, expected) in [
            ("", vec![]),
            (",", vec![]),
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            (" a , ,b,", vec!["a", "b"]),
            ("k=v w,x=y", vec!["k=v w", "x=y"]),
            ("a\"b", vec!["a\"b"]),
        ] {
            assert_eq!(split(text), Ok(expected.into_iter().map(str::to_owned).collect()));
        }
    }

    #[test]
    fn quotes_keep_commas_and_spaces() {
        let expected = vec!["k=a,b".to_owned(), " c\"d ".to_owned()];
        assert_eq!(split(r#""k=a,b" , " c""d ""#), Ok(expected));
    }

    #[test]
    fn a_quote_that_is_not_closed_is_refused() {
        for text in ["\"a", "\"a\"b", "a,\"", "\"a\"\""] {
            assert!(split(text).is_err(), "{text:?}");
        }
    }
}
