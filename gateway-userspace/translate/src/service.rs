//! Services and EndpointSlices: what a Service's port is, and where its endpoints are.

mod annotation;
mod shortage;

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_model::ir::{Endpoint, Endpoints, Upstream, UpstreamProtocol, UpstreamTls};
use gateway_model::names::{ObjectRef, UpstreamKey, UpstreamUse};

use crate::objects::{
    EndpointSlice, Known, Objects, Service, ServicePort, ServiceType, SliceEndpoint, TargetPort,
};
use crate::settings::Settings;
use crate::status::{Reason, listed};

pub(crate) use annotation::ENDPOINTS;
pub use shortage::shortage;

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
    has_tls: bool,
    has_slices: bool,
    settings: &Settings,
) -> Resolution {
    let invalid = |reason, message| Resolution::Invalid(reason, message);
    let named = &service.meta.object;
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
    match service.port(key.port, transport(key.usage)) {
        Some(port) => {
            if let Err(why) = protocol(port, key.usage, has_tls) {
                let message = format!("port {} of {named} {why}", key.port);
                return invalid(Reason::UnsupportedProtocol, message);
            }
        }
        None if is_external && service.ports.is_empty() => {}
        None => {
            let (reason, message) = without_port(service, named, key);
            return invalid(reason, message);
        }
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

/// Why a Service has no port of that number and transport.
fn without_port(service: &Service, named: &ObjectRef, key: &UpstreamKey) -> (Reason, String) {
    let of_number = service.ports.iter().find(|port| port.port == key.port);
    if let Some(port) = of_number {
        let message = format!(
            "port {} of {named} is {}, and this route needs {}",
            key.port,
            port.protocol,
            transport(key.usage)
        );
        return (Reason::UnsupportedProtocol, message);
    }
    let ports = service.ports.iter().map(|p| p.port.to_string());
    let message = format!(
        "{named} has no port {}; its ports are {}",
        key.port,
        listed(ports, ", ")
    );
    (Reason::BackendNotFound, message)
}

/// The `protocol` of a Service's port that is used in this way.
pub(crate) fn transport(usage: UpstreamUse) -> &'static str {
    match usage {
        UpstreamUse::Datagram => "UDP",
        _ => "TCP",
    }
}

/// What a Service's port speaks. `appProtocol` is a hint, so what is not known is HTTP; but what
/// is said to be TLS is never spoken to in clear text.
fn protocol(
    port: &ServicePort,
    usage: UpstreamUse,
    has_tls: bool,
) -> Result<UpstreamProtocol, String> {
    if !matches!(usage, UpstreamUse::Http | UpstreamUse::Grpc) {
        return Ok(UpstreamProtocol::Opaque);
    }
    let hint = port.app_protocol.as_deref().unwrap_or_default();
    let hint = hint.to_ascii_lowercase();
    if !has_tls && matches!(&*hint, "kubernetes.io/wss" | "https" | "tls") {
        return Err(format!(
            "has appProtocol {}, and no BackendTLSPolicy says how to verify it; create one",
            port.app_protocol.as_deref().unwrap_or_default()
        ));
    }
    let is_http2 = matches!(&*hint, "kubernetes.io/h2c" | "h2c" | "http2" | "grpc");
    Ok(if usage == UpstreamUse::Grpc || is_http2 {
        UpstreamProtocol::Http2
    } else if has_tls {
        UpstreamProtocol::Negotiated
    } else {
        UpstreamProtocol::Http1
    })
}

/// The upstream of a Service's port. A port that is not there has no endpoint.
pub(crate) fn upstream(
    objects: &Objects,
    settings: &Settings,
    key: &UpstreamKey,
    tls: Option<Arc<UpstreamTls>>,
) -> Upstream {
    let service = objects.services.get(&key.backend);
    let port = service.and_then(|service| service.port(key.port, transport(key.usage)));
    let unknown = match key.usage {
        UpstreamUse::Http if tls.is_some() => UpstreamProtocol::Negotiated,
        UpstreamUse::Http => UpstreamProtocol::Http1,
        UpstreamUse::Grpc => UpstreamProtocol::Http2,
        _ => UpstreamProtocol::Opaque,
    };
    Upstream {
        key: key.clone(),
        protocol: port.map_or(unknown, |port| {
            protocol(port, key.usage, tls.is_some()).unwrap_or(unknown)
        }),
        tls,
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
    Endpoints::Addresses(addresses.iter().copied().map(endpoint).collect())
}
