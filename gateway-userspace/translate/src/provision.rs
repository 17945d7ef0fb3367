//! The Service that Sluice keeps for a Gateway, as pure data: whoever writes to Kubernetes applies it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gateway_model::l4_plan::Transport;

/// A Service in the namespace of its Gateway, without a selector: its endpoints are given, for a
/// Service can select Pods of its own namespace only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvisionedService {
    /// `metadata.name`: `<gateway>-<class>`, shortened with a hash where that is no name of a Service.
    pub name: Arc<str>,
    /// `metadata.uid` of the Gateway, for the ownerReference; none in files.
    pub owner: Option<Arc<str>>,
    /// `metadata.labels`: those of `spec.infrastructure`, and Gateway API's own.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// `metadata.annotations`: those of `spec.infrastructure`.
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
    /// What kind of Service.
    pub kind: ProvisionKind,
    /// `spec.ports`, by transport and port, without duplicates.
    pub ports: Vec<ProvisionedPort>,
    /// The addresses of its EndpointSlices, IPv4 and IPv6, sorted.
    pub endpoints: Vec<IpAddr>,
}

/// What a provisioned Service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvisionKind {
    /// `type: LoadBalancer`: somebody else gives it an address, which becomes the Gateway's. Its
    /// endpoints are the nodes.
    LoadBalancer,
    /// `clusterIP: None`: a name inside the cluster for the Gateway's addresses, which are its endpoints.
    Headless,
}

/// One port of a provisioned Service; the target port is the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProvisionedPort {
    /// `protocol`.
    pub transport: Transport,
    /// `port`, 1-65535.
    pub port: u16,
}

impl ProvisionedPort {
    /// `name`, as in `tcp-443`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.transport {
            Transport::Tcp => format!("tcp-{}", self.port),
            Transport::Udp => format!("udp-{}", self.port),
        }
    }
}
