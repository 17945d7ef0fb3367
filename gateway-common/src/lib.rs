//! The ABI between Sluice's eBPF programs and its userspace: the maps, their keys and values, the
//! control word and the list of reasons. Nothing else may define what stands in a BPF map.
//!
//! Every type is `repr(C)` without implicit padding (`bytemuck::Pod` makes padding a compile error),
//! holds no enum, bool or option, and keeps addresses and ports in network byte order; everything
//! else is in the byte order of the machine. [`LAYOUT`] names the whole: pinned maps of another
//! layout are never reused.
#![no_std]

pub mod control;
pub mod counters;
pub mod frontend;
pub mod maps;
mod pod;
pub mod policy;

pub mod reason;
pub mod trace;

pub use control::Control;
pub use counters::FrontendCounters;
pub use frontend::{Address, FrontendKey, FrontendValue};
pub use policy::PolicyKey;
pub use reason::Reason;
pub use trace::{TraceFilter, TraceRecord};

/// The name of this ABI; raised with any change to what stands in a map or to what it means.
/// It becomes the directory of the pins: `v<hash of this and of every map's definition>`.
pub const LAYOUT: &str = "sluice-l4-2";
