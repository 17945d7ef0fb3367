//! One listener of a Gateway, by itself: whether it is understood, and what it may be attached to.

use std::sync::Arc;

use gateway_model::names::{Hostname, ObjectRef};

use super::Finding;
use super::certificates::{self, Certificates};
use crate::objects::{
    AllowedRoutes, GATEWAY_API_GROUP, Gateway, Known, Listener, NamespacesFrom, Objects, Protocol,
    TlsMode,
};
use crate::status::{Reason, RouteGroupKind};

/// One listener as far as it depends on its own Gateway alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerUnit {
    pub(super) name: Arc<str>,
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
    /// For HTTPS.
    pub(super) certificates: Certificates,
}

impl ListenerUnit {
    pub(super) fn new(
        objects: &Objects,
        object: &ObjectRef,
        gateway: &Gateway,
        listener: &Listener,
    ) -> Self {
        let hostname = listener.hostname.as_ref().map(|h| Hostname::parse(h));
        let fault = fault(gateway, listener).or_else(|| match &hostname {
            Some(Err(e)) => Some(Finding::new(
                Reason::UnsupportedValue,
                format!(
                    "hostname {:?}: {e}",
                    listener.hostname.as_deref().unwrap_or("")
                ),
            )),
            _ => None,
        });
        let certificates = match listener.protocol {
            Protocol::Https => certificates::resolve(objects, object, listener.tls.as_ref()),
            _ => Certificates::default(),
        };
        let (supported_kinds, unknown_kinds) = kinds(listener);
        let mut findings = certificates.findings.clone();
        findings.extend(unknown_kinds);
        Self {
            name: listener.name.clone(),
            port: listener.port,
            protocol: listener.protocol.clone(),
            is_passthrough: listener
                .tls
                .as_ref()
                .is_some_and(|tls| tls.mode == Known::Known(TlsMode::Passthrough)),
            hostname: hostname.and_then(Result::ok),
            allowed_routes: listener.allowed_routes.clone(),
            supported_kinds,
            fault,
            references: Finding::merge(&findings),
            certificates,
        }
    }

    /// Whether it could be served if nobody else claimed its place.
    pub(super) fn is_servable(&self) -> bool {
        self.fault.is_none()
            && (self.protocol != Protocol::Https || !self.certificates.usable.is_empty())
    }
}

/// Why a listener cannot be accepted.
fn fault(gateway: &Gateway, listener: &Listener) -> Option<Finding> {
    let unsupported = |message: String| Some(Finding::new(Reason::UnsupportedValue, message));
    if !matches!(listener.protocol, Protocol::Http | Protocol::Https) {
        return Some(Finding::new(
            Reason::UnsupportedProtocol,
            format!(
                "protocol {} is not supported; supported are HTTP and HTTPS",
                listener.protocol.as_str()
            ),
        ));
    }
    if let Some(tls) = &listener.tls
        && let Known::Unknown(mode) = &tls.mode
    {
        return unsupported(format!("tls.mode {mode:?} is not known; use Terminate"));
    }
    if listener.protocol == Protocol::Https && gateway.frontend.of_port(listener.port).is_some() {
        return unsupported(format!(
            "spec.tls.frontend asks for client certificates on port {}, which is not supported; \
             without them the listener would let everybody in, so it is not served",
            listener.port
        ));
    }
    let allowed = &listener.allowed_routes;
    match &allowed.from {
        Known::Unknown(from) => unsupported(format!(
            "allowedRoutes.namespaces.from {from:?} is not known; use All, Selector or Same"
        )),
        Known::Known(NamespacesFrom::Selector) => selector_fault(allowed).and_then(unsupported),
        Known::Known(_) => None,
    }
}

fn selector_fault(allowed: &AllowedRoutes) -> Option<String> {
    let Some(selector) = &allowed.selector else {
        return Some(
            "allowedRoutes.namespaces.selector must be given when from is Selector".to_owned(),
        );
    };
    selector
        .match_expressions
        .iter()
        .find_map(|requirement| match &requirement.operator {
            Known::Unknown(operator) => Some(format!(
                "allowedRoutes.namespaces.selector: operator {operator:?} is not known; \
                 use In, NotIn, Exists or DoesNotExist"
            )),
            Known::Known(_) => None,
        })
}

/// Gateway API v1 `AllowedRoutes.kinds`: those that the protocol takes, and what is said of others.
fn kinds(listener: &Listener) -> (Vec<RouteGroupKind>, Option<Finding>) {
    let of_protocol = match listener.protocol {
        Protocol::Http | Protocol::Https => vec![RouteGroupKind {
            group: GATEWAY_API_GROUP.into(),
            kind: "HTTPRoute".into(),
        }],
        _ => Vec::new(),
    };
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
