//! The shipped binary and a real API server, with nothing of a cluster around it. Needs root, and
//! the programs that `cargo xtask cluster` builds.

mod bed;
mod following;
mod outage;
mod statuses;
