//! Where requests go: the addresses behind one Service port.

use std::net::SocketAddr;
use std::sync::Arc;

use super::TrustAnchors;
use crate::names::{Hostname, UpstreamKey};

/// One backend's endpoints and how to speak to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its identity.
    pub key: UpstreamKey,
    /// What it speaks, inside TLS if there is TLS.
    pub protocol: UpstreamProtocol,
    /// How TLS is spoken with it; none means clear text.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Where it is.
    pub endpoints: Endpoints,
}

/// What an upstream speaks; Kubernetes `Service.spec.ports.appProtocol` and the kind of the route choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, WebSocket upgrades included.
    Http1,
    /// HTTP/2: with prior knowledge in clear text (`kubernetes.io/h2c`, every GRPCRoute), by ALPN over TLS.
    Http2,
    /// HTTP/2 or HTTP/1.1 as ALPN decides, for HTTP over TLS. What needs an upgrade asks for HTTP/1.1 alone.
    Negotiated,
    /// Bytes of a TCP connection, or datagrams: see [`crate::names::UpstreamUse`].
    Opaque,
}

/// How TLS is spoken with an upstream: Gateway API v1 `BackendTLSPolicy.spec.validation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// `hostname`: the server name in the ClientHello, and, unless `subject_alt_names` has entries,
    /// the name that the certificate must be valid for.
    pub server_name: Arc<str>,
    /// `subjectAltNames`: the certificate must hold one of them; `server_name` alone does not count then.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// Who may have signed the certificate.
    pub authorities: Authorities,
}

/// Gateway API v1 `BackendTLSPolicy.spec.validation.subjectAltNames`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAltName {
    /// A DNS name, exact or with a wildcard as its whole first label.
    Hostname(Hostname),
    /// A URI, byte for byte.
    Uri(Arc<str>),
}

/// Whose signature counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// `wellKnownCACertificates: System`.
    System,
    /// `caCertificateRefs`. Empty means that no reference resolved: every request is answered with 5xx.
    These(TrustAnchors),
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
