//! Copies of requests for mirrors: sent by tasks of their own once the request's body is known,
//! their answers thrown away.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use gateway_model::ir::CertificateKey;
use gateway_model::snapshot::UpstreamId;
use tokio::io::AsyncWriteExt;

use super::attempt::Attempt;
use super::download::Download;
use super::inbound::{self, NoHead, upstream_closed};
use super::retries::Retries;
use crate::downstream::{Downstream, Routing};
use crate::error::ProxyError;
use crate::h1::{Asked, BodyKind, RequestPlan, encode_request, push_chunk, push_last_chunk};
use crate::head::Source;
use crate::routing::{Act, Decision};
use crate::upstream::{Needs, Target};
use crate::worker::Worker;

/// A copy is sent once, or not at all.
const NEEDS: Needs = Needs {
    repeatable: false,
    upgrade: false,
};

/// The copies of one request, waiting for its body. Dropped unsent they count as dropped.
#[derive(Debug)]
pub(super) struct Copies {
    worker: Rc<Worker>,
    routing: Rc<Routing>,
    heads: Vec<(UpstreamId, Vec<u8>)>,
    /// What backends are shown.
    certificate: Option<CertificateKey>,
    body: Vec<u8>,
    chunked: bool,
    is_head: bool,
}

impl Copies {
    /// The copies that a decision asks for; none, at no cost, without mirrors.
    pub(super) fn of(
        downstream: &Downstream,
        routing: &Rc<Routing>,
        decision: &Decision<'_>,
        head: &impl Source,
    ) -> Option<Box<Self>> {
        match (decision.action, decision.rule) {
            (Act::Forward { filters, .. }, Some(_)) if !filters.mirrors.is_empty() => {
                Self::begin(downstream, routing, decision, head)
            }
            _ => None,
        }
    }

    #[cold]
    fn begin(
        downstream: &Downstream,
        routing: &Rc<Routing>,
        decision: &Decision<'_>,
        head: &impl Source,
    ) -> Option<Box<Self>> {
        let worker = &downstream.worker;
        let Act::Forward { filters, .. } = decision.action else {
            return None;
        };
        let own = &decision.rule?.filters;
        let plan = RequestPlan {
            edits: &own.request_headers,
            rewrite: &own.rewrite,
            prefix_len: decision.prefix_len,
            forwarding: downstream.forwarding(),
            request_id: None,
        };
        let taken = filters
            .mirrors
            .iter()
            .filter(|mirror| mirror.takes(worker.draw()));
        let heads: Vec<_> = taken
            .map(|mirror| {
                let mut out = Vec::new();
                encode_request(&mut out, head, &plan);
                (mirror.upstream, out)
            })
            .collect();
        let known_too_long = matches!(head.body(), BodyKind::Length(n) if n > limit(worker) as u64);
        if head.is_websocket() || known_too_long {
            worker.counters.mirrors_dropped.add(heads.len() as u64);
            return None;
        }
        (!heads.is_empty()).then(|| {
            Box::new(Self {
                worker: Rc::clone(worker),
                routing: Rc::clone(routing),
                certificate: heads
                    .first()
                    .and_then(|(upstream, _)| decision.target(*upstream).certificate.cloned()),
                heads,
                body: Vec::new(),
                chunked: head.body() == BodyKind::Chunked,
                is_head: head.method() == "HEAD",
            })
        })
    }

    /// Some more of the body. A body over the limit is not copied.
    pub(super) fn take(&mut self, data: &[u8]) {
        if self.body.len() + data.len() > limit(&self.worker) {
            self.drop_all();
        }
        if !self.heads.is_empty() {
            self.body.extend_from_slice(data);
        }
    }

    /// Whether any is still to be sent, so that the rest of the body matters.
    pub(super) fn are_wanted(&self) -> bool {
        !self.heads.is_empty()
    }

    /// How long a body may be waited for when nobody but a mirror wants it.
    pub(super) fn time_limit(&self) -> Duration {
        self.worker.limits().mirror.timeout
    }

    /// The body is complete: sends the copies.
    pub(super) fn send(mut self) {
        let worker = Rc::clone(&self.worker);
        for (upstream, mut request) in std::mem::take(&mut self.heads) {
            if worker.mirrors.get() >= worker.limits().mirror.concurrent {
                worker.counters.mirrors_dropped.up();
                continue;
            }
            if self.chunked {
                if !self.body.is_empty() {
                    push_chunk(&mut request, &self.body);
                }
                push_last_chunk(&mut request, b"");
            } else {
                request.extend_from_slice(&self.body);
            }
            let asked = Asked {
                head: self.is_head,
                websocket: false,
            };
            let routing = Rc::clone(&self.routing);
            let to = (upstream, self.certificate.clone());
            tokio::task::spawn_local(run(Rc::clone(&worker), routing, to, request, asked));
        }
    }

    fn drop_all(&mut self) {
        let dropped = self.heads.len() as u64;
        self.worker.counters.mirrors_dropped.add(dropped);
        self.heads.clear();
        self.body = Vec::new();
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.drop_all();
    }
}

fn limit(worker: &Worker) -> usize {
    worker.limits().mirror.body_bytes
}

async fn run(
    worker: Rc<Worker>,
    routing: Rc<Routing>,
    (upstream, certificate): (UpstreamId, Option<CertificateKey>),
    request: Vec<u8>,
    asked: Asked,
) {
    worker.mirrors.set(worker.mirrors.get() + 1);
    let target = Target {
        upstream,
        certificate: certificate.as_ref(),
    };
    let sent = copy(&worker, &routing, target, &request, asked);
    let sent = tokio::time::timeout(worker.limits().mirror.timeout, sent).await;
    worker.mirrors.set(worker.mirrors.get() - 1);
    match sent {
        Ok(Ok(())) => worker.counters.mirrors_sent.up(),
        Ok(Err(error)) => {
            worker.counters.mirrors_dropped.up();
            tracing::debug!(error = %error.chain(), "mirror failed");
        }
        Err(_) => worker.counters.mirrors_dropped.up(),
    }
}

/// Sends one copy and reads its answer to the end, so that the connection can serve again.
async fn copy(
    worker: &Rc<Worker>,
    routing: &Routing,
    target: Target<'_>,
    request: &[u8],
    asked: Asked,
) -> Result<(), ProxyError> {
    let mut retries = Retries::new(worker, None);
    let mut attempt = Attempt::begin(worker, routing, target, NEEDS, &mut retries).await?;
    let stream = &mut attempt.connection.stream;
    let written = match stream.write_all(request).await {
        Ok(()) => stream.flush().await,
        failed => failed,
    };
    written.map_err(|error| upstream_closed(Some(error)))?;
    let mut head = worker.take_response_head();
    let mut held = None;
    let inbound = loop {
        head.reset();
        let stream = &mut attempt.connection.stream;
        let read =
            poll_fn(|cx| inbound::poll_head(cx, worker, stream, &mut head, asked, &mut held));
        let mut inbound = read.await.map_err(|no_head| match no_head {
            NoHead::Closed(error) | NoHead::Failed(error) => error,
        })?;
        inbound.buffer.consume(inbound.head_len);
        if !head.is_informational() {
            break inbound;
        }
        held = Some(inbound.buffer);
    };
    let mut download = Download::new(attempt, inbound.buffer, &head, &worker.limits().head);
    worker.put_response_head(head);
    while poll_fn(|cx| download.poll(cx))
        .await
        .map_err(inbound::download_error)?
        .is_some()
    {}
    download.release(worker);
    Ok(())
}
