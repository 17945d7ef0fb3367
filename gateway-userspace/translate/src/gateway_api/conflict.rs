//! Listeners that are not distinct: inside one Gateway, and between Gateways that share an address.
//!
//! Inside one Gateway none of them wins: "The implementation MUST NOT pick one conflicting Listener
//! as the winner" (Gateway API v1 `Gateway.spec.listeners`). Between Gateways the older one keeps
//! its place, then the first by namespace and name, as the specification has it for ListenerSets:
//! nobody may take down somebody else's Gateway by creating another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gateway_model::names::{Hostname, ListenerKey, ObjectRef};

use super::Finding;
use super::listener::ListenerUnit;
use crate::objects::Protocol;
use crate::status::Reason;

/// Why a listener is not distinct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict(pub(super) Finding);

/// One address and port; no address means every one of the node that nobody asked for by itself.
pub(crate) type Slot = (Option<IpAddr>, u16);

/// What a listener claims of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(super) section: Arc<str>,
    pub(super) protocol: Protocol,
    pub(super) hostname: Option<Hostname>,
}

impl Claim {
    fn against(&self, other: &Self) -> Option<Reason> {
        if self.protocol != other.protocol {
            return Some(Reason::ProtocolConflict);
        }
        (self.hostname == other.hostname).then_some(Reason::HostnameConflict)
    }
}

/// The listeners of one Gateway that are in each other's way, by position.
pub(super) fn inside(listeners: &[ListenerUnit]) -> BTreeMap<usize, Conflict> {
    let mut conflicts = BTreeMap::new();
    for (at, listener) in listeners.iter().enumerate() {
        let others = listeners.iter().enumerate().filter(|(other_at, other)| {
            *other_at != at && other.port == listener.port && other.fault.is_none()
        });
        let clashing: Vec<_> = others
            .filter_map(|(_, other)| Some((claim(listener).against(&claim(other))?, other)))
            .collect();
        if listener.fault.is_some() || clashing.is_empty() {
            continue;
        }
        let names: Vec<_> = clashing.iter().map(|(_, other)| &*other.name).collect();
        let protocol = clashing
            .iter()
            .any(|(reason, _)| *reason == Reason::ProtocolConflict);
        let finding = if protocol {
            Finding::new(
                Reason::ProtocolConflict,
                format!(
                    "port {} speaks another protocol for listener {}; use another port",
                    listener.port,
                    names.join(", ")
                ),
            )
        } else {
            Finding::new(
                Reason::HostnameConflict,
                format!(
                    "listener {} has the same port and hostname; change one of them",
                    names.join(", ")
                ),
            )
        };
        conflicts.insert(at, Conflict(finding));
    }
    conflicts
}

pub(super) fn claim(listener: &ListenerUnit) -> Claim {
    Claim {
        section: listener.name.clone(),
        protocol: listener.protocol.clone(),
        hostname: listener.hostname.clone(),
    }
}

/// Who stands first: the older Gateway, then namespace and name.
pub(crate) type Rank = (i64, ObjectRef);

/// The claims of all Gateways, and who lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    slots: BTreeMap<Slot, BTreeMap<Rank, Vec<Claim>>>,
    lost: BTreeMap<ListenerKey, BTreeMap<Slot, Conflict>>,
}

impl Claims {
    /// Replaces the claims of one Gateway; returns the Gateways whose listeners are affected.
    pub(crate) fn replace(
        &mut self,
        old: &BTreeMap<Slot, Vec<Claim>>,
        old_rank: &Rank,
        new: &BTreeMap<Slot, Vec<Claim>>,
        new_rank: &Rank,
    ) -> BTreeSet<ObjectRef> {
        let mut affected = BTreeSet::new();
        let slots: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
        for slot in slots {
            if old.get(&slot) == new.get(&slot) && old_rank == new_rank {
                continue;
            }
            let claims = self.slots.entry(slot).or_default();
            claims.remove(old_rank);
            if let Some(new) = new.get(&slot) {
                claims.insert(new_rank.clone(), new.clone());
            }
            let before = self.take_lost(slot, &new_rank.1);
            let after = self.judge(slot);
            let changed = before
                .iter()
                .filter(|(key, conflict)| after.get(*key) != Some(*conflict))
                .map(|(key, _)| key)
                .chain(after.keys().filter(|key| !before.contains_key(*key)));
            affected.extend(changed.map(|key| key.gateway.clone()));
            for (key, conflict) in after {
                self.lost.entry(key).or_default().insert(slot, conflict);
            }
            if self.slots.get(&slot).is_some_and(BTreeMap::is_empty) {
                self.slots.remove(&slot);
            }
        }
        affected
    }

    /// Why another Gateway's listener stands in the way of this one.
    pub(crate) fn conflict(&self, listener: &ListenerKey) -> Option<&Conflict> {
        self.lost.get(listener)?.values().next()
    }

    fn take_lost(&mut self, slot: Slot, gone: &ObjectRef) -> BTreeMap<ListenerKey, Conflict> {
        let mut taken = BTreeMap::new();
        let gateways = self.slots.get(&slot).into_iter().flatten();
        let mut names: BTreeSet<_> = gateways.map(|((_, gateway), _)| gateway.clone()).collect();
        names.insert(gone.clone());
        self.lost.retain(|key, slots| {
            if names.contains(&key.gateway)
                && let Some(conflict) = slots.remove(&slot)
            {
                taken.insert(key.clone(), conflict);
            }
            !slots.is_empty()
        });
        taken
    }

    fn judge(&self, slot: Slot) -> BTreeMap<ListenerKey, Conflict> {
        let mut lost = BTreeMap::new();
        let mut standing: Vec<(&ObjectRef, &Claim)> = Vec::new();
        for ((_, gateway), claims) in self.slots.get(&slot).into_iter().flatten() {
            let before = standing.len();
            for claim in claims {
                let key = ListenerKey {
                    gateway: gateway.clone(),
                    section: claim.section.clone(),
                };
                let rival = standing[..before]
                    .iter()
                    .find_map(|(owner, other)| Some((claim.against(other)?, owner, other)));
                match rival {
                    None => standing.push((gateway, claim)),
                    Some((reason, owner, other)) => {
                        lost.insert(key, lost_to(slot, reason, owner, other));
                    }
                }
            }
        }
        lost
    }
}

fn lost_to((address, port): Slot, reason: Reason, owner: &ObjectRef, other: &Claim) -> Conflict {
    let place = address.map_or_else(
        || format!("port {port}"),
        |address| format!("port {port} of {address}"),
    );
    let what = match (reason, &other.hostname) {
        (Reason::ProtocolConflict, _) => format!("for protocol {}", other.protocol.as_str()),
        (_, Some(hostname)) => format!("for {hostname}"),
        (_, None) => "for every hostname".to_owned(),
    };
    Conflict(Finding::new(
        reason,
        format!(
            "listener {} of {owner}, which is older or comes first by name, has {place} {what}; \
             give this Gateway an address, port or hostname of its own",
            other.section
        ),
    ))
}
