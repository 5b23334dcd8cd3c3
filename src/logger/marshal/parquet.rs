//! The parquet file (<https://parquet.apache.org/docs/file-format/>): the schema that the Go agent's has, every column
//! required, texts as `BYTE_ARRAY` with `STRING`, the flag as `BOOLEAN`; one row group, one page per column, plain
//! values, no compression.
//!
//! ```text
//!   PAR1 │ page header, values │ … a page per column │ what is where │ its length │ PAR1
//! ```
//!
//! By hand, as the `parquet` crate without arrow adds 826 KB to the binary, a fifth of it, for reading, encodings and
//! types that are not needed here.
//!
//! Not here: statistics, dictionaries, compression, which all are optional.

use std::borrow::Cow;
use std::iter::once;

use super::Piece;
use super::columns::{COLUMNS, Column, Text, Values};
use super::thrift::Struct;
use crate::logger::record::Record;
use crate::ops::build::{NAME, VERSION};

const MAGIC: &[u8] = b"PAR1";

// Numbers of parquet.thrift.
const BOOLEAN: usize = 0;
const BYTE_ARRAY: usize = 6;
const REQUIRED: usize = 0;
const UTF8: usize = 0;
const PLAIN: usize = 0;
const RLE: usize = 3;
const UNCOMPRESSED: usize = 0;
const DATA_PAGE: usize = 0;

/// Where a column's page is in the file.
struct Chunk {
    column: &'static Column,
    start: usize,
    header: Vec<u8>,
    /// Of header and values.
    length: usize,
}

pub(super) fn pieces<'r>(records: impl Iterator<Item = Record<'r>> + Clone + 'r) -> impl Iterator<Item = Piece<'r>> {
    let rows = records.clone().count();
    // A row group without rows is more than some readers take.
    let columns: &[Column] = if rows == 0 { &[] } else { &COLUMNS };
    let mut at = MAGIC.len();
    let mut chunks = Vec::with_capacity(columns.len());
    for column in columns {
        let length = values(column, records.clone()).map(|piece| piece.len()).sum();
        let header = page_header(length, rows);
        let length = header.len() + length;
        chunks.push(Chunk { column, start: at, header, length });
        at += length;
    }
    let mut end = footer(&chunks, rows);
    end.extend(length_prefix(end.len()));
    end.extend(MAGIC);
    let pages = chunks
        .into_iter()
        .flat_map(move |chunk| once(Piece::from(chunk.header)).chain(values(chunk.column, records.clone())));
    once(Piece::Plain(Cow::from(MAGIC))).chain(pages).chain(once(Piece::from(end)))
}

/// What is in a column's page.
fn values<'r>(
    column: &'static Column,
    records: impl Iterator<Item = Record<'r>> + 'r,
) -> Box<dyn Iterator<Item = Piece<'r>> + 'r> {
    match column.values {
        Values::Text(text) => Box::new(records.flat_map(move |record| {
            let value = match text(record) {
                Text::Plain(text) => Piece::of(text),
                Text::Base64(bytes) => Piece::Base64(bytes),
            };
            [Piece::from(length_prefix(value.len()).to_vec()), value]
        })),
        Values::Flag(flag) => {
            let mut bits = Vec::new();
            for (index, record) in records.enumerate() {
                if index % 8 == 0 {
                    bits.push(0);
                }
                if let Some(last) = bits.last_mut() {
                    *last |= u8::from(flag(record)) << (index % 8);
                }
            }
            Box::new(once(Piece::from(bits)))
        }
    }
}

/// Four bytes, the lowest first. A file is far from their limit: the records in it are (`LOG_OBJECT_BYTES`).
fn length_prefix(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// `PageHeader`. The levels, of which a required column has none, need an encoding nevertheless.
fn page_header(length: usize, rows: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Struct::write(&mut out, |header| {
        header.i32(1, DATA_PAGE);
        header.i32(2, length);
        header.i32(3, length);
        header.nest(5, |page| {
            page.i32(1, rows);
            page.i32(2, PLAIN);
            page.i32(3, RLE);
            page.i32(4, RLE);
        });
    });
    out
}

/// `FileMetaData`.
fn footer(chunks: &[Chunk], rows: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let schema: Vec<Option<&Column>> = once(None).chain(COLUMNS.iter().map(Some)).collect();
    let groups: &[&[Chunk]] = if chunks.is_empty() { &[] } else { &[chunks] };
    Struct::write(&mut out, |file| {
        file.i32(1, 1);
        file.nest_all(2, &schema, write_schema_element);
        file.i64(3, rows);
        file.nest_all(4, groups, |group, chunks| write_row_group(group, chunks, rows));
        file.text(6, &format!("{NAME} version {VERSION}"));
    });
    out
}

/// `SchemaElement`: the root, which is `None`, or a column.
fn write_schema_element(element: &mut Struct<'_>, column: &Option<&Column>) {
    let Some(column) = column else {
        element.text(4, "record");
        element.i32(5, COLUMNS.len());
        return;
    };
    element.i32(1, physical(column));
    element.i32(3, REQUIRED);
    element.text(4, column.name);
    if let Values::Text(_) = column.values {
        element.i32(6, UTF8);
        // `LogicalType`: the union's first member, `StringType`, an empty structure.
        element.nest(10, |logical| logical.nest(1, |_| {}));
    }
}

/// `RowGroup`.
fn write_row_group(group: &mut Struct<'_>, chunks: &[Chunk], rows: usize) {
    let length = chunks.iter().map(|chunk| chunk.length).sum();
    group.nest_all(1, chunks, |column, chunk| {
        column.i64(2, 0);
        column.nest(3, |meta| write_column_meta(meta, chunk, rows));
    });
    group.i64(2, length);
    group.i64(3, rows);
    group.i64(5, MAGIC.len());
    group.i64(6, length);
}

/// `ColumnMetaData`.
fn write_column_meta(meta: &mut Struct<'_>, chunk: &Chunk, rows: usize) {
    meta.i32(1, physical(chunk.column));
    meta.i32_alone(2, PLAIN);
    meta.text_alone(3, chunk.column.name);
    meta.i32(4, UNCOMPRESSED);
    meta.i64(5, rows);
    meta.i64(6, chunk.length);
    meta.i64(7, chunk.length);
    meta.i64(9, chunk.start);
}

fn physical(column: &Column) -> usize {
    match column.values {
        Values::Text(_) => BYTE_ARRAY,
        Values::Flag(_) => BOOLEAN,
    }
}
