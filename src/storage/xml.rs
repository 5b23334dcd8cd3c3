//! The XML of S3, STS and Azure, read into the shape that is expected of it.

use instant_xml::FromXmlOwned;

use super::failure::{Failure, readable};

/// Reads a document by `read`, if all of it has come: the parser takes what breaks off after any element for a whole
/// document, and a listing that is cut so would just seem to have fewer objects.
pub(super) fn read<T>(
    document: &str,
    root: &str,
    read: impl FnOnce(&str) -> Result<T, instant_xml::Error>,
) -> Result<T, Failure> {
    let is_whole = document.trim_end().strip_suffix(&format!("</{root}>")).is_some();
    if !is_whole {
        return Err(Failure::transient(format!("an answer that is not a whole {root}")));
    }
    read(document)
        .map_err(|error| Failure::transient(format!("{root} can't be read: {}", readable(&error.to_string()))))
}

/// The same for documents of our own types.
pub(super) fn parse<T: FromXmlOwned>(document: &str, root: &str) -> Result<T, Failure> {
    read(document, root, |text| instant_xml::from_str::<T>(text))
}
