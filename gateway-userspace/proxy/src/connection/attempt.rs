//! One attempt to reach an upstream: an endpoint, and a connection to it.

use std::net::SocketAddr;
use std::rc::Rc;

use gateway_model::ir::UpstreamProtocol;
use gateway_model::snapshot::UpstreamId;

use crate::downstream::Routing;
use crate::error::{Kind, ProxyError, Side};
use crate::upstream::{Active, ConnectError, Endpoint, Pool, UpstreamConnection};
use crate::worker::Worker;

/// A connection in use for one request.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) connection: UpstreamConnection,
    active: Active,
}

impl Attempt {
    /// A connection for a request, which may be `repeatable` or not: an idle one of the chosen endpoint, else a new one, to another
    /// endpoint when that cannot be made.
    pub(super) async fn begin(
        worker: &Rc<Worker>,
        routing: &Routing,
        upstream: UpstreamId,
        repeatable: bool,
    ) -> Result<Self, ProxyError> {
        let pool = worker.upstreams.pool(&routing.serving().snapshot, upstream);
        let pool = pool.ok_or_else(no_endpoint)?;
        match pool.protocol() {
            UpstreamProtocol::Http1 => {}
            protocol => {
                let reason = format!("{}: no {protocol:?} towards backends", pool.label());
                return Err(ProxyError::new(Side::Gateway, Kind::Refused(502)).because(reason));
            }
        }
        if let Some(members) = pool.known_members() {
            let endpoint = pool.choose(members, &[]).ok_or_else(no_endpoint)?;
            return match endpoint.take_idle(repeatable) {
                Some(connection) => Ok(Self::reuse(worker, &endpoint, connection)),
                None => Box::pin(Self::dial(worker, &pool, members, endpoint)).await,
            };
        }
        Box::pin(Self::resolve_and_dial(worker, &pool, repeatable)).await
    }

    /// A new connection to the same endpoint, after an idle one proved to be closed.
    pub(super) async fn afresh(
        worker: &Rc<Worker>,
        endpoint: Rc<Endpoint>,
    ) -> Result<Self, ProxyError> {
        Self::connect(worker, &endpoint)
            .await
            .map_err(|error| fault(&endpoint, &error))
    }

    /// The endpoint's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.active.endpoint().address()
    }

    /// The endpoint.
    pub(super) fn endpoint(&self) -> &Rc<Endpoint> {
        self.active.endpoint()
    }

    /// Keeps the connection for another request.
    pub(super) fn keep(mut self, worker: &Worker) {
        self.connection.idle_since_ms = worker.timers.now_ms();
        self.connection.used = true;
        let limits = &worker.limits().upstream;
        let age_ms = self.connection.idle_since_ms - self.connection.made_ms;
        if u128::from(age_ms) < limits.age.as_millis() {
            let endpoint = self.active.endpoint();
            endpoint.keep(self.connection, limits.idle_per_endpoint);
        }
    }

    fn reuse(worker: &Worker, endpoint: &Rc<Endpoint>, connection: UpstreamConnection) -> Self {
        worker.counters.upstream_reuses.up();
        Self {
            connection,
            active: endpoint.enter(),
        }
    }

    async fn resolve_and_dial(
        worker: &Rc<Worker>,
        pool: &Pool,
        repeatable: bool,
    ) -> Result<Self, ProxyError> {
        let refresh = worker.limits().upstream.dns_refresh;
        let members = pool
            .members(&worker.upstreams, &worker.timers, refresh)
            .await;
        let members = members
            .map_err(|error| ProxyError::new(Side::Upstream, Kind::Connect).because(error))?;
        let endpoint = pool.choose(&members, &[]).ok_or_else(no_endpoint)?;
        match endpoint.take_idle(repeatable) {
            Some(connection) => Ok(Self::reuse(worker, &endpoint, connection)),
            None => Self::dial(worker, pool, &members, endpoint).await,
        }
    }

    /// Connects, trying other endpoints when one refuses: nothing has been sent yet.
    async fn dial(
        worker: &Rc<Worker>,
        pool: &Pool,
        members: &[Rc<Endpoint>],
        first: Rc<Endpoint>,
    ) -> Result<Self, ProxyError> {
        let mut tried = Vec::new();
        let mut endpoint = first;
        loop {
            let error = match Self::connect(worker, &endpoint).await {
                Ok(attempt) => return Ok(attempt),
                Err(error) => error,
            };
            tried.push(endpoint.address());
            let attempts = worker.limits().upstream.connect_attempts as usize;
            let next = pool
                .choose(members, &tried)
                .filter(|_| tried.len() < attempts);
            endpoint = match next {
                Some(next) => next,
                None => return Err(fault(&endpoint, &error)),
            };
        }
    }

    async fn connect(worker: &Rc<Worker>, endpoint: &Rc<Endpoint>) -> Result<Self, ConnectError> {
        let limit = worker.limits().upstream.connect;
        let active = endpoint.enter();
        let now_ms = worker.timers.now_ms();
        let connection = UpstreamConnection::connect(endpoint.address(), limit, now_ms).await;
        match &connection {
            Ok(_) => worker.counters.upstream_connections.up(),
            Err(error) => {
                worker.counters.upstream_connect_failures.up();
                tracing::debug!(endpoint = %endpoint.address(), %error, "cannot connect");
            }
        }
        Ok(Self {
            connection: connection?,
            active,
        })
    }
}

fn no_endpoint() -> ProxyError {
    ProxyError::new(Side::Upstream, Kind::NoEndpoint)
}

fn fault(endpoint: &Endpoint, error: &ConnectError) -> ProxyError {
    let kind = match error {
        ConnectError::TimedOut => Kind::ConnectTimeout,
        ConnectError::Io(_) => Kind::Connect,
    };
    ProxyError::new(Side::Upstream, kind).because(format!("{}: {error}", endpoint.address()))
}
