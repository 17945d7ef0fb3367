//! What has to be done again, and how a change of an object becomes that.

use std::collections::BTreeSet;

use gateway_model::names::{ObjectKind, ObjectRef, UpstreamKey};

use crate::gateway_api::References;
use crate::index::{Change, Index};
use crate::objects::{BackendTlsPolicy, Event, LoadBalancerAddress, Object, Objects, service_of};
use crate::settings::Settings;

/// What has to be done again.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    pub(super) classes: BTreeSet<ObjectRef>,
    pub(super) gateways: BTreeSet<ObjectRef>,
    pub(super) routes: BTreeSet<ObjectRef>,
    /// Policies whose status may have changed.
    pub(super) policies: BTreeSet<ObjectRef>,
    /// Services whose upstreams may have changed.
    pub(super) services: BTreeSet<ObjectRef>,
    pub(super) upstreams: BTreeSet<UpstreamKey>,
    /// Gateways and ListenerSets whose status may have changed.
    pub(super) statuses: BTreeSet<ObjectRef>,
    /// Whether a Node has changed.
    pub(super) nodes: bool,
}

impl Dirty {
    /// What has to be done first of all: the settings may name the nodes.
    pub(super) fn at_first() -> Self {
        Self {
            nodes: true,
            ..Self::default()
        }
    }

    /// Takes in one event.
    pub(super) fn apply(
        &mut self,
        objects: &mut Objects,
        index: &mut Index,
        settings: &Settings,
        event: Event,
    ) {
        let (name, new) = match &event {
            Event::Apply(object) => (object.reference(), Some(object.clone())),
            Event::Delete(name) => (name.clone(), None),
        };
        let services = |object: &Option<Object>| match object {
            Some(Object::EndpointSlice(slice)) => service_of(slice),
            _ => None,
        };
        let new_service = services(&new);
        let had_slices = |objects: &Objects, service: &Option<ObjectRef>| {
            service
                .as_ref()
                .is_some_and(|service| objects.slices_of(service).next().is_some())
        };
        let new_had = had_slices(objects, &new_service);
        let old = objects.apply(event);
        if old == new {
            return;
        }
        let old_service = services(&old);
        self.mark(objects, index, &name, old.as_ref(), new.as_ref());
        for service in [&old_service, &new_service].into_iter().flatten() {
            self.services.insert(service.clone());
        }
        if settings.trusts_services() {
            // Only here does a route depend on whether there is a slice at all.
            let appeared = (!new_had).then_some(new_service).flatten();
            let vanished = old_service.filter(|s| objects.slices_of(s).next().is_none());
            for service in appeared.iter().chain(&vanished) {
                self.routes
                    .extend(index.routes_of_service.of(service).cloned());
            }
        }
    }

    fn mark(
        &mut self,
        objects: &Objects,
        index: &mut Index,
        name: &ObjectRef,
        old: Option<&Object>,
        new: Option<&Object>,
    ) {
        for (change, object) in [(Change::Remove, old), (Change::Add, new)] {
            match object {
                Some(Object::Gateway(gateway)) => index.gateway(change, name, gateway),
                Some(Object::ListenerSet(set)) => {
                    index.listener_set(change, name, set);
                    self.gateways.extend(set.gateway());
                    self.statuses.insert(name.clone());
                    self.routes.extend(index.routes_of_parent.of(name).cloned());
                }
                Some(Object::BackendTlsPolicy(policy)) => {
                    index.policy(change, name, policy);
                    self.policy(objects, index, name, policy);
                }
                Some(object) => {
                    if let Some(route) = object.route() {
                        let references = References::of(route, name, objects);
                        index.route(change, name, &references);
                        self.policies_of(objects, &references);
                    }
                }
                None => {}
            }
        }
        match name.kind {
            ObjectKind::GatewayClass => {
                self.classes.insert(name.clone());
                let gateways = index.gateways_of_class.of(&name.name);
                self.gateways.extend(gateways.cloned());
            }
            ObjectKind::Gateway => {
                self.gateways.insert(name.clone());
            }
            ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
            | ObjectKind::TlsRoute
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute => {
                self.routes.insert(name.clone());
            }
            ObjectKind::ReferenceGrant => self.grant(objects, index, &name.namespace),
            ObjectKind::Secret | ObjectKind::ConfigMap => {
                self.declarers(objects, index.gateways_naming.of(name));
                self.authority(objects, index, name);
            }
            ObjectKind::Service => {
                self.services.insert(name.clone());
                if load_balancer(old) != load_balancer(new) {
                    self.declarers(objects, index.gateways_naming.of(name));
                }
                let policies = objects.policies_of(name);
                self.policies
                    .extend(policies.map(|(policy, _)| policy.clone()));
                if !same_resolution(old, new) {
                    let routes = index.routes_of_service.of(name);
                    self.routes.extend(routes.cloned());
                }
            }
            ObjectKind::Namespace => self.namespace(objects, name, old, new),
            ObjectKind::BackendTlsPolicy => {
                self.policies.insert(name.clone());
            }
            ObjectKind::Node => self.nodes = true,
            ObjectKind::EndpointSlice | ObjectKind::ListenerSet => {}
        }
    }

    /// A policy has come, gone or changed: the Services it names are spoken to in another way, and
    /// other policies for them win or lose.
    fn policy(
        &mut self,
        objects: &Objects,
        index: &Index,
        name: &ObjectRef,
        policy: &BackendTlsPolicy,
    ) {
        self.policies.insert(name.clone());
        for service in policy.services() {
            let others = objects.policies_of(&service);
            self.policies.extend(others.map(|(other, _)| other.clone()));
            let routes = index.routes_of_service.of(&service);
            self.routes.extend(routes.cloned());
            self.services.insert(service);
        }
    }

    /// Other Gateways lead to the backends of a route.
    pub(super) fn policies_of_route(&mut self, objects: &Objects, name: &ObjectRef) {
        if let Some(route) = objects.route(name) {
            self.policies_of(objects, &References::of(route, name, objects));
        }
    }

    fn policies_of(&mut self, objects: &Objects, references: &References) {
        for service in &references.services {
            let policies = objects.policies_of(service);
            self.policies
                .extend(policies.map(|(policy, _)| policy.clone()));
        }
    }

    /// An object that may hold authorities has changed.
    fn authority(&mut self, objects: &Objects, index: &Index, name: &ObjectRef) {
        for policy in index.policies_naming.of(name) {
            if let Some(object) = objects.policies.get(policy) {
                self.policy(objects, index, policy, object);
            }
        }
    }

    fn grant(&mut self, objects: &Objects, index: &Index, namespace: &str) {
        for object in index.reaching_into.of(namespace) {
            match object.kind {
                ObjectKind::Gateway | ObjectKind::ListenerSet => self.declarer(objects, object),
                _ => {
                    self.routes.insert(object.clone());
                }
            }
        }
    }

    /// Something that a Gateway or ListenerSet depends on has changed.
    fn declarer(&mut self, objects: &Objects, object: &ObjectRef) {
        match object.kind {
            ObjectKind::ListenerSet => {
                let set = objects.listener_sets.get(object);
                self.gateways.extend(set.and_then(|set| set.gateway()));
            }
            _ => {
                self.gateways.insert(object.clone());
            }
        }
    }

    fn declarers<'a>(&mut self, objects: &Objects, named: impl Iterator<Item = &'a ObjectRef>) {
        for object in named {
            self.declarer(objects, object);
        }
    }

    fn namespace(
        &mut self,
        objects: &Objects,
        name: &ObjectRef,
        old: Option<&Object>,
        new: Option<&Object>,
    ) {
        let labels = |object: Option<&Object>| object.map(|o| o.meta().labels().clone());
        if labels(old) == labels(new) {
            return;
        }
        self.routes.extend(objects.routes_in(&name.name).cloned());
        // Gateways may choose their ListenerSets by these labels.
        let sets = objects.listener_sets_in(&name.name);
        self.gateways.extend(sets.filter_map(|set| set.gateway()));
    }

    /// Marks all of a translation that knows nothing yet.
    pub(super) fn everything(&mut self, objects: &Objects, index: &mut Index) {
        for (name, route) in objects.routes() {
            index.route(Change::Add, name, &References::of(route, name, objects));
            self.routes.insert(name.clone());
        }
        for (name, policy) in &objects.policies {
            index.policy(Change::Add, name, policy);
            self.policies.insert(name.clone());
        }
        for (name, gateway) in &objects.gateways {
            index.gateway(Change::Add, name, gateway);
        }
        for (name, set) in &objects.listener_sets {
            index.listener_set(Change::Add, name, set);
        }
        self.classes.extend(objects.classes.keys().cloned());
        self.gateways.extend(objects.gateways.keys().cloned());
    }
}

/// What a Service was given by whoever runs load balancers.
fn load_balancer(object: Option<&Object>) -> &[LoadBalancerAddress] {
    match object {
        Some(Object::Service(service)) => &service.load_balancer,
        _ => &[],
    }
}

/// Whether two forms of a Service mean the same to the routes that name it: endpoints do not
/// matter to them.
fn same_resolution(old: Option<&Object>, new: Option<&Object>) -> bool {
    let (Some(Object::Service(old)), Some(Object::Service(new))) = (old, new) else {
        return false;
    };
    let annotation = |service: &crate::objects::Service| {
        let text = service.meta.annotation(crate::service::ENDPOINTS);
        text.map(str::to_owned)
    };
    old.kind == new.kind && old.ports == new.ports && annotation(old) == annotation(new)
}
