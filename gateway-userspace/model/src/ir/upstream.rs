//! Where requests go: the addresses behind one Service port.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::names::UpstreamKey;

/// One backend's endpoints and how to speak to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its identity.
    pub key: UpstreamKey,
    /// What it speaks.
    pub protocol: UpstreamProtocol,
    /// Where it is.
    pub endpoints: Endpoints,
}

/// What an upstream speaks; Kubernetes `Service.spec.ports.appProtocol` chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 in clear text, WebSocket upgrades included.
    Http1,
    /// HTTP/2 with prior knowledge (`kubernetes.io/h2c`).
    H2c,
}

/// The addresses of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Known addresses, sorted; empty means that every request is answered with 503.
    Addresses(Vec<Endpoint>),
    /// A DNS name that the proxy resolves itself (`ExternalName`).
    Dns {
        /// The name.
        host: Arc<str>,
        /// The port to dial.
        port: u16,
    },
}

/// One address that takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
}
