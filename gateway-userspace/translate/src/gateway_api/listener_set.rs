//! ListenerSets: whose listeners a Gateway takes, and what a ListenerSet is told.

use std::sync::Arc;

use gateway_model::names::{ListenerKey, ObjectRef};

use super::Finding;
use super::gateway::{GatewayUnit, Member};
use super::judged::Judged;
use super::listener::selector_fault;
use crate::objects::{Gateway, Known, ListenersFrom, Objects};
use crate::status::{ConditionType, Conditions, ListenerSetStatus, Reason, Status, listed};

/// Gateway API v1 `Gateway.spec.allowedListeners`: whether a Gateway takes a ListenerSet.
///
/// # Errors
/// Why it does not.
pub(super) fn allowed(
    objects: &Objects,
    gateway: &Gateway,
    object: &ObjectRef,
    set: &ObjectRef,
) -> Result<(), Finding> {
    let allowed = &gateway.allowed_listeners;
    let refuse = |why: String| {
        let message = format!("{object} does not take ListenerSets from {why}");
        Err(Finding::new(Reason::NotAllowed, message))
    };
    match &allowed.from {
        Known::Known(ListenersFrom::All) => Ok(()),
        Known::Known(ListenersFrom::Same) if set.namespace == object.namespace => Ok(()),
        Known::Known(ListenersFrom::Same) => refuse(
            "other namespaces than its own; its spec.allowedListeners.namespaces decides"
                .to_owned(),
        ),
        Known::Known(ListenersFrom::None) => refuse(
            "anywhere; its spec.allowedListeners.namespaces decides, and its default is None"
                .to_owned(),
        ),
        Known::Known(ListenersFrom::Selector) => {
            let selector = allowed.selector.as_ref();
            if let Some(fault) = selector_fault("allowedListeners", selector) {
                return refuse(format!("anywhere: its spec.{fault}"));
            }
            let labels = objects.labels_of_namespace(&set.namespace);
            if selector.is_some_and(|selector| selector.selects(&labels)) {
                return Ok(());
            }
            refuse(format!(
                "namespace {}, whose labels its spec.allowedListeners.namespaces.selector does not select",
                set.namespace
            ))
        }
        Known::Unknown(from) => refuse(format!(
            "anywhere: its spec.allowedListeners.namespaces.from {from:?} is not known; use All, \
             Selector, Same or None"
        )),
    }
}

impl GatewayUnit {
    /// Gateway API v1 `ListenerSet.status` of one that names this Gateway. `attached` counts the
    /// accepted routes of a listener.
    pub(crate) fn set_status(
        &self,
        set: &ObjectRef,
        judged: &Judged,
        attached: impl Fn(&ListenerKey) -> u32,
    ) -> Option<Arc<Status>> {
        if let Some((generation, Finding { reason, message })) = self.refused.get(set) {
            let mut conditions = Conditions::new(*generation);
            for kind in [ConditionType::Accepted, ConditionType::Programmed] {
                conditions.fail(kind, *reason, message.clone());
            }
            return Some(Arc::new(Status::ListenerSet(ListenerSetStatus {
                conditions,
                listeners: Vec::new(),
            })));
        }
        let member = self.members.iter().skip(1).find(|m| m.object == *set)?;
        Some(Arc::new(Status::ListenerSet(ListenerSetStatus {
            conditions: self.set_conditions(member, judged),
            listeners: self.listener_statuses(member, judged, attached),
        })))
    }

    /// How many ListenerSets are attached: `Gateway.status.attachedListenerSets`. None if none is
    /// allowed to.
    pub(super) fn attached_sets(&self, judged: &Judged) -> Option<usize> {
        let from = &self.spec.allowed_listeners.from;
        if *from == Known::Known(ListenersFrom::None) {
            return None;
        }
        let sets = self.members.iter().skip(1);
        let attached = sets.filter(|set| judged.is_accepted && judged.is_any_valid(set));
        Some(attached.count())
    }

    fn set_conditions(&self, set: &Member, judged: &Judged) -> Conditions {
        let mut conditions = Conditions::new(set.generation);
        if !judged.is_accepted {
            conditions.fail(
                ConditionType::Accepted,
                Reason::ParentNotAccepted,
                format!("{} is not accepted", self.object),
            );
            conditions.fail(
                ConditionType::Programmed,
                Reason::ParentNotProgrammed,
                format!("{} is not accepted", self.object),
            );
            return conditions;
        }
        let faults = judged.faults(set);
        let message = listed(&faults, "; ");
        if !judged.is_any_valid(set) {
            for kind in [ConditionType::Accepted, ConditionType::Programmed] {
                conditions.fail(kind, Reason::ListenersNotValid, message.clone());
            }
            return conditions;
        }
        if faults.is_empty() {
            conditions.hold(
                ConditionType::Accepted,
                Reason::Accepted,
                format!("its listeners are part of {}", self.object),
            );
        } else {
            conditions.hold(ConditionType::Accepted, Reason::ListenersNotValid, message);
        }
        if self.addresses.served.is_some() {
            conditions.wait_for_data_plane();
        } else {
            let why = self.addresses.fault.as_ref().map_or("", |f| &f.message);
            conditions.fail(
                ConditionType::Programmed,
                Reason::ParentNotProgrammed,
                format!("{} has no address: {why}", self.object),
            );
        }
        conditions
    }
}
