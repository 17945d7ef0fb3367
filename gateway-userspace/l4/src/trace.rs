//! The packet trace: verdicts of single packets, for one peer or port, while somebody listens.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Which packets are traced; both unset means all, up to 1000 per second and CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceFilter {
    /// The remote address.
    pub peer: Option<IpAddr>,
    /// The local port.
    pub port: Option<u16>,
}

/// The lines of a running trace, one per packet and program. The trace ends when this is dropped, or
/// when another one is started.
#[derive(Debug)]
pub struct TraceLines {
    lines: mpsc::Receiver<String>,
}

impl TraceLines {
    /// The next line; none when another trace took over or the packet path was taken down.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}
