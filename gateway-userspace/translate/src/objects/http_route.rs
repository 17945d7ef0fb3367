//! Gateway API `HTTPRoute`: hostnames and rules.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gateway_model::names::ObjectKind;

use super::parent_ref::{self, ParentRef};
use super::reader::Node;
use super::route_filter::{self, HttpRouteFilter};
use super::route_match::{HttpRouteMatch, PathMatchType};
use super::{Known, Meta, PathModifier, WeightedRef, check};

/// Gateway API v1 `HTTPRoute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// `metadata`.
    pub meta: Meta,
    /// `spec.parentRefs`, up to 32.
    pub parent_refs: Arc<[ParentRef]>,
    /// `spec.hostnames` as written, up to 16; empty means every host.
    pub hostnames: Box<[Arc<str>]>,
    /// `spec.rules`, 1 to 16.
    pub rules: Box<[HttpRouteRule]>,
}

/// Gateway API v1 `HTTPRouteRule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteRule {
    /// Unique within the route.
    pub name: Option<Arc<str>>,
    /// 1 to 64.
    pub matches: Box<[HttpRouteMatch]>,
    /// Up to 16.
    pub filters: Box<[HttpRouteFilter]>,
    /// Up to 16.
    pub backend_refs: Box<[WeightedRef]>,
    /// `timeouts`.
    pub timeouts: Option<Box<HttpRouteTimeouts>>,
    /// `retry`.
    pub retry: Option<Box<HttpRouteRetry>>,
}

/// Gateway API v1 `HTTPRouteTimeouts`; zero switches a timeout off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpRouteTimeouts {
    /// The whole transaction.
    pub request: Option<Duration>,
    /// One attempt.
    pub backend_request: Option<Duration>,
}

/// Gateway API v1 `HTTPRouteRetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteRetry {
    /// 400-599, sorted.
    pub codes: BTreeSet<u16>,
    /// Default 1.
    pub attempts: u32,
    /// The base interval.
    pub backoff: Option<Duration>,
}

const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 128;

impl HttpRoute {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping();
        let hostnames = spec.field("hostnames").items(16);
        let hostname = |node: &Node<'_>| Some(node.required_checked(check::hostname));
        Self {
            meta: Meta::read(ObjectKind::HttpRoute, root),
            parent_refs: parent_ref::list(&spec),
            hostnames: hostnames.iter().filter_map(hostname).collect(),
            rules: rules(&spec),
        }
    }
}

fn rules(spec: &Node<'_>) -> Box<[HttpRouteRule]> {
    let node = spec.field("rules");
    if node.is_absent() {
        return [HttpRouteRule::read(&node)].into();
    }
    let items = node.items(MAX_RULES);
    if items.is_empty() {
        node.problem("must hold at least one rule, or be left out");
    }
    let mut names = BTreeSet::new();
    let read = |item: &Node<'_>| {
        let rule = HttpRouteRule::read(item);
        if rule.name.as_ref().is_some_and(|n| !names.insert(n.clone())) {
            item.field("name").problem("is the name of another rule");
        }
        rule
    };
    let rules: Box<[_]> = items.iter().map(read).collect();
    let matches: usize = rules.iter().map(|r| r.matches.len()).sum();
    if matches > MAX_MATCHES {
        node.problem(format!(
            "hold {matches} matches together; at most {MAX_MATCHES} are allowed"
        ));
    }
    rules
}

impl HttpRouteRule {
    fn read(node: &Node<'_>) -> Self {
        let matches = node.field("matches").items(64);
        let timeouts = node.field("timeouts").mapping();
        let retry = node.field("retry").mapping();
        let rule = Self {
            name: node.field("name").checked(check::subdomain),
            matches: match &matches[..] {
                [] => [HttpRouteMatch::everything()].into(),
                written => written.iter().map(HttpRouteMatch::read).collect(),
            },
            filters: route_filter::list(node),
            backend_refs: WeightedRef::list(node, route_filter::list),
            timeouts: (timeouts.present()).map(|node| Box::new(HttpRouteTimeouts::read(node))),
            retry: (retry.present()).map(|node| Box::new(HttpRouteRetry::read(node))),
        };
        rule.check(node);
        rule
    }

    /// The rules of the CRD that concern several fields.
    fn check(&self, node: &Node<'_>) {
        let redirects = |f: &HttpRouteFilter| matches!(f, HttpRouteFilter::RequestRedirect(_));
        if !self.backend_refs.is_empty() && self.filters.iter().any(redirects) {
            node.field("backendRefs")
                .problem("must not be given together with a RequestRedirect filter");
        }
        let of_backends = self.backend_refs.iter().flat_map(|b| &b.filters);
        let replaces = self.filters.iter().chain(of_backends).any(replaces_prefix);
        let one_prefix = matches!(
            &self.matches[..],
            [only] if only.path_type == Known::Known(PathMatchType::PathPrefix)
        );
        if replaces && !one_prefix {
            node.field("filters")
                .problem("replacePrefixMatch needs exactly one match, and that of type PathPrefix");
        }
    }
}

fn replaces_prefix(filter: &HttpRouteFilter) -> bool {
    let path = match filter {
        HttpRouteFilter::RequestRedirect(redirect) => &redirect.path,
        HttpRouteFilter::UrlRewrite(rewrite) => &rewrite.path,
        _ => &None,
    };
    matches!(path, Some(Known::Known(PathModifier::Prefix(_))))
}

impl HttpRouteTimeouts {
    fn read(node: &Node<'_>) -> Self {
        let timeouts = Self {
            request: duration(&node.field("request")),
            backend_request: duration(&node.field("backendRequest")),
        };
        if let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request)
            && !request.is_zero()
            && backend > request
        {
            node.field("backendRequest")
                .problem("must not be longer than the timeout request");
        }
        timeouts
    }
}

fn duration(node: &Node<'_>) -> Option<Duration> {
    let text = node.text()?;
    let duration = check::gep_2257_duration(text);
    if duration.is_none() {
        node.problem(format!(
            "{text:?} must be a duration of one to four numbers with h, m, s or ms, as in 1m30s"
        ));
    }
    duration
}

impl HttpRouteRetry {
    fn read(node: &Node<'_>) -> Self {
        let codes = node.field("codes").items(usize::MAX);
        let code = |node: &Node<'_>| u16::try_from(node.integer(400..=599)?).ok();
        let attempts = node.field("attempts").integer(0..=i64::from(u32::MAX));
        Self {
            codes: codes.iter().filter_map(code).collect(),
            attempts: attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            backoff: duration(&node.field("backoff")),
        }
    }
}
