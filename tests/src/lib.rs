//! What Sluice's kernel-facing tests, demo and benchmarks share: worlds of network namespaces,
//! backends, clients, load, and the shipped binary as a process.
//!
//! Nothing here knows what Sluice ought to do; that stands in the tests. Everything that is made
//! (namespaces, processes, directories, pins) goes away when its value is dropped, on a panic, on
//! Ctrl-C, and at the next start if the process that made it was killed.

pub mod api;
pub mod backend;
pub mod bed;
pub mod bpf;
pub mod certs;
pub mod cleanup;
pub mod cluster;
pub mod control_plane;
pub mod frame;
pub mod h2frames;
pub mod http1;
pub mod load;
pub mod manifests;
pub mod netns;
pub mod numbered;
pub mod process;
pub mod raw;
pub mod sluice;
pub mod sys;
pub mod tools;
pub mod wait;
pub mod websocket;
pub mod world;

pub use backend::Backend;
pub use certs::Authority;
pub use cluster::Cluster;
pub use load::Load;
pub use netns::Netns;
pub use sluice::Sluice;
pub use wait::until;
pub use world::World;
