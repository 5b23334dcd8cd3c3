//! The json file: one object for one record, an array for several or none.

use crate::logger::record::Record;

pub(super) fn marshal(records: &[Record]) -> Vec<u8> {
    let json = match records {
        [record] => serde_json::to_vec(record),
        records => serde_json::to_vec(records),
    };
    // Text, bytes and maps of text always have a JSON form.
    json.unwrap_or_default()
}
