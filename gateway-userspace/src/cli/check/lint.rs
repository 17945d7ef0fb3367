//! What is wrong with a directory (errors), and what is allowed but hardly meant (warnings).

mod backends;
mod certificates;

use std::collections::{BTreeSet, HashMap};

use gateway_model::names::{ObjectKind, ObjectRef};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::changes::named;
use crate::cli::status::{all_conditions, troubles_of};
use crate::view::listeners::listeners;
use crate::view::routes::{ActionView, RouteView, routes};
use crate::world::{Offline, World};

/// Whether something must or should be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It does not work as written.
    Error,
    /// It works, but hardly as meant.
    Warning,
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// What and where.
    pub text: String,
}

/// Everything there is to say, errors first.
pub fn issues(offline: &Offline, now: Timestamp) -> Vec<Issue> {
    let world = &offline.world;
    let mut issues = Vec::new();
    let source = &world.source;
    issues.extend(
        source
            .findings
            .iter()
            .map(|finding| error(finding.to_string())),
    );
    issues.extend(
        world
            .rejected
            .iter()
            .map(|(object, reason)| error(format!("{object}: {reason}"))),
    );
    for (object, status) in world.statuses.iter() {
        let (overlaps, others): (Vec<_>, Vec<_>) = all_conditions(&status)
            .into_iter()
            .partition(|(_, condition)| is_doubt(condition));
        let line = |text: String| format!("{object}: {text}");
        issues.extend(
            troubles_of(&others)
                .into_iter()
                .map(|text| error(line(text))),
        );
        issues.extend(
            troubles_of(&overlaps)
                .into_iter()
                .map(|text| warning(line(text))),
        );
    }
    let unread = source.doubts.iter();
    issues.extend(unread.map(|finding| warning(finding.to_string())));
    issues.extend(doubts(offline, now).into_iter().map(warning));
    issues.sort();
    issues.dedup();
    issues
}

/// Whether a condition speaks of something that works, but hardly as meant.
fn is_doubt(condition: &Value) -> bool {
    let kinds = ["OverlappingTLSConfig", "InsecureFrontendValidationMode"];
    condition["type"]
        .as_str()
        .is_some_and(|kind| kinds.contains(&kind))
}

fn doubts(offline: &Offline, now: Timestamp) -> Vec<String> {
    let world = &offline.world;
    let objects: Vec<_> = offline.objects.iter().map(|o| o.reference()).collect();
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
        doubts.push(format!("{} has no route: {fate}", named(view)));
    }
    doubts.extend(unattached(world, &objects));
    doubts.extend(idle_policies(world, &objects));
    doubts.extend(stray_hostnames(offline));
    let routes = routes(world);
    doubts.extend(shadowed(&routes));
    doubts.extend(weightless(&routes));
    doubts.extend(backends::without_endpoints(offline));
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
fn stray_hostnames(offline: &Offline) -> Vec<String> {
    let routes = offline.world.snapshot.ir().routes.keys();
    let stray = |route| gateway_translate::stray_hostnames(&offline.objects, route);
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
        crate::cli::routes::rule(view),
        view.conditions,
        view.hostname.as_deref().unwrap_or("every host"),
        winner.kind,
        crate::cli::routes::rule(winner),
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
            crate::cli::routes::rule(view)
        )
    };
    routes.iter().filter(is_weightless).map(text).collect()
}

fn error(text: String) -> Issue {
    Issue {
        severity: Severity::Error,
        text,
    }
}

fn warning(text: String) -> Issue {
    Issue {
        severity: Severity::Warning,
        text,
    }
}

#[cfg(test)]
mod tests;
