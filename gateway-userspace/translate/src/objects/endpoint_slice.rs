//! Kubernetes discovery `EndpointSlice`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use gateway_model::names::ObjectKind;

use super::Meta;
use super::reader::{Node, shared};
use crate::lately::Lately;

/// The label that says which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Kubernetes discovery `EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// `metadata`.
    pub meta: Meta,
    /// The Service that this slice belongs to, in the same namespace; by the label
    /// `kubernetes.io/service-name`.
    pub service_name: Option<Arc<str>>,
    /// `endpoints`, if `addressType` is `IPv4` or `IPv6`; empty otherwise (`FQDN` is deprecated).
    pub endpoints: Box<[SliceEndpoint]>,
    /// `ports`.
    pub ports: Arc<[SlicePort]>,
}

/// Kubernetes discovery `Endpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// "The contents of this field are interpreted according to the corresponding EndpointSlice
    /// addressType", and only the first one is ever used, as in kube-proxy.
    pub address: IpAddr,
    /// `conditions.ready`; "a nil value should be interpreted as true".
    pub ready: bool,
    /// `conditions.serving`; nil means the same as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; nil means false.
    pub terminating: bool,
}

/// Kubernetes discovery `EndpointPort`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlicePort {
    /// The name of the Service's port; empty if that has none.
    pub name: Arc<str>,
    /// Where endpoints listen; none means every port.
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`; default `TCP`.
    pub protocol: Arc<str>,
}

impl EndpointSlice {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let address_type = root.field("addressType").required_text();
        let endpoints = root.field("endpoints").items(1000);
        let is_ip = matches!(address_type, "IPv4" | "IPv6");
        let read = |item: &Node<'_>| is_ip.then(|| SliceEndpoint::read(item)).flatten();
        let labels = root.field("metadata").field("labels");
        Self {
            meta: Meta::read(ObjectKind::EndpointSlice, root),
            service_name: labels.field(SERVICE_NAME).text().map(shared),
            endpoints: endpoints.iter().filter_map(read).collect(),
            ports: ports(root),
        }
    }
}

/// `ports`. Many slices have the same.
fn ports(root: &Node<'_>) -> Arc<[SlicePort]> {
    thread_local! {
        static LATELY: RefCell<Lately<[SlicePort], 256>> = const { RefCell::new(Lately::new()) };
    }
    let nodes = root.field("ports").items(20_000);
    let ports: Vec<_> = nodes.iter().map(SlicePort::read).collect();
    LATELY.with_borrow_mut(|lately| lately.shared(ports))
}

impl SliceEndpoint {
    fn read(node: &Node<'_>) -> Option<Self> {
        let addresses = node.field("addresses");
        let items = addresses.items(100);
        let Some(first) = items.first() else {
            addresses.problem("must hold at least one address");
            return None;
        };
        let text = first.text()?;
        let Ok(address) = text.parse() else {
            first.problem(format!("{text:?} must be an IPv4 or IPv6 address"));
            return None;
        };
        let conditions = node.field("conditions").mapping();
        let ready = conditions.field("ready").boolean().unwrap_or(true);
        Some(Self {
            address,
            ready,
            serving: conditions.field("serving").boolean().unwrap_or(ready),
            terminating: conditions.field("terminating").boolean().unwrap_or(false),
        })
    }
}

impl SlicePort {
    fn read(node: &Node<'_>) -> Self {
        Self {
            name: shared(node.field("name").text().unwrap_or_default()),
            port: node.field("port").port(),
            protocol: shared(node.field("protocol").text().unwrap_or("TCP")),
        }
    }
}
