//! Rules that lead to a Service that nobody says the addresses of.

use std::collections::BTreeMap;

use gateway_model::ir::{Action, BackendTarget, Endpoints, Filter, Ir, Route, Rule};
use gateway_model::names::{ObjectRef, UpstreamKey};

use crate::view::routes::share;
use crate::world::Offline;

/// What the rules of which routes come to, and why; the rules by name or position.
type Lacks<'a> = BTreeMap<(&'a ObjectRef, String, String), Vec<String>>;

/// Rules of which requests cannot be answered, by route and Service.
pub fn without_endpoints(offline: &Offline) -> Vec<String> {
    let mut lacks = Lacks::new();
    for route in offline.world.snapshot.ir().routes.values() {
        for rule in &route.rules {
            for (fate, why) in lacking(offline, route, rule) {
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
fn lacking(offline: &Offline, route: &Route, rule: &Rule) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut filters: Vec<&Filter> = rule.filters.iter().collect();
    if let Action::Forward(backends) = &rule.action {
        let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
        // What gets no request needs no endpoint.
        for backend in backends.iter().filter(|backend| backend.weight > 0) {
            filters.extend(&backend.filters);
            let why = match &backend.target {
                // The cluster that has the Pods has their addresses.
                BackendTarget::Unavailable { status: 503, .. } if offline.has_workloads => None,
                BackendTarget::Unavailable {
                    status: 503,
                    reason,
                } => Some(reason.to_string()),
                BackendTarget::Unavailable { .. } => None,
                BackendTarget::Upstream(key) => empty(offline, key),
            };
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
        let why = mirror.upstream.as_ref().and_then(|key| empty(offline, key));
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

/// Why there is nothing to send requests of this upstream to, if there is nothing.
fn empty(offline: &Offline, key: &UpstreamKey) -> Option<String> {
    let ir: &Ir = offline.world.snapshot.ir();
    match &ir.upstreams.get(key)?.endpoints {
        Endpoints::Addresses(list) if list.is_empty() => {}
        Endpoints::Addresses(_) | Endpoints::Dns { .. } => return None,
    }
    let (service, port) = (&key.backend, key.port);
    Some(match gateway_translate::shortage(&offline.objects, key) {
        Some(why) => format!(
            "{service} port {port} has no endpoint: {why}; mend them, or use the annotation sluice.dev/endpoints"
        ),
        None => format!("{service} port {port} has no endpoint"),
    })
}
