//! The routes that bring a plan's addresses to this node where no interface has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::L4Error;
use crate::error::chain;
use crate::netlink::Netlink;

/// Addresses of a plan that the kernel does not route to this node, each with what it said. What is asked for on
/// them is not served; everything else is.
pub type Refused = BTreeMap<IpAddr, String>;

/// What became of the routes that were wanted.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Addresses that routes of ours bring here.
    pub routed: BTreeSet<IpAddr>,
    /// Those of them that had no route before.
    added: BTreeSet<IpAddr>,
    /// Addresses whose route is there and no longer wanted.
    pub stale: BTreeSet<IpAddr>,
    /// Addresses that stay without.
    pub refused: Refused,
}

/// Adds the routes that are missing, one by one: an address that is refused is nothing to the others.
pub async fn prepare(netlink: &Netlink, wanted: &BTreeSet<IpAddr>) -> Result<Prepared, L4Error> {
    let present = netlink.local_routes().await?;
    let mut prepared = Prepared {
        routed: wanted.intersection(&present).copied().collect(),
        stale: present.difference(wanted).copied().collect(),
        ..Prepared::default()
    };
    for address in wanted.difference(&present) {
        match netlink.add_local_route(*address).await {
            Ok(()) => {
                prepared.routed.insert(*address);
                prepared.added.insert(*address);
            }
            Err(error) => {
                prepared.refused.insert(*address, chain(&error));
            }
        }
    }
    Ok(prepared)
}

impl Prepared {
    /// Takes back what was added: the plan does not go live.
    pub async fn withdraw(self, netlink: &Netlink) {
        remove(netlink, self.added).await;
    }

    /// Removes what is no longer wanted.
    pub async fn finish(self, netlink: &Netlink) {
        remove(netlink, self.stale).await;
    }
}

/// A route that stays is seen, and tried again, with the next plan.
async fn remove(netlink: &Netlink, addresses: BTreeSet<IpAddr>) {
    for address in addresses {
        if let Err(error) = netlink.remove_local_route(address).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(%address, error, "a local route is left");
        }
    }
}
