//! Upstreams that are a DNS name: looked up when first used, again when the answer is old, and the
//! last good answer serves meanwhile and when a look-up fails.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::identity::Identity;
use super::{Endpoint, Members, Pool, Upstreams};
use crate::timers::Timers;

/// What a worker knows of one name.
#[derive(Debug)]
pub(super) struct Resolution {
    host: Arc<str>,
    port: u16,
    identity: Option<Rc<Identity>>,
    endpoints: RefCell<Option<Rc<[Rc<Endpoint>]>>>,
    /// Coarse time after which the answer is asked for again.
    fresh_until_ms: Cell<u64>,
    under_way: Cell<bool>,
    answered: Notify,
    /// Why the last look-up failed.
    failure: RefCell<Option<Arc<str>>>,
}

/// A name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve {host}: {reason}")]
pub(crate) struct ResolveError {
    host: Arc<str>,
    reason: Arc<str>,
}

impl Resolution {
    pub(super) fn new(host: &Arc<str>, port: u16, identity: Option<Rc<Identity>>) -> Rc<Self> {
        Rc::new(Self {
            host: Arc::clone(host),
            port,
            identity,
            endpoints: RefCell::default(),
            fresh_until_ms: Cell::new(0),
            under_way: Cell::new(false),
            answered: Notify::new(),
            failure: RefCell::default(),
        })
    }

    pub(super) fn is_for(&self, host: &str, port: u16, identity: Option<&Rc<Identity>>) -> bool {
        let id = |identity: Option<&Rc<Identity>>| identity.map_or(0, |identity| identity.id);
        *self.host == *host && self.port == port && id(self.identity.as_ref()) == id(identity)
    }

    fn take_answer(&self, upstreams: &Upstreams, answer: io::Result<Vec<SocketAddr>>) {
        match answer {
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                *self.endpoints.borrow_mut() =
                    Some(upstreams.endpoints(addresses.into_iter(), self.identity.as_ref()));
                *self.failure.borrow_mut() = None;
            }
            Err(e) => *self.failure.borrow_mut() = Some(e.to_string().into()),
        }
    }
}

impl Pool {
    /// The endpoints, if they need no look-up.
    pub(crate) fn known_members(&self) -> Option<&Rc<[Rc<Endpoint>]>> {
        match &self.members {
            Members::Fixed(members) => Some(members),
            Members::Resolved(_) => None,
        }
    }

    /// The endpoints there are now. A name that was never resolved is waited for.
    ///
    /// # Errors
    /// When the name has no address and never had one.
    pub(crate) async fn members(
        &self,
        upstreams: &Upstreams,
        timers: &Rc<Timers>,
        refresh: Duration,
    ) -> Result<Rc<[Rc<Endpoint>]>, ResolveError> {
        let resolution = match &self.members {
            Members::Fixed(members) => return Ok(Rc::clone(members)),
            Members::Resolved(resolution) => resolution,
        };
        Box::pin(resolution.current(upstreams, timers, refresh)).await
    }
}

impl Resolution {
    async fn current(
        self: &Rc<Self>,
        upstreams: &Upstreams,
        timers: &Rc<Timers>,
        refresh: Duration,
    ) -> Result<Rc<[Rc<Endpoint>]>, ResolveError> {
        if timers.now_ms() >= self.fresh_until_ms.get() && !self.under_way.replace(true) {
            let (this, upstreams, timers) = (Rc::clone(self), upstreams.clone(), Rc::clone(timers));
            tokio::task::spawn_local(async move {
                let found = tokio::net::lookup_host((&*this.host, this.port)).await;
                this.take_answer(&upstreams, found.map(Iterator::collect));
                this.fresh_until_ms.set(timers.at(refresh));
                this.under_way.set(false);
                this.answered.notify_waiters();
            });
        }
        let known = || self.endpoints.borrow().clone();
        if let Some(endpoints) = known() {
            return Ok(endpoints);
        }
        if self.under_way.get() {
            self.answered.notified().await;
        }
        known().ok_or_else(|| ResolveError {
            host: Arc::clone(&self.host),
            reason: self
                .failure
                .borrow()
                .clone()
                .unwrap_or_else(|| "no address".into()),
        })
    }
}
