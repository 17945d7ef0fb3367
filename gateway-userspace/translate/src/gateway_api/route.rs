//! One HTTPRoute: which listeners it attaches to, what is served of it, and its status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_model::ir::{Route, RouteAttachment};
use gateway_model::names::{Hostname, ListenerKey, ObjectKind, ObjectRef, UpstreamKey};

use super::Finding;
use super::backend::{Resolved, Resolver, service_of};
use super::gateway::{ListenerView, ParentView};
use super::rule::{self, Outcome};
use crate::objects::{
    GATEWAY_API_GROUP, HttpRoute, HttpRouteFilter, Known, Namespace, NamespacesFrom, Objects,
    ParentRef,
};
use crate::settings::Settings;
use crate::status::{ConditionType, Conditions, Reason, RouteParentStatus, RouteStatus, Status};

/// What became of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RouteUnit {
    /// What is served of it; none if nothing is.
    pub(crate) route: Option<Arc<Route>>,
    /// What it is told; none if no parent is ours.
    pub(crate) status: Option<Arc<Status>>,
    /// The listeners that count it as attached, served or not.
    pub(crate) attached: BTreeSet<ListenerKey>,
    /// What its served rules name.
    pub(crate) upstreams: BTreeSet<UpstreamKey>,
}

/// What a route refers to, whether it is there or not.
pub(crate) struct References {
    /// Its parents that are Gateways or ListenerSets.
    pub(crate) parents: BTreeSet<ObjectRef>,
    /// Its backends and mirrors.
    pub(crate) services: BTreeSet<ObjectRef>,
}

impl References {
    pub(crate) fn of(route: &HttpRoute, object: &ObjectRef) -> Self {
        let parents = route.parent_refs.iter();
        let of_rules = route.rules.iter().flat_map(|rule| {
            let of_backends = rule.backend_refs.iter().flat_map(|b| &b.filters);
            let mirrors = rule.filters.iter().chain(of_backends);
            let mirrored = mirrors.filter_map(|filter| match filter {
                HttpRouteFilter::RequestMirror(mirror) => Some(&mirror.backend),
                _ => None,
            });
            rule.backend_refs.iter().map(|b| &b.backend).chain(mirrored)
        });
        Self {
            parents: parents.filter_map(|p| parent_of(object, p)).collect(),
            services: of_rules.filter_map(|b| service_of(object, b)).collect(),
        }
    }
}

/// The object that a parent reference means: a Gateway or a ListenerSet; none for other kinds.
fn parent_of(route: &ObjectRef, parent: &ParentRef) -> Option<ObjectRef> {
    let kind = match (&*parent.group, &*parent.kind) {
        (GATEWAY_API_GROUP, "Gateway") => ObjectKind::Gateway,
        (GATEWAY_API_GROUP, "ListenerSet") => ObjectKind::ListenerSet,
        _ => return None,
    };
    let namespace = parent.namespace.as_ref().unwrap_or(&route.namespace);
    Some(ObjectRef {
        kind,
        namespace: namespace.clone(),
        name: parent.name.clone(),
    })
}

/// The rules of a route, sorted by what became of them.
struct Rules {
    served: Vec<Arc<gateway_model::ir::Rule>>,
    valid: usize,
    faults: Vec<String>,
}

impl RouteUnit {
    /// Translates a route. `view` shows the Gateways and ListenerSets that are ours; `before` is what became of the
    /// route the last time, whose unchanged parts are shared.
    pub(crate) fn new<'a>(
        objects: &Objects,
        settings: &Settings,
        route: &HttpRoute,
        object: &ObjectRef,
        view: impl Fn(&ObjectRef) -> Option<&'a ParentView>,
        before: Option<&Self>,
    ) -> Self {
        let parents: Vec<_> = route
            .parent_refs
            .iter()
            .filter_map(|parent| Some((parent, view(&parent_of(object, parent)?)?)))
            .collect();
        if parents.is_empty() {
            return Self::default();
        }
        let mut resolver = Resolver::new(objects, settings, object);
        let rules = rules(route, object, &mut resolver);
        let resolved = resolver.finish();
        let hostnames = hostnames(route);
        let fault = route_fault(&hostnames, &rules);
        let hostnames = hostnames.unwrap_or_default();
        let from = Origin::new(objects, object);
        let mut attachments = BTreeMap::new();
        let mut attached = BTreeSet::new();
        let mut statuses = Vec::with_capacity(parents.len());
        for (parent, view) in parents {
            let outcome = match &fault {
                None => attach(parent, view, &hostnames, &from),
                Some(fault) => select(parent, view).and(Err(fault.clone())),
            };
            let conditions = conditions(route, &outcome, &rules, &resolved);
            for (listener, names) in outcome.unwrap_or_default() {
                attached.insert(listener.key.clone());
                if listener.is_served {
                    attachments.insert(listener.key.clone(), names);
                }
            }
            statuses.push(RouteParentStatus {
                parent_ref: parent.clone(),
                controller_name: settings.controller_name.clone(),
                conditions,
            });
        }
        Self {
            status: Some(Arc::new(Status::Route(RouteStatus { parents: statuses }))),
            attached,
            ..Self::served(object, attachments, rules, resolved)
        }
        .share(before)
    }

    fn served(
        object: &ObjectRef,
        attachments: BTreeMap<ListenerKey, Vec<Hostname>>,
        rules: Rules,
        resolved: Resolved,
    ) -> Self {
        if attachments.is_empty() {
            return Self::default();
        }
        let attachment = |(listener, hostnames)| RouteAttachment {
            listener,
            hostnames,
        };
        Self {
            route: Some(Arc::new(Route {
                object: object.clone(),
                attachments: attachments.into_iter().map(attachment).collect(),
                rules: rules.served,
            })),
            upstreams: resolved.upstreams,
            ..Self::default()
        }
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
                rule::share(&mut now.rules, &old.rules);
            }
        }
        self
    }
}

fn rules(route: &HttpRoute, object: &ObjectRef, resolver: &mut Resolver<'_>) -> Rules {
    let mut rules = Rules {
        served: Vec::with_capacity(route.rules.len()),
        valid: 0,
        faults: Vec::new(),
    };
    let created = route.meta.created;
    for (at, rule) in route.rules.iter().enumerate() {
        let named = || match &rule.name {
            Some(name) => format!("{at} ({name})"),
            None => at.to_string(),
        };
        match rule::translate(object, created, at, rule, resolver) {
            Outcome::Valid(rule) => {
                rules.valid += 1;
                rules.served.push(Arc::new(rule));
            }
            Outcome::FailClosed(rule, why) => {
                rules.served.push(Arc::new(rule));
                rules.faults.push(format!(
                    "{}, whose requests are answered with 500: {why}",
                    named()
                ));
            }
            Outcome::Dropped(why) => rules.faults.push(format!("{}: {why}", named())),
        }
    }
    rules
}

fn hostnames(route: &HttpRoute) -> Result<Vec<Hostname>, Finding> {
    let mut hostnames = Vec::with_capacity(route.hostnames.len());
    for text in &route.hostnames {
        match Hostname::parse(text) {
            Ok(hostname) if hostnames.contains(&hostname) => {}
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
    (rules.valid == 0).then(|| {
        Finding::new(
            Reason::UnsupportedValue,
            format!("no rule is valid: rule {}", rules.faults.join("; rule ")),
        )
    })
}

/// Where a route comes from, for listeners that choose by namespace.
struct Origin<'a> {
    route: &'a ObjectRef,
    labels: BTreeMap<Arc<str>, Arc<str>>,
}

impl<'a> Origin<'a> {
    fn new(objects: &Objects, route: &'a ObjectRef) -> Self {
        let namespace = ObjectRef {
            kind: ObjectKind::Namespace,
            namespace: "".into(),
            name: route.namespace.clone(),
        };
        let known = objects.namespaces.get(&namespace);
        Self {
            route,
            labels: known.map_or_else(
                || Namespace::implied_labels(&route.namespace),
                |namespace| namespace.meta.labels.clone(),
            ),
        }
    }

    fn is_allowed_by(&self, listener: &ListenerView) -> bool {
        let allowed = &listener.allowed_routes;
        let of_kind = listener
            .supported_kinds
            .iter()
            .any(|kind| *kind.group == *GATEWAY_API_GROUP && &*kind.kind == "HTTPRoute");
        of_kind
            && match allowed.from {
                Known::Known(NamespacesFrom::All) => true,
                Known::Known(NamespacesFrom::Same) => {
                    listener.key.gateway.namespace == self.route.namespace
                }
                Known::Known(NamespacesFrom::Selector) => allowed
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.selects(&self.labels)),
                Known::Unknown(_) => false,
            }
    }
}

type Attached<'a> = Vec<(&'a ListenerView, Vec<Hostname>)>;

/// The listeners that a parent reference speaks of.
fn select<'a>(parent: &ParentRef, view: &'a ParentView) -> Result<Vec<&'a ListenerView>, Finding> {
    let selected: Vec<_> = view
        .listeners
        .iter()
        .filter(|l| {
            parent
                .section_name
                .as_ref()
                .is_none_or(|name| *name == l.key.section)
        })
        .filter(|l| parent.port.is_none_or(|port| port == l.port))
        .collect();
    if selected.is_empty() {
        let listeners: Vec<_> = view
            .listeners
            .iter()
            .map(|l| format!("{} (port {})", l.key.section, l.port))
            .collect();
        return Err(Finding::new(
            Reason::NoMatchingParent,
            format!(
                "no listener of {} {} has that sectionName and port; it has {}",
                parent.kind,
                parent.name,
                listeners.join(", ")
            ),
        ));
    }
    Ok(selected)
}

/// The listeners that a route attaches to through one parent reference, and its hostnames there.
fn attach<'a>(
    parent: &ParentRef,
    view: &'a ParentView,
    hostnames: &[Hostname],
    from: &Origin<'_>,
) -> Result<Attached<'a>, Finding> {
    let mut allowed = select(parent, view)?;
    allowed.retain(|listener| from.is_allowed_by(listener));
    if allowed.is_empty() {
        return Err(Finding::new(
            Reason::NotAllowedByListeners,
            format!(
                "no listener of {} {} allows HTTPRoutes from namespace {}; \
                 allowedRoutes of a listener decides, and its default is the {}'s own namespace",
                parent.kind, parent.name, from.route.namespace, parent.kind
            ),
        ));
    }
    let attached: Attached<'_> = allowed
        .into_iter()
        .filter_map(|listener| Some((listener, intersection(listener, hostnames)?)))
        .collect();
    if attached.is_empty() {
        return Err(Finding::new(
            Reason::NoMatchingListenerHostname,
            format!(
                "no hostname of the route falls under a hostname of {} {}'s listeners",
                parent.kind, parent.name
            ),
        ));
    }
    Ok(attached)
}

/// The route's hostnames that fall under the listener's; none if it has some and none does.
fn intersection(listener: &ListenerView, hostnames: &[Hostname]) -> Option<Vec<Hostname>> {
    let Some(own) = &listener.hostname else {
        return Some(hostnames.to_vec());
    };
    let matching: Vec<_> = hostnames
        .iter()
        .filter(|hostname| own.intersects(hostname))
        .cloned()
        .collect();
    (hostnames.is_empty() || !matching.is_empty()).then_some(matching)
}

fn conditions(
    route: &HttpRoute,
    outcome: &Result<Attached<'_>, Finding>,
    rules: &Rules,
    resolved: &Resolved,
) -> Conditions {
    let mut conditions = Conditions::new(route.meta.generation);
    match outcome {
        Ok(attached) => {
            let listeners: Vec<_> = attached.iter().map(|(l, _)| &*l.key.section).collect();
            conditions.hold(
                ConditionType::Accepted,
                Reason::Accepted,
                format!("attached to listener {}", listeners.join(", ")),
            );
            if !rules.faults.is_empty() {
                conditions.hold(
                    ConditionType::PartiallyInvalid,
                    Reason::UnsupportedValue,
                    format!("Dropped Rule {}", rules.faults.join("; Dropped Rule ")),
                );
            }
        }
        Err(Finding { reason, message }) => {
            conditions.fail(ConditionType::Accepted, *reason, message);
        }
    }
    match &resolved.finding {
        Some(Finding { reason, message }) => {
            conditions.fail(ConditionType::ResolvedRefs, *reason, message);
        }
        None if resolved.hints.is_empty() => conditions.hold(
            ConditionType::ResolvedRefs,
            Reason::ResolvedRefs,
            "every reference leads somewhere",
        ),
        None => {
            let hints: Vec<_> = resolved.hints.iter().map(String::as_str).collect();
            conditions.hold(
                ConditionType::ResolvedRefs,
                Reason::ResolvedRefs,
                hints.join("; "),
            );
        }
    }
    conditions
}
