//! Rules that lead to a Service that nobody says the addresses of.

use std::collections::BTreeMap;

use gateway_model::ir::{Action, BackendTarget, Endpoints, Filter, Ir, Route, Rule};
use gateway_model::names::{ObjectRef, UpstreamKey};
use gateway_translate::Objects;

use crate::view::routes::share;
use crate::world::World;

/// What the rules of which routes come to, and why; the rules by name or position.
type Lacks<'a> = BTreeMap<(&'a ObjectRef, String, String), Vec<String>>;

/// Rules of which requests cannot be answered, by route and Service.
pub fn without_endpoints(world: &World, objects: Option<&Objects>) -> Vec<String> {
    let mut lacks = Lacks::new();
    for route in world.snapshot.ir().routes.values() {
        for rule in &route.rules {
            for (fate, why) in lacking(world, objects, route, rule) {
                let rules = lacks.entry((&route.object, fate, why)).or_default();
                let name = match &rule.name {
                    Some(name) => name.to_string(),
                    None => rule.index.to_string(),
                };
                if !rules.contains(&name) {
                    rules.push(name);
                }
            }
        }
    }
    lacks
        .into_iter()
        .map(|((route, fate, why), rules)| {
            format!("{route} rule {}: {fate}: {why}", rules.join(", "))
        })
        .collect()
}

/// What becomes of requests for the backends and mirrors of a rule that have no endpoint, and why they have none.
fn lacking(
    world: &World,
    objects: Option<&Objects>,
    route: &Route,
    rule: &Rule,
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut filters: Vec<&Filter> = rule.filters.iter().collect();
    if let Action::Forward(backends) = &rule.action {
        let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
        // What gets no request needs no endpoint.
        for backend in backends.iter().filter(|backend| backend.weight > 0) {
            filters.extend(&backend.filters);
            let why = lack(world, objects, &backend.target);
            let part = match u64::from(backend.weight) == total {
                true => String::new(),
                false => format!("{} of ", share(backend.weight, total)),
            };
            found.extend(why.map(|why| (format!("{part}{}", fate(route)), why)));
        }
    }
    for filter in filters {
        let Filter::Mirror(mirror) = filter else {
            continue;
        };
        let why = lack(world, objects, &mirror.target);
        found.extend(why.map(|why| ("copies go nowhere".to_owned(), why)));
    }
    found
}

fn fate(route: &Route) -> &'static str {
    if route.object.kind.is_stream_route() {
        "connections are refused"
    } else {
        "requests get 503"
    }
}

/// Why nothing can be sent there though the reference is right, if nothing can; what is wrong with it is a condition.
fn lack(world: &World, objects: Option<&Objects>, target: &BackendTarget) -> Option<String> {
    match target {
        // The cluster that has the Pods has their addresses.
        BackendTarget::Unavailable { status: 503, .. } if world.source.has_workloads => None,
        BackendTarget::Unavailable {
            status: 503,
            reason,
        } => Some(reason.to_string()),
        BackendTarget::Unavailable { .. } => None,
        BackendTarget::Upstream(key) => empty(world, objects, key),
    }
}

/// Why there is nothing to send requests of this upstream to, if there is nothing.
fn empty(world: &World, objects: Option<&Objects>, key: &UpstreamKey) -> Option<String> {
    let ir: &Ir = world.snapshot.ir();
    match &ir.upstreams.get(key)?.endpoints {
        Endpoints::Addresses(list) if list.is_empty() => {}
        Endpoints::Addresses(_) | Endpoints::Dns { .. } => return None,
    }
    let (service, port) = (&key.backend, key.port);
    let shortage = objects.and_then(|objects| gateway_translate::shortage(objects, key));
    Some(match shortage {
        Some(why) => format!(
            "{service} port {port} has no endpoint: {why}; mend them, or use the annotation sluice.dev/endpoints"
        ),
        None => format!("{service} port {port} has no endpoint"),
    })
}
