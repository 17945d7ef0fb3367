//! What is remembered of a request until it is counted and logged.

use std::net::SocketAddr;
use std::time::Instant;

use gateway_model::snapshot::Outcome;

use crate::downstream::Downstream;
use crate::error::{Kind, ProxyError, Side};
use crate::routing::Decision;

/// One request's account.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) decision: Decision<'a>,
    started: Instant,
    /// The status sent; 0 as long as there is none.
    pub(super) status: u16,
    /// Body bytes from the client.
    pub(super) bytes_received: u64,
    /// Body bytes to the client.
    pub(super) bytes_sent: u64,
    /// The endpoint that answered, or was last tried.
    pub(super) endpoint: Option<SocketAddr>,
    /// Why it failed, if it did.
    pub(super) error: Option<ProxyError>,
}

impl<'a> Record<'a> {
    pub(super) fn begin(downstream: &Downstream, decision: Decision<'a>) -> Self {
        downstream.worker.counters.requests_active.up();
        Self {
            decision,
            started: Instant::now(),
            status: 0,
            bytes_received: 0,
            bytes_sent: 0,
            endpoint: None,
            error: None,
        }
    }

    /// Counts the request.
    pub(super) fn end(self, downstream: &Downstream) {
        let worker = &downstream.worker;
        let counters = &worker.counters;
        counters.requests_active.down();
        match self.status / 100 {
            1 => counters.responses_1xx.up(),
            2 => counters.responses_2xx.up(),
            3 => counters.responses_3xx.up(),
            4 => counters.responses_4xx.up(),
            5 => counters.responses_5xx.up(),
            _ => {}
        }
        if let Some(error) = &self.error {
            count_error(downstream, error);
        }
        if let Some(rule) = self.decision.rule {
            let outcome = Outcome {
                status: self.status,
                duration: self.started.elapsed(),
                bytes_received: self.bytes_received,
                bytes_sent: self.bytes_sent,
            };
            rule.stats.record(worker.index, &outcome);
        }
    }
}

fn count_error(downstream: &Downstream, error: &ProxyError) {
    let counters = &downstream.worker.counters;
    match (error.side, error.kind) {
        (_, Kind::Misdirected) => counters.requests_misdirected.up(),
        (_, Kind::NoRoute) => counters.requests_unrouted.up(),
        (_, Kind::SourceDenied) => counters.connections_denied.up(),
        (Side::Upstream, Kind::Protocol(_)) => counters.upstream_protocol_errors.up(),
        (_, Kind::Protocol(_)) => counters.requests_refused.up(),
        (Side::Downstream, Kind::Closed | Kind::Io) => counters.requests_aborted.up(),
        (Side::Downstream, Kind::HeadTimeout | Kind::BodyTimeout | Kind::WriteTimeout) => {
            counters.timeouts_downstream.up()
        }
        (
            _,
            Kind::ConnectTimeout
            | Kind::BodyTimeout
            | Kind::WriteTimeout
            | Kind::RequestTimeout
            | Kind::BackendTimeout,
        ) => counters.timeouts_upstream.up(),
        _ => {}
    }
}
