//! The statuses that objects are owed, in the shape that `kubectl get -o yaml` shows under `status:`.
//!
//! A translation knows all of a status but one thing: whether the data plane serves it.
//! [`Status::finish`] fills that in from what the appliers of a revision said. When a condition
//! last changed is not known here either; whoever writes the status compares it with the one that
//! stands and adds `lastTransitionTime`.

mod condition;
mod text;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::failure::Failure;
use gateway_model::names::{ListenerKey, ObjectRef, Revision};
use serde::Serialize;

use crate::lately::Lately;

pub use condition::{Condition, ConditionStatus, ConditionType, Conditions, Reason};
pub(crate) use text::listed;

/// The status of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Status {
    /// Gateway API v1 `GatewayClass.status`.
    GatewayClass(GatewayClassStatus),
    /// Gateway API v1 `Gateway.status`.
    Gateway(GatewayStatus),
    /// Gateway API v1 `ListenerSet.status`.
    ListenerSet(ListenerSetStatus),
    /// Gateway API v1 `HTTPRoute.status`, and the same of every other kind of route.
    Route(RouteStatus),
    /// Gateway API v1 `BackendTLSPolicy.status`.
    Policy(PolicyStatus),
}

/// Gateway API v1 `GatewayClass.status`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassStatus {
    /// `Accepted`, and `SupportedVersion` where there are CRDs.
    pub conditions: Conditions,
    /// Sorted by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_features: Vec<SupportedFeature>,
}

/// Gateway API v1 `GatewayClass.status.supportedFeatures`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SupportedFeature {
    /// The feature's name.
    pub name: &'static str,
}

/// Gateway API v1 `Gateway.status`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The addresses that clients use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GatewayStatusAddress>,
    /// `Accepted`, `Programmed`, `ResolvedRefs`, and `InsecureFrontendValidationMode` when true.
    pub conditions: Conditions,
    /// One per listener of its own, in the order of the spec.
    pub listeners: Vec<ListenerStatus>,
    /// How many accepted ListenerSets it has; none if none is allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<u32>,
}

/// Gateway API v1 `ListenerSet.status`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ListenerSetStatus {
    /// `Accepted`, `Programmed`.
    pub conditions: Conditions,
    /// One per listener, in the order of the spec; none if the Gateway does not take it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}

/// Gateway API v1 `Gateway.status.addresses`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct GatewayStatusAddress {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The address or name as text.
    pub value: Arc<str>,
}

/// Gateway API v1 `Gateway.status.listeners`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// The listener's name.
    pub name: Arc<str>,
    /// The kinds of routes it takes.
    pub supported_kinds: Vec<RouteGroupKind>,
    /// How many accepted routes are attached to it.
    pub attached_routes: u32,
    /// `Accepted`, `Conflicted`, `Programmed`, `ResolvedRefs`, and `OverlappingTLSConfig` when true.
    pub conditions: Conditions,
}

/// Gateway API v1 `RouteGroupKind`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RouteGroupKind {
    /// The API group.
    pub group: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
}

/// Gateway API v1 `RouteStatus`: our own entries only, in the order of `spec.parentRefs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RouteStatus {
    /// One per parent that is ours.
    pub parents: Vec<RouteParentStatus>,
}

/// Gateway API v1 `RouteParentStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    /// The reference as the route wrote it, defaults filled in.
    pub parent_ref: crate::objects::ParentRef,
    /// Whose entry this is.
    pub controller_name: Arc<str>,
    /// `Accepted`, `ResolvedRefs`, and `PartiallyInvalid` when true.
    pub conditions: Conditions,
}

/// Gateway API v1 `PolicyStatus`: our own entries only, sorted by ancestor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PolicyStatus {
    /// One per Gateway of ours, up to 16.
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// Gateway API v1 `PolicyAncestorStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyAncestorStatus {
    /// The Gateway.
    pub ancestor_ref: crate::objects::ParentRef,
    /// Whose entry this is.
    pub controller_name: Arc<str>,
    /// `Accepted`, `ResolvedRefs`.
    pub conditions: Conditions,
}

/// What became of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Applied {
    /// Which revision every applier has confirmed.
    pub revision: Revision,
    /// The listeners that could not be served, or not everywhere, and why.
    pub failures: BTreeMap<ListenerKey, Failure>,
    /// The objects that could not be compiled, why, and what is served of them instead.
    pub rejected: BTreeMap<ObjectRef, String>,
    /// The Gateways and ListenerSets that some node does not serve as they are now, and which; what
    /// is served of them is not known.
    pub pending: BTreeMap<ObjectRef, String>,
}

impl Status {
    /// This status, or an equal one that stands elsewhere: most routes of a Gateway are owed the same.
    pub(crate) fn shared(self) -> Arc<Self> {
        thread_local! {
            static LATELY: RefCell<Lately<Status, 256>> = const { RefCell::new(Lately::new()) };
        }
        LATELY.with_borrow_mut(|lately| lately.shared(self))
    }

    /// The status once a revision is applied: what waited for the data plane is now true, or says
    /// why it is not. `object` is whose status this is.
    #[must_use]
    pub fn finish(&self, object: &ObjectRef, applied: &Applied) -> Self {
        match self {
            Self::GatewayClass(_) | Self::Policy(_) => self.clone(),
            Self::Gateway(status) => {
                let mut finished = status.clone();
                let GatewayStatus {
                    addresses,
                    conditions,
                    listeners,
                    ..
                } = &mut finished;
                finish_addresses(object, addresses, conditions, applied);
                finish_listeners(object, conditions, listeners, applied);
                Self::Gateway(finished)
            }
            Self::ListenerSet(status) => {
                let mut finished = status.clone();
                let ListenerSetStatus {
                    conditions,
                    listeners,
                } = &mut finished;
                finish_listeners(object, conditions, listeners, applied);
                Self::ListenerSet(finished)
            }
            Self::Route(status) => Self::Route(status.finish(object, applied)),
        }
    }
}

/// Takes away the addresses of a Gateway that the node does not have, and says so.
fn finish_addresses(
    object: &ObjectRef,
    addresses: &mut Vec<GatewayStatusAddress>,
    conditions: &mut Conditions,
    applied: &Applied,
) {
    let own = applied
        .failures
        .iter()
        .filter(|(key, failure)| key.gateway == *object && !failure.unusable.is_empty());
    let mut unusable = BTreeSet::new();
    let mut reasons = BTreeSet::new();
    for (_, failure) in own {
        unusable.extend(failure.unusable.iter().map(ToString::to_string));
        reasons.insert(&failure.reason);
    }
    addresses.retain(|address| !unusable.contains(&*address.value));
    if !reasons.is_empty() && conditions.waits_for_data_plane() {
        conditions.address_not_usable(listed(reasons, "; "));
    }
}

/// Finishes the conditions of an object that declares listeners, and of these.
fn finish_listeners(
    object: &ObjectRef,
    conditions: &mut Conditions,
    listeners: &mut [ListenerStatus],
    applied: &Applied,
) {
    if let Some(why) = applied.pending.get(object) {
        let of_listeners = listeners.iter_mut().map(|l| &mut l.conditions);
        let all = of_listeners.chain([conditions]);
        all.filter(|c| c.waits_for_data_plane())
            .for_each(|c| c.still_waiting(why));
        return;
    }
    let mut failed = Vec::new();
    let mut served = 0_usize;
    for listener in listeners {
        if !listener.conditions.waits_for_data_plane() {
            continue;
        }
        let key = ListenerKey {
            gateway: object.clone(),
            section: listener.name.clone(),
        };
        // What is served wherever its addresses let it be is served.
        let failure = applied.failures.get(&key);
        let failure = failure.filter(|failure| !failure.is_of_addresses());
        let why = failure
            .map(ToString::to_string)
            .or_else(|| applied.rejected.get(object).cloned());
        match why {
            None => {
                served += 1;
                listener.conditions.programmed();
            }
            Some(why) => {
                failed.push(format!("listener {}: {why}", listener.name));
                listener.conditions.not_programmed(&why);
            }
        }
    }
    if conditions.waits_for_data_plane() {
        if failed.is_empty() || served > 0 {
            conditions.programmed();
        } else {
            conditions.not_programmed(&listed(&failed, "; "));
        }
    }
}

impl RouteStatus {
    fn finish(&self, object: &ObjectRef, applied: &Applied) -> Self {
        let mut finished = self.clone();
        if let Some(why) = applied.rejected.get(object) {
            for parent in &mut finished.parents {
                parent.conditions.rejected(why);
            }
        }
        finished
    }
}

#[cfg(test)]
mod tests;
