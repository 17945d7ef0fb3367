//! One address with its idle connections, and how many requests are under way there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use super::UpstreamConnection;

/// One address that takes requests, as one worker sees it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    active: Cell<u32>,
    /// Last used is first taken, so that what is not needed grows old.
    idle: RefCell<Vec<UpstreamConnection>>,
}

/// A request under way at an endpoint; ends on drop.
#[derive(Debug)]
pub(crate) struct Active(Rc<Endpoint>);

impl Endpoint {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            active: Cell::new(0),
            idle: RefCell::default(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests of this worker under way here.
    pub(crate) fn active(&self) -> u32 {
        self.active.get()
    }

    /// Counts a request in.
    pub(crate) fn enter(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active(Rc::clone(self))
    }

    /// An idle connection that is not known to be closed; the kernel is asked for a request that is
    /// not `repeatable`. Those found closed are dropped.
    pub(crate) fn take_idle(&self, repeatable: bool) -> Option<UpstreamConnection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(connection) = idle.pop() {
            if connection.is_quiet() && (repeatable || connection.is_quiet_now()) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless `limit` are kept already.
    pub(crate) fn keep(&self, connection: UpstreamConnection, limit: usize) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < limit {
            idle.push(connection);
        }
    }

    /// Drops what is stale; says how many are left.
    pub(super) fn sweep(&self, is_stale: &mut impl FnMut(&UpstreamConnection) -> bool) -> usize {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !is_stale(connection));
        if idle.capacity() > 64 && idle.len() < idle.capacity() / 4 {
            idle.shrink_to_fit();
        }
        idle.len()
    }
}

impl Active {
    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}
