//! Who refers to what, the other way round: what must be done again when something changes.
//!
//! References are taken from the objects as written, whether they lead anywhere or not, so that an
//! object that appears later finds those who wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::names::ObjectRef;

use crate::gateway_api::References;
use crate::objects::{BackendTlsPolicy, Gateway, RouteObject};
use crate::small_set::SmallSet;

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
    /// Gateways and ListenerSets by the Secrets and ConfigMaps they name.
    pub(crate) gateways_naming: Multimap<ObjectRef>,
    /// Gateways by their class.
    pub(crate) gateways_of_class: Multimap<Arc<str>>,
    /// Gateways and routes by the foreign namespaces they reach into, where grants matter to them.
    pub(crate) reaching_into: Multimap<Arc<str>>,
}

impl Index {
    /// Takes a route's references in or out.
    pub(crate) fn route(&mut self, change: Change, object: &ObjectRef, route: RouteObject<'_>) {
        let references = References::of(route, object);
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
        let tls = gateway.listeners.iter().filter_map(|l| l.tls.as_ref());
        let certificates = tls.flat_map(|tls| &tls.certificate_refs);
        let authorities = gateway.frontend.iter().flat_map(|v| &v.authorities);
        let named: BTreeSet<_> = certificates
            .chain(authorities)
            .chain(&gateway.client_certificate)
            .filter_map(|reference| reference.target(object))
            .collect();
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

impl Change {
    fn make<K: Ord + Clone>(self, map: &mut Multimap<K>, key: &K, object: &ObjectRef) {
        match self {
            Self::Add => map.insert(key, object),
            Self::Remove => map.remove(key, object),
        }
    }
}
