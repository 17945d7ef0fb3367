//! What is counted and logged of a session at its end.

use std::time::{SystemTime, UNIX_EPOCH};

use gateway_model::snapshot::Outcome;

use super::session::{End, Session};
use crate::access_log::AccessRecord;
use crate::error::{Kind, ProxyError, Side};
use crate::worker::Worker;

/// Counts and logs a session.
pub(super) fn write(worker: &Worker, session: &Session, end: &End) {
    let error = fault(end);
    let outcome = Outcome {
        status: 0,
        duration: session.started.elapsed(),
        bytes_received: session.received.get(),
        bytes_sent: session.sent.get(),
    };
    let rule = &session.chosen.rule;
    rule.stats.record(worker.index, &outcome);
    if worker.log.is_on() {
        log(worker, session, &outcome, error.as_ref());
    }
}

/// What is out of order about an end.
fn fault(end: &End) -> Option<ProxyError> {
    let (side, kind, why) = match end {
        End::Idle => return None,
        End::Evicted => (
            Side::Gateway,
            Kind::Overloaded,
            "made room for another".into(),
        ),
        End::Rerouted => (Side::Gateway, Kind::NoRoute, "a later revision".into()),
        End::Upstream(error) => (Side::Upstream, Kind::Connect, error.to_string()),
        End::Client(error) => (Side::Downstream, Kind::Closed, error.to_string()),
    };
    Some(ProxyError::new(side, kind).because(why))
}

#[cold]
fn log(worker: &Worker, session: &Session, outcome: &Outcome, error: Option<&ProxyError>) {
    let began = SystemTime::now().checked_sub(outcome.duration);
    let began = began.and_then(|began| began.duration_since(UNIX_EPOCH).ok());
    let chosen = &session.chosen;
    let chain = error.map(ProxyError::chain);
    worker.log.push(&AccessRecord {
        time_unix_ms: began.map_or(0, |began| began.as_millis() as u64),
        gateway: &chosen.labels.gateway,
        listener: &chosen.labels.listener,
        route: &chosen.rule.labels.route,
        rule: &chosen.rule.labels.rule,
        backend: &chosen.backend,
        endpoint: session.endpoint.get(),
        revision: chosen.revision.0,
        client: Some(session.peers.client.ip()),
        bytes_received: outcome.bytes_received,
        bytes_sent: outcome.bytes_sent,
        duration: outcome.duration,
        flags: error.map_or("", ProxyError::flag),
        protocol: "UDP",
        error: chain.as_deref().unwrap_or_default(),
        ..AccessRecord::default()
    });
}
