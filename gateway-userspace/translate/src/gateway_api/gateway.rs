//! One Gateway: what it is by itself, what of it is served, and its status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::ir::{
    self, Certificate, CertificateKey, ListenerProtocol, SourcePolicy, TlsTermination,
};
use gateway_model::names::{Hostname, ListenerKey, ObjectRef};

use super::addresses::{Addresses, addresses};
use super::class::unknown_parameters;
use super::conflict::{self, Claim, Claims, Conflict, Rank, Slot};
use super::listener::ListenerUnit;
use super::source_policy::source_policy;
use super::{ClassState, Finding};
use crate::objects::{AllowedRoutes, Gateway, Objects, Protocol};
use crate::settings::Settings;
use crate::status::{
    ConditionType, Conditions, GatewayStatus, GatewayStatusAddress, ListenerStatus, Reason,
    RouteGroupKind, Status,
};

/// One Gateway that is ours, as far as it depends on itself, its class, its Secrets and grants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayUnit {
    object: ObjectRef,
    generation: i64,
    created: i64,
    /// Why none of it can be served.
    fault: Option<Finding>,
    addresses: Addresses,
    policy: SourcePolicy,
    listeners: Vec<ListenerUnit>,
    /// Listeners that are in each other's way, by position.
    conflicts: BTreeMap<usize, Conflict>,
}

/// What routes see of a Gateway that is ours, or of a ListenerSet of such a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParentView {
    /// The Gateway; the parent itself unless that is a ListenerSet.
    pub(super) gateway: ObjectRef,
    /// Its own listeners, in the order of its spec.
    pub(super) listeners: Vec<ListenerView>,
}

/// What routes see of a listener.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListenerView {
    /// Its name; `key.gateway` is the parent.
    pub(super) key: ListenerKey,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// `tls.mode` is `Passthrough`.
    pub(super) is_passthrough: bool,
    pub(super) hostname: Option<Hostname>,
    pub(super) allowed_routes: AllowedRoutes,
    /// The kinds of routes that it takes.
    pub(super) supported_kinds: Vec<RouteGroupKind>,
    /// Whether routes that attach to it are served.
    pub(super) is_served: bool,
}

/// What of a Gateway is served.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Served {
    pub(crate) listeners: BTreeMap<ListenerKey, Arc<ir::Listener>>,
    pub(crate) certificates: BTreeMap<CertificateKey, Arc<Certificate>>,
}

impl GatewayUnit {
    /// Translates a Gateway; none if it is not ours.
    pub(crate) fn new(
        objects: &Objects,
        settings: &Settings,
        gateway: &Gateway,
        object: &ObjectRef,
        class: ClassState,
    ) -> Option<Self> {
        let mut fault = match class {
            ClassState::Foreign => return None,
            ClassState::Ours => None,
            ClassState::Refused(why) => Some(Finding::new(Reason::Invalid, why)),
        };
        if let Some(parameters) = &gateway.parameters_ref {
            let message = unknown_parameters("spec.infrastructure.parametersRef", parameters);
            fault.get_or_insert(Finding::new(Reason::InvalidParameters, message));
        }
        let addresses = addresses(gateway, settings).unwrap_or_else(|finding| {
            fault.get_or_insert(finding);
            Addresses::default()
        });
        let policy = source_policy(&gateway.meta).unwrap_or_else(|finding| {
            fault.get_or_insert(finding);
            SourcePolicy::default()
        });
        let listeners: Vec<_> = gateway
            .listeners
            .iter()
            .map(|listener| ListenerUnit::new(objects, object, gateway, listener))
            .collect();
        Some(Self {
            object: object.clone(),
            generation: gateway.meta.generation,
            created: gateway.meta.created,
            conflicts: conflict::inside(&listeners),
            fault,
            addresses,
            policy,
            listeners,
        })
    }

    /// Its place among Gateways that want the same.
    pub(crate) fn rank(&self) -> Rank {
        (self.created, self.object.clone())
    }

    /// What it wants that only one Gateway can have.
    pub(crate) fn claims(&self) -> BTreeMap<Slot, Vec<Claim>> {
        let mut claims: BTreeMap<Slot, Vec<Claim>> = BTreeMap::new();
        let Some(addresses) = self
            .addresses
            .served
            .as_ref()
            .filter(|_| self.fault.is_none())
        else {
            return claims;
        };
        let addresses: Vec<_> = match &addresses[..] {
            [] => vec![None],
            some => some.iter().copied().map(Some).collect(),
        };
        for (at, listener) in self.listeners.iter().enumerate() {
            if listener.fault.is_some() || self.conflicts.contains_key(&at) {
                continue;
            }
            for address in &addresses {
                let slot = claims.entry((*address, listener.port)).or_default();
                slot.push(conflict::claim(listener));
            }
        }
        claims
    }

    fn key(&self, listener: &ListenerUnit) -> ListenerKey {
        ListenerKey {
            gateway: self.object.clone(),
            section: listener.name.clone(),
        }
    }

    fn conflict<'a>(&'a self, at: usize, claims: &'a Claims) -> Option<&'a Conflict> {
        let inside = self.conflicts.get(&at);
        inside.or_else(|| claims.conflict(&self.key(&self.listeners[at])))
    }

    fn is_served(&self, at: usize, claims: &Claims) -> bool {
        self.fault.is_none()
            && self.addresses.served.is_some()
            && self.listeners[at].is_servable()
            && self.conflict(at, claims).is_none()
    }

    /// What routes see of it.
    pub(crate) fn view(&self, claims: &Claims) -> ParentView {
        let view = |(at, listener): (usize, &ListenerUnit)| ListenerView {
            key: self.key(listener),
            port: listener.port,
            protocol: listener.protocol.clone(),
            is_passthrough: listener.is_passthrough,
            hostname: listener.hostname.clone(),
            allowed_routes: listener.allowed_routes.clone(),
            supported_kinds: listener.supported_kinds.clone(),
            is_served: self.is_served(at, claims),
        };
        ParentView {
            gateway: self.object.clone(),
            listeners: self.listeners.iter().enumerate().map(view).collect(),
        }
    }

    /// What of it is served.
    pub(crate) fn served(&self, claims: &Claims) -> Served {
        let mut served = Served::default();
        let Some(addresses) = &self.addresses.served else {
            return served;
        };
        for (at, listener) in self.listeners.iter().enumerate() {
            if !self.is_served(at, claims) {
                continue;
            }
            let usable = &listener.certificates.usable;
            let protocol = match listener.protocol {
                Protocol::Https => ListenerProtocol::Https(TlsTermination {
                    certificates: usable.iter().map(|(key, _)| key.clone()).collect(),
                    client_validation: None,
                }),
                _ => ListenerProtocol::Http,
            };
            let key = self.key(listener);
            served.certificates.extend(usable.iter().cloned());
            served.listeners.insert(
                key.clone(),
                Arc::new(ir::Listener {
                    gateway: key.gateway.clone(),
                    key,
                    backend_client_certificate: None,
                    addresses: addresses.clone(),
                    port: listener.port,
                    protocol,
                    hostname: listener.hostname.clone(),
                    source_policy: self.policy.clone(),
                }),
            );
        }
        served
    }

    /// Gateway API v1 `Gateway.status`. `attached` counts the accepted routes of a listener.
    pub(crate) fn status(
        &self,
        claims: &Claims,
        attached: impl Fn(&ListenerKey) -> u32,
    ) -> Arc<Status> {
        let listener = |(at, listener): (usize, &ListenerUnit)| ListenerStatus {
            name: listener.name.clone(),
            supported_kinds: listener.supported_kinds.clone(),
            attached_routes: attached(&self.key(listener)),
            conditions: self.listener_conditions(at, claims),
        };
        let address = |address: &std::net::IpAddr| GatewayStatusAddress {
            kind: "IPAddress",
            value: address.to_string().into(),
        };
        let shown = self.addresses.shown.iter();
        Arc::new(Status::Gateway(GatewayStatus {
            addresses: shown
                .filter(|_| self.fault.is_none())
                .map(address)
                .collect(),
            conditions: self.conditions(claims),
            listeners: self.listeners.iter().enumerate().map(listener).collect(),
        }))
    }

    fn listener_conditions(&self, at: usize, claims: &Claims) -> Conditions {
        let listener = &self.listeners[at];
        let conflict = self.conflict(at, claims).map(|c| &c.0);
        let mut conditions = Conditions::new(self.generation);
        match conflict {
            Some(Finding { reason, message }) => {
                conditions.hold(ConditionType::Conflicted, *reason, message);
            }
            None => conditions.fail(
                ConditionType::Conflicted,
                Reason::NoConflicts,
                "distinct from every other listener",
            ),
        }
        match listener.fault.as_ref().or(conflict) {
            Some(Finding { reason, message }) => {
                conditions.fail(ConditionType::Accepted, *reason, message);
            }
            None => conditions.hold(
                ConditionType::Accepted,
                Reason::Accepted,
                "the listener is understood",
            ),
        }
        match &listener.references {
            Some(Finding { reason, message }) => {
                conditions.fail(ConditionType::ResolvedRefs, *reason, message);
            }
            None => conditions.hold(
                ConditionType::ResolvedRefs,
                Reason::ResolvedRefs,
                "every reference leads somewhere",
            ),
        }
        match self.not_programmed(at, claims) {
            Some((reason, message)) => {
                conditions.fail(ConditionType::Programmed, reason, message);
            }
            None => conditions.wait_for_data_plane(),
        }
        if let Some(message) = self.overlap(at, claims) {
            conditions.hold(
                ConditionType::OverlappingTlsConfig,
                Reason::OverlappingHostnames,
                message,
            );
        }
        conditions
    }

    /// Why a listener is not served.
    fn not_programmed(&self, at: usize, claims: &Claims) -> Option<(Reason, String)> {
        let listener = &self.listeners[at];
        if let Some(fault) = &self.fault {
            let message = format!("the Gateway is not accepted: {}", fault.message);
            return Some((Reason::Invalid, message));
        }
        if let Some(fault) = &listener.fault {
            return Some((Reason::Invalid, fault.message.clone()));
        }
        if let Some(Conflict(finding)) = self.conflict(at, claims) {
            return Some((finding.reason, finding.message.clone()));
        }
        if self.addresses.served.is_none() {
            let unusable = self.addresses.unusable.as_ref();
            let message = unusable.map_or("", |f| &f.message);
            return Some((Reason::Invalid, message.to_owned()));
        }
        if !listener.is_servable() {
            let message = listener.references.as_ref().map_or("", |f| &f.message);
            return Some((Reason::Invalid, message.to_owned()));
        }
        None
    }

    /// "Controllers MUST detect the presence of overlapping hostnames" (Gateway API v1
    /// `ListenerConditionOverlappingTLSConfig`).
    fn overlap(&self, at: usize, claims: &Claims) -> Option<String> {
        let is_tls = |at: usize| {
            let listener = &self.listeners[at];
            listener.protocol == Protocol::Https
                && listener.fault.is_none()
                && self.conflict(at, claims).is_none()
        };
        let own = &self.listeners[at];
        if !is_tls(at) {
            return None;
        }
        let overlaps = |other: &ListenerUnit| match (&own.hostname, &other.hostname) {
            (Some(a), Some(b)) => a.intersects(b),
            _ => true,
        };
        let names: Vec<_> = (0..self.listeners.len())
            .filter(|other| *other != at && is_tls(*other))
            .map(|other| &self.listeners[other])
            .filter(|other| other.port == own.port && overlaps(other))
            .map(|other| &*other.name)
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "hostnames overlap with listener {}; a request that comes in through the wrong one \
                 is answered with 421",
                names.join(", ")
            )
        })
    }

    fn conditions(&self, claims: &Claims) -> Conditions {
        let mut conditions = Conditions::new(self.generation);
        let accepted = self.accepted(&mut conditions, claims);
        let unresolved: Vec<_> = self
            .listeners
            .iter()
            .filter_map(|l| {
                Some(format!(
                    "listener {}: {}",
                    l.name,
                    l.references.as_ref()?.message
                ))
            })
            .collect();
        if unresolved.is_empty() {
            conditions.hold(
                ConditionType::ResolvedRefs,
                Reason::ResolvedRefs,
                "every reference leads somewhere",
            );
        } else {
            conditions.fail(
                ConditionType::ResolvedRefs,
                Reason::ListenersNotResolved,
                unresolved.join("; "),
            );
        }
        let served = (0..self.listeners.len()).any(|at| self.is_served(at, claims));
        if !accepted {
            conditions.fail(
                ConditionType::Programmed,
                Reason::Invalid,
                "the Gateway is not accepted",
            );
        } else if let Some(Finding { reason, message }) = &self.addresses.unusable {
            conditions.fail(ConditionType::Programmed, *reason, message);
        } else if !served {
            let why: BTreeSet<_> = (0..self.listeners.len())
                .filter_map(|at| Some(self.not_programmed(at, claims)?.1))
                .collect();
            let why: Vec<_> = why.into_iter().collect();
            conditions.fail(
                ConditionType::Programmed,
                Reason::Invalid,
                format!("no listener can be served: {}", why.join("; ")),
            );
        } else {
            conditions.wait_for_data_plane();
        }
        conditions
    }

    /// Sets `Accepted`; says whether it holds.
    fn accepted(&self, conditions: &mut Conditions, claims: &Claims) -> bool {
        if let Some(Finding { reason, message }) = &self.fault {
            conditions.fail(ConditionType::Accepted, *reason, message);
            return false;
        }
        let faults: Vec<_> = (0..self.listeners.len())
            .filter_map(|at| {
                let listener = &self.listeners[at];
                let conflict = self.conflict(at, claims).map(|c| &c.0);
                let fault = listener.fault.as_ref().or(conflict)?;
                Some(format!("listener {}: {}", listener.name, fault.message))
            })
            .collect();
        if faults.is_empty() {
            conditions.hold(
                ConditionType::Accepted,
                Reason::Accepted,
                "every listener is understood",
            );
            return true;
        }
        let message = faults.join("; ");
        if faults.len() == self.listeners.len() {
            conditions.fail(ConditionType::Accepted, Reason::ListenersNotValid, message);
            return false;
        }
        conditions.hold(ConditionType::Accepted, Reason::ListenersNotValid, message);
        true
    }
}
