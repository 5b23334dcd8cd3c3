//! What `Content-Disposition` calls a file (RFC 6266, RFC 8187).
//!
//! Not here: whether it may be called so.

use percent_encoding::percent_decode_str;

/// The file's name without the folders that it may come with; `filename*` before `filename`.
pub(super) fn file_name(field: &str) -> Option<String> {
    let (mut plain, mut extended) = (None, None);
    let mut rest = field.split_once(';')?.1;
    while let Some((name, value)) = rest.split_once('=') {
        let (value, after) = value_of(value.trim_start());
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = plain.or(Some(value)),
            "filename*" => extended = extended.or_else(|| decoded(&value)),
            _ => {}
        }
        rest = after.split_once(';').map_or("", |(_, rest)| rest);
    }
    let name = extended.or(plain)?;
    Some(name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned())
}

/// A token or a quoted string at the start, and what is behind it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            // Windows' servers send paths in quotes and do not escape them; a name is what is behind the last of these.
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => {
                value.extend(characters.next().map(|(_, escaped)| escaped))
            }
            other => value.push(other),
        }
    }
    (value, "")
}

/// `charset'language'percent-encoded`, of UTF-8.
fn decoded(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let charset = parts.next()?;
    let encoded = parts.nth(1)?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    percent_decode_str(encoded).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_in_every_form() {
        for (field, name) in [
            ("attachment; filename=model.bin", Some("model.bin")),
            ("attachment; filename=\"a;b \\\"c\\\".bin\"; size=7", Some("a;b \"c\".bin")),
            ("attachment;FILENAME = m.bin ; x=y", Some("m.bin")),
            ("attachment; filename=\"old.bin\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.bin", Some("größe.bin")),
            ("attachment; filename*=ISO-8859-1''%E9; filename=e", Some("e")),
            ("attachment; filename=\"C:\\models\\m.bin\"", Some("m.bin")),
            ("attachment; filename=\"/etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"open", Some("open")),
            ("attachment", None),
            ("attachment; filename", None),
            ("", None),
        ] {
            assert_eq!(file_name(field).as_deref(), name, "{field}");
        }
    }
}
