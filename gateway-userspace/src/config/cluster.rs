//! Settings that matter where statuses are written to an API server, and of addresses.

use std::time::Duration;

use super::ErasedValue as _;
use super::{Network, Span};
use crate::args::{PublishAddresses, RunArgs};
use crate::status::Terms;

/// A shorter Lease would be lost to the first slow answer.
const SHORTEST_LEASE: Duration = Duration::from_secs(5);

/// Who this process is in a cluster, and where Gateways get their addresses.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The networks that addresses are given from.
    pub address_pool: Vec<Network>,
    /// What a Gateway without an address of its own shows.
    pub publish_addresses: PublishAddresses,
    /// The Pod.
    pub pod_name: String,
    /// Its namespace; none means the account's own.
    pub pod_namespace: Option<String>,
    /// Its uid.
    pub pod_uid: Option<String>,
    /// Its node.
    pub node_name: String,
    /// The Lease of the status writer.
    pub status_lease: String,
    /// How long that outlives its holder.
    pub lease_duration: Duration,
}

impl ClusterConfig {
    /// What was typed, and the defaults for the rest.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn resolve(args: &RunArgs) -> anyhow::Result<Self> {
        let lease_duration = args.lease_duration.map_or(Duration::from_secs(15), |s| s.0);
        anyhow::ensure!(
            lease_duration >= SHORTEST_LEASE,
            "--lease-duration must be {} s at least",
            SHORTEST_LEASE.as_secs()
        );
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(Self {
            address_pool: args.address_pool.clone().unwrap_or_default(),
            publish_addresses: args.publish_addresses.unwrap_or_default(),
            pod_name: given(&args.pod_name).unwrap_or_else(host_name),
            pod_namespace: given(&args.pod_namespace),
            pod_uid: given(&args.pod_uid),
            node_name: given(&args.node_name).unwrap_or_else(host_name),
            status_lease: given(&args.status_lease)
                .unwrap_or_else(|| "sluice-status-writer".to_owned()),
            lease_duration,
        })
    }

    /// How the status writer's Lease is held.
    pub fn terms(&self) -> Terms {
        Terms {
            duration: self.lease_duration,
        }
    }

    /// Each setting by name.
    pub fn rows(&self) -> Vec<(&'static str, serde_json::Value)> {
        vec![
            ("address-pool", self.address_pool.value()),
            ("publish-addresses", self.publish_addresses.value()),
            ("pod-name", self.pod_name.value()),
            ("pod-namespace", self.pod_namespace.value()),
            ("pod-uid", self.pod_uid.value()),
            ("node-name", self.node_name.value()),
            ("status-lease", self.status_lease.value()),
            ("lease-duration", Span(self.lease_duration).value()),
        ]
    }
}

/// The name of this machine, in the letters that names of Kubernetes may have.
fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().to_ascii_lowercase();
    let kept = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let name: String = name.chars().filter(|c| kept(*c)).collect();
    match name.trim_matches('-') {
        "" => "sluice".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_none() {
        let args = RunArgs {
            pod_uid: Some(String::new()),
            pod_name: Some(String::new()),
            ..RunArgs::default()
        };
        let config = ClusterConfig::resolve(&args).expect("resolves");
        assert_eq!(config.pod_uid, None);
        assert!(!config.pod_name.is_empty());
        assert_eq!(config.status_lease, "sluice-status-writer");
        let short = RunArgs {
            lease_duration: Some(Span(Duration::from_secs(1))),
            ..RunArgs::default()
        };
        assert!(ClusterConfig::resolve(&short).is_err());
    }
}
