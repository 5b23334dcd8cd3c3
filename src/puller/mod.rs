//! The model puller: disk and model server agree with the list of models (SPEC M).
//!
//! | module | what |
//! |---|---|
//! | [`source`] | where a model comes from |
//! | [`fetch`] | its way from an object store into a folder |

#![allow(dead_code, reason = "on its way")]

mod fetch;
pub mod source;
