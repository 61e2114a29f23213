//! What integration tests need of the world: the library, called as C calls it, and a server.

pub mod api;
pub mod server;
