//! The names of things: hostnames, objects, listeners, rules, upstreams, revisions.
//!
//! Every name is cheap to clone (`Arc<str>` inside) and ordered, so that it can be a key.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The number of a published configuration. Starts at 1 and only grows while a process lives;
/// `generation` is Kubernetes' word and means something else.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kind of a configuration object, spelled as its users spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectKind {
    /// Gateway API `GatewayClass`.
    GatewayClass,
    /// Gateway API `Gateway`.
    Gateway,
    /// Gateway API `HTTPRoute`.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// Gateway API `GRPCRoute`.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// Gateway API `TLSRoute`.
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    /// Gateway API `TCPRoute`.
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    /// Gateway API `UDPRoute`.
    #[serde(rename = "UDPRoute")]
    UdpRoute,
    /// Gateway API `ListenerSet`.
    ListenerSet,
    /// Gateway API `BackendTLSPolicy`.
    #[serde(rename = "BackendTLSPolicy")]
    BackendTlsPolicy,
    /// Gateway API `ReferenceGrant`.
    ReferenceGrant,
    /// Kubernetes core `Service`.
    Service,
    /// Kubernetes discovery `EndpointSlice`.
    EndpointSlice,
    /// Kubernetes core `Secret`.
    Secret,
    /// Kubernetes core `ConfigMap`.
    ConfigMap,
    /// Kubernetes core `Namespace`.
    Namespace,
    /// Kubernetes core `Node`.
    Node,
}

impl ObjectKind {
    /// The `kind` field of such an object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::ListenerSet => "ListenerSet",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
        }
    }
}

impl ObjectKind {
    /// The `apiVersion` that manifests of this kind are written with: the API's storage version.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::GatewayClass
            | Self::Gateway
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::TlsRoute
            | Self::TcpRoute
            | Self::UdpRoute
            | Self::ListenerSet
            | Self::BackendTlsPolicy
            | Self::ReferenceGrant => "gateway.networking.k8s.io/v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::Service | Self::Secret | Self::ConfigMap | Self::Namespace | Self::Node => "v1",
        }
    }

    /// Whether such an object is a route.
    #[must_use]
    pub fn is_route(self) -> bool {
        matches!(
            self,
            Self::HttpRoute | Self::GrpcRoute | Self::TlsRoute | Self::TcpRoute | Self::UdpRoute
        )
    }

    /// Whether such a route hands on whole connections, or datagrams.
    #[must_use]
    pub fn is_stream_route(self) -> bool {
        matches!(self, Self::TlsRoute | Self::TcpRoute | Self::UdpRoute)
    }

    /// Whether such objects live in a namespace.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::GatewayClass | Self::Namespace | Self::Node)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One configuration object: its kind, namespace and name, which are read as fields. Displays as
/// `HTTPRoute shop/web`.
///
/// An object's name stands in a dozen places at least, so this is a pointer: whoever has one passes
/// on a clone, and does not build another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectRef(Arc<ObjectName>);

/// What an [`ObjectRef`] points to.
#[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// What kind of object.
    pub kind: ObjectKind,
    /// `metadata.namespace`; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// By kind, then "in alphabetical order by "{namespace}/{name}"" (Gateway API v1), which ends ties of age.
/// That is not the order of namespaces and then names: a hyphen comes before the slash, so that
/// `a-b/z` comes before `a/z`. Those of one namespace stand together all the same.
impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        let namespaces = || with_slash(self.namespace.as_bytes(), other.namespace.as_bytes());
        self.kind
            .cmp(&other.kind)
            .then_with(namespaces)
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of two namespaces that a slash follows. Equal ones alone are equal, whatever they hold.
fn with_slash(one: &[u8], other: &[u8]) -> Ordering {
    let common = one.len().min(other.len());
    one[..common]
        .cmp(&other[..common])
        .then_with(|| match (one.get(common), other.get(common)) {
            (Some(next), None) => next.cmp(&b'/').then(Ordering::Greater),
            (None, Some(next)) => b'/'.cmp(next).then(Ordering::Less),
            _ => Ordering::Equal,
        })
}

impl Deref for ObjectRef {
    type Target = ObjectName;

    fn deref(&self) -> &ObjectName {
        &self.0
    }
}

impl ObjectRef {
    /// Names an object; pass an empty namespace for cluster-scoped kinds.
    #[must_use]
    pub fn new(kind: ObjectKind, namespace: &str, name: &str) -> Self {
        Self::of(kind, namespace.into(), name.into())
    }

    /// Names an object by texts that stand elsewhere too.
    #[must_use]
    pub fn of(kind: ObjectKind, namespace: Arc<str>, name: Arc<str>) -> Self {
        Self(Arc::new(ObjectName {
            kind,
            namespace,
            name,
        }))
    }
}

impl ObjectRef {
    /// How a route is called in metrics, logs and tables: `shop/web` if it is an HTTPRoute, and
    /// with the kind in front, `GRPCRoute shop/web`, if not, for routes of two kinds can share a name.
    #[must_use]
    pub fn route_label(&self) -> String {
        match self.kind {
            ObjectKind::HttpRoute => format!("{}/{}", self.namespace, self.name),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// One listener of one Gateway. Displays as `infra/web#https`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerKey {
    /// The object that declares the listener.
    pub gateway: ObjectRef,
    /// Gateway API v1 `Gateway.spec.listeners.name`.
    pub section: Arc<str>,
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}#{}",
            self.gateway.namespace, self.gateway.name, self.section
        )
    }
}

/// A backend as an address list: one Service port, and how routes speak to it. Displays as
/// `shop/cart:8080`, with the use behind it unless that is HTTP: `shop/cart:8080/grpc`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UpstreamKey {
    /// The object that stands for the backend.
    pub backend: ObjectRef,
    /// The port a route named, 1-65535.
    pub port: u16,
    /// What for.
    pub usage: UpstreamUse,
}

impl UpstreamKey {
    /// A backend of HTTP requests.
    #[must_use]
    pub fn http(backend: ObjectRef, port: u16) -> Self {
        Self {
            backend,
            port,
            usage: UpstreamUse::Http,
        }
    }
}

/// How a route speaks to a backend. One Service port can be an upstream for several uses, for they
/// differ in protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamUse {
    /// HTTPRoute, as the port's `appProtocol` says.
    #[default]
    Http,
    /// GRPCRoute: HTTP/2 always.
    Grpc,
    /// TCPRoute, and TLSRoute where TLS is terminated: bytes, over TLS if a BackendTLSPolicy says so.
    Stream,
    /// TLSRoute without termination: the client's own TLS.
    Passthrough,
    /// UDPRoute.
    Datagram,
}

impl fmt::Display for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}:{}",
            self.backend.namespace, self.backend.name, self.port
        )?;
        f.write_str(match self.usage {
            UpstreamUse::Http => "",
            UpstreamUse::Grpc => "/grpc",
            UpstreamUse::Stream => "/tcp",
            UpstreamUse::Passthrough => "/tls",
            UpstreamUse::Datagram => "/udp",
        })
    }
}

/// Why a text is not a [`Hostname`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// Empty, or longer than 253 characters.
    #[error("a hostname has 1 to 253 characters")]
    Length,
    /// A label is empty, longer than 63, or holds something else than letters, digits and inner hyphens.
    #[error("{0:?} is not a DNS label")]
    Label(String),
    /// `*` anywhere but as the whole first label.
    #[error("a wildcard must be the whole first label, as in *.example.com")]
    Wildcard,
    /// Gateway API v1 `Hostname`: "IPs are not allowed".
    #[error("an IP address is not a hostname")]
    IpAddress,
}

/// A lower-case DNS name, exact (`shop.example.com`) or with a wildcard as its whole first label
/// (`*.example.com`, which stands for one *or more* labels: Gateway API v1 `Hostname`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Parses an exact or wildcard name; upper case is folded, a trailing dot is refused.
    ///
    /// # Errors
    /// [`HostnameError`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, HostnameError> {
        Self::check(text)?;
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The same of a text that stands elsewhere too, and is shared if it is in lower case.
    ///
    /// # Errors
    /// [`HostnameError`] says which rule is broken.
    pub fn sharing(text: &Arc<str>) -> Result<Self, HostnameError> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Self::parse(text);
        }
        Self::check(text)?;
        Ok(Self(Arc::clone(text)))
    }

    fn check(text: &str) -> Result<(), HostnameError> {
        if text.is_empty() || text.len() > 253 {
            return Err(HostnameError::Length);
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(HostnameError::IpAddress);
        }
        let rest = text.strip_prefix("*.").unwrap_or(text);
        for label in rest.split('.') {
            if label.contains('*') {
                return Err(HostnameError::Wildcard);
            }
            let inner = label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if label.is_empty()
                || label.len() > 63
                || !inner
                || label.starts_with('-')
                || label.ends_with('-')
            {
                return Err(HostnameError::Label(label.to_owned()));
            }
        }
        Ok(())
    }

    /// The name as text, `*.` included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For `*.example.com` the text `.example.com`; for an exact name nothing.
    #[must_use]
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// Whether a request's host (lower case, no port, no trailing dot) falls under this name.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self.wildcard_suffix() {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.as_str(),
        }
    }

    /// Whether some host falls under both names.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        match (self.wildcard_suffix(), other.wildcard_suffix()) {
            (None, _) => other.matches(self.as_str()),
            (_, None) => self.matches(other.as_str()),
            (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).expect("a hostname")
    }

    #[test]
    fn objects_are_ordered_by_namespace_and_name_as_one_text() {
        let of = |(namespace, name)| ObjectRef::new(ObjectKind::HttpRoute, namespace, name);
        let in_order = [
            ("", "z"),
            ("a-b", "bb"),
            ("a", "bb"),
            ("a", "bc"),
            ("a0", "a"),
            ("aa", "a"),
            ("b", "a"),
        ];
        let texts = in_order.map(|(namespace, name)| format!("{namespace}/{name}"));
        assert!(texts.is_sorted(), "{texts:?}");
        for (at, one) in in_order.into_iter().enumerate() {
            for (other_at, other) in in_order.into_iter().enumerate() {
                assert_eq!(
                    of(one).cmp(&of(other)),
                    at.cmp(&other_at),
                    "{one:?} {other:?}"
                );
            }
        }
        let of_other_kind = ObjectRef::new(ObjectKind::GrpcRoute, "", "a");
        assert!(of(("z", "z")) < of_other_kind, "the kind comes first");
    }

    #[test]
    fn wildcard_covers_one_or_more_labels_but_not_the_apex() {
        assert!(name("*.example.com").matches("a.example.com"));
        assert!(name("*.example.com").matches("a.b.example.com"));
        assert!(!name("*.example.com").matches("example.com"));
        assert!(!name("*.example.com").matches("badexample.com"));
    }

    #[test]
    fn intersection_is_symmetric() {
        for (a, b, expected) in [
            ("a.example.com", "*.example.com", true),
            ("*.example.com", "*.com", true),
            ("*.example.com", "*.example.org", false),
            ("example.com", "*.example.com", false),
        ] {
            assert_eq!(name(a).intersects(&name(b)), expected, "{a} {b}");
            assert_eq!(name(b).intersects(&name(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn what_is_not_a_hostname_is_refused() {
        for text in [
            "",
            "*",
            "a..b",
            "-a.com",
            "a*.com",
            "*.*.com",
            "192.0.2.1",
            "a_b.com",
            "a.",
        ] {
            assert!(Hostname::parse(text).is_err(), "{text}");
        }
    }
}
