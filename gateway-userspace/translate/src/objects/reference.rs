//! References from one object to another one that may be of any kind.

use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};

use super::check;
use super::reader::{Node, shared};

/// Gateway API v1 `SecretObjectReference`, `ObjectReference` and `LocalObjectReference`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectReference {
    /// The API group; empty is the core group.
    pub group: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
    /// Default: the namespace of whoever refers.
    pub namespace: Option<Arc<str>>,
}

impl ObjectReference {
    /// `SecretObjectReference`: a Secret unless it says otherwise.
    pub(super) fn read_secret(node: &Node<'_>) -> Self {
        let kind = node.field("kind").checked(check::kind);
        Self {
            group: node
                .field("group")
                .checked(check::group)
                .unwrap_or_default(),
            kind: kind.unwrap_or_else(|| shared("Secret")),
            name: node.field("name").required_checked(check::object_name),
            namespace: node.field("namespace").checked(check::label),
        }
    }

    /// `ObjectReference`: group and kind must be given.
    pub(super) fn read(node: &Node<'_>) -> Self {
        Self {
            namespace: node.field("namespace").checked(check::label),
            ..Self::read_local(node)
        }
    }

    /// `LocalObjectReference`: as [`Self::read`], in the namespace of whoever refers.
    pub(super) fn read_local(node: &Node<'_>) -> Self {
        Self {
            group: node.field("group").required_checked(check::group),
            kind: node.field("kind").required_checked(check::kind),
            name: node.field("name").required_checked(check::object_name),
            namespace: None,
        }
    }

    /// The core object that is meant when an object of this namespace refers; none for any kind but
    /// Secret and ConfigMap.
    #[must_use]
    pub fn target(&self, from: &ObjectRef) -> Option<ObjectRef> {
        let kind = match (&*self.group, &*self.kind) {
            ("", "Secret") => ObjectKind::Secret,
            ("", "ConfigMap") => ObjectKind::ConfigMap,
            _ => return None,
        };
        let namespace = self.namespace.as_ref().unwrap_or(&from.namespace);
        Some(ObjectRef::of(kind, namespace.clone(), self.name.clone()))
    }
}
