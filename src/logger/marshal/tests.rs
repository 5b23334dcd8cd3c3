//! Files as they are; that other programs read them is shown in `tests/logger`.

use std::iter;

use super::*;
use crate::logger::record::{Common, Url};

const HEADER: &str = "url,bytes,contentType,reqType,id,sourceUri,inferenceService,namespace,component,endpoint,metadata,\
                      annotations,certName,tlsSkipVerify\n";

fn empty(common: &Common) -> Record<'_> {
    let occurred_at = "0001-01-01T00:00:00Z".parse().unwrap();
    Record { common, bytes: &[], content_type: "", req_type: "", id: "", metadata: "{}", occurred_at }
}

fn no_common() -> Common {
    Common { annotations: "{}".to_owned(), ..Common::default() }
}

fn common() -> Common {
    Common {
        url: Url::new("s3://bucket/prefix"),
        source_uri: Url::new("http://localhost:9081/"),
        annotations: r#"{"k":"v"}"#.to_owned(),
        tls_skip_verify: true,
        ..Common::default()
    }
}

fn record(common: &Common) -> Record<'_> {
    Record {
        common,
        bytes: b"\xff\x00\n",
        content_type: "text/plain; a=\"b, c\"",
        req_type: "org.kubeflow.serving.inference.request",
        id: "i",
        metadata: r#"{"X-A":["1"]}"#,
        occurred_at: "2026-01-02T03:04:05.6Z".parse().unwrap(),
    }
}

fn file(format: StoreFormat, records: &[Record<'_>]) -> Vec<u8> {
    let mut file = File::new(format, records.iter().copied());
    let length = file.length();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, length, "it is as long as it was said to be");
    bytes
}

fn text(format: StoreFormat, records: &[Record<'_>]) -> String {
    String::from_utf8(file(format, records)).unwrap()
}

#[test]
fn json_is_an_object_for_one_record_and_a_list_for_others() {
    let common = common();
    let record = record(&common);
    let one = text(StoreFormat::Json, &[record]);
    assert_eq!(text(StoreFormat::Json, &[]), "[]");
    assert!(one.starts_with('{') && one.ends_with('}'));
    assert_eq!(text(StoreFormat::Json, &[record, record]), format!("[{one},{one}]"));
    let mut array = String::new();
    File::array(iter::once(record)).read_to_string(&mut array).unwrap();
    assert_eq!(array, format!("[{one}]"), "a marshaller gets an array");
}

#[test]
fn the_json_form_is_that_of_the_go_agent() {
    let common = Common {
        url: Url::new("http://a:1/x?y"),
        source_uri: Url::new("http://localhost:9081/"),
        inference_service: "iris".to_owned(),
        namespace: "ns".to_owned(),
        component: "predictor".to_owned(),
        endpoint: "default".to_owned(),
        annotations: r#"{"k":"v=\"\u0001é"}"#.to_owned(),
        cert_name: "service-ca.crt".to_owned(),
        tls_skip_verify: true,
    };
    let metadata = r#"{"X-A":[""],"X-B":["1","2"]}"#;
    let full = Record { bytes: b"\x00\xff{}", content_type: "a\"\n/b", id: "1-2", metadata, ..record(&common) };
    let expected = concat!(
        r#"{"url":{"Scheme":"http","Opaque":"","User":null,"Host":"a:1","Path":"/x","Fragment":"","RawQuery":"y","#,
        r#""RawPath":"","RawFragment":"","ForceQuery":false,"OmitHost":false},"bytes":"AP97fQ==","#,
        r#""contentType":"a\"\n/b","reqType":"org.kubeflow.serving.inference.request","id":"1-2","#,
        r#""sourceUri":{"Scheme":"http","Opaque":"","User":null,"Host":"localhost:9081","Path":"/","Fragment":"","#,
        r#""RawQuery":"","RawPath":"","RawFragment":"","ForceQuery":false,"OmitHost":false},"#,
        r#""inferenceService":"iris","namespace":"ns","component":"predictor","endpoint":"default","#,
        r#""metadata":{"X-A":[""],"X-B":["1","2"]},"annotations":{"k":"v=\"\u0001é"},"#,
        r#""certName":"service-ca.crt","tlsSkipVerify":true,"occurrenceTime":"2026-01-02T03:04:05.6Z"}"#,
    );
    assert_eq!(text(StoreFormat::Json, &[full]), expected);
}

#[test]
fn empty_members_are_left_out_of_json_but_for_the_time() {
    let json = r#"{"occurrenceTime":"0001-01-01T00:00:00Z"}"#;
    let none = no_common();
    assert_eq!(text(StoreFormat::Json, &[empty(&none)]), json);
    let only_bytes = Record { bytes: b"a", ..empty(&none) };
    assert_eq!(text(StoreFormat::Json, &[only_bytes]), json.replacen('{', r#"{"bytes":"YQ==","#, 1));
}

#[test]
fn a_file_is_the_same_however_it_is_read() {
    let common = common();
    // A payload that is coded in several parts, the last of which has padding.
    let payload: Vec<u8> = (0..=255).cycle().take(2 * CODED_BYTES + 1).collect();
    let records = [record(&common), Record { bytes: &payload, ..record(&common) }, empty(&common)];
    for format in [StoreFormat::Json, StoreFormat::Csv, StoreFormat::Parquet] {
        let whole = file(format, &records);
        let coded = STANDARD.encode(&payload);
        assert!(whole.windows(coded.len()).any(|part| part == coded.as_bytes()));
        for size in [1, 7, 1000] {
            let mut file = File::new(format, records.iter().copied());
            let mut buffer = vec![0; size];
            let mut parts = Vec::new();
            loop {
                match file.read(&mut buffer).unwrap() {
                    0 => break,
                    count => parts.extend_from_slice(&buffer[..count]),
                }
            }
            assert!(parts == whole, "{format:?} by {size}");
        }
    }
}

#[test]
fn csv_has_a_header_row_and_quotes_what_needs_it() {
    let row = "s3://bucket/prefix,/wAK,\"text/plain; a=\"\"b, c\"\"\",org.kubeflow.serving.inference.request,i,\
               http://localhost:9081/,,,,,\"{\"\"X-A\"\":[\"\"1\"\"]}\",\"{\"\"k\"\":\"\"v\"\"}\",,true\n";
    assert_eq!(text(StoreFormat::Csv, &[]), HEADER);
    let (common, none) = (common(), no_common());
    let records = [record(&common), empty(&none)];
    assert_eq!(text(StoreFormat::Csv, &records), format!("{HEADER}{row},,,,,,,,,,,,,false\n"));
}

#[test]
fn csv_quotes_line_ends_and_leaves_spaces() {
    for (id, field) in
        [("a\nb", "\"a\nb\""), ("a\rb", "\"a\rb\""), (" a ", " a "), ("=1+1", "=1+1"), ("\"", "\"\"\"\"")]
    {
        let file = text(StoreFormat::Csv, &[Record { id, ..empty(&no_common()) }]);
        assert_eq!(file, format!("{HEADER},,,,{field},,,,,,,,,false\n"));
    }
}

#[test]
fn parquet_begins_and_ends_as_such_and_says_how_long_its_footer_is() {
    for count in [0, 1, 9] {
        let common = common();
        let file = file(StoreFormat::Parquet, &vec![record(&common); count]);
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
    let commons = flags.map(|flag| Common { tls_skip_verify: flag, ..no_common() });
    let file = file(StoreFormat::Parquet, &commons.each_ref().map(empty));
    let page = [0b0000_1101, 0b0000_0001];
    // The last page: its header ends in the two structures' ends.
    let at = file.windows(4).rposition(|bytes| bytes == [0, 0, page[0], page[1]]);
    assert!(at.is_some());
}
