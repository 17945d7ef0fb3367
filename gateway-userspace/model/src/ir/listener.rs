//! Where connections arrive and how TLS is terminated there.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::l4_plan::Transport;
use crate::names::{Hostname, ListenerKey, ObjectRef};

/// One listener of one Gateway, declared by the Gateway itself or by a ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its identity.
    pub key: ListenerKey,
    /// The Gateway that it belongs to; the declaring object unless that is a ListenerSet.
    pub gateway: ObjectRef,
    /// The addresses it answers on; empty means every address of the node.
    pub addresses: Vec<IpAddr>,
    /// The port, 1-65535: of UDP if that is the protocol, else of TCP.
    pub port: u16,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Gateway API v1 `Gateway.spec.listeners.hostname`; none means every host.
    pub hostname: Option<Hostname>,
    /// Who may connect.
    pub source_policy: SourcePolicy,
    /// Gateway API v1 `Gateway.spec.tls.backend.clientCertificateRef`: what Sluice shows to backends
    /// that it reaches over TLS for requests of this listener.
    pub backend_client_certificate: Option<CertificateKey>,
}

impl Listener {
    /// Its name within its Gateway, for logs and metrics: its own if the Gateway declares it, else
    /// with the ListenerSet in front, as in `shop/web#https`.
    #[must_use]
    pub fn label(&self) -> Arc<str> {
        if self.key.gateway == self.gateway {
            Arc::clone(&self.key.section)
        } else {
            self.key.to_string().into()
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Cleartext HTTP/1.1 and HTTP/2 with prior knowledge.
    Http,
    /// TLS terminated here, HTTP/1.1 or HTTP/2 inside by ALPN.
    Https(TlsTermination),
    /// TLS terminated here, and what is inside goes to a backend as it is (Gateway API protocol
    /// `TLS`, mode `Terminate`).
    TlsTerminate(TlsTermination),
    /// TLS that goes through untouched, by the name in the ClientHello (protocol `TLS`, mode `Passthrough`).
    TlsPassthrough,
    /// Bytes over TCP.
    Tcp,
    /// Datagrams over UDP.
    Udp,
}

impl ListenerProtocol {
    /// How TLS is terminated, where it is.
    #[must_use]
    pub fn termination(&self) -> Option<&TlsTermination> {
        match self {
            Self::Https(termination) | Self::TlsTerminate(termination) => Some(termination),
            Self::Http | Self::TlsPassthrough | Self::Tcp | Self::Udp => None,
        }
    }

    /// What connections to its port begin with. Listeners of one kind can share an address and port.
    #[must_use]
    pub fn port_kind(&self) -> PortKind {
        match self {
            Self::Http => PortKind::Http,
            Self::Https(_) | Self::TlsTerminate(_) | Self::TlsPassthrough => PortKind::Tls,
            Self::Tcp => PortKind::Tcp,
            Self::Udp => PortKind::Udp,
        }
    }
}

/// What the connections to an address and port have in common, whichever listener takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    /// HTTP in clear text; the listener is chosen by `Host`.
    Http,
    /// A ClientHello, whose server name chooses the listener.
    Tls,
    /// Bytes; there is one listener.
    Tcp,
    /// Datagrams; there is one listener.
    Udp,
}

impl PortKind {
    /// The transport.
    #[must_use]
    pub fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tls | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}

/// How a listener terminates TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTermination {
    /// The certificates to choose from; the first one that the client's signature schemes allow is used.
    pub certificates: Vec<CertificateKey>,
    /// What is asked of clients; none means that no certificate is asked for.
    pub client_validation: Option<Arc<ClientValidation>>,
}

/// Gateway API v1 `Gateway.spec.tls.frontend.{default,perPort[].tls}.validation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientValidation {
    /// The authorities that may have signed a client's certificate. Empty means that no reference
    /// resolved, and then every handshake is refused.
    pub authorities: TrustAnchors,
    /// What becomes of a client without a valid certificate.
    pub mode: ClientValidationMode,
}

/// Gateway API v1 `FrontendValidationModeType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientValidationMode {
    /// The handshake fails.
    AllowValidOnly,
    /// The handshake succeeds with whatever the client shows, or with nothing.
    AllowInsecureFallback,
}

/// DER certificates of authorities, in the order of the references and of the PEM in each.
pub type TrustAnchors = Vec<Arc<[u8]>>;

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
    /// The leaf's `notBefore`, seconds since the Unix epoch.
    pub not_before: i64,
    /// The leaf's `notAfter`, seconds since the Unix epoch.
    pub not_after: i64,
    /// DNS names of the leaf, lower case. Of several certificates of a listener they choose the one that a client
    /// gets; whether they are those that are served is not checked.
    pub names: Vec<Arc<str>>,
    /// Whether the names are common names, for there is no `subjectAltName` with a DNS name. RFC 9525 §2: "the
    /// Common Name RDN MUST NOT be used to identify a service".
    pub has_common_name_only: bool,
}

impl Certificate {
    /// How well its names fit a host.
    #[must_use]
    pub fn fit(&self, host: &str) -> Fit {
        let fits = self.names.iter().map(|name| Fit::of(name, host));
        fits.max().unwrap_or(Fit::None)
    }
}

/// How well a name that a certificate presents fits a host, better ones last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It does not.
    None,
    /// By a wildcard.
    Wildcard,
    /// It is the host's.
    Exact,
}

impl Fit {
    /// Of one name, in whatever case. RFC 9525 §6.3: "a wildcard in a presented identifier can only match one label
    /// in a reference identifier", and it is the whole first label.
    #[must_use]
    pub fn of(presented: &str, host: &str) -> Self {
        if presented.eq_ignore_ascii_case(host) {
            return Self::Exact;
        }
        let parent = presented.strip_prefix("*.");
        match (parent, host.split_once('.')) {
            (Some(parent), Some((label, rest)))
                if !label.is_empty() && rest.eq_ignore_ascii_case(parent) =>
            {
                Self::Wildcard
            }
            _ => Self::None,
        }
    }
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
