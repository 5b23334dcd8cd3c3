//! Records to a file, as the payload log makes it for an object store (SPEC L8): `records json|csv|parquet`, with a JSON
//! array of records on standard input and the file on standard output.
//!
//! What `tests/logger` reads with other programs. A record has the members of a stored one, but for its URLs, which are
//! plain texts here.

use std::collections::BTreeMap;
use std::error::Error;
use std::{io, mem};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use kserve_agent::config::StoreFormat;
use kserve_agent::logger::marshal::File;
use kserve_agent::logger::record::{Common, Record, Url};
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
    let read = posted.into_iter().map(Read::of).collect::<Result<Vec<Read>, _>>()?;
    let mut file = File::new(format, read.iter().map(Read::record));
    let (expected, length) = (file.length(), io::copy(&mut file, &mut io::stdout().lock())?);
    if length == expected { Ok(()) } else { Err(format!("{length} bytes instead of {expected}").into()) }
}

/// What a record borrows.
struct Read {
    common: Common,
    bytes: Vec<u8>,
    metadata: String,
    occurred_at: Timestamp,
    posted: Posted,
}

impl Read {
    fn of(mut posted: Posted) -> Result<Self, Box<dyn Error>> {
        let common = Common {
            url: url(&posted.url),
            source_uri: url(&posted.source_uri),
            inference_service: mem::take(&mut posted.inference_service),
            namespace: mem::take(&mut posted.namespace),
            component: mem::take(&mut posted.component),
            endpoint: mem::take(&mut posted.endpoint),
            annotations: serde_json::to_string(&posted.annotations)?,
            cert_name: mem::take(&mut posted.cert_name),
            tls_skip_verify: posted.tls_skip_verify,
        };
        Ok(Self {
            common,
            bytes: BASE64_STANDARD.decode(&posted.bytes)?,
            metadata: serde_json::to_string(&posted.metadata)?,
            occurred_at: posted.occurrence_time.parse().or_else(|_| YEAR_ONE.parse())?,
            posted,
        })
    }

    fn record(&self) -> Record<'_> {
        Record {
            common: &self.common,
            bytes: &self.bytes,
            content_type: &self.posted.content_type,
            req_type: &self.posted.req_type,
            id: &self.posted.id,
            metadata: &self.metadata,
            occurred_at: self.occurred_at,
        }
    }
}

/// None, if it is empty.
fn url(text: &str) -> Url {
    if text.is_empty() { Url::default() } else { Url::new(text) }
}

/// What stands for no time in a Go program.
const YEAR_ONE: &str = "0001-01-01T00:00:00Z";
