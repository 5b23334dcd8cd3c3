//! The scanner beside `serde_json`: the cases that parsers get wrong, and what a seeded fuzzer makes of valid texts.

use serde_json::value::RawValue;

use super::super::runs::{Cutter, Elements};
use super::*;

/// One text a line, many of them after JSONTestSuite (Seriot, "Parsing JSON is a Minefield").
const CASES: &str = r#"
0
-0
1.0
1e400
-1E-5
0e1
0e+1
12345678901234567890
-
--1
+1
01
-01
1.
.5
1e
1e+
1e1.5
0x1
1_0
NaN
Infinity
-Infinity
""
"a
"\u00e9"
"\ud800"
"\udc00\ud800"
"\u00g0"
"\u00"
"\x"
"\"
"\\"
"\a"
"é"
"]"
true
tru
True
nullx
null x
[]
[ ]
[1,]
[,1]
[1 2]
[1,2]
[1:2]
[1
]
[[]
[]]
[}
{]
{}
{ }
{"a":1}
{"a":1,}
{,"a":1}
{a:1}
{"a" 1}
{"a":}
{"a"}
{1:2}
{"a":1 "b":2}
{"a":1,"a":2}
{"a":[{}]}
{"a":1}}
{"a":[1,{"b":[]}],"c":{"d":{}}}
/**/1
'a'
["",,1]
[1]x
1 1
[null,true,false,"",0,{},[]]
"#;

fn is_valid(text: &[u8]) -> bool {
    let mut whole = Scanner::new(Numbers::Strict);
    let is_valid = walk(&mut whole, text).is_ok_and(|()| whole.finish(text).is_ok());
    // The same in pieces.
    for size in [1, 3, 7] {
        let mut pieces = Scanner::new(Numbers::Strict);
        let mut ends = (0..text.len()).step_by(size).chain([text.len()]);
        let walked = ends.try_for_each(|end| walk(&mut pieces, &text[..end]));
        let is_valid_too = walked.is_ok_and(|()| pieces.finish(text).is_ok());
        assert_eq!(is_valid_too, is_valid, "{:?} in pieces of {size}", String::from_utf8_lossy(text));
    }
    is_valid
}

fn walk(scanner: &mut Scanner, text: &[u8]) -> Result<(), Malformed> {
    while scanner.next(text)?.is_some() {}
    Ok(())
}

/// A raw value is what is compared with: numbers that fit no `f64` and lone surrogates are right in it. It has no word for
/// what is no number.
fn agrees(text: &[u8]) {
    let known = |text: &str| ["NaN", "Infinity", "-Infinity"].contains(&text);
    let theirs =
        std::str::from_utf8(text).is_ok_and(|text| known(text) || serde_json::from_str::<&RawValue>(text).is_ok());
    assert_eq!(is_valid(text), theirs, "{:?}", String::from_utf8_lossy(text));
}

#[test]
fn a_value_is_what_serde_json_takes() {
    CASES.lines().for_each(|case| agrees(case.as_bytes()));
    for case in ["", " ", " 1 ", "\t[1]\n\r ", "\u{feff}1", "\"\t\"", "\"\x7f\"", "\"\0\"", "[1]\u{a0}", "\x0b1"] {
        agrees(case.as_bytes());
    }
    agrees(b"\"\xff\"");
    agrees(b"\"\xed\xa0\x80\"");
}

/// xorshift64*
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % limit
    }

    pub(crate) fn json(&mut self, depth: usize) -> String {
        const ATOMS: [&str; 14] = [
            "0",
            "-1.5",
            "1e400",
            "12345678901234567890",
            "true",
            "false",
            "null",
            r#""""#,
            r#""a\"]},[{""#,
            r#""\ud83d\ude00""#,
            r#""é""#,
            r#""\\""#,
            "[ ]",
            "{}",
        ];
        const SPACES: [&str; 6] = ["", "", "", " ", "\n\t", "\r "];
        let space = SPACES[self.below(SPACES.len())];
        let count = self.below(4);
        match self.below(if depth == 0 { 1 } else { 3 }) {
            0 => format!("{space}{}", ATOMS[self.below(ATOMS.len())]),
            1 => format!("{space}[{}]", (0..count).map(|_| self.json(depth - 1)).collect::<Vec<_>>().join(",")),
            _ => {
                let members: Vec<String> =
                    (0..count).map(|name| format!("{space}\"k{name}\"{space}:{}", self.json(depth - 1))).collect();
                format!("{{{}{space}}}", members.join(","))
            }
        }
    }

    /// Changes, doubles, removes or swaps a few bytes.
    fn spoil(&mut self, text: &mut Vec<u8>) {
        const BYTES: &[u8] = b"{}[],:\"\\ue+-.0139tfn \n\t\x00\x1f\x7f\xc3\xa9\xff/";
        for _ in 0..=self.below(3) {
            if text.is_empty() {
                return;
            }
            let (at, other) = (self.below(text.len()), self.below(text.len()));
            match self.below(4) {
                0 => text[at] = BYTES[self.below(BYTES.len())],
                1 => text.insert(at, BYTES[self.below(BYTES.len())]),
                2 => drop(text.remove(at)),
                _ => text.swap(at, other),
            }
        }
    }
}

#[test]
fn a_spoilt_text_is_judged_as_serde_json_does() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..60_000 {
        let mut text = random.json(4).into_bytes();
        agrees(&text);
        random.spoil(&mut text);
        agrees(&text);
        text.truncate(random.below(text.len() + 1));
        agrees(&text);
    }
}

#[test]
fn what_a_walk_finds_is_what_serde_json_finds() {
    let mut random = Random(7);
    for _ in 0..20_000 {
        let text = format!("[{}]", (0..random.below(5)).map(|_| random.json(3)).collect::<Vec<_>>().join(","));
        let elements = Elements::new(text.as_bytes(), &(1..text.len() - 1));
        let found: Vec<&str> = elements.map(|element| &text[element]).collect();
        let theirs: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
        assert_eq!(found, theirs.iter().map(|value| value.get()).collect::<Vec<_>>(), "{text}");
        let mut cutter = Cutter::new([1; 5][..found.len()].iter().copied());
        Elements::new(text.as_bytes(), &(1..text.len() - 1)).for_each(|element| cutter.pass(element));
        assert_eq!(cutter.finish().unwrap().into_iter().map(|run| &text[run]).collect::<Vec<_>>(), found);
    }
}

#[test]
fn nesting_ends_at_its_limit_and_not_before() {
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    for depth in [1, 63, 64, 65, 128, 129, JSON_DEPTH] {
        assert!(is_valid(nested(depth).as_bytes()), "{depth}");
    }
    assert!(!is_valid(nested(JSON_DEPTH + 1).as_bytes()));
    let mixed = ["[{\"a\":".repeat(200), "1".to_owned(), "}]".repeat(200)].concat();
    assert!(is_valid(mixed.as_bytes()));
    assert!(!is_valid(mixed.replacen("}]}", "}}}", 1).as_bytes()));
}

#[test]
fn a_name_is_recognised_however_it_is_escaped() {
    assert!(is_named(br#""instances""#, "instances"));
    assert!(is_named(br#""\u0069nstances""#, "instances"));
    assert!(!is_named(br#""Instances""#, "instances"));
    assert!(!is_named(br#""\ud800instances""#, "instances"));
}
