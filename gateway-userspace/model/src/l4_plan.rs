//! What the packet path has to know of a snapshot: the frontends and who may reach them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::ir::SourcePolicy;

/// Everything that the packet path applies for one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L4Plan {
    /// Every address and port that the proxy serves, and the sources that may reach it. Listeners
    /// that share a frontend share its policy: a source is let through if any of them permits it,
    /// and the proxy asks again per listener.
    pub frontends: BTreeMap<Frontend, Vec<SourcePolicy>>,
    /// The addresses that Gateways ask for; the node has to accept packets for them.
    pub addresses: BTreeSet<IpAddr>,
}

/// One address, port and protocol that connections are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// None means every address of the node.
    pub address: Option<IpAddr>,
    /// 1-65535.
    pub port: u16,
    /// The transport.
    pub transport: Transport,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}
