//! Gateway API `GRPCRoute`.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::names::ObjectKind;

use super::parent_ref::{self, ParentRef};
use super::reader::Node;
use super::route_filter::{self, HttpRouteFilter};
use super::route_match::{NamedMatch, ValueMatchType};
use super::{Known, Meta, WeightedRef, check};

/// Gateway API v1 `GRPCRoute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRoute {
    /// `metadata`.
    pub meta: Meta,
    /// `spec.parentRefs`, up to 32.
    pub parent_refs: Arc<[ParentRef]>,
    /// `spec.hostnames` as written, up to 16; empty means every host.
    pub hostnames: Box<[Arc<str>]>,
    /// `spec.rules`, up to 16; without any nothing is routed.
    pub rules: Box<[GrpcRouteRule]>,
}

/// Gateway API v1 `GRPCRouteRule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRouteRule {
    /// Unique within the route.
    pub name: Option<Arc<str>>,
    /// 1 to 64.
    pub matches: Box<[GrpcRouteMatch]>,
    /// Up to 16; of `RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestMirror` and `ExtensionRef`.
    pub filters: Box<[HttpRouteFilter]>,
    /// Up to 16.
    pub backend_refs: Box<[WeightedRef]>,
}

/// Gateway API v1 `GRPCRouteMatch`: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcRouteMatch {
    /// `method`; none means every one.
    pub method: Option<GrpcMethodMatch>,
    /// `headers`, up to 16.
    pub headers: Box<[NamedMatch]>,
}

/// Gateway API v1 `GRPCMethodMatch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcMethodMatch {
    /// Default `Exact`.
    pub kind: Known<ValueMatchType>,
    /// The service with its package; none means every one.
    pub service: Option<Arc<str>>,
    /// The method; none means every one.
    pub method: Option<Arc<str>>,
}

const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 128;

impl GrpcRoute {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping();
        let hostnames = spec.field("hostnames").items(16);
        let hostname = |node: &Node<'_>| node.required_checked(check::hostname);
        Self {
            meta: Meta::read(ObjectKind::GrpcRoute, root),
            parent_refs: parent_ref::list(&spec),
            hostnames: hostnames.iter().map(hostname).collect(),
            rules: rules(&spec.field("rules")),
        }
    }
}

fn rules(node: &Node<'_>) -> Box<[GrpcRouteRule]> {
    let mut names = BTreeSet::new();
    let read = |item: &Node<'_>| {
        let rule = GrpcRouteRule::read(item);
        if rule.name.as_ref().is_some_and(|n| !names.insert(n.clone())) {
            item.field("name").problem("is the name of another rule");
        }
        rule
    };
    let rules: Box<[_]> = node.items(MAX_RULES).iter().map(read).collect();
    let matches: usize = rules.iter().map(|r| r.matches.len()).sum();
    if matches > MAX_MATCHES {
        node.problem(format!(
            "hold {matches} matches together; at most {MAX_MATCHES} are allowed"
        ));
    }
    rules
}

impl GrpcRouteRule {
    fn read(node: &Node<'_>) -> Self {
        let matches = node.field("matches").items(64);
        Self {
            name: node.field("name").checked(check::subdomain),
            matches: match &matches[..] {
                [] => [GrpcRouteMatch::default()].into(),
                written => written.iter().map(GrpcRouteMatch::read).collect(),
            },
            filters: route_filter::grpc_list(node),
            backend_refs: WeightedRef::list(node, route_filter::grpc_list),
        }
    }
}

impl GrpcRouteMatch {
    fn read(node: &Node<'_>) -> Self {
        let method = node.field("method").mapping();
        Self {
            method: method.present().map(GrpcMethodMatch::read),
            headers: NamedMatch::list(&node.field("headers"), 4096),
        }
    }
}

impl GrpcMethodMatch {
    fn read(node: &Node<'_>) -> Self {
        let kind = node.field("type").known(&ValueMatchType::NAMES);
        let kind = kind.unwrap_or(Known::Known(ValueMatchType::Exact));
        let is_exact = kind == Known::Known(ValueMatchType::Exact);
        let text = |name: &str, exact: fn(&str) -> check::Checked| {
            node.field(name).checked(|text| {
                check::length(text, 0, 1024)?;
                if is_exact { exact(text) } else { Ok(()) }
            })
        };
        let method = Self {
            service: text("service", check::grpc_service),
            method: text("method", check::grpc_method),
            kind,
        };
        if method.service.is_none() && method.method.is_none() {
            node.problem("needs service, method, or both");
        }
        method
    }
}
