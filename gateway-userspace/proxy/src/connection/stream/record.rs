//! What is remembered of a stream until it is counted and logged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gateway_model::names::Revision;
use gateway_model::snapshot::{CompiledRule, ListenerLabels, Outcome};

use crate::access_log::AccessRecord;
use crate::downstream::{Downstream, Routing};
use crate::error::{Kind, ProxyError};

/// One stream's account.
#[derive(Debug)]
pub(super) struct Record {
    started: Instant,
    time_unix_ms: u64,
    revision: Revision,
    labels: ListenerLabels,
    protocol: &'static str,
    /// The backend that was chosen.
    pub(super) backend: Option<Arc<str>>,
    /// The endpoint that took it, or was last tried.
    pub(super) endpoint: Option<SocketAddr>,
    /// Bytes from the client that the backend took.
    pub(super) bytes_received: u64,
    /// Bytes to the client.
    pub(super) bytes_sent: u64,
    /// Why it failed, if it did.
    pub(super) error: Option<ProxyError>,
}

impl Record {
    pub(super) fn begin(
        downstream: &Downstream,
        routing: &Routing,
        labels: ListenerLabels,
        protocol: &'static str,
    ) -> Self {
        let now = match downstream.worker.log.is_on() {
            true => SystemTime::now().duration_since(UNIX_EPOCH).ok(),
            false => None,
        };
        Self {
            started: Instant::now(),
            time_unix_ms: now.map_or(0, |now| now.as_millis() as u64),
            revision: routing.serving().snapshot.revision(),
            labels,
            protocol,
            backend: None,
            endpoint: None,
            bytes_received: 0,
            bytes_sent: 0,
            error: None,
        }
    }

    /// Counts and logs the stream.
    pub(super) fn end(self, downstream: &Downstream, rule: Option<&CompiledRule>) {
        let worker = &downstream.worker;
        match self.error.as_ref().map(|error| error.kind) {
            Some(Kind::ConnectTimeout) => worker.counters.timeouts_upstream.up(),
            Some(Kind::BodyTimeout) => worker.counters.streams_idle.up(),
            Some(Kind::Io) => worker.counters.streams_broken.up(),
            _ => {}
        }
        let outcome = Outcome {
            status: 0,
            duration: self.started.elapsed(),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
        };
        if let Some(rule) = rule {
            rule.stats.record(worker.index, &outcome);
        }
        if worker.log.is_on() {
            self.write(downstream, rule, &outcome);
        }
    }

    #[cold]
    fn write(&self, downstream: &Downstream, rule: Option<&CompiledRule>, outcome: &Outcome) {
        let chain = self.error.as_ref().map(ProxyError::chain);
        downstream.worker.log.push(&AccessRecord {
            time_unix_ms: self.time_unix_ms,
            gateway: &self.labels.gateway,
            listener: &self.labels.listener,
            route: rule.map_or("", |rule| &rule.labels.route),
            rule: rule.map_or("", |rule| &rule.labels.rule),
            backend: self.backend.as_deref().unwrap_or_default(),
            endpoint: self.endpoint,
            revision: self.revision.0,
            client: Some(downstream.peer.ip()),
            bytes_received: outcome.bytes_received,
            bytes_sent: outcome.bytes_sent,
            duration: outcome.duration,
            flags: self.error.as_ref().map_or("", ProxyError::flag),
            protocol: self.protocol,
            tls_version: downstream.tls_version,
            sni: downstream.sni.as_deref().unwrap_or_default(),
            error: chain.as_deref().unwrap_or_default(),
            ..AccessRecord::default()
        });
    }
}
