//! A worker's view of the backends: which endpoints an upstream has, which one is next, and the
//! idle connections to each. Nothing here is shared with another worker.

mod connection;
mod dial;
mod endpoint;
mod http2;
mod identity;
mod resolve;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use foldhash::fast::RandomState;
use gateway_model::balance::Turn;
use gateway_model::ir::{Certificate, CertificateKey, Endpoints, UpstreamProtocol, UpstreamTls};
use gateway_model::snapshot::{CompiledUpstream, Snapshot, UpstreamId};

use crate::error::{Kind, ProxyError, Side};
use crate::limits::UpstreamLimits;

pub(crate) use connection::UpstreamConnection;
pub(crate) use dial::{Needs, Via};
pub(crate) use endpoint::{Active, Endpoint};
pub(crate) use http2::{Declined, Http2Stream, Inexpressible};
use identity::Identity;
use resolve::Resolution;
pub(crate) use stream::UpstreamStream;

/// Every upstream that this worker has used, by number, and every endpoint by address. A clone is
/// another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstreams(Rc<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Those that are spoken to in clear text.
    clear: RefCell<Vec<Option<Rc<Pool>>>>,
    /// Those that TLS is spoken with, by number and the client certificate they are shown.
    secure: RefCell<HashMap<SecureKey, Rc<Pool>, RandomState>>,
    endpoints: RefCell<EndpointMap>,
    identities: RefCell<Vec<Weak<Identity>>>,
    last_identity: Cell<u64>,
}

type SecureKey = (usize, Option<CertificateKey>);

/// Endpoints by address and by [`Identity::id`], 0 in clear text. Two upstreams with one address and
/// one identity share its connections.
type EndpointMap = HashMap<(SocketAddr, u64), Weak<Endpoint>, RandomState>;

/// Where a request goes, and what it shows there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) upstream: UpstreamId,
    /// The client certificate of the listener, if it has one.
    pub(crate) certificate: Option<&'a CertificateKey>,
}

/// One upstream's endpoints.
#[derive(Debug)]
pub(crate) struct Pool {
    compiled: Arc<CompiledUpstream>,
    identity: Option<Rc<Identity>>,
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
    ///
    /// # Errors
    /// When the snapshot has none, or TLS cannot be spoken with it for want of something that can be
    /// believed or shown.
    pub(crate) fn pool(
        &self,
        snapshot: &Snapshot,
        target: Target<'_>,
    ) -> Result<Rc<Pool>, ProxyError> {
        let compiled = snapshot.upstream(target.upstream);
        let compiled = compiled.ok_or_else(|| ProxyError::new(Side::Upstream, Kind::NoEndpoint))?;
        if let Some(tls) = &compiled.upstream.tls {
            return self.secure_pool(snapshot, compiled, tls, target.certificate);
        }
        if let Some(Some(pool)) = self.0.clear.borrow().get(target.upstream.index())
            && Arc::ptr_eq(&pool.compiled, compiled)
        {
            return Ok(Rc::clone(pool));
        }
        Ok(self.renew(compiled))
    }

    #[cold]
    fn renew(&self, compiled: &Arc<CompiledUpstream>) -> Rc<Pool> {
        let mut pools = self.0.clear.borrow_mut();
        let index = compiled.id.index();
        if pools.len() <= index {
            pools.resize(index + 1, None);
        }
        let pool = self.make(compiled, None, pools[index].as_deref());
        pools[index] = Some(Rc::clone(&pool));
        pool
    }

    fn secure_pool(
        &self,
        snapshot: &Snapshot,
        compiled: &Arc<CompiledUpstream>,
        tls: &Arc<UpstreamTls>,
        key: Option<&CertificateKey>,
    ) -> Result<Rc<Pool>, ProxyError> {
        let fault = |reason: String| {
            let reason = format!("{}: {reason}", compiled.label);
            ProxyError::new(Side::Gateway, Kind::Refused(502)).because(reason)
        };
        let certificate = match key {
            None => None,
            Some(key) => match snapshot.certificate(key) {
                Some(certificate) => Some(certificate),
                None => return Err(fault(format!("{}: there is no such certificate", key.0))),
            },
        };
        let place = (compiled.id.index(), key.cloned());
        let mut pools = self.0.secure.borrow_mut();
        let known = pools.get(&place);
        if let Some(pool) = known
            && Arc::ptr_eq(&pool.compiled, compiled)
            && pool.is_of(tls, certificate)
        {
            return Ok(Rc::clone(pool));
        }
        let identity = self.identity(tls, certificate).map_err(fault)?;
        let pool = self.make(compiled, Some(identity), known.map(|pool| &**pool));
        pools.insert(place, Rc::clone(&pool));
        Ok(pool)
    }

    /// The identity of a policy and a certificate; the one that is in use, if one is.
    #[cold]
    fn identity(
        &self,
        tls: &Arc<UpstreamTls>,
        certificate: Option<&Arc<Certificate>>,
    ) -> Result<Rc<Identity>, String> {
        let mut identities = self.0.identities.borrow_mut();
        identities.retain(|identity| identity.strong_count() > 0);
        let mut known = identities.iter().filter_map(Weak::upgrade);
        if let Some(identity) = known.find(|identity| identity.is_of(tls, certificate)) {
            return Ok(identity);
        }
        let id = self.0.last_identity.get() + 1;
        self.0.last_identity.set(id);
        let identity = Rc::new(Identity::new(id, tls, certificate)?);
        identities.push(Rc::downgrade(&identity));
        Ok(identity)
    }

    fn make(
        &self,
        compiled: &Arc<CompiledUpstream>,
        identity: Option<Rc<Identity>>,
        before: Option<&Pool>,
    ) -> Rc<Pool> {
        let members = match compiled.endpoints() {
            Endpoints::Addresses(list) => {
                let addresses = list.iter().map(|endpoint| endpoint.address);
                Members::Fixed(self.endpoints(addresses, identity.as_ref()))
            }
            Endpoints::Dns { host, port } => {
                let known = before.and_then(|pool| match &pool.members {
                    Members::Resolved(known) if known.is_for(host, *port, identity.as_ref()) => {
                        Some(known)
                    }
                    _ => None,
                });
                Members::Resolved(match known {
                    Some(known) => Rc::clone(known),
                    None => Resolution::new(host, *port, identity.clone()),
                })
            }
        };
        Rc::new(Pool {
            compiled: Arc::clone(compiled),
            identity,
            members,
            turn: Cell::default(),
        })
    }

    /// The endpoints of these addresses, those that are known with their connections.
    fn endpoints(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
        identity: Option<&Rc<Identity>>,
    ) -> Rc<[Rc<Endpoint>]> {
        let mut known = self.0.endpoints.borrow_mut();
        let id = identity.map_or(0, |identity| identity.id);
        addresses
            .map(|address| {
                let endpoint = known.get(&(address, id)).and_then(Weak::upgrade);
                endpoint.unwrap_or_else(|| {
                    let endpoint = Rc::new(Endpoint::new(address, identity.cloned()));
                    known.insert((address, id), Rc::downgrade(&endpoint));
                    endpoint
                })
            })
            .collect()
    }

    /// Drops the pools of upstreams that this snapshot no longer has, and those of identities that it
    /// no longer asks for.
    pub(crate) fn forget_missing(&self, snapshot: &Snapshot) {
        for pool in self.0.clear.borrow_mut().iter_mut() {
            if pool.as_ref().is_some_and(|pool| !pool.is_in(snapshot)) {
                *pool = None;
            }
        }
        self.0.secure.borrow_mut().retain(|(_, key), pool| {
            let certificate = key.as_ref().map(|key| snapshot.certificate(key));
            let now = snapshot.upstream(pool.compiled.id);
            let tls = now.and_then(|now| now.upstream.tls.as_ref());
            pool.is_in(snapshot)
                && certificate != Some(None)
                && tls.is_some_and(|tls| pool.is_of(tls, certificate.flatten()))
        });
    }

    /// Closes idle connections that are too old, and forgets endpoints that nobody names.
    pub(crate) fn sweep(&self, now_ms: u64, limits: &UpstreamLimits) -> usize {
        let mut idle = 0;
        self.0.endpoints.borrow_mut().retain(|_, endpoint| {
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
    /// Whether this snapshot has it, if with other endpoints.
    fn is_in(&self, snapshot: &Snapshot) -> bool {
        let now = snapshot.upstream(self.compiled.id);
        now.is_some_and(|now| now.since == self.compiled.since)
    }

    /// Whether it speaks TLS under this policy and with this certificate.
    fn is_of(&self, tls: &Arc<UpstreamTls>, certificate: Option<&Arc<Certificate>>) -> bool {
        let identity = self.identity.as_ref();
        identity.is_some_and(|identity| identity.is_of(tls, certificate))
    }

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
