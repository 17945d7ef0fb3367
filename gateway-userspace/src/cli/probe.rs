//! `sluice probe`: what the probes of a Pod run.
//!
//! Two Pods of a node share the state directory while one hands over to the other, and the one that serves has the
//! socket. The other is not ready, whatever is answered there; and it is alive as long as somebody answers.

use super::client::Client;
use crate::admin::encode;
use crate::args::{Probe, ProbeArgs};

/// Succeeds if the answer is yes.
///
/// # Errors
/// With the answer, if it is no, or if nobody answers.
pub fn probe(args: &ProbeArgs) -> anyhow::Result<()> {
    let path = match args.what {
        Probe::Ready => "/healthz/ready",
        Probe::Live => "/healthz/live",
    };
    let pod = args.pod_name.iter().map(|name| ("pod", name.clone()));
    let path = encode(path, &pod.collect::<Vec<_>>());
    let answer = Client::new(args.state_dir.as_deref()).text(&path)?;
    super::write(&answer)
}
