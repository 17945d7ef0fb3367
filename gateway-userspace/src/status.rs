//! The statuses that objects have.
//!
//! The translator says what each status should be and the appliers what is served; [`Owed`] is both
//! together. In files it ends there, and [`Statuses`] is what `sluice status` shows. In a cluster one
//! Sluice writes them to the API server: the one that holds a Lease, when every node has confirmed
//! what a status speaks of.

mod api;
mod cluster;
mod elector;
mod events;
mod fleet;
mod follow;
mod gate;
mod job;
mod keeper;
mod lease;
mod merge;
mod node;
mod notice;
pub mod observed;
mod ours;
mod owed;
mod provision;
mod queue;
mod reporter;
mod stats;
mod store;
mod writer;

pub use cluster::{Clerks, Setup};
pub use lease::Terms;
pub use node::Identity;
pub use owed::Owed;
pub use stats::{Count, Stats};
pub use store::{Statuses, manifest};
