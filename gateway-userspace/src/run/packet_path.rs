//! Starting, taking over and leaving the packet path.

use std::time::Duration;

use anyhow::Context as _;
use gateway_l4::{L4, Outcome};
use gateway_proxy::Proxy;

use super::state_dir::StateDir;
use crate::config::Config;
use crate::controller::{PacketPath, steer};
use crate::telemetry::chain;

/// How often it is looked whether a successor that is gone has let go of the packet path, and how long lies between:
/// its connections may be closed a moment before its locks.
const LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(10);

/// The packet path, or why there is none.
pub async fn start(
    config: &Config,
    state: &StateDir,
) -> anyhow::Result<(Option<Box<L4>>, Option<String>)> {
    let outcome = L4::start(config.l4_settings(state.lineage()))
        .await
        .context("cannot start the packet path")?;
    // The loader has read every type of the kernel, and kept none.
    gateway_heap::give_back();
    match outcome {
        Outcome::Bpf(l4) => {
            for attachment in &l4.status()?.attachments {
                tracing::info!(
                    interface = attachment.interface,
                    hook = ?attachment.hook,
                    note = attachment.note,
                    "packet path attached"
                );
            }
            Ok((Some(l4), None))
        }
        Outcome::Unavailable { reason } => {
            tracing::info!(reason, "serving on ordinary sockets");
            Ok((None, Some(reason)))
        }
    }
}

/// Leaves the packet path; a successor that has taken it over keeps it.
pub async fn leave(path: &PacketPath) {
    if let Some(l4) = path.lock().await.take() {
        tell(l4.detach().await);
    }
}

/// Leaves the packet path to a successor that has none. Its sockets are bound to addresses that are the node's by
/// local routes alone, perhaps; those stay.
pub async fn leave_for_sockets(path: &PacketPath) {
    let Some(l4) = path.lock().await.take() else {
        return;
    };
    let routed = l4.status().map(|status| status.local_routes);
    tell(l4.detach_for_sockets().await);
    if let Ok(addresses) = routed
        && !addresses.is_empty()
    {
        tracing::warn!(
            ?addresses,
            "no interface has these addresses; their local routes stay for the successor, until `sluice l4 clean`"
        );
    }
}

fn tell(left: Result<(), gateway_l4::L4Error>) {
    match left {
        Ok(()) => tracing::info!("packet path left"),
        Err(error) => tracing::error!(error = chain(&error), "packet path is not clean"),
    }
}

/// Steers connections to this process. False without a packet path.
///
/// # Errors
/// What was live stays live.
pub async fn take_over(path: &PacketPath, proxy: &Proxy) -> anyhow::Result<bool> {
    match path.lock().await.as_mut() {
        Some(l4) => steer(l4, proxy).await.map(|()| true),
        None => Ok(false),
    }
}

/// Steers connections to this process again, if one that is gone had taken them.
///
/// # Errors
/// They go to another process, or nowhere.
pub async fn resume(path: &PacketPath, proxy: &Proxy) -> anyhow::Result<()> {
    for _ in 0..LOOKS {
        match path.lock().await.as_mut() {
            None => return Ok(()),
            Some(l4) if l4.is_live() => return Ok(()),
            Some(l4) if l4.is_forsaken() => return steer(l4, proxy).await,
            Some(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
    anyhow::bail!("another process steers connections; stop it, or restart this one")
}
