//! Gateway API `TLSRoute`, `TCPRoute` and `UDPRoute`: whole connections, or datagrams, to backends.

use std::sync::Arc;

use super::parent_ref::{self, ParentRef};
use super::reader::Node;
use super::{Meta, WeightedRef, check};

/// Gateway API v1 `TLSRoute`, `TCPRoute` or `UDPRoute`: they differ in that only the first has
/// hostnames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRoute {
    /// `metadata`.
    pub meta: Meta,
    /// `spec.parentRefs`, up to 32.
    pub parent_refs: Vec<ParentRef>,
    /// `spec.hostnames` as written: of a TLSRoute 1 to 1024, of the others none.
    pub hostnames: Vec<Arc<str>>,
    /// `spec.rules[0].name`.
    pub rule_name: Option<Arc<str>>,
    /// `spec.rules[0].backendRefs`, 1 to 16, without filters.
    pub backend_refs: Vec<WeightedRef>,
}

impl StreamRoute {
    pub(super) fn read_tls(root: &Node<'_>) -> Self {
        let hostnames = root.field("spec").field("hostnames");
        let items = hostnames.items(1024);
        if items.is_empty() {
            hostnames.problem("must hold at least one hostname");
        }
        let hostname = |node: &Node<'_>| node.required_checked(check::hostname);
        Self {
            hostnames: items.iter().map(hostname).collect(),
            ..Self::read(root)
        }
    }

    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping();
        let rules = spec.field("rules");
        let items = rules.items(1);
        let Some(rule) = items.first() else {
            rules.problem("must hold exactly one rule");
            return Self::new(root, &spec, &rules);
        };
        Self::new(root, &spec, rule)
    }

    fn new(root: &Node<'_>, spec: &Node<'_>, rule: &Node<'_>) -> Self {
        let backend_refs = WeightedRef::list(rule, |_| Vec::new());
        if backend_refs.is_empty() {
            rule.field("backendRefs")
                .problem("must hold at least one backend");
        }
        Self {
            meta: Meta::namespaced(root),
            parent_refs: parent_ref::list(spec),
            hostnames: Vec::new(),
            rule_name: rule.field("name").checked(check::subdomain),
            backend_refs,
        }
    }
}
