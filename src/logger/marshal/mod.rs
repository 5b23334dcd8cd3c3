//! Records to files (SPEC L8): json, csv, parquet, pure.
//!
//! | module | what |
//! |---|---|
//! | `json` | the records in their JSON form |
//! | `csv` | a table with a header row |
//! | `parquet` | the same table |
//! | `columns` | the columns of both |
//! | `thrift` | how parquet writes what it says about itself |
//!
//! A file may be larger than all that the queue may hold, so there is never one in memory: a [`File`] is made while it is
//! read, a piece at a time, out of records that lie where they lay before. It is made anew for each attempt. How long it
//! will be is found by walking over its pieces once before.
//!
//! Not here: who asks for a file, and where it goes.

mod columns;
mod csv;
mod json;
mod parquet;
mod thrift;

use std::borrow::Cow;
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::record::Record;
use crate::config::StoreFormat;

/// A file that is made as it is read.
pub struct File<'f> {
    length: u64,
    pieces: Box<dyn Iterator<Item = Piece<'f>> + 'f>,
    /// What of the current piece can be read.
    ready: Cow<'f, [u8]>,
    /// How much of that was.
    read: usize,
    /// What of the current piece is still to be coded.
    raw: &'f [u8],
}

/// A piece of a file.
enum Piece<'f> {
    Plain(Cow<'f, [u8]>),
    /// The bytes, whose base64 is the piece.
    Base64(&'f [u8]),
}

impl<'f> File<'f> {
    /// The file of these records.
    pub fn new(format: StoreFormat, records: impl Iterator<Item = Record<'f>> + Clone + 'f) -> Self {
        match format {
            StoreFormat::Json if records.clone().take(2).count() == 1 => {
                Self::of(|| json::pieces(records.clone(), false))
            }
            StoreFormat::Json => Self::array(records),
            StoreFormat::Csv => Self::of(|| csv::pieces(records.clone())),
            StoreFormat::Parquet => Self::of(|| parquet::pieces(records.clone())),
        }
    }

    /// What a marshaller is asked with: a JSON array, even of one record.
    pub(crate) fn array(records: impl Iterator<Item = Record<'f>> + Clone + 'f) -> Self {
        Self::of(|| json::pieces(records.clone(), true))
    }

    fn of<P: Iterator<Item = Piece<'f>> + 'f>(pieces: impl Fn() -> P) -> Self {
        let length = pieces().map(|piece| piece.len() as u64).sum();
        Self { length, pieces: Box::new(pieces()), ready: Cow::default(), read: 0, raw: &[] }
    }

    /// Bytes that it has, read or not.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Makes the next bytes ready; `false`: it has ended.
    fn advance(&mut self) -> bool {
        let (coded, rest) = self.raw.split_at(self.raw.len().min(CODED_BYTES));
        if !coded.is_empty() {
            self.ready = Cow::from(STANDARD.encode(coded).into_bytes());
            self.raw = rest;
        } else {
            match self.pieces.next() {
                Some(Piece::Plain(bytes)) => self.ready = bytes,
                Some(Piece::Base64(bytes)) => (self.ready, self.raw) = (Cow::default(), bytes),
                None => return false,
            }
        }
        self.read = 0;
        true
    }
}

impl Read for File<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let ready = &self.ready[self.read..];
            if ready.is_empty() {
                if self.advance() {
                    continue;
                }
                break;
            }
            let count = ready.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&ready[..count]);
            self.read += count;
            filled += count;
        }
        Ok(filled)
    }
}

impl<'f> Piece<'f> {
    fn of(text: &'f str) -> Self {
        Self::Plain(Cow::from(text.as_bytes()))
    }

    fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Base64(bytes) => bytes.len().div_ceil(3) * 4,
        }
    }
}

impl From<Vec<u8>> for Piece<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Plain(Cow::from(bytes))
    }
}

/// Bytes of a payload that are coded at once. INVARIANT: a multiple of three, so that there is no padding in between.
const CODED_BYTES: usize = 12 * 1024;

/// The extension of such a file, without a dot.
pub fn extension(format: StoreFormat) -> &'static str {
    match format {
        StoreFormat::Json => "json",
        StoreFormat::Csv => "csv",
        StoreFormat::Parquet => "parquet",
    }
}

/// The media type of a file with this extension, as the Go agent has it.
pub fn media(extension: &str) -> &'static str {
    match extension {
        "json" => "application/json",
        "csv" => "text/csv",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
