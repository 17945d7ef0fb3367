//! The shipped binary in network namespaces: real sockets, real packets, real reloads. Needs root.
//!
//! Each test makes a world of its own, so that they can run side by side.

mod addresses;
mod cli;
mod clients;
mod descriptors;
mod documents;
mod edge;
mod harness;
mod hostile;
mod idle;
mod limits;
mod listeners;
mod packet_path;
mod reload;
mod routing;
mod streams;
mod tls;
mod unprivileged;
mod upgrade;
