//! Gateway API `BackendRef` in its forms: where a rule sends what it matches.

use std::sync::Arc;

use super::reader::{Node, shared};
use super::{HttpRouteFilter, check};

/// Gateway API v1 `BackendObjectReference`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// What it refers to where that is no core Service.
    foreign: Option<Box<GroupKind>>,
    /// The name.
    pub name: Arc<str>,
    /// Default: the route's own.
    pub namespace: Option<Arc<str>>,
    /// The Service's port; always there for a Service.
    pub port: Option<u16>,
}

/// What kind of object is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct GroupKind {
    /// Default core, the empty text.
    group: Arc<str>,
    /// Default `Service`.
    kind: Arc<str>,
}

/// Gateway API v1 `HTTPBackendRef`, `GRPCBackendRef`, and `BackendRef`, which has no filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedRef {
    /// What it refers to.
    pub backend: BackendRef,
    /// 0 to 1 000 000, default 1.
    pub weight: u32,
    /// Up to 16.
    pub filters: Box<[HttpRouteFilter]>,
}

const SERVICE: &str = "Service";

impl WeightedRef {
    /// `backendRefs` of a rule, up to 16, each with the filters that `filters` reads.
    pub(super) fn list(
        rule: &Node<'_>,
        filters: impl Fn(&Node<'_>) -> Box<[HttpRouteFilter]>,
    ) -> Box<[Self]> {
        let read = |node: &Node<'_>| {
            let weight = node.field("weight").integer(0..=1_000_000);
            Self {
                backend: BackendRef::read(node),
                weight: weight.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
                filters: filters(node),
            }
        };
        rule.field("backendRefs")
            .items(16)
            .iter()
            .map(read)
            .collect()
    }
}

impl BackendRef {
    pub(super) fn read(node: &Node<'_>) -> Self {
        let kind = node.field("kind").checked(check::kind);
        let meant = GroupKind {
            group: node
                .field("group")
                .checked(check::group)
                .unwrap_or_default(),
            kind: kind.unwrap_or_else(|| shared(SERVICE)),
        };
        let is_service = meant.group.is_empty() && &*meant.kind == SERVICE;
        let backend = Self {
            foreign: (!is_service).then(|| Box::new(meant)),
            name: node.field("name").required_checked(check::object_name),
            namespace: node.field("namespace").checked(check::label),
            port: node.field("port").port(),
        };
        if backend.is_service() && node.field("port").is_absent() {
            node.field("port")
                .problem("is required: the number of the Service's port");
        }
        backend
    }

    /// Whether this is a core Service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.foreign.is_none()
    }

    /// `group`; the core group is the empty text.
    #[must_use]
    pub fn group(&self) -> &str {
        self.foreign.as_ref().map_or("", |meant| &meant.group)
    }

    /// `kind`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.foreign.as_ref().map_or(SERVICE, |meant| &meant.kind)
    }
}
