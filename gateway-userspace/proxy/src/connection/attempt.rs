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

/// What an attempt goes by.
struct Way<'a> {
    worker: &'a Rc<Worker>,
    pool: &'a Pool,
    via: Via,
    needs: Needs,
    retries: &'a mut Retries,
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
        let pool = worker.upstreams.pool(&routing.serving().snapshot, target)?;
        let via = pool.via(needs).ok_or_else(|| {
            let reason = format!("{}: not over {:?}", pool.label(), pool.protocol());
            ProxyError::new(Side::Gateway, Kind::Refused(502)).because(reason)
        })?;
        let mut way = Way {
            worker,
            pool: &pool,
            via,
            needs,
            retries,
        };
        if let Some(members) = pool.known_members() {
            let endpoint = way.choose(members)?;
            return match way.take(&endpoint) {
                Some(attempt) => Ok(attempt),
                None => Box::pin(way.dial(members, endpoint)).await,
            };
        }
        Box::pin(way.resolve_and_dial()).await
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

impl Way<'_> {
    fn take(&self, endpoint: &Rc<Endpoint>) -> Option<Attempt> {
        let connection = endpoint.take(self.worker, self.via, self.needs)?;
        self.worker.counters.upstream_reuses.up();
        Some(Attempt {
            connection,
            active: endpoint.enter(),
            via: self.via,
        })
    }

    /// An endpoint that has not failed this request, or any.
    fn choose(&mut self, members: &[Rc<Endpoint>]) -> Result<Rc<Endpoint>, ProxyError> {
        let tried = &mut self.retries.tried;
        if let Some(endpoint) = self.pool.choose(members, tried) {
            return Ok(endpoint);
        }
        tried.clear();
        self.pool.choose(members, &[]).ok_or_else(no_endpoint)
    }

    async fn resolve_and_dial(&mut self) -> Result<Attempt, ProxyError> {
        let worker = self.worker;
        let refresh = worker.limits().upstream.dns_refresh;
        let members = self
            .pool
            .members(&worker.upstreams, &worker.timers, refresh)
            .await;
        let members = members
            .map_err(|error| ProxyError::new(Side::Upstream, Kind::Connect).because(error))?;
        let endpoint = self.choose(&members)?;
        match self.take(&endpoint) {
            Some(attempt) => Ok(attempt),
            None => self.dial(&members, endpoint).await,
        }
    }

    /// Connects, trying other endpoints when one refuses: nothing has been sent yet.
    async fn dial(
        &mut self,
        members: &[Rc<Endpoint>],
        first: Rc<Endpoint>,
    ) -> Result<Attempt, ProxyError> {
        let mut left = self.retries.dials(self.worker);
        let mut endpoint = first;
        loop {
            let active = endpoint.enter();
            let error = match endpoint.dial(self.worker, self.via).await {
                Ok(connection) => {
                    return Ok(Attempt {
                        connection,
                        active,
                        via: self.via,
                    });
                }
                Err(error) => error,
            };
            let tried = &mut self.retries.tried;
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

fn no_endpoint() -> ProxyError {
    ProxyError::new(Side::Upstream, Kind::NoEndpoint)
}
