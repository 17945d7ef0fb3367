//! Answers as data: what the CLI prints and the admin server sends, computed from one
//! [`crate::world::World`] and nothing else. The same types are read back by the CLI.

pub mod explain;
pub mod listeners;
pub mod process;
pub mod routes;
pub mod snapshot;
pub mod warnings;
