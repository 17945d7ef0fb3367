//! Gateways and their ListenerSets: by themselves, with their addresses, and among each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::names::{ListenerKey, ObjectKind, ObjectRef};

use super::Translator;
use crate::gateway_api::{
    Ask, Claims, ClaimsOfGateway, GatewayUnit, Grant, Judged, NodeAddresses, ParentView, Rank,
    Served, Sources, allocate, class_state, service_of_gateway,
};
use crate::settings::Publish;
use crate::status::Status;

/// All Gateways that are ours.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    translated: BTreeMap<ObjectRef, Translated>,
    claims: Claims,
    nodes: NodeAddresses,
    /// What each Gateway asks of the pool, and gets; empty without a pool.
    asks: BTreeMap<Rank, Ask>,
    grants: BTreeMap<ObjectRef, Grant>,
}

/// One Gateway that is ours.
#[derive(Debug)]
struct Translated {
    unit: GatewayUnit,
    rank: Rank,
    claims: ClaimsOfGateway,
    judged: Judged,
    views: BTreeMap<ObjectRef, ParentView>,
    served: Served,
}

impl Translated {
    fn new(unit: GatewayUnit) -> Self {
        Self {
            rank: unit.rank(),
            claims: ClaimsOfGateway::new(),
            judged: Judged::default(),
            views: BTreeMap::new(),
            served: Served::default(),
            unit,
        }
    }
}

impl Gateways {
    /// Replaces what a Gateway claims; its ListenerSets claim nothing unless it is accepted by its
    /// own listeners. Returns the Gateways that win or lose a place by it.
    fn claim(&mut self, name: &ObjectRef) -> BTreeSet<ObjectRef> {
        let Some(translated) = self.translated.get_mut(name) else {
            return BTreeSet::new();
        };
        let (unit, rank) = (&translated.unit, &translated.rank);
        let (own, all) = (unit.own_claims(), unit.all_claims());
        let old = &translated.claims;
        if own != all && *old == all && unit.is_accepted(&self.claims) {
            return BTreeSet::new();
        }
        let mut affected = self.claims.replace(old, rank, &own, rank);
        translated.claims = if own != all && unit.is_accepted(&self.claims) {
            affected.extend(self.claims.replace(&own, rank, &all, rank));
            all
        } else {
            own
        };
        affected
    }
}

/// What of a Gateway was served, and what is.
type ServedChange = (Served, Served);

impl Translator {
    /// First each dirty Gateway by itself, then where it is served, then what its claims mean for
    /// others, then what of all of these is served and seen by routes.
    pub(super) fn gateways(&mut self) {
        if std::mem::take(&mut self.dirty.nodes) {
            let nodes = NodeAddresses::of(&self.objects, &self.settings);
            if nodes != self.gateways.nodes {
                self.gateways.nodes = nodes;
                let ours = self.gateways.translated.keys().cloned();
                self.dirty.gateways.extend(ours);
            }
        }
        let mut dirty = std::mem::take(&mut self.dirty.gateways);
        if dirty.is_empty() {
            return;
        }
        let mut changes: Vec<ServedChange> = Vec::new();
        let mut affected = BTreeSet::new();
        for name in &dirty {
            affected.extend(self.gateway_by_itself(name, &mut changes));
        }
        dirty.extend(self.allocate());
        for name in &dirty {
            self.address(name);
        }
        affected.extend(dirty);
        for name in self.claim(affected) {
            changes.extend(self.gateway_among_others(&name));
            self.dirty.statuses.insert(name);
        }
        self.serve(&changes);
    }

    /// Returns the Gateways that win a place when it goes.
    fn gateway_by_itself(
        &mut self,
        name: &ObjectRef,
        changes: &mut Vec<ServedChange>,
    ) -> BTreeSet<ObjectRef> {
        let unit = self.objects.gateways.get(name).and_then(|gateway| {
            let class = class_state(&self.objects, &self.settings, &gateway.class_name);
            let sets = self.index.sets_of_gateway.of(name);
            GatewayUnit::new(&self.objects, gateway, name, class, sets)
        });
        // Also of those that have left it, or that were not ours before.
        let sets = self.index.sets_of_gateway.of(name);
        self.dirty.statuses.extend(sets.cloned());
        let Some(unit) = unit else {
            return self.forget(name, changes);
        };
        let mut affected = BTreeSet::new();
        let pool = !self.settings.address_pool.is_empty();
        let ask = pool.then(|| unit.ask(&self.settings));
        let rank = unit.rank();
        let gateways = &mut self.gateways;
        match gateways.translated.get_mut(name) {
            Some(translated) => {
                if translated.rank != rank {
                    let none = ClaimsOfGateway::new();
                    let old = std::mem::take(&mut translated.claims);
                    let old_rank = std::mem::replace(&mut translated.rank, rank.clone());
                    affected = gateways.claims.replace(&old, &old_rank, &none, &rank);
                    gateways.asks.remove(&old_rank);
                }
                translated.unit = unit;
            }
            None => {
                let translated = Translated::new(unit);
                gateways.translated.insert(name.clone(), translated);
                self.routes_see(name);
                let sets: Vec<_> = self.index.sets_of_gateway.of(name).cloned().collect();
                for set in sets {
                    self.routes_see(&set);
                }
            }
        }
        if let Some(ask) = ask {
            self.gateways.asks.insert(rank, ask);
        }
        affected
    }

    /// A Gateway is gone, or no longer ours.
    fn forget(&mut self, name: &ObjectRef, changes: &mut Vec<ServedChange>) -> BTreeSet<ObjectRef> {
        let gateways = &mut self.gateways;
        let Some(gone) = gateways.translated.remove(name) else {
            return BTreeSet::new();
        };
        gateways.asks.remove(&gone.rank);
        let none = ClaimsOfGateway::new();
        let affected = gateways
            .claims
            .replace(&gone.claims, &gone.rank, &none, &gone.rank);
        changes.push((gone.served, Served::default()));
        self.translation.provisions.remove(name);
        for parent in gone.views.keys() {
            self.routes_see(parent);
        }
        affected
    }

    /// Shares out the pool; returns the Gateways that get something else than before.
    fn allocate(&mut self) -> BTreeSet<ObjectRef> {
        let pool = &self.settings.address_pool;
        if pool.is_empty() {
            return BTreeSet::new();
        }
        let gateways = &mut self.gateways;
        let grants = allocate(pool, &gateways.nodes.all, &gateways.asks);
        let changed = grants
            .iter()
            .filter(|(name, grant)| gateways.grants.get(*name) != Some(*grant))
            .map(|(name, _)| name.clone())
            .collect();
        gateways.grants = grants;
        changed
    }

    fn address(&mut self, name: &ObjectRef) {
        let gateways = &mut self.gateways;
        let Some(translated) = gateways.translated.get_mut(name) else {
            return;
        };
        let load_balancer = || {
            let service = service_of_gateway(name, self.objects.gateways.get(name)?);
            Some(&self.objects.services.get(&service)?.load_balancer[..])
        };
        let by_service = self.settings.publish == Publish::Service;
        translated.unit.address(&Sources {
            settings: &self.settings,
            nodes: &gateways.nodes,
            grant: gateways.grants.get(name),
            load_balancer: by_service.then(load_balancer).flatten(),
        });
    }

    /// Lets these Gateways claim what they want, in the order of their rank: what becomes of one
    /// depends on those before it alone. Returns them and all that win or lose a place by it.
    fn claim(&mut self, names: BTreeSet<ObjectRef>) -> BTreeSet<ObjectRef> {
        let rank = |gateways: &Gateways, name: &ObjectRef| {
            let translated = gateways.translated.get(name)?;
            Some(translated.rank.clone())
        };
        let ranks = names.iter().filter_map(|name| rank(&self.gateways, name));
        let mut waiting: BTreeSet<Rank> = ranks.collect();
        let mut all = names;
        while let Some(first) = waiting.pop_first() {
            for name in self.gateways.claim(&first.1) {
                let later = rank(&self.gateways, &name).filter(|rank| *rank > first);
                waiting.extend(later);
                all.insert(name);
            }
        }
        all
    }

    /// Returns what of it was and is served, if that has changed.
    fn gateway_among_others(&mut self, name: &ObjectRef) -> Option<ServedChange> {
        let gateways = &mut self.gateways;
        let translated = gateways.translated.get_mut(name)?;
        let unit = &translated.unit;
        let judged = Judged::new(unit, &gateways.claims);
        let views = unit.views(&judged);
        let served = unit.served(&judged);
        let provision = unit.provision(&self.settings, &gateways.nodes, &served);
        self.dirty.statuses.extend(unit.sets().cloned());
        translated.judged = judged;
        let old_views = std::mem::replace(&mut translated.views, views);
        let views = &translated.views;
        let parents: BTreeSet<_> = old_views.keys().chain(views.keys()).collect();
        let changed = |parent: &&&ObjectRef| old_views.get(**parent) != views.get(**parent);
        let seen: Vec<_> = parents
            .iter()
            .filter(changed)
            .map(|p| (*p).clone())
            .collect();
        let change = (translated.served != served).then(|| {
            let old = std::mem::replace(&mut translated.served, served.clone());
            (old, served)
        });
        for parent in seen {
            self.routes_see(&parent);
        }
        let provisions = &mut self.translation.provisions;
        match provision {
            None => {
                provisions.remove(name);
            }
            Some(service) if provisions.get(name) == Some(&service) => {}
            Some(service) => {
                provisions.insert(name.clone(), service);
            }
        }
        change
    }

    fn routes_see(&mut self, parent: &ObjectRef) {
        let routes = self.index.routes_of_parent.of(parent);
        self.dirty.routes.extend(routes.cloned());
    }

    /// Takes out what is served no more, then puts in what is: a ListenerSet may have gone from one
    /// Gateway to another one.
    fn serve(&mut self, changes: &[ServedChange]) {
        let ir = &mut self.translation.ir;
        for (old, new) in changes {
            for key in old.listeners.keys() {
                if !new.listeners.contains_key(key) {
                    ir.listeners.remove(key);
                }
            }
            self.certificates
                .replace(old.certificates.keys(), new.certificates.keys());
        }
        for (old, new) in changes {
            for (key, listener) in &new.listeners {
                if ir.listeners.get(key) != Some(listener) {
                    ir.listeners.insert(key.clone(), listener.clone());
                }
            }
            for key in old.certificates.keys() {
                if self.certificates.of(key) == 0 {
                    ir.certificates.remove(key);
                }
            }
            for (key, certificate) in &new.certificates {
                if ir.certificates.get(key) != Some(certificate) {
                    ir.certificates.insert(key.clone(), certificate.clone());
                }
            }
        }
    }

    /// What routes see of a parent; none if it is not ours.
    pub(super) fn view(&self, parent: &ObjectRef) -> Option<&ParentView> {
        let gateway = self.gateway_of(parent)?;
        gateway.views.get(parent)
    }

    /// The Gateway that is meant by a Gateway or ListenerSet.
    fn gateway_of(&self, declarer: &ObjectRef) -> Option<&Translated> {
        let translated = &self.gateways.translated;
        match declarer.kind {
            ObjectKind::Gateway => translated.get(declarer),
            _ => {
                let set = self.objects.listener_sets.get(declarer)?;
                translated.get(&set.gateway()?)
            }
        }
    }

    pub(super) fn gateway_statuses(&mut self) {
        for name in std::mem::take(&mut self.dirty.statuses) {
            let status = self.gateway_status(&name);
            self.put_status(name, status);
        }
    }

    fn gateway_status(&self, name: &ObjectRef) -> Option<Arc<Status>> {
        let Translated { unit, judged, .. } = self.gateway_of(name)?;
        let attached = |key: &ListenerKey| self.attached.of(key);
        match name.kind {
            ObjectKind::Gateway => Some(unit.status(judged, attached)),
            _ => unit.set_status(name, judged, attached),
        }
    }
}
