//! Thrift's compact protocol, as much of it as parquet's own structures need: writing structures, integers, texts and
//! lists (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).
//!
//! Not here: which fields there are ([`super::parquet`]).

/// A kind of value, as a field's or a list's header names it.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    I32 = 5,
    I64 = 6,
    Text = 8,
    List = 9,
    Struct = 12,
}

/// A structure that is being written; its fields come in the order of their ids.
pub(super) struct Struct<'o> {
    out: &'o mut Vec<u8>,
    /// The id of the field before.
    last: u8,
}

impl<'o> Struct<'o> {
    /// A structure behind what is in `out`.
    pub(super) fn write(out: &'o mut Vec<u8>, fields: impl FnOnce(&mut Struct<'_>)) {
        let mut whole = Struct { out, last: 0 };
        fields(&mut whole);
        whole.out.push(0);
    }

    pub(super) fn i32(&mut self, id: u8, number: usize) {
        self.field(id, Kind::I32);
        integer(self.out, number);
    }

    pub(super) fn i64(&mut self, id: u8, number: usize) {
        self.field(id, Kind::I64);
        integer(self.out, number);
    }

    pub(super) fn text(&mut self, id: u8, text: &str) {
        self.field(id, Kind::Text);
        string(self.out, text);
    }

    pub(super) fn nest(&mut self, id: u8, fields: impl FnOnce(&mut Struct<'_>)) {
        self.field(id, Kind::Struct);
        Struct::write(self.out, fields);
    }

    /// A list of structures.
    pub(super) fn nest_all<T>(&mut self, id: u8, items: &[T], mut fields: impl FnMut(&mut Struct<'_>, &T)) {
        self.list(id, Kind::Struct, items.len());
        for item in items {
            Struct::write(self.out, |nested| fields(nested, item));
        }
    }

    /// A list of one integer.
    pub(super) fn i32_alone(&mut self, id: u8, number: usize) {
        self.list(id, Kind::I32, 1);
        integer(self.out, number);
    }

    /// A list of one text.
    pub(super) fn text_alone(&mut self, id: u8, text: &str) {
        self.list(id, Kind::Text, 1);
        string(self.out, text);
    }

    fn list(&mut self, id: u8, kind: Kind, count: usize) {
        self.field(id, Kind::List);
        match u8::try_from(count) {
            Ok(few) if few < 15 => self.out.push(few << 4 | kind as u8),
            _ => {
                self.out.push(0xf0 | kind as u8);
                varint(self.out, count);
            }
        }
    }

    /// INVARIANT: ids rise by 1 to 15.
    fn field(&mut self, id: u8, kind: Kind) {
        self.out.push((id - self.last) << 4 | kind as u8);
        self.last = id;
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    varint(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Zigzag: what is not negative is doubled.
fn integer(out: &mut Vec<u8>, number: usize) {
    varint(out, number << 1);
}

fn varint(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_many_bytes_as_they_need() {
        let written = |number| {
            let mut out = Vec::new();
            varint(&mut out, number);
            out
        };
        assert_eq!(written(0), [0]);
        assert_eq!(written(127), [127]);
        assert_eq!(written(128), [0x80, 1]);
        assert_eq!(written(300), [0xac, 2]);
    }

    #[test]
    fn a_structure_says_its_fields_and_ends() {
        let mut out = Vec::new();
        Struct::write(&mut out, |top| {
            top.i32(1, 1);
            top.text(4, "ab");
            top.nest(5, |_| {});
            top.i32_alone(6, 3);
            top.nest_all(7, &[(); 15], |_, ()| {});
        });
        let mut expected = vec![0x15, 2, 0x38, 2, b'a', b'b', 0x1c, 0, 0x19, 0x15, 6, 0x19, 0xfc, 15];
        expected.extend([0; 16]);
        assert_eq!(out, expected);
    }
}
