//! Sluice as it is deployed, on a real cluster of three nodes: what a cluster's user and operator rely on.
//!
//! `cargo xtask test cluster` makes the cluster, deploys `deploy/kustomize/overlays/lab` and runs these one after the
//! other, for they share it. Each has a namespace of its own and leaves the cluster as it was.

mod documents;
mod lifecycle;
mod outage;
mod serving;
mod site;
mod sluice;
