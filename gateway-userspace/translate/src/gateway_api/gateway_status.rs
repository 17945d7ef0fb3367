//! What a Gateway and its listeners are told.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::names::ListenerKey;

use super::conflict::Conflict;
use super::gateway::{GatewayUnit, Member};
use super::judged::Judged;
use super::listener::ListenerUnit;
use super::{Finding, judge, judge_references};
use crate::objects::Protocol;
use crate::status::{
    ConditionType, Conditions, GatewayStatus, ListenerStatus, Reason, Status, listed,
};

impl GatewayUnit {
    /// Gateway API v1 `Gateway.status`. `attached` counts the accepted routes of a listener.
    pub(crate) fn status(
        &self,
        judged: &Judged,
        attached: impl Fn(&ListenerKey) -> u32,
    ) -> Arc<Status> {
        // What was assigned to a Gateway stays with it while it is not accepted.
        let shown = self.addresses.shown.iter().filter(|address| {
            let is_held = || {
                let mut held = self.spec.assigned.iter();
                held.any(|held| *held.to_string() == *address.value)
            };
            self.fault.is_none() || is_held()
        });
        let sets = self.attached_sets(judged);
        Arc::new(Status::Gateway(GatewayStatus {
            addresses: shown.cloned().collect(),
            conditions: self.conditions(judged),
            listeners: self.listener_statuses(&self.members[0], judged, attached),
            attached_listener_sets: sets.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        }))
    }

    /// The statuses of the listeners that one object declares.
    pub(super) fn listener_statuses(
        &self,
        member: &Member,
        judged: &Judged,
        attached: impl Fn(&ListenerKey) -> u32,
    ) -> Vec<ListenerStatus> {
        let status = |listener: &ListenerUnit| ListenerStatus {
            name: listener.key.section.clone(),
            supported_kinds: listener.supported_kinds.clone(),
            attached_routes: attached(&listener.key),
            conditions: self.listener_conditions(member, listener, judged),
        };
        member.listeners.iter().map(status).collect()
    }

    fn listener_conditions(
        &self,
        member: &Member,
        listener: &ListenerUnit,
        judged: &Judged,
    ) -> Conditions {
        let conflict = judged.conflict(&listener.key).map(|c| &c.0);
        let mut conditions = Conditions::new(member.generation);
        match conflict {
            Some(Finding { reason, message }) => {
                conditions.hold(ConditionType::Conflicted, *reason, message.clone());
            }
            None => conditions.fail(
                ConditionType::Conflicted,
                Reason::NoConflicts,
                "distinct from every other listener",
            ),
        }
        judge(
            &mut conditions,
            ConditionType::Accepted,
            listener.fault.as_ref().or(conflict),
            (Reason::Accepted, "the listener is understood".into()),
        );
        judge_references(&mut conditions, listener.references.as_ref());
        match self.not_programmed(listener, judged) {
            Some((reason, message)) => {
                conditions.fail(ConditionType::Programmed, reason, message);
            }
            None => conditions.wait_for_data_plane(),
        }
        let overlaps = judged.of(&listener.key).map(|verdict| &verdict.overlaps);
        if let Some(names) = overlaps.filter(|names| !names.is_empty()) {
            conditions.hold(
                ConditionType::OverlappingTlsConfig,
                Reason::OverlappingHostnames,
                overlap_message(listener, names),
            );
        }
        conditions
    }

    /// Why a listener is not served.
    fn not_programmed(&self, listener: &ListenerUnit, judged: &Judged) -> Option<(Reason, String)> {
        if judged.is_served(&listener.key) {
            return None;
        }
        let invalid = |message: &str| Some((Reason::Invalid, message.to_owned()));
        if let Some(fault) = &self.fault {
            return invalid(&format!("the Gateway is not accepted: {}", fault.message));
        }
        if let Some(fault) = &listener.fault {
            return invalid(&fault.message);
        }
        if let Some(Conflict(finding)) = judged.conflict(&listener.key) {
            return Some((finding.reason, finding.message.clone()));
        }
        if !listener.is_servable() {
            let references = listener.references.as_ref();
            return invalid(references.map_or("", |f| &f.message));
        }
        if self.addresses.served.is_none() {
            let Finding { reason, message } = self.addresses.fault.as_ref()?;
            let reason = match reason {
                Reason::AddressNotAssigned => Reason::Pending,
                _ => Reason::Invalid,
            };
            return Some((reason, message.clone()));
        }
        invalid("the Gateway is not accepted")
    }

    fn conditions(&self, judged: &Judged) -> Conditions {
        let mut conditions = Conditions::new(self.spec.meta.generation);
        let accepted = self.accepted(&mut conditions, judged);
        judge_references(&mut conditions, self.unresolved().as_ref());
        if let Some(message) = &self.insecure {
            conditions.hold(
                ConditionType::InsecureFrontendValidationMode,
                Reason::ConfigurationChanged,
                message.clone(),
            );
        }
        let own = &self.members[0].listeners;
        let served = own.iter().any(|listener| judged.is_served(&listener.key));
        if !accepted {
            conditions.fail(
                ConditionType::Programmed,
                Reason::Invalid,
                "the Gateway is not accepted",
            );
        } else if let Some(Finding { reason, message }) = &self.addresses.fault {
            conditions.fail(ConditionType::Programmed, *reason, message.clone());
        } else if !served {
            let why: BTreeSet<_> = own
                .iter()
                .filter_map(|listener| Some(self.not_programmed(listener, judged)?.1))
                .collect();
            conditions.fail(
                ConditionType::Programmed,
                Reason::Invalid,
                format!("no listener can be served: {}", listed(why, "; ")),
            );
        } else {
            conditions.wait_for_data_plane();
        }
        conditions
    }

    /// What is wrong with its own references, else that those of a listener are wrong.
    fn unresolved(&self) -> Option<Finding> {
        if let Some(finding) = &self.backend_fault {
            return Some(finding.clone());
        }
        let of_listener = |listener: &ListenerUnit| {
            let message = &listener.references.as_ref()?.message;
            Some(format!("listener {}: {message}", listener.key.section))
        };
        let own = &self.members[0].listeners;
        let unresolved: Vec<_> = own.iter().filter_map(of_listener).collect();
        (!unresolved.is_empty())
            .then(|| Finding::new(Reason::ListenersNotResolved, listed(unresolved, "; ")))
    }

    /// Sets `Accepted`; says whether it holds.
    fn accepted(&self, conditions: &mut Conditions, judged: &Judged) -> bool {
        if let Some(Finding { reason, message }) = &self.fault {
            conditions.fail(ConditionType::Accepted, *reason, message.clone());
            return false;
        }
        let fault = |listener: &ListenerUnit| {
            let conflict = judged.conflict(&listener.key).map(|c| &c.0);
            let fault = listener.fault.as_ref().or(conflict)?;
            Some(format!(
                "listener {}: {}",
                listener.key.section, fault.message
            ))
        };
        let own = &self.members[0].listeners;
        let faults: Vec<_> = own.iter().filter_map(fault).collect();
        let message = listed(&faults, "; ");
        if faults.is_empty() {
            conditions.hold(
                ConditionType::Accepted,
                Reason::Accepted,
                "every listener is understood",
            );
        } else if judged.is_accepted {
            conditions.hold(ConditionType::Accepted, Reason::ListenersNotValid, message);
        } else {
            conditions.fail(ConditionType::Accepted, Reason::ListenersNotValid, message);
        }
        judged.is_accepted
    }
}

fn overlap_message(listener: &ListenerUnit, names: &[String]) -> String {
    let what = match listener.protocol {
        Protocol::Https => "a request that comes in through the wrong one is answered with 421",
        _ => "the most specific hostname takes a connection",
    };
    format!(
        "hostnames overlap with listener {}; {what}",
        names.join(", ")
    )
}
