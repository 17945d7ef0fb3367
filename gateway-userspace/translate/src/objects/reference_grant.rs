//! Gateway API `ReferenceGrant`.

use std::sync::Arc;

use gateway_model::names::ObjectKind;

use super::reader::Node;
use super::{Meta, check};

/// Gateway API v1 `ReferenceGrant`: any of `from` may refer to any of `to` in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// `metadata`.
    pub meta: Meta,
    /// Who may refer, 1 to 16.
    pub from: Vec<GrantFrom>,
    /// To what, 1 to 16.
    pub to: Vec<GrantTo>,
}

/// Gateway API v1 `ReferenceGrantFrom`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    /// The API group of who refers.
    pub group: Arc<str>,
    /// The kind of who refers.
    pub kind: Arc<str>,
    /// The namespace of who refers.
    pub namespace: Arc<str>,
}

/// Gateway API v1 `ReferenceGrantTo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// The API group; empty is the core group.
    pub group: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
    /// The name; none means every one.
    pub name: Option<Arc<str>>,
}

impl ReferenceGrant {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping().required();
        let list = |name: &str| {
            let node = spec.field(name);
            let items = node.items(16);
            if items.is_empty() {
                node.problem("must hold at least one entry");
            }
            items
        };
        Self {
            meta: Meta::read(ObjectKind::ReferenceGrant, root),
            from: list("from").iter().map(GrantFrom::read).collect(),
            to: list("to").iter().map(GrantTo::read).collect(),
        }
    }
}

impl GrantFrom {
    fn read(node: &Node<'_>) -> Self {
        Self {
            group: node.field("group").required_checked(check::group),
            kind: node.field("kind").required_checked(check::kind),
            namespace: node.field("namespace").required_checked(check::label),
        }
    }
}

impl GrantTo {
    fn read(node: &Node<'_>) -> Self {
        Self {
            group: node.field("group").required_checked(check::group),
            kind: node.field("kind").required_checked(check::kind),
            name: node.field("name").checked(check::object_name),
        }
    }
}
