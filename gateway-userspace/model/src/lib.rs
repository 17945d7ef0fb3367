//! Sluice's pure core: what configuration means, without knowing where it came from or who serves it.
//!
//! Holds the names, the intermediate representation that every dialect is translated to
//! ([`ir`]), the view of a request that matching works on ([`head`]), and the immutable compiled
//! form that the proxy and the packet path apply ([`snapshot`]). Knows no Kubernetes, no socket,
//! no clock and no I/O.

pub mod balance;
mod compile;
pub mod explain;
pub mod failure;
pub mod head;
pub mod ir;
pub mod l4_plan;
pub mod names;
pub mod pattern;
mod route_index;
pub mod snapshot;
#[cfg(test)]
mod testing;
