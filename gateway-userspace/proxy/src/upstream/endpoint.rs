//! One address with its connections, and how many requests are under way there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;

use super::UpstreamConnection;
use super::connection::ConnectError;
use super::http2::Multiplexed;
use super::identity::Identity;
use super::stream::UpstreamStream;
use crate::limits::UpstreamLimits;

/// One address that takes requests, as one worker sees it under one identity.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    /// As whom TLS is spoken there; none in clear text.
    identity: Option<Rc<Identity>>,
    active: Cell<u32>,
    /// Last used is first taken, so that what is not needed grows old.
    idle: RefCell<Vec<UpstreamConnection>>,
    /// Connections that requests share.
    shared: RefCell<Vec<Rc<Multiplexed>>>,
    /// The connection that is being made for whoever wants to share it.
    dialling: RefCell<Option<Rc<Dialling>>>,
    /// Whether the last handshake that left the choice agreed on HTTP/1.1.
    agreed_on_http1: Cell<bool>,
}

/// A request under way at an endpoint; ends on drop.
#[derive(Debug)]
pub(crate) struct Active(Rc<Endpoint>);

/// A connection being made, and those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    outcome: RefCell<Option<Result<(), ConnectError>>>,
    told: Notify,
}

/// The end of an attempt to make a connection, on drop: where the task panics nobody is left waiting,
/// and who wants a connection next begins anew.
struct Dialled {
    endpoint: Rc<Endpoint>,
    dialling: Rc<Dialling>,
    outcome: Result<(), ConnectError>,
}

impl Dialled {
    fn new(endpoint: &Rc<Endpoint>, dialling: &Rc<Dialling>) -> Self {
        Self {
            endpoint: Rc::clone(endpoint),
            dialling: Rc::clone(dialling),
            outcome: Err(ConnectError::Failed("the attempt broke off".into())),
        }
    }

    fn end(mut self, outcome: Result<(), ConnectError>) {
        self.outcome = outcome;
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        *self.endpoint.dialling.borrow_mut() = None;
        *self.dialling.outcome.borrow_mut() = Some(self.outcome.clone());
        self.dialling.told.notify_waiters();
    }
}

impl Dialling {
    async fn wait(&self) -> Result<(), ConnectError> {
        loop {
            let told = self.told.notified();
            if let Some(outcome) = &*self.outcome.borrow() {
                return outcome.clone();
            }
            told.await;
        }
    }
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, identity: Option<Rc<Identity>>) -> Self {
        Self {
            address,
            identity,
            active: Cell::new(0),
            idle: RefCell::default(),
            shared: RefCell::default(),
            dialling: RefCell::default(),
            agreed_on_http1: Cell::new(false),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As whom TLS is spoken there.
    pub(super) fn identity(&self) -> Option<&Rc<Identity>> {
        self.identity.as_ref()
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
        while let Some(mut connection) = idle.pop() {
            if connection.is_quiet() && (repeatable || connection.is_quiet_now()) {
                return Some(connection);
            }
        }
        None
    }

    /// A stream of a shared connection: the first that has room, or, when there may be no more
    /// connections, the one with the fewest requests, which then waits there for its turn.
    pub(crate) fn take_shared(&self, limits: &UpstreamLimits) -> Option<UpstreamConnection> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| connection.is_open());
        let room =
            |connection: &&Rc<Multiplexed>| connection.has_room(limits.streams_per_connection);
        let full = shared.len() >= limits.shared_per_endpoint;
        let connection = shared.iter().find(room).or_else(|| {
            let least = shared.iter().min_by_key(|connection| connection.active());
            least.filter(|_| full)
        })?;
        let used = connection.take_used();
        let stream = UpstreamStream::Http2(Box::new(connection.open()));
        let mut taken = UpstreamConnection::new(stream, connection.made_ms());
        taken.used = used;
        Some(taken)
    }

    /// Whether any connection can be shared.
    pub(super) fn has_shared(&self) -> bool {
        !self.shared.borrow().is_empty()
    }

    /// Lets requests share a connection.
    pub(super) fn share(&self, connection: Rc<Multiplexed>) {
        self.agreed_on_http1.set(false);
        self.shared.borrow_mut().push(connection);
    }

    /// Whether the endpoint, given the choice, speaks HTTP/1.1.
    pub(super) fn agreed_on_http1(&self) -> bool {
        self.agreed_on_http1.get()
    }

    /// Notes what the endpoint chose.
    pub(super) fn agree_on_http1(&self) {
        self.agreed_on_http1.set(true);
    }

    /// Makes one connection for all who want one now: `make` is begun by the first of them and goes
    /// on without it if it leaves.
    pub(super) async fn dial_once<F>(
        self: &Rc<Self>,
        make: impl FnOnce() -> F,
    ) -> Result<(), ConnectError>
    where
        F: Future<Output = Result<(), ConnectError>> + 'static,
    {
        let known = self.dialling.borrow().clone();
        let dialling = known.unwrap_or_else(|| {
            let dialling = Rc::new(Dialling::default());
            *self.dialling.borrow_mut() = Some(Rc::clone(&dialling));
            let (dialled, made) = (Dialled::new(self, &dialling), make());
            tokio::task::spawn_local(async move { dialled.end(made.await) });
            dialling
        });
        dialling.wait().await
    }

    /// Keeps a connection for the next request, unless `limit` are kept already.
    pub(crate) fn keep(&self, connection: UpstreamConnection, limit: usize) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < limit {
            idle.push(connection);
        }
    }

    /// Drops what is stale; says how many idle connections are left. A shared connection that is too
    /// old takes no new request and ends after its last.
    pub(super) fn sweep(&self, now_ms: u64, limits: &UpstreamLimits) -> usize {
        let (most_idle, most_age) = (
            limits.idle.as_millis() as u64,
            limits.age.as_millis() as u64,
        );
        let is_old = |made_ms: u64| now_ms.saturating_sub(made_ms) > most_age;
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|connection| {
            now_ms.saturating_sub(connection.idle_since_ms) <= most_idle
                && !is_old(connection.made_ms)
                && connection.is_quiet()
        });
        if idle.capacity() > 64 && idle.len() < idle.capacity() / 4 {
            idle.shrink_to_fit();
        }
        let mut shared = self.shared.borrow_mut();
        shared.retain(|connection| {
            let since = connection.idle_since_ms(now_ms);
            let unused = since.is_some_and(|since| now_ms.saturating_sub(since) > most_idle);
            connection.is_open() && !unused && !is_old(connection.made_ms())
        });
        let unused = shared.iter().filter(|connection| connection.active() == 0);
        idle.len() + unused.count()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_attempt_that_panics_fails_those_who_wait_and_is_followed_by_another() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build();
        let local = tokio::task::LocalSet::new();
        let endpoint = Rc::new(Endpoint::new(([127, 0, 0, 1], 80).into(), None));
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let outcomes = local.block_on(&runtime.expect("a runtime"), async {
            let attempt = |panics: bool| async move {
                assert!(!panics, "on purpose");
                Ok(())
            };
            let first = endpoint.dial_once(|| attempt(true));
            let waiting = endpoint.dial_once(|| attempt(false));
            let both = async { tokio::join!(first, waiting) };
            let both = tokio::time::timeout(Duration::from_secs(20), both).await;
            let (first, waiting) = both.expect("an end of waiting");
            let next = endpoint.dial_once(|| attempt(false)).await;
            [first, waiting, next].map(|outcome| outcome.is_ok())
        });
        std::panic::set_hook(quiet);
        assert_eq!(outcomes, [false, false, true]);
    }
}
