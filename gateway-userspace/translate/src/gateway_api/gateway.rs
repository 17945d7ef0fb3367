//! One Gateway with the ListenerSets that it takes: what it is by itself, and what of it is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_model::ir::{
    self, Certificate, CertificateKey, ListenerProtocol, SourcePolicy, TlsTermination,
};
use gateway_model::names::{Hostname, ListenerKey, ObjectRef};

use super::addresses::{Addresses, Request, Sources};
use super::allocation::Ask;
use super::certificates::{self, Usable};
use super::class::unknown_parameters;
use super::conflict::{self, Claim, Claims, ClaimsOfGateway, Conflict, Rank};
use super::frontend::{self, Frontend};
use super::judged::Judged;
use super::listener::ListenerUnit;
use super::listener_set;
use super::source_policy::source_policy;
use super::{ClassState, Finding};
use crate::objects::{AllowedRoutes, Gateway, Objects, Protocol};
use crate::settings::Settings;
use crate::status::{Reason, RouteGroupKind};

/// One Gateway that is ours, as far as it depends on itself, its class, its ListenerSets, and what
/// all of these refer to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayUnit {
    pub(super) object: ObjectRef,
    pub(super) spec: Arc<Gateway>,
    /// Why none of it can be served.
    pub(super) fault: Option<Finding>,
    request: Request,
    pub(super) addresses: Addresses,
    policy: SourcePolicy,
    client_certificate: Option<Usable>,
    /// What is wrong with `spec.tls.backend`.
    pub(super) backend_fault: Option<Finding>,
    /// Whether clients without a valid certificate are let in, and where.
    pub(super) insecure: Option<String>,
    /// Who declares its listeners, in order of precedence: first itself, then its ListenerSets.
    pub(super) members: Vec<Member>,
    /// ListenerSets that name it and are not allowed to, with their generation.
    pub(super) refused: BTreeMap<ObjectRef, (i64, Finding)>,
    /// Its listeners that are in each other's way.
    pub(super) conflicts: BTreeMap<ListenerKey, Conflict>,
}

/// An object that declares listeners of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) object: ObjectRef,
    pub(super) generation: i64,
    pub(super) listeners: Vec<ListenerUnit>,
}

/// What routes see of a Gateway that is ours, or of a ListenerSet of such a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParentView {
    /// The Gateway; the parent itself unless that is a ListenerSet.
    pub(super) gateway: ObjectRef,
    /// Its own listeners, in the order of its spec; none for a ListenerSet that is not allowed.
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
    /// Translates a Gateway; none if it is not ours. `sets` are the ListenerSets that name it.
    pub(crate) fn new<'a>(
        objects: &Objects,
        gateway: &Arc<Gateway>,
        object: &ObjectRef,
        class: ClassState,
        sets: impl Iterator<Item = &'a ObjectRef>,
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
        let request = Request::of(gateway).unwrap_or_else(|finding| {
            fault.get_or_insert(finding);
            Request::default()
        });
        let policy = source_policy(&gateway.meta).unwrap_or_else(|finding| {
            fault.get_or_insert(finding);
            SourcePolicy::default()
        });
        let (client_certificate, backend_fault) = match &gateway.client_certificate {
            Some(reference) => certificates::client_certificate(objects, object, reference),
            None => (None, None),
        };
        let (members, refused) = members(objects, gateway, object, sets);
        let listeners = members.iter().map(|member| &member.listeners[..]);
        Some(Self {
            object: object.clone(),
            spec: gateway.clone(),
            conflicts: conflict::inside(listeners),
            fault,
            request,
            addresses: Addresses::default(),
            policy,
            client_certificate,
            backend_fault,
            insecure: frontend::insecure(&gateway.frontend),
            members,
            refused,
        })
    }

    /// Its place among Gateways that want the same.
    pub(crate) fn rank(&self) -> Rank {
        (self.spec.meta.created, self.object.clone())
    }

    /// What it asks of the pool. What a Gateway holds it keeps while it is not accepted.
    pub(crate) fn ask(&self, settings: &Settings) -> Ask {
        let may_grow = self.fault.is_none();
        self.request.ask(&settings.address_pool, may_grow)
    }

    /// Settles where it is served.
    pub(crate) fn address(&mut self, sources: &Sources<'_>) {
        self.addresses = match &self.fault {
            Some(fault) if fault.reason == Reason::UnsupportedAddress => Addresses::default(),
            _ => Addresses::new(&self.request, sources),
        };
    }

    /// Gateway API v1 `Gateway.status.conditions`, `Accepted`: it is valid, and so is at least one
    /// listener of its own, as far as these claims are those of the Gateways before it.
    pub(crate) fn is_accepted(&self, claims: &Claims) -> bool {
        let is_free = |listener: &ListenerUnit| {
            listener.fault.is_none() && self.conflict(&listener.key, claims).is_none()
        };
        self.fault.is_none() && self.members[0].listeners.iter().any(is_free)
    }

    /// What it wants that only one Gateway can have, for itself.
    pub(crate) fn own_claims(&self) -> ClaimsOfGateway {
        self.claims_of(&self.members[..1])
    }

    /// As [`Self::own_claims`], with what its ListenerSets want once it is accepted.
    pub(crate) fn all_claims(&self) -> ClaimsOfGateway {
        self.claims_of(&self.members)
    }

    fn claims_of(&self, members: &[Member]) -> ClaimsOfGateway {
        let mut claims = ClaimsOfGateway::new();
        let addresses = self.addresses.served.as_ref();
        let Some(addresses) = addresses.filter(|_| self.fault.is_none()) else {
            return claims;
        };
        let addresses: Vec<_> = match &addresses[..] {
            [] => vec![None],
            some => some.iter().copied().map(Some).collect(),
        };
        for listener in members.iter().flat_map(|member| &member.listeners) {
            if self.conflicts.contains_key(&listener.key) {
                continue;
            }
            let Some(((transport, port), claim)) = Claim::of(listener) else {
                continue;
            };
            for address in &addresses {
                let slot = claims.entry((*address, transport, port)).or_default();
                slot.push(claim.clone());
            }
        }
        claims
    }

    pub(super) fn conflict<'a>(
        &'a self,
        listener: &ListenerKey,
        claims: &'a Claims,
    ) -> Option<&'a Conflict> {
        let inside = self.conflicts.get(listener);
        inside.or_else(|| claims.conflict(listener))
    }

    /// The ListenerSets that name it, allowed or not.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &ObjectRef> {
        let taken = self.members.iter().skip(1).map(|member| &member.object);
        taken.chain(self.refused.keys())
    }

    /// What routes see of it and of its ListenerSets.
    pub(crate) fn views(&self, judged: &Judged) -> BTreeMap<ObjectRef, ParentView> {
        let view = |listener: &ListenerUnit| ListenerView {
            key: listener.key.clone(),
            port: listener.port,
            protocol: listener.protocol.clone(),
            is_passthrough: listener.is_passthrough,
            hostname: listener.hostname.clone(),
            allowed_routes: listener.allowed_routes.clone(),
            supported_kinds: listener.supported_kinds.clone(),
            is_served: judged.is_served(&listener.key),
        };
        let parent = |listeners: &[ListenerUnit]| ParentView {
            gateway: self.object.clone(),
            listeners: listeners.iter().map(view).collect(),
        };
        let members = self.members.iter();
        let members = members.map(|m| (m.object.clone(), parent(&m.listeners)));
        let refused = self.refused.keys().map(|set| (set.clone(), parent(&[])));
        members.chain(refused).collect()
    }

    /// What of it is served.
    pub(crate) fn served(&self, judged: &Judged) -> Served {
        let mut served = Served::default();
        let Some(addresses) = &self.addresses.served else {
            return served;
        };
        for listener in self.members.iter().flat_map(|member| &member.listeners) {
            let Some(protocol) = protocol(listener) else {
                continue;
            };
            if !judged.is_served(&listener.key) {
                continue;
            }
            let certificates = listener.certificates.usable.iter();
            let certificates = certificates.chain(&self.client_certificate);
            served.certificates.extend(certificates.cloned());
            let client_certificate = self.client_certificate.as_ref();
            served.listeners.insert(
                listener.key.clone(),
                Arc::new(ir::Listener {
                    key: listener.key.clone(),
                    gateway: self.object.clone(),
                    addresses: addresses.clone(),
                    port: listener.port,
                    protocol,
                    hostname: listener.hostname.clone(),
                    source_policy: self.policy.clone(),
                    backend_client_certificate: client_certificate.map(|(key, _)| key.clone()),
                }),
            );
        }
        served
    }
}

/// Who declares listeners of a Gateway, and who would like to.
fn members<'a>(
    objects: &Objects,
    gateway: &Gateway,
    object: &ObjectRef,
    sets: impl Iterator<Item = &'a ObjectRef>,
) -> (Vec<Member>, BTreeMap<ObjectRef, (i64, Finding)>) {
    let mut frontend = Frontend::new(objects, object, &gateway.frontend);
    let mut unit =
        |object: &ObjectRef, listener| ListenerUnit::new(objects, object, &mut frontend, listener);
    let own = gateway.listeners.iter().map(|l| unit(object, l)).collect();
    let mut members = vec![Member {
        object: object.clone(),
        generation: gateway.meta.generation,
        listeners: own,
    }];
    let mut refused = BTreeMap::new();
    let known = sets.filter_map(|name| Some((name, objects.listener_sets.get(name)?)));
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(name, set)| (set.meta.created, *name));
    for (name, set) in known {
        let generation = set.meta.generation;
        if let Err(finding) = listener_set::allowed(objects, gateway, object, name) {
            refused.insert(name.clone(), (generation, finding));
            continue;
        }
        members.push(Member {
            object: name.clone(),
            generation,
            listeners: set.listeners.iter().map(|l| unit(name, l)).collect(),
        });
    }
    (members, refused)
}

fn protocol(listener: &ListenerUnit) -> Option<ListenerProtocol> {
    let termination = || {
        let certificates = listener.certificates.usable.iter();
        TlsTermination {
            certificates: certificates.map(|(key, _)| key.clone()).collect(),
            client_validation: listener.validation.clone(),
        }
    };
    Some(match listener.protocol {
        Protocol::Http => ListenerProtocol::Http,
        Protocol::Https => ListenerProtocol::Https(termination()),
        Protocol::Tls if listener.is_passthrough => ListenerProtocol::TlsPassthrough,
        Protocol::Tls => ListenerProtocol::TlsTerminate(termination()),
        Protocol::Tcp => ListenerProtocol::Tcp,
        Protocol::Udp => ListenerProtocol::Udp,
        Protocol::Other(_) => return None,
    })
}
