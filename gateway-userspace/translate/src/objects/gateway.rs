//! Gateway API `Gateway`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gateway_model::names::ObjectKind;

use super::frontend::FrontendTls;
use super::listener::listeners;
use super::reader::Node;
use super::{Known, LabelSelector, Listener, Meta, ObjectReference, check};

/// Gateway API v1 `Gateway`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// `metadata`.
    pub meta: Meta,
    /// `spec.gatewayClassName`.
    pub class_name: Arc<str>,
    /// `spec.listeners`, 1 to 64.
    pub listeners: Vec<Listener>,
    /// `spec.addresses`, up to 16.
    pub addresses: Vec<GatewayAddress>,
    /// `spec.infrastructure.parametersRef`.
    pub parameters_ref: Option<ParametersRef>,
    /// `spec.infrastructure.labels` and `.annotations`.
    pub infrastructure: Infrastructure,
    /// `spec.allowedListeners.namespaces`.
    pub allowed_listeners: AllowedListeners,
    /// `spec.tls.frontend`.
    pub frontend: FrontendTls,
    /// `spec.tls.backend.clientCertificateRef`.
    pub client_certificate: Option<ObjectReference>,
    /// `status.addresses` of type `IPAddress`: what was assigned to it before.
    pub assigned: Vec<IpAddr>,
}

/// Gateway API v1 `GatewayInfrastructure`: what the objects made for a Gateway bear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infrastructure {
    /// Up to 8.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Up to 16.
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
}

/// Gateway API v1 `ListenerNamespaces`: whose ListenerSets a Gateway takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedListeners {
    /// `from`; default `None`.
    pub from: Known<ListenersFrom>,
    /// `selector`; used with `Selector` alone.
    pub selector: Option<LabelSelector>,
}

/// Gateway API v1 `FromNamespaces` as `ListenerNamespaces` uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenersFrom {
    /// Every namespace.
    All,
    /// Those that the selector selects.
    Selector,
    /// The Gateway's own.
    Same,
    /// None at all.
    None,
}

/// Gateway API v1 `GatewaySpecAddress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    /// Default `IPAddress`.
    pub kind: AddressType,
    /// Empty asks for any address of that type.
    pub value: Arc<str>,
    /// From where it must be reachable; none if that is for the implementation to say.
    pub routability: Option<Arc<str>>,
}

/// Gateway API v1 `AddressType`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressType {
    /// `IPAddress`; none if any address will do.
    IpAddress(Option<IpAddr>),
    /// `Hostname` and everything else, as written.
    Other(Arc<str>),
}

/// A reference to parameters: Gateway API v1 `ParametersReference` and `LocalParametersReference`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParametersRef {
    /// The API group.
    pub group: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ParametersRef {
    pub(super) fn read(node: &Node<'_>) -> Self {
        Self {
            group: node.field("group").required_checked(check::group),
            kind: node.field("kind").required_checked(check::kind),
            name: node.field("name").required_checked(check::object_name),
        }
    }
}

impl Gateway {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping().required();
        let infrastructure = spec.field("infrastructure").mapping();
        let parameters_ref = infrastructure.field("parametersRef").mapping();
        let tls = spec.field("tls").mapping();
        let backend = tls.field("backend").mapping();
        let client_certificate = backend.field("clientCertificateRef").mapping();
        Self {
            meta: Meta::read(ObjectKind::Gateway, root),
            class_name: spec
                .field("gatewayClassName")
                .required_checked(check::object_name),
            listeners: listeners(&spec),
            addresses: addresses(&spec),
            parameters_ref: parameters_ref.present().map(ParametersRef::read),
            infrastructure: Infrastructure::read(&infrastructure),
            allowed_listeners: AllowedListeners::read(&spec.field("allowedListeners").mapping()),
            frontend: FrontendTls::read(&tls.field("frontend")),
            client_certificate: client_certificate
                .present()
                .map(ObjectReference::read_secret),
            assigned: assigned(root),
        }
    }
}

fn addresses(spec: &Node<'_>) -> Vec<GatewayAddress> {
    let mut seen = BTreeSet::new();
    let read = |item: &Node<'_>| {
        let address = GatewayAddress::read(item);
        let unique = address.value.is_empty()
            || !matches!(address.kind, AddressType::IpAddress(_))
            || seen.insert(address.value.clone());
        if !unique {
            item.field("value")
                .problem(format!("{:?} is named twice", address.value));
        }
        address
    };
    spec.field("addresses").items(16).iter().map(read).collect()
}

impl GatewayAddress {
    fn read(node: &Node<'_>) -> Self {
        let value = node
            .field("value")
            .checked(|text| check::length(text, 0, 253))
            .unwrap_or_default();
        let kind = match node.field("type").text() {
            None | Some("IPAddress") => AddressType::IpAddress(match value.parse() {
                Ok(address) => Some(address),
                Err(_) if value.is_empty() => None,
                Err(_) => {
                    node.field("value")
                        .problem(format!("{value:?} must be an IPv4 or IPv6 address"));
                    None
                }
            }),
            Some(other) => AddressType::Other(other.into()),
        };
        let routability = node
            .field("routability")
            .checked(|text| check::length(text, 0, 253));
        Self {
            kind,
            value,
            routability: routability.filter(|text| !text.is_empty()),
        }
    }
}

/// `status.addresses`. The status is not the user's word, so nothing in it is a mistake of theirs.
fn assigned(root: &Node<'_>) -> Vec<IpAddr> {
    let status = root.field("status").mapping();
    let read = |item: &Node<'_>| {
        let kind = item.field("type").text().unwrap_or("IPAddress");
        let value = item.field("value").text()?;
        (kind == "IPAddress").then(|| value.parse().ok()).flatten()
    };
    let items = status.field("addresses").items(16);
    items.iter().filter_map(read).collect()
}

impl Infrastructure {
    fn read(node: &Node<'_>) -> Self {
        let texts = |name: &str, max: usize, value: fn(&str) -> check::Checked| {
            let field = node.field(name);
            let entries = field.entries();
            if entries.len() > max {
                field.problem(format!("may hold at most {max} entries"));
            }
            let read = |(key, entry): &(&str, Node<'_>)| {
                if let Err(message) = check::qualified_name(key) {
                    field.problem(message);
                }
                Some(((*key).into(), entry.checked(value)?))
            };
            entries.iter().filter_map(read).collect()
        };
        Self {
            labels: texts("labels", 8, check::label_value),
            annotations: texts("annotations", 16, |text| check::length(text, 0, 4096)),
        }
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

impl AllowedListeners {
    fn read(node: &Node<'_>) -> Self {
        let namespaces = node.field("namespaces").mapping();
        let values = [
            ("All", ListenersFrom::All),
            ("Selector", ListenersFrom::Selector),
            ("Same", ListenersFrom::Same),
            ("None", ListenersFrom::None),
        ];
        let from = namespaces.field("from").known(&values);
        let selector = namespaces.field("selector").mapping();
        Self {
            from: from.unwrap_or(Known::Known(ListenersFrom::None)),
            selector: selector.present().map(LabelSelector::read),
        }
    }
}
