//! Kubernetes core `Node`: where a DaemonSet can be reached.

use std::net::IpAddr;

use gateway_model::names::ObjectKind;

use super::Meta;
use super::reader;

/// Kubernetes v1 `node.kubernetes.io/exclude-from-external-load-balancers`.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Kubernetes core `Node`, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `metadata`.
    pub meta: Meta,
    /// `status.addresses` of type `ExternalIP`, in their order.
    pub external: Vec<IpAddr>,
    /// `status.addresses` of type `InternalIP`, in their order.
    pub internal: Vec<IpAddr>,
}

impl Node {
    pub(super) fn read(root: &reader::Node<'_>) -> Self {
        let mut node = Self {
            meta: Meta::read(ObjectKind::Node, root),
            external: Vec::new(),
            internal: Vec::new(),
        };
        for item in root.field("status").field("addresses").items(usize::MAX) {
            let address = item.field("address").text().and_then(|a| a.parse().ok());
            match (item.field("type").text(), address) {
                (Some("ExternalIP"), Some(address)) => node.external.push(address),
                (Some("InternalIP"), Some(address)) => node.internal.push(address),
                _ => {}
            }
        }
        node
    }

    /// Where clients reach it: its external addresses, else its internal ones; none if it is to be
    /// left out.
    #[must_use]
    pub fn public(&self) -> &[IpAddr] {
        if self.meta.labels().contains_key(EXCLUDED) {
            return &[];
        }
        match &self.external[..] {
            [] => &self.internal,
            external => external,
        }
    }
}
