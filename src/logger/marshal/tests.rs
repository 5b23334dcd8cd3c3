//! Files as they are; that other programs read them is shown in `tests/logger`.

use std::collections::BTreeMap;

use super::*;
use crate::logger::record::{Rfc3339, Url};

const HEADER: &str = "url,bytes,contentType,reqType,id,sourceUri,inferenceService,namespace,component,endpoint,metadata,\
                      annotations,certName,tlsSkipVerify\n";

fn record() -> Record {
    Record {
        url: Url::new("s3://bucket/prefix"),
        bytes: b"\xff\x00\n".to_vec(),
        content_type: "text/plain; a=\"b, c\"".to_owned(),
        req_type: "org.kubeflow.serving.inference.request".to_owned(),
        id: "i".to_owned(),
        source_uri: Url::new("http://localhost:9081/"),
        metadata: BTreeMap::from([("X-A".to_owned(), vec!["1".to_owned()])]),
        annotations: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        tls_skip_verify: true,
        occurrence_time: Rfc3339::parse("2026-01-02T03:04:05Z").unwrap(),
        ..Record::default()
    }
}

fn text(format: StoreFormat, records: &[Record]) -> String {
    String::from_utf8(marshal(format, records)).unwrap()
}

#[test]
fn json_is_an_object_for_one_record_and_a_list_for_others() {
    let one = serde_json::to_string(&record()).unwrap();
    assert_eq!(text(StoreFormat::Json, &[]), "[]");
    assert_eq!(text(StoreFormat::Json, &[record()]), one);
    assert_eq!(text(StoreFormat::Json, &[record(), record()]), format!("[{one},{one}]"));
}

#[test]
fn csv_has_a_header_row_and_quotes_what_needs_it() {
    let row = "s3://bucket/prefix,/wAK,\"text/plain; a=\"\"b, c\"\"\",org.kubeflow.serving.inference.request,i,\
               http://localhost:9081/,,,,,\"{\"\"X-A\"\":[\"\"1\"\"]}\",\"{\"\"k\"\":\"\"v\"\"}\",,true\n";
    assert_eq!(text(StoreFormat::Csv, &[]), HEADER);
    assert_eq!(text(StoreFormat::Csv, &[record(), Record::default()]), format!("{HEADER}{row},,,,,,,,,,,,,false\n"));
}

#[test]
fn csv_quotes_line_ends_and_leaves_spaces() {
    for (id, field) in
        [("a\nb", "\"a\nb\""), ("a\rb", "\"a\rb\""), (" a ", " a "), ("=1+1", "=1+1"), ("\"", "\"\"\"\"")]
    {
        let file = text(StoreFormat::Csv, &[Record { id: id.to_owned(), ..Record::default() }]);
        assert_eq!(file, format!("{HEADER},,,,{field},,,,,,,,,false\n"));
    }
}

#[test]
fn parquet_begins_and_ends_as_such_and_says_how_long_its_footer_is() {
    for count in [0, 1, 9] {
        let file = marshal(StoreFormat::Parquet, &vec![record(); count]);
        let (rest, end) = file.split_at(file.len() - 4);
        let (rest, length) = rest.split_last_chunk::<4>().unwrap();
        assert!(file.starts_with(b"PAR1") && end == b"PAR1");
        let footer = &rest[rest.len() - usize::try_from(u32::from_le_bytes(*length)).unwrap()..];
        // Version 1, then a list of 15 structures.
        assert!(footer.starts_with(&[0x15, 2, 0x19, 0xfc, 15]));
        assert_eq!(count == 0, rest.len() == footer.len() + 4);
    }
}

#[test]
fn flags_in_parquet_are_bits_in_the_order_of_the_rows() {
    let flags = [true, false, true, true, false, false, false, false, true];
    let records = flags.map(|flag| Record { tls_skip_verify: flag, ..Record::default() });
    let file = marshal(StoreFormat::Parquet, &records);
    let page = [0b0000_1101, 0b0000_0001];
    // The last page: its header ends in the two structures' ends.
    let at = file.windows(4).rposition(|bytes| bytes == [0, 0, page[0], page[1]]);
    assert!(at.is_some());
}

#[test]
fn the_base64_is_as_long_as_it_was_said_to_be() {
    for length in 0..8 {
        let text = columns::Text::Base64(&[7; 8][..length]);
        let mut out = Vec::new();
        text.write(&mut out);
        assert_eq!(out.len(), text.len());
    }
}
