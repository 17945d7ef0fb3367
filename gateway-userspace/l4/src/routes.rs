//! The routes that bring a plan's addresses to this node where no interface has them, and whose they are.
//!
//! A route stands beside others for the same address if its metric is another one. Each line of processes that
//! share a pin directory has a metric of its own, so that it adds, finds again after `kill -9` and removes nothing
//! but what is its own: not another Sluice's, not the operator's, not the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use crate::L4Error;
use crate::error::chain;
use crate::fnv::Fnv;
use crate::netlink::{AddressRoute, Netlink};

/// Addresses of a plan that the kernel does not route to this node, each with what it said. What is asked for on
/// them is not served; everything else is.
pub type Refused = BTreeMap<IpAddr, String>;

/// The routes of one line of processes.
#[derive(Clone, Debug)]
pub struct Routes {
    netlink: Netlink,
    metric: u32,
}

/// What became of the routes that were wanted.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Addresses that routes of ours bring here.
    pub routed: BTreeSet<IpAddr>,
    /// Addresses whose route is there and no longer wanted.
    pub stale: BTreeSet<IpAddr>,
    /// Addresses that stay without.
    pub refused: Refused,
    /// Those of `routed` that had no route before.
    added: BTreeSet<IpAddr>,
}

impl Routes {
    /// Those of the processes that use this pin directory.
    pub fn new(netlink: Netlink, pin_dir: &Path) -> Self {
        let metric = metric(pin_dir);
        Self { netlink, metric }
    }

    /// Adds the routes that are missing, one by one: an address that is refused is nothing to the others.
    pub async fn prepare(&self, wanted: &BTreeSet<IpAddr>) -> Result<Prepared, L4Error> {
        let routes = self.netlink.address_routes().await?;
        let loopback = self.netlink.loopback().await?;
        let (mut prepared, missing) = compare(self.metric, wanted, &routes);
        for address in missing {
            let added = self.netlink.add_local_route(address, self.metric, loopback);
            match added.await {
                Ok(()) => {
                    prepared.routed.insert(address);
                    prepared.added.insert(address);
                }
                Err(error) => {
                    prepared.refused.insert(address, chain(&error));
                }
            }
        }
        Ok(prepared)
    }

    /// Takes back what was added: the plan does not go live.
    pub async fn withdraw(&self, prepared: Prepared) -> Result<(), L4Error> {
        self.remove(prepared.added).await
    }

    /// Removes what is no longer wanted.
    pub async fn finish(&self, prepared: Prepared) -> Result<(), L4Error> {
        self.remove(prepared.stale).await
    }

    /// Removes every route of this line of processes.
    pub async fn clear(&self) -> Result<(), L4Error> {
        let routes = self.netlink.address_routes().await?;
        self.remove(own(self.metric, &routes)).await
    }

    /// Goes on over what cannot be removed; returns the first error.
    async fn remove(&self, addresses: BTreeSet<IpAddr>) -> Result<(), L4Error> {
        if addresses.is_empty() {
            return Ok(());
        }
        let loopback = self.netlink.loopback().await?;
        let mut result = Ok(());
        for address in addresses {
            let removed = self
                .netlink
                .remove_local_route(address, self.metric, loopback);
            result = result.and(removed.await);
        }
        result
    }
}

/// What is there of the wanted routes and what is there besides; and which are missing.
fn compare(
    metric: u32,
    wanted: &BTreeSet<IpAddr>,
    routes: &[AddressRoute],
) -> (Prepared, BTreeSet<IpAddr>) {
    let own = own(metric, routes);
    let mut prepared = Prepared {
        stale: own.difference(wanted).copied().collect(),
        ..Prepared::default()
    };
    let mut missing = BTreeSet::new();
    for address in wanted {
        if is_kept_away(*address, metric, routes) {
            let reason = format!(
                "the node's own routes take {address} for something else, such as a broadcast address"
            );
            prepared.refused.insert(*address, reason);
            prepared.stale.extend(own.get(address));
        } else if own.contains(address) {
            prepared.routed.insert(*address);
        } else {
            missing.insert(*address);
        }
    }
    (prepared, missing)
}

/// Whether a route that comes before one of ours takes the packets of an address elsewhere.
fn is_kept_away(address: IpAddr, metric: u32, routes: &[AddressRoute]) -> bool {
    let before = |route: &&AddressRoute| route.address == address && route.metric < metric;
    let first = routes
        .iter()
        .filter(before)
        .min_by_key(|route| route.metric);
    first.is_some_and(|route| !route.is_local)
}

fn own(metric: u32, routes: &[AddressRoute]) -> BTreeSet<IpAddr> {
    let is_own = |route: &&AddressRoute| route.is_sluices && route.metric == metric;
    let own = routes.iter().filter(is_own);
    own.map(|route| route.address).collect()
}

/// From 2^16 on, behind what people and the kernel (0, and 1024 for IPv6) choose.
fn metric(pin_dir: &Path) -> u32 {
    let mut hash = Fnv::default();
    for component in pin_dir
        .components()
        .filter(|part| *part != Component::CurDir)
    {
        hash.write(component.as_os_str().as_bytes());
        hash.write(b"/");
    }
    let hash = hash.finish();
    (hash ^ (hash >> 32)) as u32 | 1 << 16
}

#[cfg(test)]
mod tests;
