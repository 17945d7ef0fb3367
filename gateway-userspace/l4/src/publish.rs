//! Makes plans live: the order in which routes, addresses and tables change, for the packet path and for the task
//! that follows the node's addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use gateway_model::l4_plan::L4Plan;
use tokio::sync::watch;

use crate::addresses::Shared;
use crate::netlink::Netlink;
use crate::pins::Pins;
use crate::routes::{Prepared, Refused, Routes};
use crate::tables::Tables;
use crate::{L4Error, SteeringSocket, sys};

/// What publishing a plan takes. The caller holds the lock on the pins.
#[derive(Clone, Debug)]
pub struct Publisher {
    pub shared: Shared,
    pub pins: Arc<Pins>,
    pub netlink: Netlink,
    pub routes: Routes,
    refused: watch::Sender<Refused>,
}

impl Publisher {
    /// Publishes to these maps.
    pub fn new(shared: Shared, pins: Arc<Pins>, netlink: Netlink) -> Self {
        let refused = watch::Sender::default();
        let routes = Routes::new(netlink.clone(), pins.pin_dir());
        Self {
            shared,
            pins,
            netlink,
            routes,
            refused,
        }
    }

    /// The addresses of the live plan that are not served.
    pub fn refused(&self) -> watch::Receiver<Refused> {
        self.refused.subscribe()
    }

    /// Make before break: routes and addresses, then the tables and sockets and the flip, then what is no longer
    /// wanted. An address that the kernel refuses is left out with its frontends.
    pub async fn publish(
        &self,
        plan: Arc<L4Plan>,
        sockets: Option<&[SteeringSocket<'_>]>,
    ) -> Result<(), L4Error> {
        let present = self.netlink.addresses().await?;
        self.publish_beside(plan, sockets, &present).await
    }

    /// Makes the same plan fit the addresses that the interfaces have now.
    pub async fn follow(&self) -> Result<(), L4Error> {
        let present = self.netlink.addresses().await?;
        let plan = {
            let mut inner = self.shared.lock();
            let mut addressed = inner.routed.clone();
            addressed.extend(self.refused.borrow().keys());
            let wanted = wanted_addresses(&inner.plan);
            if wanted.difference(&present).eq(&addressed) {
                let addresses = present.union(&inner.routed).copied().collect();
                return inner.maps.set_node_addresses(&addresses);
            }
            Arc::clone(&inner.plan)
        };
        self.publish_beside(plan, None, &present).await
    }

    async fn publish_beside(
        &self,
        plan: Arc<L4Plan>,
        sockets: Option<&[SteeringSocket<'_>]>,
        present: &BTreeSet<IpAddr>,
    ) -> Result<(), L4Error> {
        let wanted = wanted_addresses(&plan)
            .difference(present)
            .copied()
            .collect();
        let prepared = self.routes.prepare(&wanted).await?;
        if let Err(error) = self.flip(&plan, sockets, present, &prepared) {
            log(self.routes.withdraw(prepared).await);
            return Err(error);
        }
        self.shared.lock().plan = plan;
        self.tell(&prepared.refused);
        log(self.routes.finish(prepared).await);
        Ok(())
    }

    fn flip(
        &self,
        plan: &L4Plan,
        sockets: Option<&[SteeringSocket<'_>]>,
        present: &BTreeSet<IpAddr>,
        routes: &Prepared,
    ) -> Result<(), L4Error> {
        let addresses: BTreeSet<IpAddr> = present.union(&routes.routed).copied().collect();
        let transitional: BTreeSet<IpAddr> = addresses.union(&routes.stale).copied().collect();
        let mut inner = self.shared.lock();
        inner.maps.set_node_addresses(&transitional)?;
        let live = inner.maps.live_tables()?;
        let tables = Tables::build(
            &without(plan, &routes.refused),
            &routes.routed,
            &sys::local_ports(),
            &live,
        )?;
        // Most revisions change routes alone, and a flip makes the next one wait for running programs.
        if sockets.is_some() || tables != live {
            let half = inner.maps.write_idle_tables(&tables)?;
            let mut word = inner.maps.control()?.with_tables(half);
            if let Some(sockets) = sockets {
                let (half, workers) = inner.maps.write_idle_sockets(sockets)?;
                word = word.with_sockets(half, workers).with_tracing(false);
                self.pins.become_owner()?;
            }
            inner.maps.set_control(word)?;
        }
        inner.maps.set_node_addresses(&addresses)?;
        inner.routed.clone_from(&routes.routed);
        Ok(())
    }

    fn tell(&self, refused: &Refused) {
        self.refused.send_if_modified(|told| {
            let is_new = told != refused;
            told.clone_from(refused);
            is_new
        });
    }
}

/// A route that stays is seen, and tried again, with the next plan.
fn log(removed: Result<(), L4Error>) {
    if let Err(error) = removed {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "a local route is left");
    }
}

/// The addresses that a plan needs on this node.
fn wanted_addresses(plan: &L4Plan) -> BTreeSet<IpAddr> {
    let addresses = plan.addresses.iter().map(IpAddr::to_canonical);
    addresses
        .filter(|address| !address.is_unspecified() && !address.is_multicast())
        .collect()
}

/// The plan without what is asked for on these addresses.
fn without(plan: &L4Plan, refused: &Refused) -> L4Plan {
    let mut plan = plan.clone();
    plan.frontends.retain(|frontend, _| {
        !frontend
            .address
            .is_some_and(|address| refused.contains_key(&address.to_canonical()))
    });
    plan
}

#[cfg(test)]
mod tests {
    use gateway_model::l4_plan::{Frontend, Transport};

    use super::*;

    #[test]
    fn a_refused_address_takes_its_own_frontends_along_and_no_others() {
        let refused = Refused::from([("2001:db8::5".parse().expect("an address"), String::new())]);
        let frontend = |address: Option<&str>| Frontend {
            address: address.map(|address| address.parse().expect("an address")),
            port: 443,
            transport: Transport::Tcp,
        };
        let all = [None, Some("192.0.2.5"), Some("2001:db8::5")].map(frontend);
        let plan = L4Plan {
            frontends: all.into_iter().map(|each| (each, Vec::new())).collect(),
            ..L4Plan::default()
        };
        let kept: Vec<_> = without(&plan, &refused).frontends.into_keys().collect();
        assert_eq!(kept, all[..2]);
    }
}
