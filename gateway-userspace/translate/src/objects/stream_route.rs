//! Gateway API `TLSRoute`, `TCPRoute` and `UDPRoute`: whole connections, or datagrams, to backends.

use std::sync::Arc;

use gateway_model::names::ObjectKind;

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
    pub parent_refs: Arc<[ParentRef]>,
    /// `spec.hostnames` as written: of a TLSRoute 1 to 1024, of the others none.
    pub hostnames: Box<[Arc<str>]>,
    /// `spec.rules[0].name`.
    pub rule_name: Option<Arc<str>>,
    /// `spec.rules[0].backendRefs`, 1 to 16, without filters.
    pub backend_refs: Box<[WeightedRef]>,
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
            ..Self::read(ObjectKind::TlsRoute, root)
        }
    }

    pub(super) fn read(kind: ObjectKind, root: &Node<'_>) -> Self {
        let meta = Meta::read(kind, root);
        let spec = root.field("spec").mapping();
        let rules = spec.field("rules");
        let items = rules.items(1);
        let Some(rule) = items.first() else {
            rules.problem("must hold exactly one rule");
            return Self::new(meta, &spec, &rules);
        };
        Self::new(meta, &spec, rule)
    }

    fn new(meta: Meta, spec: &Node<'_>, rule: &Node<'_>) -> Self {
        let backend_refs = WeightedRef::list(rule, |_| Box::default());
        if backend_refs.is_empty() {
            rule.field("backendRefs")
                .problem("must hold at least one backend");
        }
        Self {
            meta,
            parent_refs: parent_ref::list(spec),
            hostnames: Box::default(),
            rule_name: rule.field("name").checked(check::subdomain),
            backend_refs,
        }
    }
}
