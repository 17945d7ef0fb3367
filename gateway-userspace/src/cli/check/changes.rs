//! What is served differently in two worlds.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::view::listeners::{ListenerView, listeners};
use crate::view::routes::{RouteView, routes};
use crate::view::snapshot::snapshot;
use crate::world::World;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// A listener, a class of requests, or an upstream.
    pub what: String,
    /// What is done now; none if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// What would be done; none if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
}

/// Every difference in what is served, in the order of listeners, requests and upstreams.
pub fn changes(now: &World, then: &World) -> Vec<Change> {
    let mut changes = compare(&listener_texts(now), &listener_texts(then));
    changes.extend(compare(&request_texts(now), &request_texts(then)));
    changes.extend(compare(&upstream_texts(now), &upstream_texts(then)));
    changes
}

type Texts = BTreeMap<String, String>;

fn compare(now: &Texts, then: &Texts) -> Vec<Change> {
    let mut keys: Vec<_> = now.keys().chain(then.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| now.get(*key) != then.get(*key))
        .map(|key| Change {
            what: key.clone(),
            now: now.get(key).cloned(),
            then: then.get(key).cloned(),
        })
        .collect()
}

fn listener_texts(world: &World) -> Texts {
    let text = |view: ListenerView| {
        let addresses: Vec<_> = view.addresses.iter().map(ToString::to_string).collect();
        let address = if addresses.is_empty() {
            "*".to_owned()
        } else {
            addresses.join(", ")
        };
        let certificates: Vec<_> = view
            .certificates
            .iter()
            .map(|c| c.secret.as_str())
            .collect();
        let with = if certificates.is_empty() {
            String::new()
        } else {
            format!(" with {}", certificates.join(", "))
        };
        let clients = match &view.client_certificates {
            Some(how) => format!(", certificates of clients {how}"),
            None => String::new(),
        };
        let host = view.hostname.as_deref().unwrap_or("*");
        let name = view.named();
        (
            name,
            format!(
                "{}://{host} on {address}:{}{with}{clients}",
                view.protocol, view.port
            ),
        )
    };
    listeners(world).into_iter().map(text).collect()
}

/// By listener, host and conditions: the first of equal ones is what counts.
fn request_texts(world: &World) -> Texts {
    let mut texts = Texts::new();
    for view in routes(world) {
        texts
            .entry(request(&view))
            .or_insert_with(|| treatment(&view));
    }
    texts
}

fn request(view: &RouteView) -> String {
    format!(
        "{} {} {}",
        view.listener,
        view.hostname.as_deref().unwrap_or("*"),
        view.conditions
    )
}

fn treatment(view: &RouteView) -> String {
    let filters = if view.filters.is_empty() {
        String::new()
    } else {
        format!(" ({})", view.filters.join(", "))
    };
    format!("{}{filters}", view.action)
}

fn upstream_texts(world: &World) -> Texts {
    let text = |view: crate::view::snapshot::UpstreamView| {
        let endpoints: Vec<_> = view.endpoints.iter().map(ToString::to_string).collect();
        let endpoints = view.dns.unwrap_or_else(|| endpoints.join(", "));
        let endpoints = if endpoints.is_empty() {
            "no endpoint".to_owned()
        } else {
            endpoints
        };
        (
            format!("upstream {}", view.upstream),
            format!("{} {endpoints}", view.protocol),
        )
    };
    snapshot(world).upstreams.into_iter().map(text).collect()
}
