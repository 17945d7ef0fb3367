//! What a translation depends on besides the objects.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Where the objects come from; decides what may be taken for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory of manifests: nobody else has defaulted or refused anything, there may be no
    /// GatewayClass and no EndpointSlice, and whoever writes a Service may say where it is.
    Files,
    /// An API server: classes are objects, endpoints are EndpointSlices, and a Service's author
    /// must not choose addresses (ExternalName and `sluice.dev/endpoints` are not followed).
    Cluster,
}

/// Whose addresses the status of a Gateway shows that has none of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Those of the nodes.
    Nodes,
    /// Those of a Service of type LoadBalancer, which Sluice keeps for the Gateway.
    Service,
}

/// What a translation depends on besides the objects. The same settings and the same objects give
/// the same translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Gateway API v1 `GatewayClass.spec.controllerName` of the classes that are ours, and
    /// `status.parents.controllerName` of what we write. Default `sluice.dev/gateway-controller`.
    pub controller_name: Arc<str>,
    /// The class that is ours even where no GatewayClass object declares it, if [`Self::source`]
    /// is [`SourceKind::Files`]. Default `sluice`.
    pub class_name: Arc<str>,
    /// Further class names that Sluice stands in for, whatever controller their GatewayClass
    /// object names; in files also without such an object. Default empty.
    pub stand_in_classes: Vec<Arc<str>>,
    /// Where the objects come from. Default [`SourceKind::Files`].
    pub source: SourceKind,
    /// The addresses of the nodes, which `Gateway.status.addresses` shows for a Gateway that asks for
    /// no address while there is no pool. Empty means those of the Node objects, and without any
    /// they are not known, and none are shown.
    pub node_addresses: Vec<IpAddr>,
    /// The networks that Gateways which ask for no address get one of their own from: one of each IP
    /// version. An address that a Gateway names must then lie in them, or be a node's. Empty means that there is no pool. Default empty.
    pub address_pool: Vec<IpNet>,
    /// Where the address of a Gateway comes from that asks for none while there is no pool.
    /// Default [`Publish::Nodes`].
    pub publish: Publish,
    /// `gateway.networking.k8s.io/bundle-version` of the CRDs that the API server serves; none
    /// without an API server, and then there is no `SupportedVersion` condition.
    pub crd_version: Option<Arc<str>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            controller_name: "sluice.dev/gateway-controller".into(),
            class_name: "sluice".into(),
            stand_in_classes: Vec::new(),
            source: SourceKind::Files,
            node_addresses: Vec::new(),
            address_pool: Vec::new(),
            publish: Publish::Nodes,
            crd_version: None,
        }
    }
}

impl Settings {
    /// Whether a Service's own word about its addresses is followed.
    pub(crate) fn trusts_services(&self) -> bool {
        self.source == SourceKind::Files
    }

    /// Whether this class is one of those that Sluice stands in for.
    pub(crate) fn stands_in_for(&self, class: &str) -> bool {
        self.stand_in_classes.iter().any(|name| **name == *class)
    }
}
