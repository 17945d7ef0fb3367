//! One attempt to reach an upstream: an endpoint, and a connection to it.

use std::net::SocketAddr;
use std::rc::Rc;

use super::retries::Retries;
use crate::downstream::Routing;
use crate::error::{Kind, ProxyError, Side};
use crate::upstream::{Active, Endpoint, Needs, Pool, Target, UpstreamConnection, Via};
use crate::worker::Worker;

/// A connection in use for one request.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) connection: UpstreamConnection,
    active: Active,
    via: Via,
}

/// How a request comes by its connection.
pub(super) enum Start {
    /// One is there.
    Ready(Attempt),
    /// One has to be made.
    Dial(Dial),
}

/// A connection that has to be made.
pub(super) struct Dial {
    pool: Rc<Pool>,
    via: Via,
    needs: Needs,
    /// The endpoint that was chosen; none while the endpoints are not known.
    first: Option<Rc<Endpoint>>,
}

impl Attempt {
    /// A connection for a request: one that is there already, of the chosen endpoint, else a new one, to another
    /// endpoint when that cannot be made.
    pub(super) async fn begin(
        worker: &Rc<Worker>,
        routing: &Routing,
        target: Target<'_>,
        needs: Needs,
        retries: &mut Retries,
    ) -> Result<Self, ProxyError> {
        match Self::start(worker, routing, target, needs, retries)? {
            Start::Ready(attempt) => Ok(attempt),
            Start::Dial(dial) => Box::pin(dial.run(worker, retries)).await,
        }
    }

    /// The same as far as nothing has to be waited for.
    pub(super) fn start(
        worker: &Rc<Worker>,
        routing: &Routing,
        target: Target<'_>,
        needs: Needs,
        retries: &mut Retries,
    ) -> Result<Start, ProxyError> {
        let pool = worker.upstreams.pool(&routing.serving().snapshot, target)?;
        let via = pool.via(needs).ok_or_else(|| {
            let reason = format!("{}: not over {:?}", pool.label(), pool.protocol());
            ProxyError::new(Side::Gateway, Kind::Refused(502)).because(reason)
        })?;
        let first = match pool.known_members() {
            Some(members) => Some(choose(&pool, members, retries)?),
            None => None,
        };
        if let Some(endpoint) = &first
            && let Some(attempt) = Self::take(worker, endpoint, via, needs)
        {
            return Ok(Start::Ready(attempt));
        }
        Ok(Start::Dial(Dial {
            pool,
            via,
            needs,
            first,
        }))
    }

    fn take(worker: &Rc<Worker>, endpoint: &Rc<Endpoint>, via: Via, needs: Needs) -> Option<Self> {
        let connection = endpoint.take(worker, via, needs)?;
        worker.counters.upstream_reuses.up();
        Some(Self {
            connection,
            active: endpoint.enter(),
            via,
        })
    }

    /// A new connection to the same endpoint, after one that was there already proved to be closed.
    pub(super) async fn afresh(self, worker: &Rc<Worker>) -> Result<Self, ProxyError> {
        let Self {
            connection,
            active,
            via,
        } = self;
        drop(connection);
        let endpoint = active.endpoint();
        let shared = match via {
            Via::Http1 | Via::Stream | Via::Untouched => None,
            Via::Http2 | Via::Either => endpoint.take_shared(&worker.limits().upstream),
        };
        let connection = match shared {
            Some(connection) => Ok(connection),
            None => endpoint.dial(worker, via).await,
        };
        Ok(Self {
            connection: connection.map_err(|error| error.fault(endpoint))?,
            active,
            via,
        })
    }

    /// The endpoint's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.active.endpoint().address()
    }

    /// The endpoint has begun to answer, so that its connection had not ended before it was asked.
    pub(super) fn answers(&mut self) {
        self.connection.used = false;
    }

    /// Keeps the connection for another request. One that is shared is kept by itself.
    pub(super) fn keep(mut self, worker: &Worker) {
        if self.connection.stream.http2().is_some() {
            return;
        }
        self.connection.idle_since_ms = worker.timers.now_ms();
        self.connection.used = true;
        let limits = &worker.limits().upstream;
        let age_ms = self.connection.idle_since_ms - self.connection.made_ms;
        if u128::from(age_ms) < limits.age.as_millis() {
            let endpoint = self.active.endpoint();
            endpoint.keep(self.connection, limits.idle_per_endpoint);
        }
    }
}

impl Dial {
    /// Makes it.
    pub(super) async fn run(
        self,
        worker: &Rc<Worker>,
        retries: &mut Retries,
    ) -> Result<Attempt, ProxyError> {
        if let (Some(members), Some(first)) = (self.pool.known_members(), &self.first) {
            return self.dial(worker, members, Rc::clone(first), retries).await;
        }
        let refresh = worker.limits().upstream.dns_refresh;
        let members = self
            .pool
            .members(&worker.upstreams, &worker.timers, refresh)
            .await;
        let members = members
            .map_err(|error| ProxyError::new(Side::Upstream, Kind::Connect).because(error))?;
        let endpoint = choose(&self.pool, &members, retries)?;
        match Attempt::take(worker, &endpoint, self.via, self.needs) {
            Some(attempt) => Ok(attempt),
            None => self.dial(worker, &members, endpoint, retries).await,
        }
    }

    /// Connects, trying other endpoints when one refuses: nothing has been sent yet.
    async fn dial(
        &self,
        worker: &Rc<Worker>,
        members: &[Rc<Endpoint>],
        first: Rc<Endpoint>,
        retries: &mut Retries,
    ) -> Result<Attempt, ProxyError> {
        let mut left = retries.dials(worker);
        let mut endpoint = first;
        loop {
            let active = endpoint.enter();
            let error = match endpoint.dial(worker, self.via).await {
                Ok(connection) => {
                    return Ok(Attempt {
                        connection,
                        active,
                        via: self.via,
                    });
                }
                Err(error) => error,
            };
            let tried = &mut retries.tried;
            tried.push(endpoint.address());
            left = left.saturating_sub(1);
            let next = self.pool.choose(members, tried).filter(|_| left > 0);
            endpoint = match next {
                Some(next) => next,
                None => return Err(error.fault(&endpoint)),
            };
        }
    }
}

/// An endpoint that has not failed this request, or any.
fn choose(
    pool: &Pool,
    members: &[Rc<Endpoint>],
    retries: &mut Retries,
) -> Result<Rc<Endpoint>, ProxyError> {
    let tried = &mut retries.tried;
    if let Some(endpoint) = pool.choose(members, tried) {
        return Ok(endpoint);
    }
    tried.clear();
    let any = pool.choose(members, &[]);
    any.ok_or_else(|| ProxyError::new(Side::Upstream, Kind::NoEndpoint))
}
