//! JSON cut into the bytes of its parts, for judging what the batcher spliced.
//!
//! Not here: values. `1.0` and `1` are different parts, and so are `"a"` and `"\u0061"`: that is the point (SPEC B3).
//! What is no JSON may be cut anyhow; the tests that send it do not read it back.

/// The members of an object in order: names without their quotes, values as they are written.
pub(crate) fn members(object: &str) -> Vec<(&str, &str)> {
    let parts = parts(object, '{', '}').unwrap_or_else(|| panic!("no object: {object:?}"));
    parts.into_iter().map(|part| member_of(part).unwrap_or_else(|| panic!("no member: {part:?}"))).collect()
}

/// The value of the one member of this name.
pub(crate) fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let found: Vec<&str> = members(object).into_iter().filter(|(n, _)| *n == name).map(|(_, value)| value).collect();
    assert!(found.len() <= 1, "{name} is there {} times in {object:?}", found.len());
    found.first().copied()
}

/// The elements of a list, as they are written.
pub(crate) fn items(list: &str) -> Vec<&str> {
    parts(list, '[', ']').unwrap_or_else(|| panic!("no list: {list:?}"))
}

/// The elements of a list of lists of any depth, in order.
pub(crate) fn leaves(value: &str) -> Vec<&str> {
    match parts(value, '[', ']') {
        Some(inner) => inner.into_iter().flat_map(leaves).collect(),
        None => vec![value],
    }
}

fn member_of(part: &str) -> Option<(&str, &str)> {
    let name = part.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = name.char_indices().find(|(_, c)| {
        let is_end = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_end
    })?;
    Some((&name[..end.0], space_off(space_off(&name[end.0 + 1..]).strip_prefix(':')?)))
}

/// What stands between the commas of the outermost level.
fn parts(text: &str, open: char, close: char) -> Option<Vec<&str>> {
    let inner = space_off(text).strip_prefix(open)?.strip_suffix(close)?;
    let mut parts = Vec::new();
    let (mut depth, mut in_string, mut is_escaped, mut from) = (0, false, false, 0);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(space_off(&inner[from..at]));
                from = at + 1;
            }
            _ => {}
        }
    }
    let last = space_off(&inner[from..]);
    if !last.is_empty() || !parts.is_empty() {
        parts.push(last);
    }
    Some(parts)
}

fn space_off(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r', '\n'])
}

#[test]
fn parts_are_cut_where_they_end_and_nowhere_else() {
    let object = "\t{ \"a\" : [1.0 ,\r\n{\"x\":[\"],\\\\\\\"\",{}]}, \"]\" ,[[],2]],\"b,:\\\"\":{\"a\":1}}\n";
    assert_eq!(member(object, "b,:\\\""), Some("{\"a\":1}"));
    let list = member(object, "a").unwrap();
    assert_eq!(items(list), ["1.0", "{\"x\":[\"],\\\\\\\"\",{}]}", "\"]\"", "[[],2]"]);
    assert_eq!(leaves("[[1,\"],\"],[ [2] ],[]]"), ["1", "\"],\"", "2"]);
    assert_eq!(items("[ ]"), [""; 0]);
}
