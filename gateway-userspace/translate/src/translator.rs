//! The incremental translator: what is dirty, and in which order it is cleaned.
//!
//! Every result is a function of the objects alone; what stands in the fields of [`Translator`]
//! beside the objects is that function's value, kept so that it need not be computed again. Which
//! of it a change touches follows from [`Index`]: a Gateway from its class, Secrets and grants; a
//! route from its Gateways, Services, grants and namespace; an upstream from its Service and
//! slices; a Gateway's status from the routes that attach to it.

mod counts;
mod dirty;
mod gateways;

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_model::ir::{CertificateKey, Ir, spread};
use gateway_model::names::{ListenerKey, ObjectRef, UpstreamKey};
use imbl::OrdMap;

use crate::gateway_api::{RouteUnit, class_status, policy_status, upstream_tls};
use crate::index::Index;
use crate::objects::{Event, Objects};
use crate::provision::ProvisionedService;
use crate::service;
use crate::settings::Settings;
use crate::status::Status;
use counts::Counts;
use dirty::Dirty;
use gateways::Gateways;

/// What the known objects mean. Cloning shares everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// What is to be served.
    pub ir: Ir,
    /// What each object is owed: every GatewayClass and Gateway that is ours, and every route with
    /// a parent that is ours. [`Status::finish`] completes them.
    pub statuses: OrdMap<ObjectRef, Arc<Status>>,
    /// The Service that is to be kept for a Gateway, by that Gateway.
    pub provisions: OrdMap<ObjectRef, Arc<ProvisionedService>>,
}

/// Keeps a [`Translation`] in step with a stream of [`Event`]s. Its cost follows the size of the change.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
    objects: Objects,
    index: Index,
    dirty: Dirty,
    gateways: Gateways,
    routes: BTreeMap<ObjectRef, RouteUnit>,
    attached: Counts<ListenerKey>,
    upstreams: Counts<UpstreamKey>,
    certificates: Counts<CertificateKey>,
    translation: Translation,
    /// How many objects there were when the trees were last packed.
    packed: usize,
}

impl Translator {
    /// A translator that knows no object.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            objects: Objects::default(),
            index: Index::default(),
            dirty: Dirty::at_first(),
            gateways: Gateways::default(),
            routes: BTreeMap::new(),
            attached: Counts::default(),
            upstreams: Counts::default(),
            certificates: Counts::default(),
            translation: Translation::default(),
            packed: 0,
        }
    }

    /// The CRDs are of this release from now on: [`Settings::crd_version`].
    pub fn set_crd_version(&mut self, version: Option<Arc<str>>) {
        if self.settings.crd_version != version {
            self.settings.crd_version = version;
            let classes = self.objects.classes.keys();
            self.dirty.classes.extend(classes.cloned());
        }
    }

    /// Takes in changes. The order of events of one object counts, all other order does not.
    pub fn apply(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.dirty
                .apply(&mut self.objects, &mut self.index, &self.settings, event);
        }
    }

    /// What is known.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What it means.
    pub fn translate(&mut self) -> Translation {
        self.classes();
        self.gateways();
        self.routes();
        self.upstreams();
        self.gateway_statuses();
        self.policy_statuses();
        self.pack();
        self.translation.clone()
    }

    /// Gives back what trees that were filled in order leave empty, whenever there are twice as many
    /// objects as the last time.
    fn pack(&mut self) {
        if self.objects.len() < 2 * self.packed {
            return;
        }
        self.packed = self.objects.len();
        self.objects.pack();
        self.index.pack();
        self.upstreams.pack();
        packed(&mut self.routes);
    }

    fn classes(&mut self) {
        for name in std::mem::take(&mut self.dirty.classes) {
            let class = self.objects.classes.get(&name);
            let status = class.and_then(|class| class_status(class, &self.settings));
            self.put_status(name, status);
        }
    }

    fn put_status(&mut self, name: ObjectRef, status: Option<Arc<Status>>) {
        let statuses = &mut self.translation.statuses;
        match status {
            None => {
                statuses.remove(&name);
            }
            Some(status) if statuses.get(&name) == Some(&status) => {}
            Some(status) => {
                statuses.insert(name, status);
            }
        }
    }

    fn routes(&mut self) {
        for name in spread(std::mem::take(&mut self.dirty.routes)) {
            self.route(name);
        }
    }

    fn route(&mut self, name: ObjectRef) {
        let old = self.routes.remove(&name);
        let new = self.objects.route(&name).map(|route| {
            let view = |parent: &ObjectRef| self.view(parent);
            let (objects, settings) = (&self.objects, &self.settings);
            RouteUnit::new(objects, settings, route, &name, view, old.as_ref())
        });
        let old = old.unwrap_or_default();
        let gone = RouteUnit::default();
        let unit = new.as_ref().unwrap_or(&gone);
        let (before, now) = (&old.reach, &unit.reach);
        for key in self.attached.replace(&before.attached, &now.attached) {
            self.dirty.statuses.insert(key.gateway);
        }
        if before.ancestors != now.ancestors {
            self.dirty.policies_of_route(&self.objects, &name);
        }
        let used = self.upstreams.replace(&old.upstreams, &unit.upstreams);
        self.dirty.upstreams.extend(used);
        let routes = &mut self.translation.ir.routes;
        match (&unit.route, &old.route) {
            (Some(now), Some(before)) if Arc::ptr_eq(now, before) => {}
            (Some(now), _) => {
                routes.insert(name.clone(), now.clone());
            }
            (None, _) => {
                routes.remove(&name);
            }
        }
        self.put_status(name.clone(), unit.status.clone());
        if let Some(unit) = new.filter(|unit| *unit != gone) {
            self.routes.insert(name, unit);
        }
    }

    fn upstreams(&mut self) {
        let of_services = std::mem::take(&mut self.dirty.services);
        let used = of_services
            .iter()
            .flat_map(|service| self.upstreams.range(service));
        let used: Vec<_> = used.cloned().collect();
        self.dirty.upstreams.extend(used);
        let upstreams = &mut self.translation.ir.upstreams;
        for key in spread(std::mem::take(&mut self.dirty.upstreams)) {
            if self.upstreams.of(&key) == 0 {
                upstreams.remove(&key);
                continue;
            }
            let tls = upstream_tls(&self.objects, &key);
            let upstream = service::upstream(&self.objects, &self.settings, &key, tls);
            if upstreams.get(&key).is_none_or(|old| **old != upstream) {
                upstreams.insert(key, Arc::new(upstream));
            }
        }
    }

    fn policy_statuses(&mut self) {
        for name in std::mem::take(&mut self.dirty.policies) {
            let policy = self.objects.policies.get(&name);
            let status = policy.and_then(|policy| {
                let ancestors = |service: &ObjectRef| {
                    let routes = self.index.routes_of_service.of(service);
                    let units = routes.filter_map(|route| self.routes.get(route));
                    units
                        .flat_map(|unit| unit.reach.ancestors.iter().cloned())
                        .collect()
                };
                policy_status(&self.objects, &self.settings, &name, policy, ancestors)
            });
            self.put_status(name, status);
        }
    }
}

/// The same tree with full nodes.
pub(crate) fn packed<K: Ord, V>(tree: &mut BTreeMap<K, V>) {
    *tree = std::mem::take(tree).into_iter().collect();
}

/// What these objects mean, from scratch.
#[must_use]
pub fn translate(objects: &Objects, settings: &Settings) -> Translation {
    let mut translator = Translator::new(settings.clone());
    translator.dirty.everything(objects, &mut translator.index);
    translator.objects = objects.clone();
    translator.translate()
}

#[cfg(test)]
mod tests;
