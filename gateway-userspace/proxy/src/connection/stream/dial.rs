//! A connection to one of a backend's endpoints for one stream. As long as none is made nothing of
//! the client's has been sent, so that another endpoint can be tried.

use std::rc::Rc;

use super::record::Record;
use crate::downstream::Routing;
use crate::error::{Kind, ProxyError, Side};
use crate::upstream::{Active, Target, UpstreamStream, Via};
use crate::worker::Worker;

/// A stream's own connection to an endpoint.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: UpstreamStream,
    pub(super) active: Active,
}

/// Connects to an endpoint, to another one when that cannot be done.
pub(super) async fn dial(
    worker: &Rc<Worker>,
    routing: &Routing,
    target: Target<'_>,
    via: Via,
    record: &mut Record,
) -> Result<Dialled, ProxyError> {
    let no_endpoint = || ProxyError::new(Side::Upstream, Kind::NoEndpoint);
    let limits = &worker.limits().upstream;
    let pool = worker.upstreams.pool(&routing.serving().snapshot, target)?;
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
        let active = endpoint.enter();
        match endpoint.dial(worker, via).await {
            Ok(connection) => {
                let stream = connection.stream;
                return Ok(Dialled { stream, active });
            }
            Err(error) => failure = error.fault(&endpoint),
        }
        tried.push(endpoint.address());
    }
    Err(failure)
}
