//! What integration tests need: the library as C calls it, a server, and for
//! the model test what there should be and what is to be done.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub mod ambush;
pub mod api;
pub mod family;
pub mod rules;
pub mod server;
pub mod steps;
