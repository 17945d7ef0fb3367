//! Gateway API `ListenerSet`.

use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};

use super::listener::listeners;
use super::reader::{Node, shared};
use super::{GATEWAY_API_GROUP, Listener, Meta, check};

/// Gateway API v1 `ListenerSet`: further listeners of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSet {
    /// `metadata`.
    pub meta: Meta,
    /// `spec.parentRef`.
    pub parent: ParentGateway,
    /// `spec.listeners`, 1 to 64.
    pub listeners: Vec<Listener>,
}

/// Gateway API v1 `ParentGatewayReference`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentGateway {
    /// Default: the group of Gateway API.
    pub group: Arc<str>,
    /// Default `Gateway`.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
    /// Default: the ListenerSet's own namespace.
    pub namespace: Option<Arc<str>>,
}

impl ListenerSet {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping().required();
        let parent = spec.field("parentRef").mapping().required();
        let group = parent.field("group").checked(check::group);
        let kind = parent.field("kind").checked(check::kind);
        Self {
            meta: Meta::read(ObjectKind::ListenerSet, root),
            parent: ParentGateway {
                group: group.unwrap_or_else(|| shared(GATEWAY_API_GROUP)),
                kind: kind.unwrap_or_else(|| shared("Gateway")),
                name: parent.field("name").required_checked(check::object_name),
                namespace: parent.field("namespace").checked(check::label),
            },
            listeners: listeners(&spec),
        }
    }

    /// The Gateway that it wants to extend; none if it names something else.
    #[must_use]
    pub fn gateway(&self) -> Option<ObjectRef> {
        let ParentGateway {
            group,
            kind,
            name,
            namespace,
        } = &self.parent;
        let is_gateway = **group == *GATEWAY_API_GROUP && &**kind == "Gateway";
        is_gateway.then(|| {
            let namespace = namespace.as_ref().unwrap_or(&self.meta.object.namespace);
            ObjectRef::of(ObjectKind::Gateway, namespace.clone(), name.clone())
        })
    }
}
