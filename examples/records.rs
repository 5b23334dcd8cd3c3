//! Records to a file, as the payload log makes it for an object store (SPEC L8): `records json|csv|parquet`, with a JSON
//! array of records on standard input and the file on standard output.
//!
//! What `tests/logger` reads with other programs. A record has the members of a stored one, but for its URLs, which are
//! plain texts here.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kserve_agent::config::StoreFormat;
use kserve_agent::logger::marshal::marshal;
use kserve_agent::logger::record::{Record, Rfc3339, Url};
use serde::Deserialize;

/// A record as a test writes it; what is missing is empty.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Posted {
    url: String,
    bytes: String,
    content_type: String,
    req_type: String,
    id: String,
    source_uri: String,
    inference_service: String,
    namespace: String,
    component: String,
    endpoint: String,
    metadata: BTreeMap<String, Vec<String>>,
    annotations: BTreeMap<String, String>,
    cert_name: String,
    tls_skip_verify: bool,
    occurrence_time: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let format = match std::env::args().nth(1).as_deref() {
        Some("json") => StoreFormat::Json,
        Some("csv") => StoreFormat::Csv,
        Some("parquet") => StoreFormat::Parquet,
        _ => return Err("usage: records json|csv|parquet".into()),
    };
    let posted: Vec<Posted> = serde_json::from_reader(io::stdin().lock())?;
    let records = posted.into_iter().map(record).collect::<Result<Vec<Record>, _>>()?;
    io::stdout().write_all(&marshal(format, &records))?;
    Ok(())
}

fn record(posted: Posted) -> Result<Record, Box<dyn Error>> {
    Ok(Record {
        url: Url::new(&posted.url),
        bytes: BASE64_STANDARD.decode(posted.bytes)?,
        content_type: posted.content_type,
        req_type: posted.req_type,
        id: posted.id,
        source_uri: Url::new(&posted.source_uri),
        inference_service: posted.inference_service,
        namespace: posted.namespace,
        component: posted.component,
        endpoint: posted.endpoint,
        metadata: posted.metadata,
        annotations: posted.annotations,
        cert_name: posted.cert_name,
        tls_skip_verify: posted.tls_skip_verify,
        occurrence_time: Rfc3339::parse(&posted.occurrence_time).unwrap_or_default(),
    })
}
