//! A connection to one of a backend's endpoints for one stream. As long as none is made nothing of
//! the client's has been sent, so that another endpoint can be tried.

use std::rc::Rc;

use gateway_model::snapshot::UpstreamId;
use tokio::net::TcpStream;

use super::record::Record;
use crate::downstream::Routing;
use crate::error::{Kind, ProxyError, Side};
use crate::upstream::{Active, ConnectError, Endpoint, UpstreamConnection};
use crate::worker::Worker;

/// A stream's own connection to an endpoint.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    pub(super) active: Active,
}

/// Connects to an endpoint, to another one when that cannot be done.
pub(super) async fn dial(
    worker: &Rc<Worker>,
    routing: &Routing,
    upstream: UpstreamId,
    record: &mut Record,
) -> Result<Dialled, ProxyError> {
    let no_endpoint = || ProxyError::new(Side::Upstream, Kind::NoEndpoint);
    let limits = &worker.limits().upstream;
    let pool = worker.upstreams.pool(&routing.serving().snapshot, upstream);
    let pool = pool.ok_or_else(no_endpoint)?;
    let members = pool.members(&worker.upstreams, &worker.timers, limits.dns_refresh);
    let members = members
        .await
        .map_err(|error| ProxyError::new(Side::Upstream, Kind::Connect).because(error))?;
    let mut tried = Vec::new();
    let mut failure = no_endpoint();
    while tried.len() < limits.connect_attempts as usize
        && let Some(endpoint) = pool.choose(&members, &tried)
    {
        record.endpoint = Some(endpoint.address());
        match connect(worker, &endpoint).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => failure = fault(&endpoint, &error),
        }
        tried.push(endpoint.address());
    }
    Err(failure)
}

async fn connect(worker: &Rc<Worker>, endpoint: &Rc<Endpoint>) -> Result<Dialled, ConnectError> {
    let limit = worker.limits().upstream.connect;
    let active = endpoint.enter();
    let now_ms = worker.timers.now_ms();
    let connected = UpstreamConnection::connect(endpoint.address(), limit, now_ms).await;
    match &connected {
        Ok(_) => worker.counters.upstream_connections.up(),
        Err(error) => {
            worker.counters.upstream_connect_failures.up();
            tracing::debug!(endpoint = %endpoint.address(), %error, "cannot connect");
        }
    }
    Ok(Dialled {
        stream: connected?.stream,
        active,
    })
}

fn fault(endpoint: &Endpoint, error: &ConnectError) -> ProxyError {
    let kind = match error {
        ConnectError::TimedOut => Kind::ConnectTimeout,
        ConnectError::Io(_) => Kind::Connect,
    };
    ProxyError::new(Side::Upstream, kind).because(format!("{}: {error}", endpoint.address()))
}
