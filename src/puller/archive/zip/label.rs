//! What the name of an entry means, as `unzip` reads it: by the system that made the archive (APPNOTE 4.4.2, 4.4.4, appendix D).
//!
//! Not here: where in the folder that is ([`super::super::name`]).

/// Of MS-DOS and Windows, whose tools divide folders by backslashes and write names in the code page of the console.
const DOS: u16 = 0;
/// The flag of names in UTF-8.
const UTF_8: u16 = 1 << 11;

/// The name, in UTF-8 and divided by slashes. `made_by` and `flags` stand in the entry beside it.
pub(super) fn name(raw: Vec<u8>, made_by: u16, flags: u16) -> Vec<u8> {
    let is_dos = made_by >> 8 == DOS;
    let mut name = match flags & UTF_8 {
        0 if is_dos || std::str::from_utf8(&raw).is_err() => decode(&raw),
        _ => raw,
    };
    // Where there is a slash, a backslash is a character like any other.
    if is_dos && !name.contains(&b'/') {
        name.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    }
    name
}

fn decode(raw: &[u8]) -> Vec<u8> {
    let mut text = String::with_capacity(raw.len());
    for byte in raw {
        let upper = byte.checked_sub(0x80).and_then(|index| CODE_PAGE_437.chars().nth(usize::from(index)));
        text.push(upper.unwrap_or(char::from(*byte)));
    }
    text.into_bytes()
}

/// The upper half of code page 437 (unicode.org, CP437.TXT).
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &[u8], host: u16, flags: u16) -> String {
        String::from_utf8(name(raw.to_vec(), host << 8 | 20, flags)).unwrap()
    }

    #[test]
    fn a_name_means_what_the_system_that_wrote_it_meant() {
        const UNIX: u16 = 3;
        assert_eq!(CODE_PAGE_437.chars().count(), 128);
        for (raw, host, flags, wanted) in [
            (&b"sub\\model.bin"[..], DOS, 0, "sub/model.bin"),
            (b"sub\\", DOS, 0, "sub/"),
            (b"a/b\\c", DOS, 0, "a/b\\c"),
            (b"a\\b", UNIX, 0, "a\\b"),
            (b"gr\x94\xe1e", DOS, 0, "größe"),
            ("größe".as_bytes(), DOS, UTF_8, "größe"),
            ("größe".as_bytes(), UNIX, 0, "größe"),
            (b"gr\x94\xe1e", UNIX, 0, "größe"),
        ] {
            assert_eq!(read(raw, host, flags), wanted, "{raw:?}");
        }
    }
}
