//! Gateway API `ParentReference`: what a route asks to be attached to.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::reader::{Node, shared};
use super::{GATEWAY_API_GROUP, check};
use crate::lately::Lately;

/// Gateway API v1 `ParentReference`, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Default: the group of Gateway API.
    pub group: Arc<str>,
    /// Default `Gateway`.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
    /// Default: the route's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// One listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<Arc<str>>,
    /// The listeners of one port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// `spec.parentRefs` of a route, up to 32. Most routes of a Gateway have the same.
pub(super) fn list(spec: &Node<'_>) -> Arc<[ParentRef]> {
    thread_local! {
        static LATELY: RefCell<Lately<[ParentRef], 256>> = const { RefCell::new(Lately::new()) };
    }
    let nodes = spec.field("parentRefs").items(32);
    let parents: Vec<_> = nodes.iter().map(ParentRef::read).collect();
    check_distinct(&parents, &nodes);
    LATELY.with_borrow_mut(|lately| lately.shared(parents))
}

/// "sectionName must be specified / unique when parentRefs includes 2 or more references to the
/// same parent"; as in the experimental channel, a port may tell them apart as well.
fn check_distinct(parents: &[ParentRef], nodes: &[Node<'_>]) {
    let mut seen = BTreeSet::new();
    for (parent, node) in parents.iter().zip(nodes) {
        if !seen.insert(parent) {
            node.problem("names the same parent as another entry; give each another sectionName");
        }
        let mixed = parents.iter().any(|other| {
            other.same_object(parent)
                && (other.section_name.is_some(), other.port.is_some())
                    != (parent.section_name.is_some(), parent.port.is_some())
        });
        if mixed && parent.section_name.is_none() && parent.port.is_none() {
            node.problem(
                "needs a sectionName, for another entry names a section of the same parent",
            );
        }
    }
}

impl ParentRef {
    fn read(node: &Node<'_>) -> Self {
        let group = node.field("group").checked(check::group);
        let kind = node.field("kind").checked(check::kind);
        Self {
            group: group.unwrap_or_else(|| shared(GATEWAY_API_GROUP)),
            kind: kind.unwrap_or_else(|| shared("Gateway")),
            name: node.field("name").required_checked(check::object_name),
            namespace: node.field("namespace").checked(check::label),
            section_name: node.field("sectionName").checked(check::subdomain),
            port: node.field("port").port(),
        }
    }

    fn same_object(&self, other: &Self) -> bool {
        self.group == other.group
            && self.kind == other.kind
            && self.name == other.name
            && self.namespace == other.namespace
    }
}
