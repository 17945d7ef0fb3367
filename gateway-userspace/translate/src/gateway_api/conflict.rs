//! Listeners that are not distinct: inside one Gateway, and between Gateways that share an address.
//!
//! The listeners of a Gateway are its own and those of the ListenerSets that it takes, in their
//! order of precedence: the Gateway's own come first, and a later listener loses to an earlier one.
//! Inside one object none of them wins: "The implementation MUST NOT pick one conflicting Listener
//! as the winner" (Gateway API v1 `Gateway.spec.listeners`). Between Gateways the older one keeps
//! its place, then the first by namespace and name, as the specification has it for ListenerSets:
//! nobody may take down somebody else's Gateway by creating another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gateway_model::ir::PortKind;
use gateway_model::l4_plan::Transport;
use gateway_model::names::{Hostname, ListenerKey, ObjectKind, ObjectRef};

use super::Finding;
use super::listener::ListenerUnit;
use crate::status::{Reason, listed};

/// Why a listener is not distinct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict(pub(super) Finding);

/// One address, transport and port; no address means every one of the node that nobody asked for
/// by itself.
pub(crate) type Slot = (Option<IpAddr>, Transport, u16);

/// What a listener claims of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    key: ListenerKey,
    kind: PortKind,
    hostname: Option<Hostname>,
}

impl Claim {
    /// What a listener claims, and where; none for one that cannot be served anyway.
    pub(super) fn of(listener: &ListenerUnit) -> Option<((Transport, u16), Self)> {
        let kind = listener.port_kind().filter(|_| listener.fault.is_none())?;
        let claim = Self {
            key: listener.key.clone(),
            kind,
            hostname: listener.hostname.clone(),
        };
        Some(((kind.transport(), listener.port), claim))
    }

    /// Gateway API v1: listeners of one port must be of one kind; HTTP, HTTPS and TLS listeners then
    /// differ by hostname, and of TCP and UDP there can be only one.
    fn against(&self, other: &Self) -> Option<Reason> {
        let alone = matches!(self.kind, PortKind::Tcp | PortKind::Udp);
        if self.kind != other.kind || alone {
            return Some(Reason::ProtocolConflict);
        }
        (self.hostname == other.hostname).then_some(Reason::HostnameConflict)
    }

    /// What a port is taken for, where `reason` says that it cannot be shared.
    fn holds(&self, reason: Reason) -> String {
        match (reason, self.kind, &self.hostname) {
            (Reason::ProtocolConflict, PortKind::Http, _) => "for HTTP".to_owned(),
            (Reason::ProtocolConflict, PortKind::Tls, _) => "for TLS".to_owned(),
            (Reason::ProtocolConflict, PortKind::Tcp, _) => "for TCP alone".to_owned(),
            (Reason::ProtocolConflict, PortKind::Udp, _) => "for UDP alone".to_owned(),
            (_, _, Some(hostname)) => format!("for {hostname}"),
            (_, _, None) => "for every hostname".to_owned(),
        }
    }
}

/// The claims of one slot that stand: all distinct from each other.
struct Standing<'a, T> {
    first: Option<(T, &'a Claim)>,
    by_hostname: BTreeMap<Option<&'a Hostname>, (T, &'a Claim)>,
}

impl<T> Default for Standing<'_, T> {
    fn default() -> Self {
        Self {
            first: None,
            by_hostname: BTreeMap::new(),
        }
    }
}

impl<'a, T: Copy> Standing<'a, T> {
    fn rival(&self, claim: &Claim) -> Option<(Reason, T, &'a Claim)> {
        let of_hostname = self.by_hostname.get(&claim.hostname.as_ref());
        let mut rivals = self.first.iter().chain(of_hostname);
        rivals.find_map(|(owner, other)| Some((claim.against(other)?, *owner, *other)))
    }

    fn stand(&mut self, owner: T, claim: &'a Claim) {
        self.first.get_or_insert((owner, claim));
        self.by_hostname
            .insert(claim.hostname.as_ref(), (owner, claim));
    }
}

/// The listeners of one Gateway that are in each other's way. `members` are the objects that
/// declare them, in order of precedence.
pub(super) fn inside<'a>(
    members: impl Iterator<Item = &'a [ListenerUnit]>,
) -> BTreeMap<ListenerKey, Conflict> {
    let claims: Vec<Vec<_>> = members
        .map(|listeners| listeners.iter().filter_map(Claim::of).collect())
        .collect();
    let mut conflicts = BTreeMap::new();
    let mut standing: BTreeMap<(Transport, u16), Standing<'_, ()>> = BTreeMap::new();
    for claims in &claims {
        let mut left = Vec::with_capacity(claims.len());
        for (place, claim) in claims {
            match standing.get(place).and_then(|s| s.rival(claim)) {
                None => left.push((*place, claim)),
                Some((reason, (), rival)) => {
                    let conflict = lost_to_earlier(place.1, reason, rival);
                    conflicts.insert(claim.key.clone(), conflict);
                }
            }
        }
        for (place, claim) in &left {
            match among_equals(*place, claim, &left) {
                None => standing.entry(*place).or_default().stand((), claim),
                Some(conflict) => {
                    conflicts.insert(claim.key.clone(), conflict);
                }
            }
        }
    }
    conflicts
}

/// What a listener loses by other listeners of the same object.
fn among_equals(
    place: (Transport, u16),
    claim: &Claim,
    others: &[((Transport, u16), &Claim)],
) -> Option<Conflict> {
    let clashing: Vec<_> = others
        .iter()
        .filter(|(other_place, other)| *other_place == place && other.key != claim.key)
        .filter_map(|(_, other)| Some((claim.against(other)?, &*other.key.section)))
        .collect();
    let names = listed(clashing.iter().map(|(_, name)| *name), ", ");
    let reason = clashing.iter().map(|(reason, _)| *reason);
    let finding = match reason.max_by_key(|r| *r == Reason::ProtocolConflict)? {
        Reason::ProtocolConflict => Finding::new(
            Reason::ProtocolConflict,
            format!(
                "port {} cannot be shared with listener {}, which speaks another protocol or needs it \
                 alone; use another port",
                place.1, names
            ),
        ),
        reason => Finding::new(
            reason,
            format!(
                "listener {} has the same port and hostname; change one of them",
                names
            ),
        ),
    };
    Some(Conflict(finding))
}

/// Of other ListenerSets no more is said than that they are there: "Implementations SHOULD be
/// cautious about what information from the parent or siblings are reported" (Gateway API v1
/// `ListenerSet.spec.listeners`).
fn lost_to_earlier(port: u16, reason: Reason, rival: &Claim) -> Conflict {
    let owner = match rival.key.gateway.kind {
        ObjectKind::Gateway => format!("listener {} of the Gateway", rival.key.section),
        _ => "a listener of a ListenerSet that is older or comes first by name".to_owned(),
    };
    let instead = match (reason, &rival.hostname) {
        (Reason::ProtocolConflict, _) => "use another port",
        (_, Some(_)) => "use another hostname",
        (_, None) => "give a hostname",
    };
    let message = format!(
        "port {port} is taken by {owner} {}; {instead}",
        rival.holds(reason)
    );
    Conflict(Finding::new(reason, message))
}

/// Who stands first: the older Gateway, then namespace and name.
pub(crate) type Rank = (i64, ObjectRef);

/// The claims of one Gateway.
pub(crate) type ClaimsOfGateway = BTreeMap<Slot, Vec<Claim>>;

/// The claims of all Gateways, and who lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    slots: BTreeMap<Slot, BTreeMap<Rank, Vec<Claim>>>,
    lost: BTreeMap<ListenerKey, BTreeMap<Slot, Lost>>,
}

/// A place that a listener of this Gateway lost.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lost {
    gateway: ObjectRef,
    conflict: Conflict,
}

impl Claims {
    /// Replaces the claims of one Gateway; returns the Gateways whose listeners are affected.
    pub(crate) fn replace(
        &mut self,
        old: &ClaimsOfGateway,
        old_rank: &Rank,
        new: &ClaimsOfGateway,
        new_rank: &Rank,
    ) -> BTreeSet<ObjectRef> {
        let mut affected = BTreeSet::new();
        let slots: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
        for slot in slots {
            if old.get(&slot) == new.get(&slot) && old_rank == new_rank {
                continue;
            }
            let before = self.take_lost(slot);
            let claims = self.slots.entry(slot).or_default();
            claims.remove(old_rank);
            if let Some(new) = new.get(&slot) {
                claims.insert(new_rank.clone(), new.clone());
            }
            let after = self.judge(slot);
            let changed = before
                .iter()
                .filter(|(key, lost)| after.get(*key) != Some(*lost))
                .chain(after.iter().filter(|(key, _)| !before.contains_key(*key)));
            affected.extend(changed.map(|(_, lost)| lost.gateway.clone()));
            for (key, lost) in after {
                self.lost.entry(key).or_default().insert(slot, lost);
            }
            if self.slots.get(&slot).is_some_and(BTreeMap::is_empty) {
                self.slots.remove(&slot);
            }
        }
        affected
    }

    /// Why a listener of another Gateway stands in the way of this one.
    pub(crate) fn conflict(&self, listener: &ListenerKey) -> Option<&Conflict> {
        let lost = self.lost.get(listener)?.values().next()?;
        Some(&lost.conflict)
    }

    /// Takes out who lost this slot.
    fn take_lost(&mut self, slot: Slot) -> BTreeMap<ListenerKey, Lost> {
        let mut taken = BTreeMap::new();
        let claims = self.slots.get(&slot).into_iter().flat_map(BTreeMap::values);
        for claim in claims.flatten() {
            let Some(slots) = self.lost.get_mut(&claim.key) else {
                continue;
            };
            if let Some(lost) = slots.remove(&slot) {
                taken.insert(claim.key.clone(), lost);
            }
            if slots.is_empty() {
                self.lost.remove(&claim.key);
            }
        }
        taken
    }

    fn judge(&self, slot: Slot) -> BTreeMap<ListenerKey, Lost> {
        let mut lost = BTreeMap::new();
        let mut standing: Standing<'_, &ObjectRef> = Standing::default();
        for ((_, gateway), claims) in self.slots.get(&slot).into_iter().flatten() {
            let mut left = Vec::with_capacity(claims.len());
            for claim in claims {
                match standing.rival(claim) {
                    None => left.push(claim),
                    Some((reason, owner, other)) => {
                        let gateway = gateway.clone();
                        let conflict = lost_to(slot, reason, owner, other);
                        lost.insert(claim.key.clone(), Lost { gateway, conflict });
                    }
                }
            }
            for claim in left {
                standing.stand(gateway, claim);
            }
        }
        lost
    }
}

fn lost_to((address, _, port): Slot, reason: Reason, owner: &ObjectRef, other: &Claim) -> Conflict {
    let place = address.map_or_else(
        || format!("port {port}"),
        |address| format!("port {port} of {address}"),
    );
    let what = other.holds(reason);
    Conflict(Finding::new(
        reason,
        format!(
            "listener {} of {owner}, which is older or comes first by name, has {place} {what}; \
             give this Gateway an address, port or hostname of its own",
            other.key.section
        ),
    ))
}
