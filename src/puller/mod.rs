//! The model puller: disk and model server agree with the list of models (SPEC M).
//!
//! | module | what |
//! |---|---|
//! | [`source`] | where a model comes from |

#![allow(dead_code, reason = "on its way")]

pub(crate) mod source;
