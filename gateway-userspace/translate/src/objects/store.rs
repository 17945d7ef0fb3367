//! All objects that are known: the input of a translation.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::small_set::SmallSet;
use crate::translator::packed;
use gateway_model::names::{ObjectKind, ObjectRef};

use super::{
    BackendTlsPolicy, ConfigMap, EndpointSlice, Event, Gateway, GatewayClass, GrpcRoute, HttpRoute,
    ListenerSet, Meta, Namespace, Node, Object, ParentRef, ReferenceGrant, Secret, Service,
    StreamRoute,
};

/// Every object that is known, by its name.
///
/// For a Secret whose certificate stops parsing, the last form that did parse is kept beside it,
/// until the Secret parses again or is deleted. It is part of the input: two stores are equal only
/// if they agree on it too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    pub(crate) classes: BTreeMap<ObjectRef, Arc<GatewayClass>>,
    pub(crate) gateways: BTreeMap<ObjectRef, Arc<Gateway>>,
    pub(crate) listener_sets: BTreeMap<ObjectRef, Arc<ListenerSet>>,
    pub(crate) http_routes: BTreeMap<ObjectRef, Arc<HttpRoute>>,
    pub(crate) grpc_routes: BTreeMap<ObjectRef, Arc<GrpcRoute>>,
    /// TLSRoutes, TCPRoutes and UDPRoutes.
    pub(crate) stream_routes: BTreeMap<ObjectRef, Arc<StreamRoute>>,
    pub(crate) policies: BTreeMap<ObjectRef, Arc<BackendTlsPolicy>>,
    pub(crate) grants: BTreeMap<ObjectRef, Arc<ReferenceGrant>>,
    pub(crate) services: BTreeMap<ObjectRef, Arc<Service>>,
    pub(crate) slices: BTreeMap<ObjectRef, Arc<EndpointSlice>>,
    pub(crate) secrets: BTreeMap<ObjectRef, SecretEntry>,
    pub(crate) config_maps: BTreeMap<ObjectRef, Arc<ConfigMap>>,
    pub(crate) namespaces: BTreeMap<ObjectRef, Arc<Namespace>>,
    pub(crate) nodes: BTreeMap<ObjectRef, Arc<Node>>,
    /// Which slices belong to which Service.
    slices_of: BTreeMap<ObjectRef, SmallSet<ObjectRef>>,
    /// Which policies name a Service as their target.
    policies_of: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
}

/// A Secret, and what it held before it stopped parsing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SecretEntry {
    pub(crate) current: Arc<Secret>,
    pub(crate) last_good: Option<Arc<Secret>>,
}

/// One route of whatever kind.
#[derive(Clone, Copy)]
pub(crate) enum RouteObject<'a> {
    Http(&'a HttpRoute),
    Grpc(&'a GrpcRoute),
    /// A TLSRoute, TCPRoute or UDPRoute.
    Stream(&'a StreamRoute),
}

impl<'a> RouteObject<'a> {
    pub(crate) fn meta(self) -> &'a Meta {
        match self {
            Self::Http(route) => &route.meta,
            Self::Grpc(route) => &route.meta,
            Self::Stream(route) => &route.meta,
        }
    }

    pub(crate) fn parent_refs(self) -> &'a [ParentRef] {
        match self {
            Self::Http(route) => &route.parent_refs,
            Self::Grpc(route) => &route.parent_refs,
            Self::Stream(route) => &route.parent_refs,
        }
    }

    pub(crate) fn hostnames(self) -> &'a [Arc<str>] {
        match self {
            Self::Http(route) => &route.hostnames,
            Self::Grpc(route) => &route.hostnames,
            Self::Stream(route) => &route.hostnames,
        }
    }
}

/// The kinds of routes.
pub(crate) const ROUTE_KINDS: [ObjectKind; 5] = [
    ObjectKind::HttpRoute,
    ObjectKind::GrpcRoute,
    ObjectKind::TlsRoute,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
];

impl Objects {
    /// Takes in a change; returns the object as it was before.
    pub fn apply(&mut self, event: Event) -> Option<Object> {
        match event {
            Event::Apply(object) => self.insert(object),
            Event::Delete(object) => self.remove(&object),
        }
    }

    /// Everything that is there, sorted by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = Object> + '_ {
        let secrets = self.secrets.values().map(|s| s.current.clone());
        let gateway_api = (self.classes.values().cloned().map(Object::GatewayClass))
            .chain(self.gateways.values().cloned().map(Object::Gateway))
            .chain(
                self.listener_sets
                    .values()
                    .cloned()
                    .map(Object::ListenerSet),
            )
            .chain(self.http_routes.values().cloned().map(Object::HttpRoute))
            .chain(self.grpc_routes.values().cloned().map(Object::GrpcRoute))
            .chain(
                self.stream_routes
                    .iter()
                    .map(|(name, o)| stream_route(name, o.clone())),
            )
            .chain(
                self.policies
                    .values()
                    .cloned()
                    .map(Object::BackendTlsPolicy),
            )
            .chain(self.grants.values().cloned().map(Object::ReferenceGrant));
        gateway_api
            .chain(self.services.values().cloned().map(Object::Service))
            .chain(self.slices.values().cloned().map(Object::EndpointSlice))
            .chain(secrets.map(Object::Secret))
            .chain(self.config_maps.values().cloned().map(Object::ConfigMap))
            .chain(self.namespaces.values().cloned().map(Object::Namespace))
            .chain(self.nodes.values().cloned().map(Object::Node))
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.classes.len()
            + self.gateways.len()
            + self.listener_sets.len()
            + self.http_routes.len()
            + self.grpc_routes.len()
            + self.stream_routes.len()
            + self.policies.len()
            + self.grants.len()
            + self.services.len()
            + self.slices.len()
            + self.secrets.len()
            + self.config_maps.len()
            + self.namespaces.len()
            + self.nodes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives back room that is not used.
    pub(crate) fn pack(&mut self) {
        packed(&mut self.http_routes);
        packed(&mut self.grpc_routes);
        packed(&mut self.services);
        packed(&mut self.slices);
        packed(&mut self.slices_of);
    }

    /// The slices of a Service, sorted by name.
    pub(crate) fn slices_of(&self, service: &ObjectRef) -> impl Iterator<Item = &EndpointSlice> {
        let names = self
            .slices_of
            .get(service)
            .into_iter()
            .flat_map(SmallSet::iter);
        names.filter_map(|name| self.slices.get(name).map(|s| &**s))
    }

    /// A Service's name; the very one that the Service has, if it is there.
    pub(crate) fn service_name(&self, name: ObjectRef) -> ObjectRef {
        let known = self.services.get_key_value(&name);
        known.map_or(name, |(known, _)| known.clone())
    }

    /// The policies that name a Service, or one of its ports, as their target, sorted by name.
    pub(crate) fn policies_of(
        &self,
        service: &ObjectRef,
    ) -> impl Iterator<Item = (&ObjectRef, &BackendTlsPolicy)> {
        let names = self.policies_of.get(service).into_iter().flatten();
        names.filter_map(|name| Some((name, &**self.policies.get(name)?)))
    }

    /// A route of whatever kind.
    pub(crate) fn route(&self, name: &ObjectRef) -> Option<RouteObject<'_>> {
        match name.kind {
            ObjectKind::HttpRoute => Some(RouteObject::Http(self.http_routes.get(name)?)),
            ObjectKind::GrpcRoute => Some(RouteObject::Grpc(self.grpc_routes.get(name)?)),
            _ => Some(RouteObject::Stream(self.stream_routes.get(name)?)),
        }
    }

    /// Every route of whatever kind.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (&ObjectRef, RouteObject<'_>)> {
        let http = self.http_routes.iter();
        let grpc = self.grpc_routes.iter();
        let streams = self.stream_routes.iter();
        http.map(|(name, route)| (name, RouteObject::Http(route)))
            .chain(grpc.map(|(name, route)| (name, RouteObject::Grpc(route))))
            .chain(streams.map(|(name, route)| (name, RouteObject::Stream(route))))
    }

    /// The routes of one namespace.
    pub(crate) fn routes_in(&self, namespace: &str) -> impl Iterator<Item = &ObjectRef> {
        ROUTE_KINDS.into_iter().flat_map(move |kind| {
            let first = ObjectRef::new(kind, namespace, "");
            let names: Box<dyn Iterator<Item = &ObjectRef>> = match kind {
                ObjectKind::HttpRoute => Box::new(self.http_routes.range(first..).map(|e| e.0)),
                ObjectKind::GrpcRoute => Box::new(self.grpc_routes.range(first..).map(|e| e.0)),
                _ => Box::new(self.stream_routes.range(first..).map(|e| e.0)),
            };
            names.take_while(move |name| name.kind == kind && *name.namespace == *namespace)
        })
    }

    /// The grants of a namespace.
    pub(crate) fn grants_in(&self, namespace: &str) -> impl Iterator<Item = &ReferenceGrant> {
        let first = ObjectRef::new(ObjectKind::ReferenceGrant, namespace, "");
        self.grants
            .range(first..)
            .take_while(move |(name, _)| *name.namespace == *namespace)
            .map(|(_, grant)| &**grant)
    }

    /// The ListenerSets of a namespace.
    pub(crate) fn listener_sets_in(&self, namespace: &str) -> impl Iterator<Item = &ListenerSet> {
        let first = ObjectRef::new(ObjectKind::ListenerSet, namespace, "");
        self.listener_sets
            .range(first..)
            .take_while(move |(name, _)| *name.namespace == *namespace)
            .map(|(_, set)| &**set)
    }

    /// The labels of a namespace; the one that every namespace has, if no more is known of it.
    pub(crate) fn labels_of_namespace(
        &self,
        namespace: &Arc<str>,
    ) -> Cow<'_, BTreeMap<Arc<str>, Arc<str>>> {
        let name = ObjectRef::of(ObjectKind::Namespace, "".into(), namespace.clone());
        match self.namespaces.get(&name) {
            Some(known) => Cow::Borrowed(known.meta.labels()),
            None => Cow::Owned(Namespace::implied_labels(namespace)),
        }
    }

    fn insert(&mut self, object: Object) -> Option<Object> {
        let name = object.reference();
        match object {
            Object::GatewayClass(o) => self.classes.insert(name, o).map(Object::GatewayClass),
            Object::Gateway(o) => self.gateways.insert(name, o).map(Object::Gateway),
            Object::ListenerSet(o) => self.listener_sets.insert(name, o).map(Object::ListenerSet),
            Object::HttpRoute(o) => self.http_routes.insert(name, o).map(Object::HttpRoute),
            Object::GrpcRoute(o) => self.grpc_routes.insert(name, o).map(Object::GrpcRoute),
            Object::TlsRoute(o) | Object::TcpRoute(o) | Object::UdpRoute(o) => {
                let old = self.stream_routes.insert(name.clone(), o);
                old.map(|old| stream_route(&name, old))
            }
            Object::BackendTlsPolicy(o) => self.insert_policy(name, o),
            Object::ReferenceGrant(o) => self.grants.insert(name, o).map(Object::ReferenceGrant),
            Object::Service(o) => self.services.insert(name, o).map(Object::Service),
            Object::EndpointSlice(o) => self.insert_slice(name, o),
            Object::Secret(o) => self.insert_secret(name, o),
            Object::ConfigMap(o) => self.config_maps.insert(name, o).map(Object::ConfigMap),
            Object::Namespace(o) => self.namespaces.insert(name, o).map(Object::Namespace),
            Object::Node(o) => self.nodes.insert(name, o).map(Object::Node),
        }
    }

    fn remove(&mut self, name: &ObjectRef) -> Option<Object> {
        match name.kind {
            ObjectKind::GatewayClass => self.classes.remove(name).map(Object::GatewayClass),
            ObjectKind::Gateway => self.gateways.remove(name).map(Object::Gateway),
            ObjectKind::ListenerSet => self.listener_sets.remove(name).map(Object::ListenerSet),
            ObjectKind::HttpRoute => self.http_routes.remove(name).map(Object::HttpRoute),
            ObjectKind::GrpcRoute => self.grpc_routes.remove(name).map(Object::GrpcRoute),
            ObjectKind::TlsRoute | ObjectKind::TcpRoute | ObjectKind::UdpRoute => {
                let old = self.stream_routes.remove(name);
                old.map(|old| stream_route(name, old))
            }
            ObjectKind::BackendTlsPolicy => self.remove_policy(name),
            ObjectKind::ReferenceGrant => self.grants.remove(name).map(Object::ReferenceGrant),
            ObjectKind::Service => self.services.remove(name).map(Object::Service),
            ObjectKind::EndpointSlice => self.remove_slice(name),
            ObjectKind::Secret => {
                let removed = self.secrets.remove(name);
                removed.map(|entry| Object::Secret(entry.current))
            }
            ObjectKind::ConfigMap => self.config_maps.remove(name).map(Object::ConfigMap),
            ObjectKind::Namespace => self.namespaces.remove(name).map(Object::Namespace),
            ObjectKind::Node => self.nodes.remove(name).map(Object::Node),
        }
    }

    fn insert_slice(&mut self, name: ObjectRef, slice: Arc<EndpointSlice>) -> Option<Object> {
        let old = self.remove_slice(&name);
        if let Some(service) = service_of(&slice) {
            let service = self.service_name(service);
            let slices = self.slices_of.entry(service).or_default();
            slices.insert(name.clone());
        }
        self.slices.insert(name, slice);
        old
    }

    fn remove_slice(&mut self, name: &ObjectRef) -> Option<Object> {
        let old = self.slices.remove(name)?;
        if let Some(service) = service_of(&old)
            && let Some(slices) = self.slices_of.get_mut(&service)
        {
            slices.remove(name);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        Some(Object::EndpointSlice(old))
    }

    fn insert_policy(&mut self, name: ObjectRef, policy: Arc<BackendTlsPolicy>) -> Option<Object> {
        let old = self.remove_policy(&name);
        for service in policy.services() {
            let policies = self.policies_of.entry(service).or_default();
            policies.insert(name.clone());
        }
        self.policies.insert(name, policy);
        old
    }

    fn remove_policy(&mut self, name: &ObjectRef) -> Option<Object> {
        let old = self.policies.remove(name)?;
        for service in old.services() {
            if let Some(policies) = self.policies_of.get_mut(&service) {
                policies.remove(name);
                if policies.is_empty() {
                    self.policies_of.remove(&service);
                }
            }
        }
        Some(Object::BackendTlsPolicy(old))
    }

    fn insert_secret(&mut self, name: ObjectRef, current: Arc<Secret>) -> Option<Object> {
        let old = self.secrets.remove(&name);
        let last_good = match &old {
            Some(old) if current.certificate().is_err() => match old.current.certificate() {
                Ok(_) => Some(old.current.clone()),
                Err(_) => old.last_good.clone(),
            },
            _ => None,
        };
        self.secrets
            .insert(name, SecretEntry { current, last_good });
        old.map(|entry| Object::Secret(entry.current))
    }
}

fn stream_route(name: &ObjectRef, route: Arc<StreamRoute>) -> Object {
    match name.kind {
        ObjectKind::TcpRoute => Object::TcpRoute(route),
        ObjectKind::UdpRoute => Object::UdpRoute(route),
        _ => Object::TlsRoute(route),
    }
}

/// The Service that a slice belongs to.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<ObjectRef> {
    let name = slice.service_name.as_ref()?;
    let namespace = &slice.meta.object.namespace;
    Some(ObjectRef::of(
        ObjectKind::Service,
        namespace.clone(),
        name.clone(),
    ))
}
