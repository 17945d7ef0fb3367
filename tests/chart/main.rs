//! The Helm chart as Helm renders it, without a cluster: that it means the same as `deploy/kustomize/base`, what each value
//! does, and that a wrong one is refused.
//!
//! `cargo xtask test chart` builds Helm and runs these. That what is rendered works on a cluster is shown by
//! `cargo xtask conformance`, which installs it.

mod helm;
mod objects;

mod defaults;
mod refusals;
mod values;
