//! The model puller: disk and model server agree with the list of models (SPEC M).
//!
//! | module | what |
//! |---|---|
//! | `source` | where a model comes from |
//! | `web` | a file or an archive from a web server |
//! | `hub` | the Hugging Face Hub |
//! | `local` | a volume of the pod |
//! | `archive` | models that come as zip, tar or tar.gz |
//! | `scratch` | the folder that a model comes into |

#![allow(dead_code, reason = "on its way")]

mod archive;
mod hub;
mod local;
mod scratch;
pub(crate) mod source;
mod web;

use std::path::Path;

use self::source::{Progress, Source, Stop};
use crate::storage::Failure;

/// Fetches a model once, for a program without the rest of the agent (`examples/pull.rs`): what has come, and what was to
/// come if that is known, in bytes, also after a failure.
///
/// # Errors
/// When the URI names no source, or not all of the model came.
pub fn pull(uri: &str, folder: &Path, env: &dyn Fn(&str) -> Option<String>) -> ((u64, u64), Result<(), Failure>) {
    let progress = Progress::default();
    let (_end, stop) = crossbeam_channel::bounded(0);
    let source = Source::of(uri, env).map_err(Failure::refused);
    let result = source.and_then(|source| source.fetch(folder, &progress, &Stop::new(stop)));
    (progress.read(), result)
}
