//! A worker's view of the backends: which endpoints an upstream has, which one is next, and the
//! idle connections to each. Nothing here is shared with another worker.

mod connection;
mod dial;
mod endpoint;
mod http2;
mod resolve;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use foldhash::fast::RandomState;
use gateway_model::balance::Turn;
use gateway_model::ir::{Endpoints, UpstreamProtocol};
use gateway_model::snapshot::{CompiledUpstream, Snapshot, UpstreamId};

use crate::limits::UpstreamLimits;

pub(crate) use connection::UpstreamConnection;
pub(crate) use dial::{Needs, Via};
pub(crate) use endpoint::{Active, Endpoint};
pub(crate) use http2::{Declined, Http2Stream};
use resolve::Resolution;
pub(crate) use stream::UpstreamStream;

/// Every upstream that this worker has used, by number, and every endpoint by address. A clone is
/// another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstreams {
    pools: Rc<RefCell<Vec<Option<Rc<Pool>>>>>,
    endpoints: Rc<RefCell<EndpointMap>>,
}

/// Endpoints by address. Two upstreams with one address share its connections.
type EndpointMap = HashMap<SocketAddr, Weak<Endpoint>, RandomState>;

/// One upstream's endpoints.
#[derive(Debug)]
pub(crate) struct Pool {
    compiled: Arc<CompiledUpstream>,
    members: Members,
    turn: Cell<Turn>,
}

#[derive(Debug)]
enum Members {
    Fixed(Rc<[Rc<Endpoint>]>),
    Resolved(Rc<Resolution>),
}

impl Upstreams {
    /// The upstream of that number as this snapshot has it.
    pub(crate) fn pool(&self, snapshot: &Snapshot, id: UpstreamId) -> Option<Rc<Pool>> {
        let compiled = snapshot.upstream(id)?;
        if let Some(Some(pool)) = self.pools.borrow().get(id.index())
            && Arc::ptr_eq(&pool.compiled, compiled)
        {
            return Some(Rc::clone(pool));
        }
        Some(self.renew(compiled))
    }

    #[cold]
    fn renew(&self, compiled: &Arc<CompiledUpstream>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        let index = compiled.id.index();
        if pools.len() <= index {
            pools.resize(index + 1, None);
        }
        let members = match compiled.endpoints() {
            Endpoints::Addresses(list) => {
                Members::Fixed(self.endpoints(list.iter().map(|endpoint| endpoint.address)))
            }
            Endpoints::Dns { host, port } => {
                let known = pools[index].as_ref().and_then(|pool| match &pool.members {
                    Members::Resolved(known) if known.is_for(host, *port) => Some(known),
                    _ => None,
                });
                Members::Resolved(match known {
                    Some(known) => Rc::clone(known),
                    None => Resolution::new(host, *port),
                })
            }
        };
        let pool = Rc::new(Pool {
            compiled: Arc::clone(compiled),
            members,
            turn: Cell::default(),
        });
        pools[index] = Some(Rc::clone(&pool));
        pool
    }

    /// The endpoints of these addresses, those that are known with their connections.
    fn endpoints(&self, addresses: impl Iterator<Item = SocketAddr>) -> Rc<[Rc<Endpoint>]> {
        let mut known = self.endpoints.borrow_mut();
        addresses
            .map(|address| {
                let endpoint = known.get(&address).and_then(Weak::upgrade);
                endpoint.unwrap_or_else(|| {
                    let endpoint = Rc::new(Endpoint::new(address));
                    known.insert(address, Rc::downgrade(&endpoint));
                    endpoint
                })
            })
            .collect()
    }

    /// Drops the pools of upstreams that this snapshot no longer has.
    pub(crate) fn forget_missing(&self, snapshot: &Snapshot) {
        for pool in self.pools.borrow_mut().iter_mut() {
            let gone = pool.as_ref().is_some_and(|pool| {
                let now = snapshot.upstream(pool.compiled.id);
                now.is_none_or(|now| now.since != pool.compiled.since)
            });
            if gone {
                *pool = None;
            }
        }
    }

    /// Closes idle connections that are too old, and forgets endpoints that nobody names.
    pub(crate) fn sweep(&self, now_ms: u64, limits: &UpstreamLimits) -> usize {
        let mut idle = 0;
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            let Some(endpoint) = endpoint.upgrade() else {
                return false;
            };
            idle += endpoint.sweep(now_ms, limits);
            true
        });
        idle
    }
}

impl Pool {
    /// What the endpoints speak.
    pub(crate) fn protocol(&self) -> UpstreamProtocol {
        self.compiled.protocol()
    }

    /// `namespace/name:port`.
    pub(crate) fn label(&self) -> &Arc<str> {
        &self.compiled.label
    }

    /// The endpoint to try next: of one in turn and one at random, the one with fewer requests
    /// under way. Never one of `tried`.
    pub(crate) fn choose(
        &self,
        members: &[Rc<Endpoint>],
        tried: &[SocketAddr],
    ) -> Option<Rc<Endpoint>> {
        let mut turn = self.turn.get();
        let chosen = turn.less_loaded_of(
            members.len(),
            |at| members[at].active(),
            |at| !tried.contains(&members[at].address()),
        );
        self.turn.set(turn);
        chosen.map(|at| Rc::clone(&members[at]))
    }
}
