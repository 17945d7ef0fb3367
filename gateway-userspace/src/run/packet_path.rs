//! Starting and leaving the packet path.

use std::os::fd::AsFd as _;

use anyhow::Context as _;
use gateway_l4::{L4, Outcome, SteeringSocket};

use crate::config::Config;
use crate::controller::PacketPath;
use crate::heap;
use crate::telemetry::chain;

/// The packet path, or why there is none.
pub async fn start(config: &Config) -> anyhow::Result<(Option<Box<L4>>, Option<String>)> {
    let outcome = L4::start(config.l4_settings())
        .await
        .context("cannot start the packet path")?;
    // The loader has read every type of the kernel, and kept none.
    heap::give_back();
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
    let Some(l4) = path.lock().await.take() else {
        return;
    };
    match l4.detach().await {
        Ok(()) => tracing::info!("packet path left"),
        Err(error) => tracing::error!(error = chain(&error), "packet path is not clean"),
    }
}

/// A worker's socket as the packet path wants it.
pub fn socket(socket: &gateway_proxy::SteeringSocket) -> SteeringSocket<'_> {
    SteeringSocket {
        worker: u32::try_from(socket.worker).unwrap_or(u32::MAX),
        v6: socket.v6,
        fd: socket.fd.as_fd(),
    }
}
