//! Follows the node's addresses: the map of them says what the interfaces have and what Sluice routes here, and a
//! route comes and goes as an interface loses or gets an address of the plan.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::StreamExt;
use gateway_model::l4_plan::L4Plan;
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

use crate::L4Error;
use crate::maps::Maps;
use crate::publish::Publisher;

/// The maps, shared with the tasks that write some of them.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Inner>>);

/// What is behind the lock, which is never held over an await.
#[derive(Debug)]
pub struct Inner {
    pub maps: Maps,
    /// The last plan that was applied.
    pub plan: Arc<L4Plan>,
    /// Addresses that local routes of ours bring here.
    pub routed: BTreeSet<IpAddr>,
}

impl Shared {
    /// Shares the maps.
    pub fn new(maps: Maps) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            maps,
            plan: Arc::default(),
            routed: BTreeSet::new(),
        })))
    }

    /// Locks them.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic with the lock held leaves the maps as they are in the kernel; they are read again from there.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Follows the kernel's news of addresses until it is dropped.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Watch {
    /// Starts to follow; only the live process writes.
    pub fn start(publisher: Publisher) -> Result<Self, L4Error> {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, mut news) =
            rtnetlink::new_multicast_connection(&groups).map_err(|source| L4Error::System {
                operation: "follow the node's addresses by rtnetlink",
                source,
            })?;
        tokio::spawn(connection);
        Ok(Self(tokio::spawn(async move {
            while news.next().await.is_some() {
                // Many come at once; one look serves them all.
                while news.try_recv().is_ok() {}
                if let Err(error) = refresh(&publisher).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the node's addresses could not be refreshed");
                }
            }
        })))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn refresh(publisher: &Publisher) -> Result<(), L4Error> {
    match publisher.pins.lock_as_owner().await {
        Ok(_locked) => publisher.follow().await,
        Err(L4Error::Superseded) => Ok(()),
        Err(error) => Err(error),
    }
}
