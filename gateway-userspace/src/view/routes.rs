//! The route table, in the order in which a request is matched.

mod words;

use std::cmp::Reverse;
use std::sync::Arc;

use gateway_model::ir::{
    Action, BackendTarget, Endpoints, HeaderMatch, HttpMatch, MatchOrder, PathMatch, Rule,
    ValueMatch,
};
use gateway_model::names::{Hostname, ListenerKey, ObjectKind};
use serde::{Deserialize, Serialize};

use crate::world::World;

use words::{filters, location};

/// One alternative of one rule under one hostname of one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// `gateway-namespace/gateway-name#listener`.
    pub listener: String,
    /// The hostname as the route wrote it; none means every host.
    pub hostname: Option<String>,
    /// What the request must be.
    #[serde(rename = "match")]
    pub conditions: MatchView,
    /// The route's kind.
    #[serde(default = "http_route")]
    pub kind: ObjectKind,
    /// `namespace/name` of the route.
    pub route: String,
    /// The rule's position, from 0.
    pub rule: u32,
    /// The rule's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
    /// What is done.
    pub action: ActionView,
    /// Edits and mirrors, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchView {
    /// `Exact /a`, `PathPrefix /a` or `RegularExpression /a.*`; of a GRPCRoute `shop.v1.Cart/Add` with
    /// `*` for what is not said; of a route for whole connections `everything`.
    pub path: String,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `name: value` or `name ~ pattern`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// `name=value` or `name~pattern`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<String>,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ActionView {
    /// Sent to one of these.
    Forward(Vec<BackendView>),
    /// Answered with a redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// Where to, with `{host}`, `{path}` and `{port}` for what the request has.
        location: String,
    },
    /// Answered with a status.
    Respond {
        /// The status.
        status: u16,
        /// Why.
        reason: String,
    },
}

/// One backend of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// `namespace/name:port`, or why there is none.
    pub backend: String,
    /// Its share.
    pub weight: u32,
    /// How many addresses it has; none if it is found by DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<usize>,
    /// The status that its share is answered with, if it cannot be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<u16>,
}

impl RouteView {
    /// The route as [`gateway_model::names::ObjectRef::route_label`] calls it.
    pub fn label(&self) -> String {
        match self.kind {
            ObjectKind::HttpRoute => self.route.clone(),
            kind => format!("{kind} {}", self.route),
        }
    }

    /// The rule's name, or its position.
    pub fn rule_label(&self) -> String {
        let name = self.rule_name.clone();
        name.unwrap_or_else(|| self.rule.to_string())
    }
}

/// What older processes mean by a route.
fn http_route() -> ObjectKind {
    ObjectKind::HttpRoute
}

impl MatchView {
    fn new(kind: ObjectKind, conditions: &HttpMatch) -> Self {
        let path = match kind {
            ObjectKind::GrpcRoute => method(&conditions.path),
            kind if kind.is_stream_route() => "everything".to_owned(),
            _ => path(&conditions.path),
        };
        // That a request is gRPC goes without saying.
        let is_said = |h: &&HeaderMatch| {
            kind != ObjectKind::GrpcRoute
                || h.name.as_str() != "content-type"
                || !matches!(h.value, ValueMatch::Prefix(_))
        };
        let headers = conditions.headers.iter().filter(is_said);
        let headers = headers.map(|h| match &h.value {
            ValueMatch::Exact(value) => format!("{}: {value}", h.name.as_str()),
            ValueMatch::Prefix(value) => format!("{}: {value}…", h.name.as_str()),
            ValueMatch::Regex(pattern) => format!("{} ~ {pattern}", h.name.as_str()),
        });
        let query = conditions.query.iter().map(|q| match &q.value {
            ValueMatch::Exact(value) => format!("{}={value}", q.name),
            ValueMatch::Prefix(value) => format!("{}={value}…", q.name),
            ValueMatch::Regex(pattern) => format!("{}~{pattern}", q.name),
        });
        Self {
            path,
            method: conditions.method.as_ref().map(ToString::to_string),
            headers: headers.collect(),
            query: query.collect(),
        }
    }
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("Exact {path}"),
        PathMatch::Prefix(path) if path.is_empty() => "PathPrefix /".to_owned(),
        PathMatch::Prefix(path) => format!("PathPrefix {path}"),
        PathMatch::Regex(pattern) => format!("RegularExpression {pattern}"),
    }
}

/// A gRPC method as its users write it.
fn method(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => path.trim_start_matches('/').to_owned(),
        PathMatch::Prefix(path) if path.is_empty() => "*/*".to_owned(),
        PathMatch::Prefix(path) => format!("{}/*", path.trim_start_matches('/')),
        PathMatch::Regex(pattern) => {
            let pattern = pattern.trim_start_matches('/').replace("[^/]+", "*");
            if pattern.contains("(?:") {
                format!("~ {}", pattern.replace("(?:", "("))
            } else {
                pattern
            }
        }
    }
}

impl std::fmt::Display for MatchView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        f.write_str(&self.path)?;
        for query in &self.query {
            write!(f, " ?{query}")?;
        }
        for header in &self.headers {
            write!(f, " [{header}]")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for ActionView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forward(backends) if backends.is_empty() => f.write_str("500 (no backend)"),
            Self::Forward(backends) => {
                let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
                for (at, backend) in backends.iter().enumerate() {
                    let separator = if at == 0 { "" } else { ", " };
                    // What is to be done about it is more than a cell bears; `status` says it.
                    let name = match (backend.unavailable, backend.backend.split_once("; ")) {
                        (Some(_), Some((what, _))) => what,
                        _ => &backend.backend,
                    };
                    write!(f, "{separator}{name}")?;
                    if backends.len() > 1 {
                        write!(f, " {}", share(backend.weight, total))?;
                    }
                    if let Some(status) = backend.unavailable {
                        write!(f, " ({status})")?;
                    } else if backend.endpoints == Some(0) {
                        write!(f, " (503, no endpoint)")?;
                    }
                }
                Ok(())
            }
            Self::Redirect { status, location } => write!(f, "{status} to {location}"),
            Self::Respond { status, reason } => write!(f, "{status} ({reason})"),
        }
    }
}

/// A weight as a percentage, with one decimal where it is not whole.
pub fn share(weight: u32, total: u64) -> String {
    if total == 0 {
        return "0%".to_owned();
    }
    let per_mille = (u64::from(weight) * 1000 + total / 2) / total;
    match per_mille % 10 {
        0 => format!("{}%", per_mille / 10),
        tenth => format!("{}.{tenth}%", per_mille / 10),
    }
}

/// Every alternative of every rule, by listener, then hostname from the most specific, then the
/// order of matching.
pub fn routes(world: &World) -> Vec<RouteView> {
    let ir = world.snapshot.ir();
    let mut rows: Vec<(Key<'_>, &Arc<Rule>, &HttpMatch)> = Vec::new();
    for route in ir.routes.values() {
        for attachment in &route.attachments {
            let every = attachment.hostnames.is_empty().then_some(None);
            let hosts: Vec<_> = every
                .into_iter()
                .chain(attachment.hostnames.iter().map(Some))
                .collect();
            for rule in &route.rules {
                for alternative in &rule.matches {
                    rows.extend(hosts.iter().map(|host| {
                        (
                            key(&attachment.listener, *host, &alternative.order),
                            rule,
                            &alternative.conditions,
                        )
                    }));
                }
            }
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.into_iter()
        .map(|(key, rule, conditions)| view(world, &key, rule, conditions))
        .collect()
}

/// What is done by a rule.
pub fn action(world: &World, rule: &Rule) -> ActionView {
    match &rule.action {
        Action::Forward(backends) => {
            let view = |b: &gateway_model::ir::WeightedBackend| backend(world, b);
            ActionView::Forward(backends.iter().map(view).collect())
        }
        Action::Redirect(redirect) => ActionView::Redirect {
            status: redirect.status,
            location: location(redirect),
        },
        Action::Respond { status, reason } => ActionView::Respond {
            status: *status,
            reason: reason.to_string(),
        },
    }
}

type Key<'a> = (&'a ListenerKey, HostRank<'a>, &'a MatchOrder);
type HostRank<'a> = (u8, Reverse<usize>, Option<&'a Hostname>);

fn key<'a>(
    listener: &'a ListenerKey,
    host: Option<&'a Hostname>,
    order: &'a MatchOrder,
) -> Key<'a> {
    let class = match host.map(Hostname::wildcard_suffix) {
        Some(None) => 0,
        Some(Some(_)) => 1,
        None => 2,
    };
    (
        listener,
        (class, Reverse(host.map_or(0, |h| h.as_str().len())), host),
        order,
    )
}

fn view(world: &World, key: &Key<'_>, rule: &Rule, conditions: &HttpMatch) -> RouteView {
    let (listener, (_, _, hostname), order) = key;
    RouteView {
        listener: listener.to_string(),
        hostname: hostname.map(ToString::to_string),
        conditions: MatchView::new(order.object.kind, conditions),
        kind: order.object.kind,
        route: format!("{}/{}", order.object.namespace, order.object.name),
        rule: rule.index,
        rule_name: rule.name.as_ref().map(ToString::to_string),
        action: action(world, rule),
        filters: filters(rule),
    }
}

fn backend(world: &World, backend: &gateway_model::ir::WeightedBackend) -> BackendView {
    let (name, endpoints, unavailable) = match &backend.target {
        BackendTarget::Upstream(key) => {
            let upstream = world.snapshot.ir().upstreams.get(key);
            let endpoints = upstream.and_then(|upstream| match &upstream.endpoints {
                Endpoints::Addresses(addresses) => Some(addresses.len()),
                Endpoints::Dns { .. } => None,
            });
            (key.to_string(), endpoints, None)
        }
        BackendTarget::Unavailable { status, reason } => (reason.to_string(), None, Some(*status)),
    };
    BackendView {
        backend: name,
        weight: backend.weight,
        endpoints,
        unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        assert_eq!(share(1, 3), "33.3%");
        assert_eq!(share(90, 100), "90%");
        assert_eq!(share(0, 0), "0%");
        assert_eq!(share(1, 1), "100%");
    }

    #[test]
    fn a_backend_that_is_not_there_is_told_in_short() {
        let backend = |backend: &str, unavailable| BackendView {
            backend: backend.to_owned(),
            weight: 1,
            endpoints: None,
            unavailable,
        };
        let backends = vec![
            backend("shop/app:80", None),
            backend("Service shop/b has no EndpointSlice; say where", Some(503)),
        ];
        assert_eq!(
            ActionView::Forward(backends).to_string(),
            "shop/app:80 50%, Service shop/b has no EndpointSlice 50% (503)"
        );
    }
}
