//! Listeners, as Gateway and ListenerSet declare them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::reader::{Node, shared};
use super::{GATEWAY_API_GROUP, Known, LabelSelector, ObjectReference, check};

/// Gateway API v1 `Listener`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique within the object that declares it.
    pub name: Arc<str>,
    /// As written; none means every host.
    pub hostname: Option<Arc<str>>,
    /// 1-65535.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// `tls`.
    pub tls: Option<ListenerTls>,
    /// `allowedRoutes`.
    pub allowed_routes: AllowedRoutes,
    /// The types of `filters.requests`, up to 16.
    pub request_filters: Vec<Arc<str>>,
}

/// Gateway API v1 `ProtocolType`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `HTTP`.
    Http,
    /// `HTTPS`.
    Https,
    /// `TLS`.
    Tls,
    /// `TCP`.
    Tcp,
    /// `UDP`.
    Udp,
    /// Anything else.
    Other(Arc<str>),
}

impl Protocol {
    fn parse(text: &str) -> Self {
        match text {
            "HTTP" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            "TCP" => Self::Tcp,
            "UDP" => Self::Udp,
            other => Self::Other(other.into()),
        }
    }

    /// As users write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Other(other) => other,
        }
    }
}

/// Gateway API v1 `ListenerTLSConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// `mode`; default `Terminate`.
    pub mode: Known<TlsMode>,
    /// `certificateRefs`, up to 64.
    pub certificate_refs: Vec<ObjectReference>,
    /// The names of `options`.
    pub options: BTreeSet<Arc<str>>,
}

/// Gateway API v1 `TLSModeType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// TLS ends at the gateway.
    Terminate,
    /// TLS ends at the backend.
    Passthrough,
}

/// Gateway API v1 `AllowedRoutes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedRoutes {
    /// `namespaces.from`; default `Same`.
    pub from: Known<NamespacesFrom>,
    /// `namespaces.selector`; used with `Selector` alone.
    pub selector: Option<LabelSelector>,
    /// `kinds`, up to 8; empty means those of the protocol.
    pub kinds: Vec<RouteKind>,
}

/// Gateway API v1 `FromNamespaces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespacesFrom {
    /// Every namespace.
    All,
    /// Those that the selector selects.
    Selector,
    /// The declaring object's own.
    Same,
}

/// Gateway API v1 `RouteGroupKind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteKind {
    /// Default: the group of Gateway API.
    pub group: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
}

/// `spec.listeners`, whose names differ.
pub(super) fn listeners(spec: &Node<'_>) -> Vec<Listener> {
    let node = spec.field("listeners");
    let items = node.items(64);
    if items.is_empty() {
        node.problem("must hold at least one listener");
    }
    let mut names = BTreeSet::new();
    let read = |item: &Node<'_>| {
        let listener = Listener::read(item);
        if !names.insert(listener.name.clone()) {
            item.field("name").problem(format!(
                "{:?} is the name of another listener",
                listener.name
            ));
        }
        listener
    };
    items.iter().map(read).collect()
}

impl Listener {
    fn read(node: &Node<'_>) -> Self {
        let port = node.field("port").required().port();
        let protocol = node.field("protocol").required_checked(check::protocol);
        let tls = node.field("tls").mapping();
        let listener = Self {
            name: node.field("name").required_checked(check::subdomain),
            hostname: node.field("hostname").checked(check::hostname),
            port: port.unwrap_or(1),
            protocol: Protocol::parse(&protocol),
            tls: tls.present().map(ListenerTls::read),
            allowed_routes: AllowedRoutes::read(&node.field("allowedRoutes").mapping()),
            request_filters: request_filters(&node.field("filters").mapping()),
        };
        listener.check(node);
        listener
    }

    /// The rules of the CRD that concern several fields.
    fn check(&self, node: &Node<'_>) {
        let tls = node.field("tls");
        match (&self.protocol, &self.tls) {
            (Protocol::Http | Protocol::Tcp | Protocol::Udp, Some(_)) => tls.problem(format!(
                "must not be given for protocol {}; for TLS write protocol: HTTPS",
                self.protocol.as_str()
            )),
            (Protocol::Https, Some(given)) if given.mode == Known::Known(TlsMode::Passthrough) => {
                tls.field("mode").problem(
                    "must be Terminate for protocol HTTPS; Passthrough needs protocol: TLS",
                );
            }
            (Protocol::Tls, _) if tls.field("mode").is_absent() => tls
                .field("mode")
                .problem("must be given for protocol TLS: Terminate or Passthrough"),
            _ => {}
        }
        if matches!(self.protocol, Protocol::Tcp | Protocol::Udp) && self.hostname.is_some() {
            node.field("hostname").problem(format!(
                "must not be given for protocol {}",
                self.protocol.as_str()
            ));
        }
    }
}

fn request_filters(filters: &Node<'_>) -> Vec<Arc<str>> {
    let kind = |filter: &Node<'_>| shared(filter.field("type").required_text());
    let requests = filters.field("requests").items(16);
    requests.iter().map(kind).collect()
}

impl ListenerTls {
    fn read(node: &Node<'_>) -> Self {
        let modes = [
            ("Terminate", TlsMode::Terminate),
            ("Passthrough", TlsMode::Passthrough),
        ];
        let refs = node.field("certificateRefs").items(64);
        let options = node.field("options").entries();
        let tls = Self {
            mode: node
                .field("mode")
                .known(&modes)
                .unwrap_or(Known::Known(TlsMode::Terminate)),
            certificate_refs: refs.iter().map(ObjectReference::read_secret).collect(),
            options: options.iter().map(|(name, _)| (*name).into()).collect(),
        };
        if options.len() > 16 {
            node.field("options").problem("may hold at most 16 entries");
        }
        let terminates = tls.mode == Known::Known(TlsMode::Terminate);
        if terminates && tls.certificate_refs.is_empty() && tls.options.is_empty() {
            node.field("certificateRefs").problem(
                "must name a Secret of the form {name: my-certificate} when mode is Terminate",
            );
        }
        tls
    }
}

impl AllowedRoutes {
    fn read(node: &Node<'_>) -> Self {
        let namespaces = node.field("namespaces").mapping();
        let values = [
            ("All", NamespacesFrom::All),
            ("Selector", NamespacesFrom::Selector),
            ("Same", NamespacesFrom::Same),
        ];
        let selector = namespaces.field("selector").mapping();
        let kinds = node.field("kinds").items(8);
        Self {
            from: namespaces
                .field("from")
                .known(&values)
                .unwrap_or(Known::Known(NamespacesFrom::Same)),
            selector: selector.present().map(LabelSelector::read),
            kinds: kinds.iter().map(RouteKind::read).collect(),
        }
    }
}

impl RouteKind {
    fn read(node: &Node<'_>) -> Self {
        let group = node.field("group").checked(check::group);
        Self {
            group: group.unwrap_or_else(|| shared(GATEWAY_API_GROUP)),
            kind: node.field("kind").required_checked(check::kind),
        }
    }
}
