//! One listener of a Gateway or ListenerSet, by itself: whether it is understood, and what may be
//! attached to it.

use std::sync::Arc;

use gateway_model::ir::{ClientValidation, PortKind};
use gateway_model::names::{Hostname, ListenerKey, ObjectRef};

use super::Finding;
use super::certificates::{self, Certificates};
use super::frontend::{Frontend, PortValidation};
use crate::objects::{
    AllowedRoutes, GATEWAY_API_GROUP, Known, LabelSelector, Listener, NamespacesFrom, Objects,
    Protocol, TlsMode,
};
use crate::status::{Reason, RouteGroupKind};

/// One listener as far as it depends on its own Gateway alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerUnit {
    /// Its name; `key.gateway` is the Gateway or ListenerSet that declares it.
    pub(super) key: ListenerKey,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// `tls.mode` is `Passthrough`.
    pub(super) is_passthrough: bool,
    pub(super) hostname: Option<Hostname>,
    pub(super) allowed_routes: AllowedRoutes,
    pub(super) supported_kinds: Vec<RouteGroupKind>,
    /// Why it cannot be accepted.
    pub(super) fault: Option<Finding>,
    /// What is wrong with its references.
    pub(super) references: Option<Finding>,
    /// Where TLS is terminated.
    pub(super) certificates: Certificates,
    /// What is asked of clients where TLS is terminated.
    pub(super) validation: Option<Arc<ClientValidation>>,
}

impl ListenerUnit {
    /// Translates a listener that `object`, a Gateway or ListenerSet, declares.
    pub(super) fn new(
        objects: &Objects,
        object: &ObjectRef,
        frontend: &mut Frontend<'_>,
        listener: &Listener,
    ) -> Self {
        let mode = listener.tls.as_ref().map(|tls| &tls.mode);
        let is_passthrough =
            listener.protocol == Protocol::Tls && mode == Some(&Known::Known(TlsMode::Passthrough));
        let is_known = !matches!(mode, Some(Known::Unknown(_)));
        let terminates = is_known && terminates(&listener.protocol, is_passthrough);
        let (certificates, validation) = if terminates {
            (
                certificates::resolve(objects, object, listener),
                frontend.of_port(listener.port),
            )
        } else {
            Default::default()
        };
        let hostname = listener.hostname.as_ref().map(|h| Hostname::parse(h));
        let (supported_kinds, unknown_kinds) = kinds(listener, is_passthrough);
        let mut findings = certificates.findings.clone();
        findings.extend(validation.findings.iter().cloned());
        findings.extend(unknown_kinds);
        Self {
            key: ListenerKey {
                gateway: object.clone(),
                section: listener.name.clone(),
            },
            port: listener.port,
            protocol: listener.protocol.clone(),
            is_passthrough,
            fault: fault(listener, &validation, &hostname),
            hostname: hostname.and_then(Result::ok),
            allowed_routes: listener.allowed_routes.clone(),
            supported_kinds,
            references: Finding::merge(&findings),
            certificates,
            validation: validation.validation.clone(),
        }
    }

    /// Whether TLS ends here.
    pub(super) fn terminates(&self) -> bool {
        terminates(&self.protocol, self.is_passthrough)
    }

    /// Whether it could be served if nobody else claimed its place.
    pub(super) fn is_servable(&self) -> bool {
        self.fault.is_none() && (!self.terminates() || !self.certificates.usable.is_empty())
    }

    /// What connections to it begin with; none for a protocol that is not supported.
    pub(super) fn port_kind(&self) -> Option<PortKind> {
        match self.protocol {
            Protocol::Http => Some(PortKind::Http),
            Protocol::Https | Protocol::Tls => Some(PortKind::Tls),
            Protocol::Tcp => Some(PortKind::Tcp),
            Protocol::Udp => Some(PortKind::Udp),
            Protocol::Other(_) => None,
        }
    }
}

fn terminates(protocol: &Protocol, is_passthrough: bool) -> bool {
    match protocol {
        Protocol::Https => true,
        Protocol::Tls => !is_passthrough,
        _ => false,
    }
}

/// Why a listener cannot be accepted.
fn fault<E: std::fmt::Display>(
    listener: &Listener,
    validation: &PortValidation,
    hostname: &Option<Result<Hostname, E>>,
) -> Option<Finding> {
    let unsupported = |message: String| Some(Finding::new(Reason::UnsupportedValue, message));
    if let Protocol::Other(protocol) = &listener.protocol {
        return Some(Finding::new(
            Reason::UnsupportedProtocol,
            format!(
                "protocol {protocol} is not supported; supported are HTTP, HTTPS, TLS, TCP and UDP"
            ),
        ));
    }
    if let Some(filter) = listener.request_filters.first() {
        // GEP-5224: no filter may be skipped, for what it would refuse would be let in.
        return unsupported(format!(
            "filters.requests[0]: type {filter} is not supported, and without it nothing is served"
        ));
    }
    if let Some(tls) = &listener.tls
        && let Known::Unknown(mode) = &tls.mode
    {
        return unsupported(format!(
            "tls.mode {mode:?} is not known; use Terminate or Passthrough"
        ));
    }
    if let Some(fault) = &validation.fault {
        return Some(fault.clone());
    }
    let allowed = &listener.allowed_routes;
    let of_namespaces = match &allowed.from {
        Known::Unknown(from) => unsupported(format!(
            "allowedRoutes.namespaces.from {from:?} is not known; use All, Selector or Same"
        )),
        Known::Known(NamespacesFrom::Selector) => {
            selector_fault("allowedRoutes", allowed.selector.as_ref()).and_then(unsupported)
        }
        Known::Known(_) => None,
    };
    of_namespaces.or_else(|| match hostname {
        Some(Err(e)) => {
            let text = listener.hostname.as_deref().unwrap_or("");
            unsupported(format!("hostname {text:?}: {e}"))
        }
        _ => None,
    })
}

/// What is wrong with `namespaces.selector` of this field, where `from` is `Selector`.
pub(super) fn selector_fault(field: &str, selector: Option<&LabelSelector>) -> Option<String> {
    let Some(selector) = selector else {
        return Some(format!(
            "{field}.namespaces.selector must be given when from is Selector"
        ));
    };
    let mut requirements = selector.match_expressions.iter();
    requirements.find_map(|requirement| match &requirement.operator {
        Known::Unknown(operator) => Some(format!(
            "{field}.namespaces.selector: operator {operator:?} is not known; \
             use In, NotIn, Exists or DoesNotExist"
        )),
        Known::Known(_) => None,
    })
}

/// Gateway API v1 `AllowedRoutes.kinds`: those that the protocol takes, and what is said of others.
fn kinds(listener: &Listener, is_passthrough: bool) -> (Vec<RouteGroupKind>, Option<Finding>) {
    let of_protocol: &[&str] = match listener.protocol {
        Protocol::Http | Protocol::Https => &["HTTPRoute", "GRPCRoute"],
        Protocol::Tls if is_passthrough => &["TLSRoute"],
        Protocol::Tls => &["TLSRoute", "TCPRoute"],
        Protocol::Tcp => &["TCPRoute"],
        Protocol::Udp => &["UDPRoute"],
        Protocol::Other(_) => &[],
    };
    let kind = |kind: &&str| RouteGroupKind {
        group: GATEWAY_API_GROUP.into(),
        kind: (*kind).into(),
    };
    let of_protocol: Vec<_> = of_protocol.iter().map(kind).collect();
    let wanted = &listener.allowed_routes.kinds;
    if wanted.is_empty() {
        return (of_protocol, None);
    }
    let mut supported = Vec::new();
    let mut unknown = Vec::new();
    for kind in wanted {
        let kind = RouteGroupKind {
            group: kind.group.clone(),
            kind: kind.kind.clone(),
        };
        if !of_protocol.contains(&kind) {
            unknown.push(format!("{}/{}", kind.group, kind.kind));
        } else if !supported.contains(&kind) {
            supported.push(kind);
        }
    }
    let finding = (!unknown.is_empty()).then(|| {
        Finding::new(
            Reason::InvalidRouteKinds,
            format!(
                "allowedRoutes.kinds: {} cannot be attached to protocol {}",
                unknown.join(", "),
                listener.protocol.as_str()
            ),
        )
    });
    (supported, finding)
}
