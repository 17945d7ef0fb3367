//! Services and EndpointSlices: what a Service's port is, and where its endpoints are.

mod annotation;

use std::net::SocketAddr;

use gateway_model::ir::{Endpoint, Endpoints, Upstream, UpstreamProtocol};
use gateway_model::names::UpstreamKey;

use crate::objects::{
    EndpointSlice, Known, Objects, Service, ServicePort, ServiceType, SliceEndpoint, TargetPort,
};
use crate::settings::Settings;
use crate::status::Reason;

pub(crate) use annotation::ENDPOINTS;

/// What a route's reference to a Service's port comes to.
pub(crate) enum Resolution {
    /// An upstream.
    Upstream,
    /// A Service that has no endpoint and no way to get one, with what would help.
    WithoutEndpoints(String),
    /// Not something that requests can be sent to.
    Invalid(Reason, String),
}

/// Resolves one port of a Service. Which endpoints there are does not matter, only whether anybody
/// says where they are.
pub(crate) fn resolve(
    service: &Service,
    key: &UpstreamKey,
    has_slices: bool,
    settings: &Settings,
) -> Resolution {
    let port = key.port;
    let invalid = |reason, message| Resolution::Invalid(reason, message);
    let named = format!("Service {}/{}", service.meta.namespace, service.meta.name);
    let is_external = match &service.kind {
        Known::Known(kind) => *kind == ServiceType::ExternalName,
        Known::Unknown(kind) => {
            let message = format!("{named} is of type {kind:?}, which is not known");
            return invalid(Reason::InvalidKind, message);
        }
    };
    if is_external && !settings.trusts_services() {
        let message = format!(
            "{named} is of type ExternalName, which is followed in manifest files only, \
             for it would let its author reach addresses of the node's network"
        );
        return invalid(Reason::InvalidKind, message);
    }
    let protocol = match service.port(port) {
        Some(port) => protocol(port),
        None if is_external && service.ports.is_empty() => Ok(UpstreamProtocol::Http1),
        None => {
            let ports: Vec<_> = service.ports.iter().map(|p| p.port.to_string()).collect();
            let message = format!(
                "{named} has no port {port}; its ports are {}",
                ports.join(", ")
            );
            return invalid(Reason::BackendNotFound, message);
        }
    };
    if let Err(why) = protocol {
        let message = format!("port {port} of {named} {why}");
        return invalid(Reason::UnsupportedProtocol, message);
    }
    if is_external || !settings.trusts_services() {
        return Resolution::Upstream;
    }
    match service.meta.annotation(ENDPOINTS) {
        Some(text) => match annotation::parse(text, 1) {
            Ok(_) => Resolution::Upstream,
            Err(why) => invalid(
                Reason::BackendNotFound,
                format!("annotation {ENDPOINTS} of {named}: {why}"),
            ),
        },
        None if has_slices => Resolution::Upstream,
        None => Resolution::WithoutEndpoints(format!(
            "{named} has no EndpointSlice; \
             say where it is with the annotation {ENDPOINTS}: \"10.0.0.1, 10.0.0.2:8080\""
        )),
    }
}

/// What a Service's port speaks. `appProtocol` is a hint, so what is not known is HTTP/1.1; but
/// what needs TLS, and what is no TCP, cannot be reached.
fn protocol(port: &ServicePort) -> Result<UpstreamProtocol, String> {
    if &*port.protocol != "TCP" {
        return Err(format!("is {}, and HTTP needs TCP", port.protocol));
    }
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c" | "h2c" | "http2" | "grpc") => Ok(UpstreamProtocol::Http2),
        Some(tls @ ("kubernetes.io/wss" | "https" | "tls")) => Err(format!(
            "has appProtocol {tls}, and TLS to backends is not supported without a policy for it"
        )),
        _ => Ok(UpstreamProtocol::Http1),
    }
}

/// The upstream of a Service's port. A port that is not there has no endpoint.
pub(crate) fn upstream(objects: &Objects, settings: &Settings, key: &UpstreamKey) -> Upstream {
    let service = objects.services.get(&key.backend);
    let port = service.and_then(|service| service.port(key.port));
    Upstream {
        key: key.clone(),
        protocol: port.map_or(UpstreamProtocol::Http1, |port| {
            protocol(port).unwrap_or(UpstreamProtocol::Http1)
        }),
        tls: None,
        endpoints: service.map_or(Endpoints::Addresses(Vec::new()), |service| {
            endpoints(objects, settings, key, service, port)
        }),
    }
}

fn endpoints(
    objects: &Objects,
    settings: &Settings,
    key: &UpstreamKey,
    service: &Service,
    port: Option<&ServicePort>,
) -> Endpoints {
    let target = match port.map(|port| &port.target_port) {
        Some(TargetPort::Number(number)) => *number,
        Some(TargetPort::Name(_)) | None => key.port,
    };
    if let Some(host) = &service.external_name
        && service.kind == Known::Known(ServiceType::ExternalName)
    {
        return match host.parse() {
            Ok(address) => addresses(vec![SocketAddr::new(address, target)]),
            Err(_) => Endpoints::Dns {
                host: host.clone(),
                port: target,
            },
        };
    }
    let annotation = service.meta.annotation(ENDPOINTS);
    if let Some(text) = annotation.filter(|_| settings.trusts_services()) {
        return addresses(annotation::parse(text, target).unwrap_or_default());
    }
    let Some(port) = port else {
        return addresses(Vec::new());
    };
    let slices: Vec<_> = objects.slices_of(&key.backend).collect();
    let ready = of_slices(&slices, port, target, |endpoint| endpoint.ready);
    if !ready.is_empty() {
        return addresses(ready);
    }
    // As kube-proxy: with nothing ready, those that are going away but still answer.
    addresses(of_slices(&slices, port, target, |endpoint| {
        endpoint.serving && endpoint.terminating
    }))
}

fn of_slices(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    target: u16,
    usable: impl Fn(&SliceEndpoint) -> bool,
) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for slice in slices {
        let numbers = slice
            .ports
            .iter()
            .filter(|p| p.name == port.name && p.protocol == port.protocol)
            .map(|p| p.port.unwrap_or(target));
        for number in numbers {
            let endpoints = slice.endpoints.iter().filter(|e| usable(e));
            addresses.extend(endpoints.map(|e| SocketAddr::new(e.address, number)));
        }
    }
    addresses
}

/// Sorted, each once.
fn addresses(mut addresses: Vec<SocketAddr>) -> Endpoints {
    addresses.sort_unstable();
    addresses.dedup();
    let endpoint = |address| Endpoint { address };
    Endpoints::Addresses(addresses.into_iter().map(endpoint).collect())
}
