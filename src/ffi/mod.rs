//! The C boundary, and nothing else: raw pointers end here. One file per chapter of the header,
//! which cbindgen generates from them: the documentation comments here are the header's.
//!
//! Every function enters through [`entry::enter`], which stops panics, turns errors into result
//! codes, and is where handles and pointers are looked at.

#![allow(unsafe_code, non_camel_case_types, clippy::missing_safety_doc)]

mod aio;
mod attach;
mod attr;
mod cluster;
mod entry;
mod event;
mod fork;
mod form;
mod last;
mod list;
mod log;
mod program;
mod result;
mod snapshot;
mod vdi;
mod wake;
