//! What the packet path is told, and which listeners its answer concerns.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use gateway_l4::{L4, Refused, SteeringSocket};
use gateway_model::failure::Failure;
use gateway_model::ir::{Ir, Listener};
use gateway_model::l4_plan::L4Plan;
use gateway_model::names::ListenerKey;
use gateway_proxy::Proxy;
use tokio::sync::watch;

use super::PacketPath;

/// Makes a plan live. What another process that is gone has taken is taken back first.
pub async fn apply(l4: &mut L4, proxy: &Proxy, plan: &L4Plan) -> anyhow::Result<()> {
    if l4.is_forsaken() {
        steer(l4, proxy).await?;
    }
    Ok(l4.apply(plan).await?)
}

/// Steers connections to this process.
///
/// # Errors
/// What was live stays live.
pub async fn steer(l4: &mut L4, proxy: &Proxy) -> anyhow::Result<()> {
    let sockets = proxy.steering_sockets().await?;
    let sockets: Vec<_> = sockets.iter().map(socket).collect();
    l4.take_over(&sockets)
        .await
        .context("cannot steer connections to this process")?;
    tracing::info!(sockets = sockets.len(), "connections are steered by BPF");
    Ok(())
}

/// The addresses that the kernel refuses; none in sockets mode.
pub async fn refusals(path: &PacketPath) -> Option<watch::Receiver<Refused>> {
    path.lock().await.as_ref().map(|l4| l4.refused())
}

/// Returns when other addresses are refused than before.
pub async fn changed(refusals: &mut Option<watch::Receiver<Refused>>) {
    if let Some(receiver) = refusals
        && receiver.changed().await.is_ok()
    {
        return;
    }
    // The packet path is left, or there was none.
    *refusals = None;
    std::future::pending::<()>().await;
}

/// Which listeners are not served, or not everywhere, after what the packet path has said.
pub fn failures(ir: &Ir, failed: Option<&str>, refused: &Refused) -> Vec<(ListenerKey, Failure)> {
    // Mostly nothing is wrong, and a change costs nothing for what it does not touch.
    if failed.is_none() && refused.is_empty() {
        return Vec::new();
    }
    let of = |listener: &Listener| match failed {
        Some(error) => Some(Failure::of_all(format!("packet path: {error}"))),
        None => refusal(listener, refused),
    };
    let listeners = ir.listeners.iter();
    listeners
        .filter_map(|(key, listener)| Some((key.clone(), of(listener)?)))
        .collect()
}

/// Why a listener is not served on all of its addresses, if so.
fn refusal(listener: &Listener, refused: &Refused) -> Option<Failure> {
    let mut failure = Failure::default();
    let mut reasons = Vec::new();
    for address in &listener.addresses {
        match refused.get(&address.to_canonical()) {
            Some(reason) => {
                failure.unusable.push(*address);
                reasons.push(format!("packet path: {reason}"));
            }
            None => failure.served.push(*address),
        }
    }
    failure.reason = reasons.join("; ");
    (!reasons.is_empty()).then_some(failure)
}

/// A worker's socket as the packet path wants it.
fn socket(socket: &gateway_proxy::SteeringSocket) -> SteeringSocket<'_> {
    SteeringSocket {
        worker: u32::try_from(socket.worker).unwrap_or(u32::MAX),
        v6: socket.v6,
        fd: socket.fd.as_fd(),
    }
}
