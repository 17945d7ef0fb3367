//! Who refers to what, the other way round: what must be done again when something changes.
//!
//! References are taken from the objects as written, whether they lead anywhere or not, so that an
//! object that appears later finds those who wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::names::ObjectRef;

use crate::gateway_api::{References, service_of_gateway};
use crate::objects::{BackendTlsPolicy, Gateway, Listener, ListenerSet, ObjectReference};
use crate::small_set::SmallSet;
use crate::translator::packed;

/// A set of objects by key.
#[derive(Clone, Debug)]
pub(crate) struct Multimap<K>(BTreeMap<K, SmallSet<ObjectRef>>);

impl<K> Default for Multimap<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Multimap<K> {
    /// The objects of a key, sorted.
    pub(crate) fn of<Q>(&self, key: &Q) -> impl Iterator<Item = &ObjectRef>
    where
        K: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.0.get(key).into_iter().flat_map(SmallSet::iter)
    }

    fn insert(&mut self, key: &K, object: &ObjectRef) {
        match self.0.get_mut(key) {
            Some(set) => set.insert(object.clone()),
            None => {
                self.0.insert(key.clone(), SmallSet::of(object.clone()));
            }
        }
    }

    fn remove(&mut self, key: &K, object: &ObjectRef) {
        if let Some(set) = self.0.get_mut(key) {
            set.remove(object);
            if set.is_empty() {
                self.0.remove(key);
            }
        }
    }
}

/// Whether references are taken in or out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The object is there.
    Add,
    /// The object is gone, or about to be replaced.
    Remove,
}

/// Who refers to what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// Routes by the Gateways and ListenerSets they name as parents.
    pub(crate) routes_of_parent: Multimap<ObjectRef>,
    /// Routes by the Services they name.
    pub(crate) routes_of_service: Multimap<ObjectRef>,
    /// Policies by the ConfigMaps and Secrets they name.
    pub(crate) policies_naming: Multimap<ObjectRef>,
    /// ListenerSets by the Gateway they name.
    pub(crate) sets_of_gateway: Multimap<ObjectRef>,
    /// Gateways and ListenerSets by the Secrets and ConfigMaps they name, and by the Service that is
    /// kept for them.
    pub(crate) gateways_naming: Multimap<ObjectRef>,
    /// Gateways by their class.
    pub(crate) gateways_of_class: Multimap<Arc<str>>,
    /// Gateways, ListenerSets and routes by the foreign namespaces they reach into, where grants
    /// matter to them.
    pub(crate) reaching_into: Multimap<Arc<str>>,
}

impl Index {
    /// Gives back room that is not used.
    pub(crate) fn pack(&mut self) {
        packed(&mut self.routes_of_service.0);
        let parents = self.routes_of_parent.0.values_mut();
        parents.for_each(SmallSet::pack);
    }

    /// Takes a route's references in or out.
    pub(crate) fn route(&mut self, change: Change, object: &ObjectRef, references: &References) {
        for parent in &references.parents {
            change.make(&mut self.routes_of_parent, parent, object);
        }
        for service in &references.services {
            change.make(&mut self.routes_of_service, service, object);
        }
        let namespaces = references.services.iter().map(|s| &s.namespace);
        self.reach(change, object, namespaces);
    }

    /// Takes a policy's references in or out.
    pub(crate) fn policy(&mut self, change: Change, object: &ObjectRef, policy: &BackendTlsPolicy) {
        let references = policy.ca_certificate_refs.iter();
        let named: BTreeSet<_> = references.filter_map(|r| r.target(object)).collect();
        for authority in &named {
            change.make(&mut self.policies_naming, authority, object);
        }
    }

    /// Takes a Gateway's references in or out.
    pub(crate) fn gateway(&mut self, change: Change, object: &ObjectRef, gateway: &Gateway) {
        change.make(&mut self.gateways_of_class, &gateway.class_name, object);
        let authorities = gateway.frontend.iter().flat_map(|v| &v.authorities);
        let named = certificates(&gateway.listeners)
            .chain(authorities)
            .chain(&gateway.client_certificate);
        self.naming(change, object, named);
        let service = service_of_gateway(object, gateway);
        change.make(&mut self.gateways_naming, &service, object);
    }

    /// Takes a ListenerSet's references in or out.
    pub(crate) fn listener_set(&mut self, change: Change, object: &ObjectRef, set: &ListenerSet) {
        if let Some(gateway) = set.gateway() {
            change.make(&mut self.sets_of_gateway, &gateway, object);
        }
        self.naming(change, object, certificates(&set.listeners));
    }

    fn naming<'a>(
        &mut self,
        change: Change,
        object: &ObjectRef,
        named: impl Iterator<Item = &'a ObjectReference>,
    ) {
        let named: BTreeSet<_> = named.filter_map(|r| r.target(object)).collect();
        for target in &named {
            change.make(&mut self.gateways_naming, target, object);
        }
        self.reach(change, object, named.iter().map(|s| &s.namespace));
    }

    fn reach<'a>(
        &mut self,
        change: Change,
        object: &ObjectRef,
        namespaces: impl Iterator<Item = &'a Arc<str>>,
    ) {
        let foreign: BTreeSet<_> = namespaces.filter(|n| **n != object.namespace).collect();
        for namespace in foreign {
            change.make(&mut self.reaching_into, namespace, object);
        }
    }
}

fn certificates(listeners: &[Listener]) -> impl Iterator<Item = &ObjectReference> {
    let tls = listeners.iter().filter_map(|l| l.tls.as_ref());
    tls.flat_map(|tls| &tls.certificate_refs)
}

impl Change {
    fn make<K: Ord + Clone>(self, map: &mut Multimap<K>, key: &K, object: &ObjectRef) {
        match self {
            Self::Add => map.insert(key, object),
            Self::Remove => map.remove(key, object),
        }
    }
}
