//! What is allowed, but hardly meant.

mod backends;
mod certificates;

use std::collections::{BTreeSet, HashMap};

use gateway_model::names::{ObjectKind, ObjectRef};
use gateway_translate::Objects;
use jiff::Timestamp;

use super::listeners::listeners;
use super::routes::{ActionView, RouteView, routes};
use crate::world::World;

/// What is allowed, but hardly meant. A running process keeps what it serves and not the objects; without them
/// nothing is said of what has no effect at all.
pub fn warnings(world: &World, objects: Option<&Objects>, now: Timestamp) -> Vec<String> {
    let mut doubts = certificates::not_valid(world, now);
    doubts.extend(certificates::for_other_names(world));
    let views = listeners(world);
    if views.is_empty() {
        doubts.push("no listener: there is no Gateway of a class that is ours".to_owned());
    }
    for view in views.iter().filter(|view| view.routes == 0) {
        let fate = if view.protocol.starts_with("http") {
            "every request gets 404"
        } else {
            "nothing is let through"
        };
        doubts.push(format!("{} has no route: {fate}", view.named()));
    }
    if let Some(objects) = objects {
        let references: Vec<_> = objects.iter().map(|o| o.reference()).collect();
        doubts.extend(unattached(world, &references));
        doubts.extend(idle_policies(world, &references));
        doubts.extend(stray_hostnames(world, objects));
    }
    let routes = routes(world);
    doubts.extend(shadowed(&routes));
    doubts.extend(weightless(&routes));
    doubts.extend(backends::without_endpoints(world, objects));
    doubts
}

/// Routes and ListenerSets whose parents are all somebody else's or nobody's have no status.
fn unattached(world: &World, objects: &[ObjectRef]) -> Vec<String> {
    objects
        .iter()
        .filter(|object| has_parents(object.kind) && !world.statuses.contains(object))
        .map(|object| {
            format!("{object}: none of its parents is a Gateway or ListenerSet of ours; it serves nothing")
        })
        .collect()
}

/// What a route that is served says besides. Where none of its hostnames is served, its status says so.
fn stray_hostnames(world: &World, objects: &Objects) -> Vec<String> {
    let routes = world.snapshot.ir().routes.keys();
    let stray = |route| gateway_translate::stray_hostnames(objects, route);
    let named = routes.flat_map(|route| stray(route).into_iter().map(move |name| (route, name)));
    named
        .map(|(route, name)| {
            format!(
                "{route}: hostname {name} falls under no hostname of its parents' listeners; it is not served"
            )
        })
        .collect()
}

/// Policies without an ancestor have no status.
fn idle_policies(world: &World, objects: &[ObjectRef]) -> Vec<String> {
    let policies = objects.iter().filter(|object| {
        object.kind == ObjectKind::BackendTlsPolicy && !world.statuses.contains(object)
    });
    policies
        .map(|object| {
            format!(
                "{object}: no route of a Gateway of ours leads to what it names; it has no effect"
            )
        })
        .collect()
}

fn has_parents(kind: ObjectKind) -> bool {
    kind.is_route() || kind == ObjectKind::ListenerSet
}

/// Alternatives that can never win, for an equal one is asked first.
fn shadowed(routes: &[RouteView]) -> Vec<String> {
    let mut first: HashMap<(&str, Option<&str>, bool, String), &RouteView> = HashMap::new();
    let mut found = BTreeSet::new();
    for view in routes {
        let key = (
            view.listener.as_str(),
            view.hostname.as_deref(),
            view.kind == ObjectKind::GrpcRoute,
            view.conditions.to_string(),
        );
        let winner = *first.entry(key).or_insert(view);
        if !std::ptr::eq(winner, view) {
            found.insert(never(view, winner));
        }
    }
    found.into_iter().collect()
}

fn never(view: &RouteView, winner: &RouteView) -> String {
    let (kind, route, first) = (view.kind, &view.route, &winner.route);
    if kind.is_stream_route() {
        return format!(
            "{kind} {route} never gets anything of {} through listener {}: {} {first} is older, or \
             comes first by name",
            view.hostname.as_deref().unwrap_or("what comes in"),
            view.listener,
            winner.kind
        );
    }
    format!(
        "{kind} {route} rule {} never gets {} of {}: {} {first} rule {} is asked first",
        view.rule_label(),
        view.conditions,
        view.hostname.as_deref().unwrap_or("every host"),
        winner.kind,
        winner.rule_label(),
    )
}

fn weightless(routes: &[RouteView]) -> BTreeSet<String> {
    let is_weightless = |view: &&RouteView| match &view.action {
        ActionView::Forward(backends) => {
            !backends.is_empty() && backends.iter().all(|b| b.weight == 0)
        }
        ActionView::Redirect { .. } | ActionView::Respond { .. } => false,
    };
    let text = |view: &RouteView| {
        let fate = if view.kind.is_stream_route() {
            "connections are refused"
        } else {
            "requests get 500"
        };
        format!(
            "{} {} rule {}: every backend has weight 0; {fate}",
            view.kind,
            view.route,
            view.rule_label()
        )
    };
    routes.iter().filter(is_weightless).map(text).collect()
}
