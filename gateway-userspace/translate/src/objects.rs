//! What users write: typed objects, read leniently from manifests.
//!
//! An API server would have filled in the CRDs' defaults and refused what their schemas and rules
//! refuse. Files have no API server, so [`decode`] does both. It is strict about structure (a text
//! where a number belongs, a path without its slash) and lenient about the future: an unknown
//! field is ignored, and an enum value that nobody knows yet is kept as [`Known::Unknown`] and
//! becomes a condition when it is translated.
//!
//! Files have neither `generation` nor `creationTimestamp`: a generation that is not given is 1,
//! and an object without creation time counts as older than every object that has one, so that
//! among files all ties end by namespace and name.

mod backend_ref;
mod backend_tls_policy;
mod check;
mod core;
mod endpoint_slice;
mod frontend;
mod gateway;
mod gateway_class;
mod grpc_route;
mod http_route;
mod known;
mod listener;
mod listener_set;
mod meta;
mod node;
mod parent_ref;
mod reader;
mod reference;
mod reference_grant;
mod route_filter;
mod route_match;
mod secret;
mod service;
mod store;
mod stream_route;
mod unread;

use std::fmt;
use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};
use serde_json::Value;

pub use self::core::{ConfigMap, Namespace};
pub use backend_ref::{BackendRef, WeightedRef};
pub use backend_tls_policy::{BackendTlsPolicy, PolicyAltName, PolicyTarget};
pub use endpoint_slice::{EndpointSlice, SliceEndpoint, SlicePort};
pub use frontend::{FrontendTls, FrontendValidation};
pub use gateway::{
    AddressType, AllowedListeners, Gateway, GatewayAddress, Infrastructure, ListenersFrom,
    ParametersRef,
};
pub use gateway_class::GatewayClass;
pub use grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule};
pub use http_route::{HttpRoute, HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts};
pub use known::Known;
pub use listener::{
    AllowedRoutes, Listener, ListenerTls, NamespacesFrom, Protocol, RouteKind, TlsMode,
};
pub use listener_set::{ListenerSet, ParentGateway};
pub use meta::{LabelRequirement, LabelSelector, Meta, SelectorOperator};
pub use node::Node;
pub use parent_ref::ParentRef;
pub use reference::ObjectReference;
pub use reference_grant::{GrantFrom, GrantTo, ReferenceGrant};
pub use route_filter::{
    CorsFilter, HeaderFilter, HttpRouteFilter, MirrorFilter, PathModifier, RedirectFilter,
    RewriteFilter,
};
pub use route_match::{BeyondPath, HttpRouteMatch, NamedMatch, PathMatchType, ValueMatchType};
pub use secret::Secret;
pub use service::{LoadBalancerAddress, Service, ServicePort, ServiceType, TargetPort};
pub use store::Objects;
pub(crate) use store::{RouteObject, service_of};
pub use stream_route::StreamRoute;

use reader::Problems;

/// The API group of Gateway API.
pub const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";

/// One object of a kind that Sluice reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Gateway API `GatewayClass`.
    GatewayClass(Arc<GatewayClass>),
    /// Gateway API `Gateway`.
    Gateway(Arc<Gateway>),
    /// Gateway API `ListenerSet`.
    ListenerSet(Arc<ListenerSet>),
    /// Gateway API `HTTPRoute`.
    HttpRoute(Arc<HttpRoute>),
    /// Gateway API `GRPCRoute`.
    GrpcRoute(Arc<GrpcRoute>),
    /// Gateway API `TLSRoute`.
    TlsRoute(Arc<StreamRoute>),
    /// Gateway API `TCPRoute`.
    TcpRoute(Arc<StreamRoute>),
    /// Gateway API `UDPRoute`.
    UdpRoute(Arc<StreamRoute>),
    /// Gateway API `BackendTLSPolicy`.
    BackendTlsPolicy(Arc<BackendTlsPolicy>),
    /// Gateway API `ReferenceGrant`.
    ReferenceGrant(Arc<ReferenceGrant>),
    /// Kubernetes core `Service`.
    Service(Arc<Service>),
    /// Kubernetes discovery `EndpointSlice`.
    EndpointSlice(Arc<EndpointSlice>),
    /// Kubernetes core `Secret`.
    Secret(Arc<Secret>),
    /// Kubernetes core `ConfigMap`.
    ConfigMap(Arc<ConfigMap>),
    /// Kubernetes core `Namespace`.
    Namespace(Arc<Namespace>),
    /// Kubernetes core `Node`.
    Node(Arc<Node>),
}

impl Object {
    /// Its `metadata`.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::GatewayClass(o) => &o.meta,
            Self::Gateway(o) => &o.meta,
            Self::ListenerSet(o) => &o.meta,
            Self::HttpRoute(o) => &o.meta,
            Self::GrpcRoute(o) => &o.meta,
            Self::TlsRoute(o) | Self::TcpRoute(o) | Self::UdpRoute(o) => &o.meta,
            Self::BackendTlsPolicy(o) => &o.meta,
            Self::ReferenceGrant(o) => &o.meta,
            Self::Service(o) => &o.meta,
            Self::EndpointSlice(o) => &o.meta,
            Self::Secret(o) => &o.meta,
            Self::ConfigMap(o) => &o.meta,
            Self::Namespace(o) => &o.meta,
            Self::Node(o) => &o.meta,
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::GatewayClass(_) => ObjectKind::GatewayClass,
            Self::Gateway(_) => ObjectKind::Gateway,
            Self::ListenerSet(_) => ObjectKind::ListenerSet,
            Self::HttpRoute(_) => ObjectKind::HttpRoute,
            Self::GrpcRoute(_) => ObjectKind::GrpcRoute,
            Self::TlsRoute(_) => ObjectKind::TlsRoute,
            Self::TcpRoute(_) => ObjectKind::TcpRoute,
            Self::UdpRoute(_) => ObjectKind::UdpRoute,
            Self::BackendTlsPolicy(_) => ObjectKind::BackendTlsPolicy,
            Self::ReferenceGrant(_) => ObjectKind::ReferenceGrant,
            Self::Service(_) => ObjectKind::Service,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::Secret(_) => ObjectKind::Secret,
            Self::ConfigMap(_) => ObjectKind::ConfigMap,
            Self::Namespace(_) => ObjectKind::Namespace,
            Self::Node(_) => ObjectKind::Node,
        }
    }

    /// What all kinds of routes have, if it is one.
    pub(crate) fn route(&self) -> Option<RouteObject<'_>> {
        match self {
            Self::HttpRoute(route) => Some(RouteObject::Http(route)),
            Self::GrpcRoute(route) => Some(RouteObject::Grpc(route)),
            Self::TlsRoute(route) | Self::TcpRoute(route) | Self::UdpRoute(route) => {
                Some(RouteObject::Stream(route))
            }
            _ => None,
        }
    }

    /// Its name among all objects.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        self.meta().object.clone()
    }
}

/// A change of what is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is there, new or changed.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectRef),
}

/// Why a manifest is not read: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The object as far as it can be named, as in `HTTPRoute shop/web`.
    pub object: String,
    /// Its reference, if kind and name are readable.
    pub reference: Option<ObjectRef>,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, as in `spec.rules[0].matches[1].path.value`.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        for (at, problem) in self.problems.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            if problem.path.is_empty() {
                write!(f, "{separator}{}", problem.message)?;
            } else {
                write!(f, "{separator}{}: {}", problem.path, problem.message)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for DecodeError {}

/// Reads one manifest. Nothing for a kind that is not ours, which is no error: a directory may
/// hold anything that `kubectl apply` takes.
///
/// # Errors
/// Everything that is wrong with an object of a kind that is ours.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a manifest is read once; texts are taken out of it"
)]
pub fn decode(value: Value) -> Result<Option<Object>, DecodeError> {
    let problems = Problems::default();
    let object = decode_with(&value, &problems);
    finish(&value, object, problems)
}

/// Reads one manifest as [`decode`] does, and says which of its fields nobody reads: of a kind of the Gateway
/// API any, of others annotations that begin with `sluice.dev/`.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_with_unread(value: &Value) -> Result<Option<(Object, Vec<Problem>)>, DecodeError> {
    let problems = Problems::asking();
    let object = decode_with(value, &problems);
    let unread = match (&object, &problems.asked) {
        (Some(object), Some(asked)) => unread::unread(object.kind(), value, asked),
        _ => Vec::new(),
    };
    Ok(finish(value, object, problems)?.map(|object| (object, unread)))
}

fn decode_with(value: &Value, problems: &Problems) -> Option<Object> {
    let root = reader::Node::root(value, problems);
    read(kind_of(value, &root)?, &root)
}

fn finish(
    value: &Value,
    object: Option<Object>,
    problems: Problems,
) -> Result<Option<Object>, DecodeError> {
    let kind = object.as_ref().map(Object::kind);
    refuse(value, kind, problems).map_or(Ok(object), Err)
}

/// Reads a manifest that may be a `List` (what `kubectl get -o yaml` prints): every item by itself.
#[must_use]
pub fn decode_all(value: Value) -> Vec<Result<Object, DecodeError>> {
    let is_list = value.get("kind").and_then(Value::as_str) == Some("List");
    match value {
        Value::Object(mut map) if is_list => match map.remove("items") {
            Some(Value::Array(items)) => items.into_iter().flat_map(decode_all).collect(),
            _ => Vec::new(),
        },
        other => decode(other).transpose().into_iter().collect(),
    }
}

fn read(kind: ObjectKind, root: &reader::Node<'_>) -> Option<Object> {
    Some(match kind {
        ObjectKind::GatewayClass => Object::GatewayClass(Arc::new(GatewayClass::read(root))),
        ObjectKind::Gateway => Object::Gateway(Arc::new(Gateway::read(root))),
        ObjectKind::ListenerSet => Object::ListenerSet(Arc::new(ListenerSet::read(root))),
        ObjectKind::HttpRoute => Object::HttpRoute(Arc::new(HttpRoute::read(root))),
        ObjectKind::GrpcRoute => Object::GrpcRoute(Arc::new(GrpcRoute::read(root))),
        ObjectKind::TlsRoute => Object::TlsRoute(Arc::new(StreamRoute::read_tls(root))),
        ObjectKind::TcpRoute => Object::TcpRoute(Arc::new(StreamRoute::read(kind, root))),
        ObjectKind::UdpRoute => Object::UdpRoute(Arc::new(StreamRoute::read(kind, root))),
        ObjectKind::BackendTlsPolicy => {
            Object::BackendTlsPolicy(Arc::new(BackendTlsPolicy::read(root)))
        }
        ObjectKind::ReferenceGrant => Object::ReferenceGrant(Arc::new(ReferenceGrant::read(root))),
        ObjectKind::Service => Object::Service(Arc::new(Service::read(root))),
        ObjectKind::EndpointSlice => Object::EndpointSlice(Arc::new(EndpointSlice::read(root))),
        ObjectKind::Secret => Object::Secret(Arc::new(Secret::read(root))),
        ObjectKind::ConfigMap => Object::ConfigMap(Arc::new(ConfigMap::read(root))),
        ObjectKind::Namespace => Object::Namespace(Arc::new(Namespace::read(root))),
        ObjectKind::Node => Object::Node(Arc::new(Node::read(root))),
    })
}

/// Which kind a manifest is of; none if it is not one of ours.
fn kind_of(value: &Value, root: &reader::Node<'_>) -> Option<ObjectKind> {
    let kind = value.get("kind").and_then(Value::as_str)?;
    let api_version = value.get("apiVersion").and_then(Value::as_str)?;
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let (kind, versions): (_, &[&str]) = match (group, kind) {
        (GATEWAY_API_GROUP, "GatewayClass") => (ObjectKind::GatewayClass, &["v1", "v1beta1"]),
        (GATEWAY_API_GROUP, "Gateway") => (ObjectKind::Gateway, &["v1", "v1beta1"]),
        (GATEWAY_API_GROUP, "ListenerSet") => (ObjectKind::ListenerSet, &["v1"]),
        (GATEWAY_API_GROUP, "HTTPRoute") => (ObjectKind::HttpRoute, &["v1", "v1beta1"]),
        (GATEWAY_API_GROUP, "GRPCRoute") => (ObjectKind::GrpcRoute, &["v1"]),
        (GATEWAY_API_GROUP, "TLSRoute") => (ObjectKind::TlsRoute, &["v1"]),
        (GATEWAY_API_GROUP, "TCPRoute") => (ObjectKind::TcpRoute, &["v1"]),
        (GATEWAY_API_GROUP, "UDPRoute") => (ObjectKind::UdpRoute, &["v1"]),
        (GATEWAY_API_GROUP, "BackendTLSPolicy") => (ObjectKind::BackendTlsPolicy, &["v1"]),
        (GATEWAY_API_GROUP, "ReferenceGrant") => (ObjectKind::ReferenceGrant, &["v1", "v1beta1"]),
        ("", "Service") => (ObjectKind::Service, &["v1"]),
        ("discovery.k8s.io", "EndpointSlice") => (ObjectKind::EndpointSlice, &["v1"]),
        ("", "Secret") => (ObjectKind::Secret, &["v1"]),
        ("", "ConfigMap") => (ObjectKind::ConfigMap, &["v1"]),
        ("", "Namespace") => (ObjectKind::Namespace, &["v1"]),
        ("", "Node") => (ObjectKind::Node, &["v1"]),
        _ => return None,
    };
    if !versions.contains(&version) {
        let group = if group.is_empty() {
            String::new()
        } else {
            format!("{group}/")
        };
        root.field("apiVersion").problem(format!(
            "version {version:?} of {kind} is not served; write {group}{}",
            versions[0]
        ));
        return None;
    }
    Some(kind)
}

fn refuse(value: &Value, kind: Option<ObjectKind>, problems: Problems) -> Option<DecodeError> {
    let problems = problems.into_vec();
    if problems.is_empty() {
        return None;
    }
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let shown_kind = text("/kind").unwrap_or("object");
    let name = text("/metadata/name");
    let namespace = match kind {
        Some(kind) if !kind.is_namespaced() => "",
        _ => text("/metadata/namespace").unwrap_or("default"),
    };
    let shown_name = name.unwrap_or("(without a name)");
    let object = if namespace.is_empty() {
        format!("{shown_kind} {shown_name}")
    } else {
        format!("{shown_kind} {namespace}/{shown_name}")
    };
    let reference = kind.zip(name).map(|(k, n)| ObjectRef::new(k, namespace, n));
    Some(DecodeError {
        object,
        reference,
        problems,
    })
}

#[cfg(test)]
mod tests;
