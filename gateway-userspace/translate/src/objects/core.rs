//! Small kinds of the core group: ConfigMap and Namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Meta;
use super::reader::Node;

/// Kubernetes core `ConfigMap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// `metadata`.
    pub meta: Meta,
    /// `data`.
    pub data: BTreeMap<Arc<str>, Arc<str>>,
}

impl ConfigMap {
    pub(super) fn read(root: &Node<'_>) -> Self {
        Self {
            meta: Meta::namespaced(root),
            data: root.field("data").texts(),
        }
    }
}

/// Kubernetes core `Namespace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata`, with the label `kubernetes.io/metadata.name` that the API server adds.
    pub meta: Meta,
}

impl Namespace {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let mut meta = Meta::cluster_scoped(root);
        meta.labels.extend(Self::implied_labels(&meta.name));
        Self { meta }
    }

    /// The labels of a namespace of which no more than its name is known.
    pub(crate) fn implied_labels(name: &Arc<str>) -> BTreeMap<Arc<str>, Arc<str>> {
        BTreeMap::from([("kubernetes.io/metadata.name".into(), name.clone())])
    }
}
