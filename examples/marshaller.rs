//! The log marshaller service alone (SPEC L9): `cargo run --example marshaller -- csv`. It says where it listens and
//! serves until it is killed.

#![allow(clippy::print_stdout, reason = "its one line is for whoever started it")]

use std::error::Error;

use kserve_agent::config::StoreFormat;
use kserve_agent::logger::marshaller::Service;

fn main() -> Result<(), Box<dyn Error>> {
    let format = match std::env::args().nth(1).as_deref() {
        Some("json") => StoreFormat::Json,
        Some("csv") => StoreFormat::Csv,
        Some("parquet") => StoreFormat::Parquet,
        _ => return Err("usage: marshaller json|csv|parquet".into()),
    };
    let (service, _stop) = Service::bind(0, format)?;
    println!("http://{}/marshal", service.address()?);
    service.run()?;
    Ok(())
}
