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
//! A file is as long as its records, so their payloads are not copied on the way to it: base64 is made where it goes.
//!
//! Not here: who asks for a file, and where it goes.

mod columns;
mod csv;
mod json;
mod parquet;
mod thrift;

use super::record::Record;
use crate::config::StoreFormat;

/// The file of these records.
pub fn marshal(format: StoreFormat, records: &[Record]) -> Vec<u8> {
    match format {
        StoreFormat::Json => json::marshal(records),
        StoreFormat::Csv => csv::marshal(records),
        StoreFormat::Parquet => parquet::marshal(records),
    }
}

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
