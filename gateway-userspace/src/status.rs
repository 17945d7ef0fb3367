//! The statuses that objects have.
//!
//! The translator says what each status should be and the appliers what is served; [`Owed`] is both
//! together. In files it ends there, and [`Statuses`] is what `sluice status` shows. In a cluster one
//! Sluice writes them to the API server: the one that holds a Lease, when every node has confirmed
//! what a status speaks of.

mod api;
mod fleet;
mod gate;
mod lease;
mod merge;
mod node;
pub mod observed;
mod ours;
mod owed;
mod store;

pub use owed::Owed;
pub use store::{Statuses, manifest};
