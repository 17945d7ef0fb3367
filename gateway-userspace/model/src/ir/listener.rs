//! Where connections arrive and how TLS is terminated there.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::names::{Hostname, ListenerKey, ObjectRef};

/// One listener of one Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its identity.
    pub key: ListenerKey,
    /// The addresses it answers on; empty means every address of the node.
    pub addresses: Vec<IpAddr>,
    /// The TCP port, 1-65535.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Gateway API v1 `Gateway.spec.listeners.hostname`; none means every host.
    pub hostname: Option<Hostname>,
    /// Who may connect.
    pub source_policy: SourcePolicy,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Cleartext HTTP/1.1 and HTTP/2 with prior knowledge.
    Http,
    /// TLS terminated here, HTTP/1.1 or HTTP/2 inside by ALPN.
    Https(TlsTermination),
}

/// How a listener terminates TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTermination {
    /// The certificates to choose from; the first one that the client's signature schemes allow is used.
    pub certificates: Vec<CertificateKey>,
}

/// Which clients a listener serves. `deny` is asked first; then, unless `allow` is empty, a source
/// outside `allow` is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourcePolicy {
    /// Sources that are served; empty means all.
    pub allow: Vec<IpNet>,
    /// Sources that are never served.
    pub deny: Vec<IpNet>,
}

impl SourcePolicy {
    /// Whether this source may connect. A link-local or IPv4-mapped form must be canonical already.
    #[must_use]
    pub fn permits(&self, source: IpAddr) -> bool {
        !self.deny.iter().any(|net| net.contains(&source))
            && (self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&source)))
    }
}

/// A certificate by the object that holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateKey(pub ObjectRef);

/// A certificate chain and its key, already checked: they parse and belong together.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DER certificates, leaf first.
    pub chain: Vec<Arc<[u8]>>,
    /// The private key in PKCS#8, PKCS#1 or SEC1 DER.
    pub private_key: PrivateKey,
    /// The leaf's `notAfter`, seconds since the Unix epoch.
    pub not_after: i64,
    /// DNS names of the leaf, lower case, for `sluice listeners` and warnings; TLS never checks them.
    pub names: Vec<Arc<str>>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A private key by its encoding. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum PrivateKey {
    /// `BEGIN PRIVATE KEY`.
    Pkcs8(Arc<[u8]>),
    /// `BEGIN RSA PRIVATE KEY`.
    Pkcs1(Arc<[u8]>),
    /// `BEGIN EC PRIVATE KEY`.
    Sec1(Arc<[u8]>),
}
