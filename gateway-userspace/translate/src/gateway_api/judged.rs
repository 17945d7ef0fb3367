//! What becomes of a Gateway's listeners among those of all others.

use std::collections::BTreeMap;

use gateway_model::ir::PortKind;
use gateway_model::names::{ListenerKey, ObjectKind};

use super::conflict::{Claims, Conflict};
use super::gateway::{GatewayUnit, Member};
use super::listener::ListenerUnit;
use super::overlap::Overlaps;

/// How many listeners a message names at most.
const MAX_NAMED: usize = 5;

/// What becomes of a Gateway's listeners, its ListenerSets' included.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Judged {
    /// Whether the Gateway is accepted: it is valid, and so is at least one listener of its own.
    pub(super) is_accepted: bool,
    verdicts: BTreeMap<ListenerKey, Verdict>,
}

/// What becomes of one listener.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    /// What stands in its way.
    pub(super) conflict: Option<Conflict>,
    /// Whether it could be served if its Gateway is.
    pub(super) is_valid: bool,
    /// Whether it is served.
    pub(super) is_served: bool,
    /// Gateway API v1 `ListenerConditionOverlappingTLSConfig`: the listeners that it shares hostnames
    /// with, as text; empty without any.
    pub(super) overlaps: Vec<String>,
}

impl Judged {
    pub(crate) fn new(unit: &GatewayUnit, claims: &Claims) -> Self {
        let is_free = |listener: &ListenerUnit| {
            listener.fault.is_none() && unit.conflict(&listener.key, claims).is_none()
        };
        let is_accepted = unit.is_accepted(claims);
        let mut tls: BTreeMap<u16, Neighbours<'_>> = BTreeMap::new();
        let listeners = || unit.members.iter().flat_map(|member| &member.listeners);
        for listener in listeners() {
            if listener.port_kind() == Some(PortKind::Tls) && is_free(listener) {
                tls.entry(listener.port).or_default().push(listener);
            }
        }
        let verdict = |listener: &ListenerUnit| {
            let conflict = unit.conflict(&listener.key, claims).cloned();
            let is_valid = conflict.is_none() && listener.is_servable();
            let is_own = listener.key.gateway == unit.object;
            let parent = unit.fault.is_none() && (is_own || is_accepted);
            let neighbours = tls.get(&listener.port).filter(|_| is_free(listener));
            let verdict = Verdict {
                is_valid,
                is_served: is_valid && parent && unit.addresses.served.is_some(),
                overlaps: neighbours.map_or_else(Vec::new, |n| n.overlaps_with(listener)),
                conflict,
            };
            (listener.key.clone(), verdict)
        };
        Self {
            is_accepted,
            verdicts: listeners().map(verdict).collect(),
        }
    }

    pub(super) fn of(&self, listener: &ListenerKey) -> Option<&Verdict> {
        self.verdicts.get(listener)
    }

    pub(super) fn conflict(&self, listener: &ListenerKey) -> Option<&Conflict> {
        self.of(listener)?.conflict.as_ref()
    }

    pub(super) fn is_served(&self, listener: &ListenerKey) -> bool {
        self.of(listener).is_some_and(|verdict| verdict.is_served)
    }

    /// Whether some listener of this object could be served.
    pub(super) fn is_any_valid(&self, member: &Member) -> bool {
        let mut verdicts = member.listeners.iter().filter_map(|l| self.of(&l.key));
        verdicts.any(|verdict| verdict.is_valid)
    }

    /// What is wrong with listeners of this object that cannot be served, one text each.
    pub(super) fn faults(&self, member: &Member) -> Vec<String> {
        let fault = |listener: &ListenerUnit| {
            let verdict = self.of(&listener.key)?;
            if verdict.is_valid {
                return None;
            }
            let conflict = verdict.conflict.as_ref().map(|c| &c.0);
            let references = listener.references.as_ref();
            let finding = listener.fault.as_ref().or(conflict).or(references)?;
            Some(format!(
                "listener {}: {}",
                listener.key.section, finding.message
            ))
        };
        member.listeners.iter().filter_map(fault).collect()
    }
}

/// The TLS listeners of one port.
#[derive(Default)]
struct Neighbours<'a> {
    listeners: Vec<&'a ListenerUnit>,
    hostnames: Overlaps,
}

impl<'a> Neighbours<'a> {
    fn push(&mut self, listener: &'a ListenerUnit) {
        self.hostnames.push(listener.hostname.as_ref());
        self.listeners.push(listener);
    }

    /// "Controllers MUST detect the presence of overlapping hostnames" (Gateway API v1
    /// `ListenerConditionOverlappingTLSConfig`).
    fn overlaps_with(&self, own: &ListenerUnit) -> Vec<String> {
        let all = self.hostnames.with(own.hostname.as_ref());
        let all = all.into_iter().map(|number| self.listeners[number]);
        let mut others = all.filter(|other| other.key != own.key);
        let named = others.by_ref().take(MAX_NAMED);
        let mut names: Vec<_> = named
            .map(|other| {
                let gateway = &other.key.gateway;
                if *gateway == own.key.gateway {
                    other.key.section.to_string()
                } else if gateway.kind == ObjectKind::Gateway {
                    format!("{} of the Gateway", other.key.section)
                } else {
                    "of a ListenerSet".to_owned()
                }
            })
            .collect();
        names.dedup();
        let more = others.count();
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        names
    }
}
