//! What a client's connection is, whatever is spoken on it: who dialled what, under which name, and
//! what it is served from.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use gateway_model::ir::{ClientValidation, Scheme};
use gateway_model::snapshot::PortTable;

use crate::admission::Permit;
use crate::forwarded::Forwarding;
use crate::overload::Pressure;
use crate::worker::{OpenConnection, Serving, Worker};

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Downstream {
    pub(crate) worker: Rc<Worker>,
    /// The address that the client dialled.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// The server name of the TLS handshake, in lower case.
    pub(crate) sni: Option<Box<str>>,
    /// Whether it is encrypted.
    pub(crate) tls: bool,
    /// `TLSv1.3` or `TLSv1.2`; empty in clear text.
    pub(crate) tls_version: &'static str,
    /// What was asked of its certificate.
    pub(crate) client_validation: Option<Arc<ClientValidation>>,
    forwarding: OnceCell<Forwarding>,
    routing: RefCell<Rc<Routing>>,
    requests: Cell<u64>,
    expires_ms: u64,
    _permit: Permit,
    _open: OpenConnection,
}

/// One revision as it concerns one connection. A request keeps the one it began with.
#[derive(Debug)]
pub(crate) struct Routing {
    serving: Rc<Serving>,
    table: Option<Arc<PortTable>>,
}

impl Downstream {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        serving: &Rc<Serving>,
        local: SocketAddr,
        peer: SocketAddr,
        permit: Permit,
    ) -> Self {
        let age = worker.limits().connections.age;
        // Any number that differs between connections spreads their ends.
        let jitter = age.mul_f64(f64::from(peer.port() % 1_024) / 10_240.0);
        Self {
            worker: Rc::clone(worker),
            local,
            peer,
            sni: None,
            tls: false,
            tls_version: "",
            client_validation: None,
            forwarding: OnceCell::new(),
            routing: RefCell::new(Routing::new(serving, local)),
            requests: Cell::new(0),
            expires_ms: worker.timers.at(age - jitter),
            _permit: permit,
            _open: worker.open(),
        }
    }

    /// The scheme that the client used.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.tls {
            Scheme::Https
        } else {
            Scheme::Http
        }
    }

    /// What backends are told of the client.
    pub(crate) fn forwarding(&self) -> &Forwarding {
        self.forwarding.get_or_init(|| {
            let hops = self.worker.settings().trusted_hops;
            Forwarding::new(self.peer, self.local, self.scheme(), hops)
        })
    }

    /// What the next request is served from.
    pub(crate) fn routing(&self) -> Rc<Routing> {
        let mut routing = self.routing.borrow_mut();
        if !self.worker.is_serving(&routing.serving) {
            *routing = Routing::new(&self.worker.serving(), self.local);
        }
        Rc::clone(&routing)
    }

    /// Lets go of the revision that the connection began with: one that asks for no other request
    /// would keep all of it in memory.
    pub(crate) fn forget_routing(&self) {
        *self.routing.borrow_mut() = Rc::new(Routing {
            serving: Rc::default(),
            table: None,
        });
    }

    /// Counts one more request.
    pub(crate) fn count_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    /// Whether the connection is to end after the request that it is serving.
    pub(crate) fn is_ending(&self) -> bool {
        let most = self.worker.limits().connections.requests;
        self.worker.is_draining()
            || self.worker.pressure() >= Pressure::NoKeepAlive
            || (most > 0 && self.requests.get() >= most)
            || self.worker.timers.now_ms() >= self.expires_ms
    }
}

impl Routing {
    fn new(serving: &Rc<Serving>, local: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            table: serving.snapshot.port_table(local).cloned(),
            serving: Rc::clone(serving),
        })
    }

    /// The whole revision.
    pub(crate) fn serving(&self) -> &Serving {
        &self.serving
    }

    /// The listeners of the address that was dialled; none once a revision has none.
    pub(crate) fn table(&self) -> Option<&Arc<PortTable>> {
        self.table.as_ref()
    }
}
