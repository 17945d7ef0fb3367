//! `BackendTLSPolicy.status`: one entry per Gateway whose routes lead to what a policy is for.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::names::ObjectRef;

use super::policy::{Validation, winner};
use super::{Finding, judge, judge_references};
use crate::objects::{BackendTlsPolicy, GATEWAY_API_GROUP, Objects, ParentRef, PolicyTarget};
use crate::settings::Settings;
use crate::status::{
    ConditionType, Conditions, PolicyAncestorStatus, PolicyStatus, Reason, Status, listed,
};

/// Gateway API v1 `PolicyStatus.ancestors`: "A maximum of 16 ancestors will be represented".
const MAX_ANCESTORS: usize = 16;

/// The status of a policy; none while no Gateway of ours has a route to a Service that it names.
/// `ancestors` are the Gateways with routes to a Service.
pub(crate) fn policy_status(
    objects: &Objects,
    settings: &Settings,
    name: &ObjectRef,
    policy: &BackendTlsPolicy,
    ancestors: impl Fn(&ObjectRef) -> BTreeSet<ObjectRef>,
) -> Option<Arc<Status>> {
    let services: Vec<_> = (policy.services().into_iter())
        .map(|service| {
            let ancestors = ancestors(&service);
            (service, ancestors)
        })
        .collect();
    let gateways: BTreeSet<_> = services.iter().flat_map(|(_, gateways)| gateways).collect();
    if gateways.is_empty() {
        return None;
    }
    let validation = Validation::of(objects, name, policy);
    let entry = |gateway: &ObjectRef| {
        let reached = services.iter().filter(|(_, of)| of.contains(gateway));
        let reached: Vec<_> = reached.map(|(service, _)| service).collect();
        PolicyAncestorStatus {
            ancestor_ref: ancestor_ref(gateway),
            controller_name: settings.controller_name.clone(),
            conditions: conditions(objects, name, policy, &reached, &validation),
        }
    };
    let shown = gateways.into_iter().take(MAX_ANCESTORS);
    Some(Arc::new(Status::Policy(PolicyStatus {
        ancestors: shown.map(entry).collect(),
    })))
}

fn ancestor_ref(gateway: &ObjectRef) -> ParentRef {
    ParentRef {
        group: GATEWAY_API_GROUP.into(),
        kind: gateway.kind.as_str().into(),
        name: gateway.name.clone(),
        namespace: Some(gateway.namespace.clone()),
        section_name: None,
        port: None,
    }
}

fn conditions(
    objects: &Objects,
    name: &ObjectRef,
    policy: &BackendTlsPolicy,
    services: &[&ObjectRef],
    validation: &Validation,
) -> Conditions {
    let targets = policy.target_refs.iter().filter_map(|target| {
        let service = services
            .iter()
            .find(|service| service.name == target.name)?;
        target.is_service().then_some((*service, target))
    });
    let targets: Vec<_> = targets.collect();
    let lost: Vec<_> = targets
        .iter()
        .filter_map(|(service, target)| lost(objects, name, service, target))
        .collect();
    let mut conditions = Conditions::new(policy.meta.generation);
    // Of several targets one is enough to be in force.
    let conflict = Finding::merge(&lost).filter(|_| lost.len() == targets.len());
    judge(
        &mut conditions,
        ConditionType::Accepted,
        conflict.as_ref().or(validation.fault.as_ref()),
        (Reason::Accepted, accepted(policy, &lost).into()),
    );
    judge_references(&mut conditions, validation.references.as_ref());
    conditions
}

fn accepted(policy: &BackendTlsPolicy, lost: &[Finding]) -> String {
    let mut messages = vec!["the policy is in force".to_owned()];
    messages.extend(
        lost.iter()
            .map(|finding| format!("but not everywhere: {}", finding.message)),
    );
    if !policy.options.is_empty() {
        let names = &policy.options;
        messages.push(format!("options without effect: {}", listed(names, ", ")));
    }
    listed(messages, "; ")
}

/// Why a policy is not in force for one of its targets.
fn lost(
    objects: &Objects,
    name: &ObjectRef,
    service: &ObjectRef,
    target: &PolicyTarget,
) -> Option<Finding> {
    let section = target.section_name.as_deref();
    if let (Some(section), Some(object)) = (section, objects.services.get(service))
        && !object.ports.iter().any(|port| *port.name == *section)
    {
        let message = format!("{service} has no port named {section}");
        return Some(Finding::new(Reason::TargetNotFound, message));
    }
    let (other, _) = winner(objects, service, section).filter(|(other, _)| *other != name)?;
    let what = section.map_or_else(|| service.to_string(), |s| format!("port {s} of {service}"));
    Some(Finding::new(
        Reason::Conflicted,
        format!("{other}, which is older or comes first by name, is in force for {what}"),
    ))
}
