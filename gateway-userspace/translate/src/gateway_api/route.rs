//! One route of whatever kind: which listeners it attaches to, what is served of it, and its status.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::ir::{Route, RouteAttachment};
use gateway_model::names::{
    Hostname, ListenerKey, ObjectKind, ObjectRef, UpstreamKey, UpstreamUse,
};

use super::attach::{Attached, Origin, attach};
use super::backend::{Resolved, Resolver};
use super::gateway::ParentView;
use super::references::parent_of;
use super::rules::{self, Rules};
use super::{Finding, judge_references};
use crate::lately::Lately;
use crate::objects::{Objects, ParentRef, RouteObject};
use crate::settings::Settings;
use crate::status::{
    ConditionType, Conditions, Reason, RouteParentStatus, RouteStatus, Status, listed,
};

/// What became of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RouteUnit {
    /// What is served of it; none if nothing is.
    pub(crate) route: Option<Arc<Route>>,
    /// What it is told; none if no parent is ours.
    pub(crate) status: Option<Arc<Status>>,
    /// Where it is attached.
    pub(crate) reach: Arc<Reach>,
    /// What its served rules name.
    pub(crate) upstreams: Box<[UpstreamKey]>,
}

/// Where a route is attached; most routes of a Gateway have the same.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reach {
    /// The listeners that count it as attached, served or not.
    pub(crate) attached: Box<[ListenerKey]>,
    /// The Gateways that it attaches to, if policies of its backends matter there.
    pub(crate) ancestors: Box<[ObjectRef]>,
}

impl Reach {
    /// This, or an equal one that stands elsewhere.
    fn shared(self) -> Arc<Self> {
        thread_local! {
            static LATELY: RefCell<Lately<Reach, 256>> = const { RefCell::new(Lately::new()) };
        }
        LATELY.with_borrow_mut(|lately| lately.shared(self))
    }
}

impl RouteUnit {
    /// Translates a route. `view` shows the Gateways that are ours; `before` is what became of the
    /// route the last time, whose unchanged parts are shared.
    pub(crate) fn new<'a>(
        objects: &Objects,
        settings: &Settings,
        route: RouteObject<'_>,
        object: &ObjectRef,
        view: impl Fn(&ObjectRef) -> Option<&'a ParentView>,
        before: Option<&Self>,
    ) -> Self {
        let parents = route.parent_refs().iter();
        let parents: Vec<_> = parents
            .filter_map(|parent| Some((parent, view(&parent_of(object, parent)?)?)))
            .collect();
        if parents.is_empty() {
            return Self::default();
        }
        let hostnames = hostnames(route);
        let from = Origin::new(objects, object);
        let outcomes = parents.into_iter().map(|(parent, gateway)| {
            let names = hostnames.as_deref().unwrap_or_default();
            (parent, gateway, attach(parent, gateway, names, &from))
        });
        let outcomes: Vec<_> = outcomes.collect();
        let usage = usage(object.kind, &outcomes);
        let mut resolver = Resolver::new(objects, settings, object, usage);
        let rules = Rules::of(route, object, &mut resolver);
        let resolved = resolver.finish();
        let fault = route_fault(&hostnames, &rules);
        let mut unit = Self::default();
        let mut attached = BTreeSet::new();
        let mut ancestors = BTreeSet::new();
        let mut attachments = BTreeMap::new();
        let mut statuses = Vec::with_capacity(outcomes.len());
        for (parent, view, outcome) in outcomes {
            let outcome = match &fault {
                None => outcome,
                // No parent at all is what its author must hear of first.
                Some(fault) => match outcome {
                    Err(why) if why.reason == Reason::NoMatchingParent => Err(why),
                    _ => Err(fault.clone()),
                },
            };
            let generation = route.meta().generation;
            statuses.push(RouteParentStatus {
                parent_ref: parent.clone(),
                controller_name: settings.controller_name.clone(),
                conditions: conditions(generation, &outcome, &rules, &resolved),
            });
            let speaks_tls = !matches!(usage, UpstreamUse::Passthrough | UpstreamUse::Datagram);
            if outcome.is_ok() && speaks_tls {
                ancestors.insert(view.gateway.clone());
            }
            for (listener, names) in outcome.unwrap_or_default() {
                attached.insert(listener.key.clone());
                if listener.is_served {
                    attachments.insert(listener.key.clone(), names);
                }
            }
        }
        let reach = Reach {
            attached: attached.into_iter().collect(),
            ancestors: ancestors.into_iter().collect(),
        };
        unit.reach = reach.shared();
        unit.status = Some(Status::Route(RouteStatus { parents: statuses }).shared());
        if !attachments.is_empty() {
            unit.serve(object, attachments, rules, resolved);
        }
        unit.share(before)
    }

    fn serve(
        &mut self,
        object: &ObjectRef,
        attachments: BTreeMap<ListenerKey, Vec<Hostname>>,
        rules: Rules,
        resolved: Resolved,
    ) {
        let attachment = |(listener, hostnames)| RouteAttachment {
            listener,
            hostnames,
        };
        self.route = Some(Arc::new(Route {
            object: object.clone(),
            attachments: attachments.into_iter().map(attachment).collect(),
            rules: rules.served,
        }));
        self.upstreams = resolved.upstreams.into_iter().collect();
    }

    /// Keeps the old allocation of everything that did not change.
    fn share(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        if self.status == before.status {
            self.status.clone_from(&before.status);
        }
        if let (Some(now), Some(old)) = (&mut self.route, &before.route) {
            if now == old {
                *now = old.clone();
            } else if let Some(now) = Arc::get_mut(now) {
                rules::share(&mut now.rules, &old.rules);
            }
        }
        self
    }
}

fn hostnames(route: RouteObject<'_>) -> Result<Vec<Hostname>, Finding> {
    let mut seen = BTreeSet::new();
    let mut hostnames = Vec::with_capacity(route.hostnames().len());
    for text in route.hostnames() {
        match Hostname::sharing(text) {
            Ok(hostname) if !seen.insert(hostname.clone()) => {}
            Ok(hostname) => hostnames.push(hostname),
            Err(e) => {
                return Err(Finding::new(
                    Reason::UnsupportedValue,
                    format!("hostname {text:?}: {e}"),
                ));
            }
        }
    }
    Ok(hostnames)
}

/// Why a route cannot be accepted by any parent.
fn route_fault(hostnames: &Result<Vec<Hostname>, Finding>, rules: &Rules) -> Option<Finding> {
    if let Err(finding) = hostnames {
        return Some(finding.clone());
    }
    (rules.valid == 0 && !rules.faults.is_empty()).then(|| {
        Finding::new(
            Reason::UnsupportedValue,
            format!("no rule is valid: {}", rules.faults_as("rule")),
        )
    })
}

/// What became of one parent reference.
type Outcome<'a> = (&'a ParentRef, &'a ParentView, Result<Attached<'a>, Finding>);

/// How a route of this kind speaks to its backends. A TLSRoute hands on what it gets: the client's
/// own TLS where no listener takes that off, else what was inside.
fn usage(kind: ObjectKind, outcomes: &[Outcome<'_>]) -> UpstreamUse {
    let mut attached = outcomes
        .iter()
        .filter_map(|(_, _, outcome)| outcome.as_ref().ok());
    match kind {
        ObjectKind::GrpcRoute => UpstreamUse::Grpc,
        ObjectKind::UdpRoute => UpstreamUse::Datagram,
        ObjectKind::TcpRoute => UpstreamUse::Stream,
        ObjectKind::TlsRoute if attached.all(|a| a.iter().all(|(l, _)| l.is_passthrough)) => {
            UpstreamUse::Passthrough
        }
        ObjectKind::TlsRoute => UpstreamUse::Stream,
        _ => UpstreamUse::Http,
    }
}

fn conditions(
    generation: i64,
    outcome: &Result<Attached<'_>, Finding>,
    rules: &Rules,
    resolved: &Resolved,
) -> Conditions {
    let mut conditions = Conditions::new(generation);
    match outcome {
        Ok(attached) => {
            let listeners = attached.iter().map(|(l, _)| &l.key.section);
            conditions.hold(
                ConditionType::Accepted,
                Reason::Accepted,
                format!("attached to listener {}", listed(listeners, ", ")),
            );
            if !rules.faults.is_empty() {
                conditions.hold(
                    ConditionType::PartiallyInvalid,
                    Reason::UnsupportedValue,
                    rules.faults_as("Dropped Rule"),
                );
            }
        }
        Err(Finding { reason, message }) => {
            conditions.fail(ConditionType::Accepted, *reason, message.clone());
        }
    }
    match (&resolved.finding, &resolved.hints) {
        (None, hints) if !hints.is_empty() => {
            conditions.hold(
                ConditionType::ResolvedRefs,
                Reason::ResolvedRefs,
                listed(hints, "; "),
            );
        }
        (finding, _) => judge_references(&mut conditions, finding.as_ref()),
    }
    conditions
}
