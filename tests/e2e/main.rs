//! The shipped binary in network namespaces: real sockets, real packets, real reloads. Needs root.
//!
//! Each test makes a world of its own, so that they can run side by side.

mod harness;
