//! Kubernetes core `Service`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use gateway_model::names::ObjectKind;

use super::reader::{Node, shared};
use super::{Known, Meta};
use crate::lately::Lately;

/// Kubernetes core `Service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata`.
    pub meta: Meta,
    /// `spec.type`; default `ClusterIP`.
    pub kind: Known<ServiceType>,
    /// `spec.externalName`.
    pub external_name: Option<Arc<str>>,
    /// `spec.ports`.
    pub ports: Arc<[ServicePort]>,
    /// `status.loadBalancer.ingress`.
    pub load_balancer: Box<[LoadBalancerAddress]>,
}

/// Kubernetes core `LoadBalancerIngress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadBalancerAddress {
    /// `ip`.
    Ip(IpAddr),
    /// `hostname`.
    Hostname(Arc<str>),
}

/// Kubernetes core `ServiceType`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// `ClusterIP`, `NodePort`, `LoadBalancer`: endpoints are addresses.
    Addresses,
    /// `ExternalName`: the endpoint is a DNS name.
    ExternalName,
}

/// Kubernetes core `ServicePort`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// The name; empty if there is only one.
    pub name: Arc<str>,
    /// What routes name.
    pub port: u16,
    /// What endpoints listen on; default the same number.
    pub target_port: TargetPort,
    /// `TCP`, `UDP` or `SCTP`; default `TCP`.
    pub protocol: Arc<str>,
    /// What is spoken there.
    pub app_protocol: Option<Arc<str>>,
}

/// `targetPort`: a number, or the name of a Pod's port, which only EndpointSlices can resolve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// The number.
    Number(u16),
    /// The name.
    Name(Arc<str>),
}

impl Service {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping();
        let types = [
            ("ClusterIP", ServiceType::Addresses),
            ("NodePort", ServiceType::Addresses),
            ("LoadBalancer", ServiceType::Addresses),
            ("ExternalName", ServiceType::ExternalName),
        ];
        let kind = spec.field("type").known(&types);
        let external_name = spec.field("externalName");
        let service = Self {
            meta: Meta::read(ObjectKind::Service, root),
            kind: kind.unwrap_or(Known::Known(ServiceType::Addresses)),
            external_name: external_name.text().map(trim_dot),
            ports: ports(&spec),
            load_balancer: load_balancer(root),
        };
        let is_external = service.kind == Known::Known(ServiceType::ExternalName);
        if is_external && service.external_name.is_none() {
            external_name.problem("is required for type ExternalName");
        }
        service
    }

    /// The port that a route names by this number, of the transport that it needs: one number can
    /// stand for a port of TCP and one of UDP.
    #[must_use]
    pub fn port(&self, number: u16, transport: &str) -> Option<&ServicePort> {
        let mut of_number = self.ports.iter().filter(|p| p.port == number);
        of_number.find(|p| &*p.protocol == transport)
    }
}

/// `status.loadBalancer.ingress`; what cannot be read there is not the user's mistake.
fn load_balancer(root: &Node<'_>) -> Box<[LoadBalancerAddress]> {
    let status = root.field("status").field("loadBalancer");
    let read = |item: &Node<'_>| {
        let ip = item.field("ip").text().and_then(|text| text.parse().ok());
        let hostname = || Some(item.field("hostname").text()?.into());
        ip.map(LoadBalancerAddress::Ip)
            .or_else(|| hostname().map(LoadBalancerAddress::Hostname))
    };
    let items = status.field("ingress").items(usize::MAX);
    items.iter().filter_map(read).collect()
}

fn trim_dot(text: &str) -> Arc<str> {
    text.trim_end_matches('.').to_ascii_lowercase().into()
}

/// `spec.ports`. Many Services have the same.
fn ports(spec: &Node<'_>) -> Arc<[ServicePort]> {
    thread_local! {
        static LATELY: RefCell<Lately<[ServicePort], 256>> = const { RefCell::new(Lately::new()) };
    }
    let items = spec.field("ports").items(usize::MAX);
    let several = items.len() > 1;
    let read = |item: &Node<'_>| {
        let port = ServicePort::read(item);
        if several && port.name.is_empty() {
            item.field("name")
                .problem("is required when a Service has several ports");
        }
        port
    };
    let ports: Vec<_> = items.iter().map(read).collect();
    LATELY.with_borrow_mut(|lately| lately.shared(ports))
}

impl ServicePort {
    fn read(node: &Node<'_>) -> Self {
        let port = node.field("port").required().port().unwrap_or(1);
        Self {
            name: shared(node.field("name").text().unwrap_or_default()),
            port,
            target_port: TargetPort::read(&node.field("targetPort"), port),
            protocol: shared(node.field("protocol").text().unwrap_or("TCP")),
            app_protocol: node.field("appProtocol").text().map(shared),
        }
    }
}

impl TargetPort {
    fn read(node: &Node<'_>, default: u16) -> Self {
        match node.number_or_text() {
            None => Self::Number(default),
            Some(Ok(_)) => Self::Number(node.port().unwrap_or(default)),
            Some(Err(name)) => Self::Name(name.into()),
        }
    }
}
