//! A stream: bytes between a client and a backend that Sluice does not read. TCP listeners, TLS that is
//! passed through, and what is inside TLS that is terminated.
//!
//! A stream has one route and one backend for its life; a later revision changes nothing for it.
//! What is refused is reset, so that nobody takes the end for an orderly one (Gateway API v1
//! `TCPRoute.spec.rules.backendRefs`: "MUST actively reject connection attempts").

mod dial;
mod record;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use gateway_model::ir::CertificateKey;
use gateway_model::snapshot::{
    CompiledAction, CompiledListener, CompiledRule, CompiledTarget, ListenerLabels, UpstreamId,
};

use super::pipe::{Direction, Failure};
use crate::buffer::Buffer;
use crate::downstream::{Downstream, Routing};
use crate::error::{Kind, ProxyError, Side};
use crate::stream::Stream;
use crate::upstream::{Target, UpstreamStream, Via};
use crate::worker::Worker;
use dial::Dialled;
use record::Record;

/// A client's stream before it has a backend.
#[derive(Debug)]
pub(super) struct Inbound {
    downstream: Downstream,
    client: Stream,
    /// What has been read already: a ClientHello that is passed through.
    first: Option<Buffer>,
    labels: ListenerLabels,
    /// What backends are shown.
    certificate: Option<CertificateKey>,
    rule: Option<Arc<CompiledRule>>,
    routing: Rc<Routing>,
    /// Whether it is refused already, by its name; the connection is closed then, not reset.
    is_told: bool,
}

impl Inbound {
    pub(super) fn new(
        downstream: Downstream,
        listener: &CompiledListener,
        routing: &Rc<Routing>,
        client: Stream,
        first: Option<Buffer>,
    ) -> Box<Self> {
        let name = downstream.sni.as_deref().unwrap_or_default();
        Box::new(Self {
            rule: listener.find_stream(name).cloned(),
            labels: listener.labels.clone(),
            certificate: listener.listener.backend_client_certificate.clone(),
            routing: Rc::clone(routing),
            downstream,
            client,
            first,
            is_told: false,
        })
    }

    /// No route has its name: it is refused by closing the connection, and only counted and logged.
    pub(super) fn told(mut self: Box<Self>) -> Box<Self> {
        self.is_told = true;
        self
    }

    /// `TCP`, or `TLS` that is passed through or terminated.
    fn protocol(&self) -> &'static str {
        match self.downstream.tls || self.first.is_some() || self.is_told {
            true => "TLS",
            false => "TCP",
        }
    }
}

/// Serves a stream to its end.
pub(super) async fn serve(inbound: Box<Inbound>) {
    let protocol = inbound.protocol();
    let Inbound {
        downstream,
        mut client,
        first,
        labels,
        certificate,
        rule,
        routing,
        is_told,
    } = *inbound;
    let worker = Rc::clone(&downstream.worker);
    let mut record = Record::begin(&downstream, &routing, labels, protocol);
    let upstream = match choose(rule.as_deref(), &worker, &mut record) {
        Ok(upstream) => {
            let target = Target {
                upstream,
                certificate: certificate.as_ref(),
            };
            let via = match first {
                Some(_) => Via::Untouched,
                None => Via::Stream,
            };
            dial::dial(&worker, &routing, target, via, &mut record).await
        }
        Err(error) => Err(error),
    };
    // A stream may live for days; what it was routed by need not.
    drop(routing);
    downstream.forget_routing();
    match upstream {
        Ok(upstream) => relay(&worker, &mut client, first, upstream, &mut record).await,
        Err(error) => {
            worker.counters.streams_refused.up();
            if !is_told {
                client.reset_on_drop();
            }
            record.error = Some(error);
        }
    }
    record.end(&downstream, rule.as_deref());
}

/// The upstream that the rule's weights choose.
fn choose(
    rule: Option<&CompiledRule>,
    worker: &Worker,
    record: &mut Record,
) -> Result<UpstreamId, ProxyError> {
    let refused = |kind, reason: &str| Err(ProxyError::new(Side::Gateway, kind).because(reason));
    let Some(rule) = rule else {
        return refused(Kind::NoRoute, "no route of the listener takes it");
    };
    let CompiledAction::Forward(forward) = &rule.action else {
        return refused(Kind::NoRoute, "the route is not one of streams");
    };
    let backend = forward.pick(rule.stats.slot(worker.index).draw());
    match backend.map(|backend| &backend.target) {
        None => refused(Kind::Refused(500), "no backend has a weight"),
        Some(CompiledTarget::Unavailable { status, reason }) => {
            refused(Kind::Refused(*status), reason)
        }
        Some(CompiledTarget::Upstream { id, label }) => {
            record.backend = Some(Arc::clone(label));
            Ok(*id)
        }
    }
}

/// Copies both ways until both sides have ended, one fails, or nothing moves for the limit.
async fn relay(
    worker: &Rc<Worker>,
    client: &mut Stream,
    first: Option<Buffer>,
    upstream: Dialled,
    record: &mut Record,
) {
    let Dialled {
        stream: mut upstream,
        active: _active,
    } = upstream;
    worker.counters.streams.up();
    worker.counters.streams_open.up();
    let _open = Open(worker);
    let limit = worker.limits().stream.idle;
    let deadline = worker.timers.deadline();
    deadline.set(limit);
    let (mut up, mut down) = (Direction::new(first), Direction::new(None));
    let is_idle = poll_fn(|cx| {
        let up_now = up.poll(cx, client, &mut upstream);
        let down_now = down.poll(cx, &mut upstream, client);
        let has_failed = up.failure.is_some() || down.failure.is_some();
        if has_failed || (up_now.is_ready() && down_now.is_ready()) {
            return Poll::Ready(false);
        }
        deadline.register(cx);
        if up.take_moved() | down.take_moved() {
            deadline.set(limit);
        }
        if deadline.is_expired() {
            return Poll::Ready(true);
        }
        Poll::Pending
    })
    .await;
    record.bytes_received = up.bytes;
    record.bytes_sent = down.bytes;
    let cut = cut(&up, &down);
    record.error = fault(up, down, is_idle);
    if record.error.is_some() {
        end_abruptly(client, &upstream);
    } else {
        record.error = cut;
    }
}

/// Which side's TLS ended without saying so.
fn cut(up: &Direction, down: &Direction) -> Option<ProxyError> {
    let (side, reason) = match (up.is_cut, down.is_cut) {
        (true, _) => (Side::Downstream, "no close_notify from the client"),
        (false, true) => (Side::Upstream, "no close_notify from the backend"),
        (false, false) => return None,
    };
    Some(ProxyError::new(side, Kind::Closed).because(reason))
}

/// What ended a stream out of order: the first side that failed.
fn fault(up: Direction, down: Direction, is_idle: bool) -> Option<ProxyError> {
    let io = |side, error| ProxyError::new(side, Kind::Io).because(error);
    let blame = match (up.failure, down.failure) {
        (Some(Failure::Sender(e)), _) | (_, Some(Failure::Receiver(e))) => io(Side::Downstream, e),
        (Some(Failure::Receiver(e)), _) | (_, Some(Failure::Sender(e))) => io(Side::Upstream, e),
        (None, None) if is_idle => ProxyError::new(Side::Gateway, Kind::BodyTimeout),
        (None, None) => return None,
    };
    Some(blame)
}

/// Passes an abrupt end on to both sides: a reset, as the side that failed gave or would have given.
fn end_abruptly(client: &Stream, upstream: &UpstreamStream) {
    client.reset_on_drop();
    upstream.reset_on_drop();
}

/// An open stream, as far as the gauge goes.
struct Open<'a>(&'a Worker);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.streams_open.down();
    }
}
