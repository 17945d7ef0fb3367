//! What users wrote, turned into the [`Ir`] and the statuses they are owed.
//!
//! [`decode`] reads one manifest; [`Objects`] holds what is known; [`Translator`] keeps the
//! [`Translation`] of it in step with a stream of [`Event`]s, at a cost that follows the size of
//! the change; [`translate`] does the same from scratch. Everything here is pure: no I/O, no
//! clock, no randomness, no hidden state. The same [`Objects`] give the same [`Translation`], byte
//! for byte, whatever the order in which they came.
//!
//! A user's mistake is never an error here: it becomes a condition of the object's status, and
//! everything else is still built.

mod gateway_api;
mod index;
mod lately;
mod nearest;
pub mod objects;
mod provision;
mod secret;
mod service;
mod settings;
mod small_set;
pub mod status;
mod translator;

pub use gateway_api::stray_hostnames;
pub use gateway_model::ir::Ir;
pub use nearest::nearest;
pub use objects::{
    DecodeError, Event, Object, Objects, Problem, decode, decode_all, decode_with_unread,
};
pub use provision::{ProvisionKind, ProvisionedPort, ProvisionedService};
pub use service::shortage;
pub use settings::{Publish, Settings, SourceKind};
pub use status::{Applied, Status};
pub use translator::{Translation, Translator, translate};
