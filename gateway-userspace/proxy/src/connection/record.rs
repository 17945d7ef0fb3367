//! What is remembered of a request until it is counted and logged.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gateway_model::ir::HeaderName;
use gateway_model::snapshot::{CompiledRule, Outcome};

use crate::access_log::AccessRecord;
use crate::downstream::{Downstream, Routing};
use crate::error::{Kind, ProxyError, Side};
use crate::head::{Source, bytes};
use crate::routing::Decision;
use crate::worker::Worker;

/// One request's account.
#[derive(Debug)]
pub(super) struct Record {
    started: Instant,
    /// The status sent; 0 as long as there is none.
    pub(super) status: u16,
    /// Body bytes from the client.
    pub(super) bytes_received: u64,
    /// Body bytes to the client.
    pub(super) bytes_sent: u64,
    /// The endpoint that answered, or was last tried.
    pub(super) endpoint: Option<SocketAddr>,
    /// Attempts to reach the backend.
    pub(super) attempts: u32,
    /// Why it failed, if it did.
    pub(super) error: Option<ProxyError>,
    /// What the access log wants besides; none when it is off.
    log: Option<Box<Logged>>,
    _active: ActiveRequest,
}

/// A request under way, as far as the gauge goes. An HTTP/2 stream that the client resets takes its
/// record with it unfinished, so the gauge goes down on drop.
#[derive(Debug)]
struct ActiveRequest(Rc<Worker>);

impl ActiveRequest {
    fn begin(worker: &Rc<Worker>) -> Self {
        worker.counters.requests_active.up();
        Self(Rc::clone(worker))
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.counters.requests_active.down();
    }
}

/// What only the access log wants to know of a request.
#[derive(Debug)]
struct Logged {
    time_unix_ms: u64,
    revision: u64,
    gateway: Option<Arc<str>>,
    listener: Option<Arc<str>>,
    backend: Option<Arc<str>>,
    client: IpAddr,
    method: Box<str>,
    host: Box<str>,
    path: Box<str>,
    query: Option<Box<str>>,
    user_agent: Box<[u8]>,
    request_id: Box<str>,
    protocol: &'static str,
    asked: Option<Instant>,
    upstream_time: Option<Duration>,
}

impl Record {
    /// The account of a request whose head was complete at that time.
    pub(super) fn begin(
        downstream: &Downstream,
        routing: &Routing,
        decision: &Decision<'_>,
        head: &impl Source,
        protocol: &'static str,
        started: Instant,
    ) -> Self {
        let log = downstream.worker.log.is_on().then(|| {
            let mut logged = Logged::new(downstream, head, protocol);
            logged.revision = routing.serving().snapshot.revision().0;
            let labels = decision.listener.map(|listener| &listener.labels);
            logged.gateway = labels.map(|labels| Arc::clone(&labels.gateway));
            logged.listener = labels.map(|labels| Arc::clone(&labels.listener));
            Box::new(logged)
        });
        Self {
            started,
            status: 0,
            bytes_received: 0,
            bytes_sent: 0,
            endpoint: None,
            attempts: 0,
            error: None,
            log,
            _active: ActiveRequest::begin(&downstream.worker),
        }
    }

    /// The request carries this `X-Request-Id`, which is ASCII.
    pub(super) fn identify(&mut self, id: &[u8]) {
        if let Some(log) = &mut self.log {
            log.request_id = bytes::ascii(id).into();
        }
    }

    /// The request is being sent to this backend.
    pub(super) fn asks(&mut self, backend: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.backend = Some(Arc::clone(backend));
            log.asked = Some(Instant::now());
        }
    }

    /// The backend's response has begun.
    pub(super) fn answered(&mut self, status: u16) {
        self.status = status;
        if let Some(log) = &mut self.log {
            log.upstream_time = log.asked.map(|asked| asked.elapsed());
        }
    }

    /// Counts and logs the request.
    pub(super) fn end(self, downstream: &Downstream, rule: Option<&CompiledRule>) {
        let worker = &downstream.worker;
        count_status(worker, self.status);
        if let Some(error) = &self.error {
            count_error(downstream, error);
        }
        let outcome = Outcome {
            status: self.status,
            duration: self.started.elapsed(),
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
        };
        if let Some(rule) = rule {
            rule.stats.record(worker.index, &outcome);
        }
        if let Some(log) = &self.log {
            self.write(log, downstream, rule, &outcome);
        }
    }

    #[cold]
    fn write(
        &self,
        log: &Logged,
        downstream: &Downstream,
        rule: Option<&CompiledRule>,
        outcome: &Outcome,
    ) {
        let text = |text: &Option<Arc<str>>| text.clone().unwrap_or_default();
        let (gateway, listener, backend) =
            (text(&log.gateway), text(&log.listener), text(&log.backend));
        let chain = self.error.as_ref().map(ProxyError::chain);
        downstream.worker.log.push(&AccessRecord {
            time_unix_ms: log.time_unix_ms,
            gateway: &gateway,
            listener: &listener,
            route: rule.map_or("", |rule| &rule.labels.route),
            rule: rule.map_or("", |rule| &rule.labels.rule),
            backend: &backend,
            endpoint: self.endpoint,
            attempts: self.attempts,
            revision: log.revision,
            client: Some(log.client),
            method: &log.method,
            host: &log.host,
            path: &log.path,
            query: log.query.as_deref(),
            status: outcome.status,
            bytes_received: outcome.bytes_received,
            bytes_sent: outcome.bytes_sent,
            duration: outcome.duration,
            upstream_time: log.upstream_time,
            flags: self.error.as_ref().map_or("", ProxyError::flag),
            protocol: log.protocol,
            tls_version: downstream.tls_version,
            sni: downstream.sni.as_deref().unwrap_or_default(),
            request_id: &log.request_id,
            user_agent: &log.user_agent,
            error: chain.as_deref().unwrap_or_default(),
        });
    }
}

impl Logged {
    fn new(downstream: &Downstream, head: &impl Source, protocol: &'static str) -> Self {
        let user_agent = HeaderName::parse("user-agent");
        let user_agent = user_agent.as_ref().and_then(|name| {
            let value = head.header_values(name).next();
            value.map(Box::from)
        });
        Self {
            time_unix_ms: unix_ms(),
            revision: 0,
            gateway: None,
            listener: None,
            backend: None,
            client: downstream.forwarding().client(head),
            method: head.method().into(),
            host: head.host().into(),
            path: head.path().into(),
            query: head.query().map(Box::from),
            user_agent: user_agent.unwrap_or_default(),
            request_id: Box::default(),
            protocol,
            asked: None,
            upstream_time: None,
        }
    }
}

/// A request whose head was refused, so that nothing was decided about it.
pub(super) struct Refused<'a> {
    pub(super) method: &'a str,
    /// The target as it was sent.
    pub(super) target: &'a str,
    pub(super) protocol: &'static str,
    /// When its head was there, as far as it came.
    pub(super) at: Instant,
    /// The status sent.
    pub(super) status: u16,
    /// Body bytes to the client.
    pub(super) bytes_sent: usize,
}

impl Refused<'_> {
    /// Counts and logs it.
    #[cold]
    pub(super) fn end(&self, downstream: &Downstream, error: &ProxyError) {
        let worker = &downstream.worker;
        count_status(worker, self.status);
        count_error(downstream, error);
        if !worker.log.is_on() {
            return;
        }
        worker.log.push(&AccessRecord {
            time_unix_ms: unix_ms(),
            revision: downstream.routing().serving().snapshot.revision().0,
            client: Some(downstream.peer.ip()),
            method: self.method,
            path: self.target,
            status: self.status,
            bytes_sent: self.bytes_sent as u64,
            duration: self.at.elapsed(),
            flags: error.flag(),
            protocol: self.protocol,
            tls_version: downstream.tls_version,
            sni: downstream.sni.as_deref().unwrap_or_default(),
            error: &error.chain(),
            ..AccessRecord::default()
        });
    }
}

/// Now, as log lines say it.
fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

fn count_status(worker: &Worker, status: u16) {
    let counters = &worker.counters;
    match status / 100 {
        1 => counters.responses_1xx.up(),
        2 => counters.responses_2xx.up(),
        3 => counters.responses_3xx.up(),
        4 => counters.responses_4xx.up(),
        5 => counters.responses_5xx.up(),
        _ => {}
    }
}

fn count_error(downstream: &Downstream, error: &ProxyError) {
    let counters = &downstream.worker.counters;
    match (error.side, error.kind) {
        (_, Kind::Misdirected) => counters.requests_misdirected.up(),
        (_, Kind::NoRoute) => counters.requests_unrouted.up(),
        (_, Kind::Overloaded) => counters.overload_refusals.up(),
        (_, Kind::SourceDenied) => counters.connections_denied.up(),
        (Side::Upstream, Kind::Protocol(_)) => counters.upstream_protocol_errors.up(),
        (_, Kind::Protocol(violation)) => counters.refusals[violation].up(),
        (Side::Downstream, Kind::Closed | Kind::Io) => counters.requests_aborted.up(),
        (Side::Downstream, Kind::HeadTimeout | Kind::BodyTimeout | Kind::WriteTimeout) => {
            counters.timeouts_downstream.up();
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
