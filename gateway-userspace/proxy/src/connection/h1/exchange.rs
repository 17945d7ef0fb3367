//! A forwarded request: head and body to the upstream, the response back, both at once.

mod response;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use gateway_model::ir::Timeouts;
use gateway_model::snapshot::{CompiledFilters, CompiledRule};

use super::Next;
use super::tunnel;
use super::workspace::Workspace;
use crate::buffer::Buffer;
use crate::connection::attempt::Attempt;
use crate::connection::budget::Budget;
use crate::connection::client::Client;
use crate::connection::download::Download;
use crate::connection::inbound::{self, Inbound, NoHead, client_io};
use crate::connection::mirror::Copies;
use crate::connection::record::Record;
use crate::connection::relay::{Framing, Relay, RelayError};
use crate::connection::retries::Retries;
use crate::cors::CorsLine;
use crate::downstream::Routing;
use crate::error::{Kind, ProxyError, Side};
use crate::h1::{
    Asked, BodyDecoder, BodyKind, CONTINUE, Method, RequestPlan, encode_informational,
    encode_request,
};
use crate::head::Violation;
use crate::origin;
use crate::routing::Decision;
use crate::upstream::{Needs, Target};

/// Where a request goes and what is changed on the way.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) rule: Option<&'a Arc<CompiledRule>>,
    pub(super) filters: &'a CompiledFilters,
    pub(super) prefix_len: usize,
    pub(super) target: Target<'a>,
    /// The backend's name.
    pub(super) label: &'a Arc<str>,
}

/// A request that got no response, or not all of it.
pub(super) struct Failed {
    pub(super) error: ProxyError,
    /// The request's head and what has been read after it.
    pub(super) buffer: Buffer,
    /// Where in the buffer the next request begins, if all of this one has been read.
    pub(super) body_end: Option<usize>,
    /// Whether nothing has been sent to the client, so that it can be told.
    pub(super) answerable: bool,
}

/// Forwards one request. `buffer` begins with its head.
pub(super) async fn run(
    client: &mut Client,
    work: &mut Workspace,
    buffer: Buffer,
    routing: &Rc<Routing>,
    decision: &Decision<'_>,
    forward: Forward<'_>,
    record: &mut Record,
) -> Result<Next, Box<Failed>> {
    let rule = forward.rule.map(|rule| &**rule);
    let cors = origin::response_lines(rule, &work.request.view(buffer.filled()));
    let copies = Copies::of(
        &client.downstream,
        routing,
        decision,
        &work.request.view(buffer.filled()),
    );
    let mut upload = begin_upload(client, work, buffer, &forward, record);
    upload.copies = copies;
    if Retries::keeps(rule) {
        upload.keep_written(client.downstream.worker.limits().upstream.retry_bytes);
    }
    let timeouts = forward
        .rule
        .map_or_else(Timeouts::default, |rule| rule.timeouts);
    let limits = &client.downstream.worker.limits().time;
    let budget = Budget::new(client.deadline.timers(), &timeouts, limits, false);
    let mut exchange = Exchange {
        client,
        work,
        upload,
        uploading: true,
        stall_ms: 0,
        budget,
        cors,
        answerable: true,
        continued: false,
    };
    match exchange.run(routing, forward, record).await {
        Ok(End::Response { keep }) => Ok(exchange.finish(keep, record)),
        Ok(End::Tunnel(attempt, early)) => {
            let Exchange { client, upload, .. } = exchange;
            let (_, late) = upload.into_parts();
            Ok(Box::pin(tunnel::run(
                client,
                attempt.connection.stream,
                late,
                early,
                record,
            ))
            .await)
        }
        Err(error) => Err(Box::new(exchange.fail(error, record))),
    }
}

/// The request's head as the upstream is to see it, and its body after it.
fn begin_upload(
    client: &Client,
    work: &mut Workspace,
    buffer: Buffer,
    forward: &Forward<'_>,
    record: &mut Record,
) -> Relay {
    let mut out = std::mem::take(&mut work.to_upstream);
    out.clear();
    let view = work.request.view(buffer.filled());
    let downstream = &client.downstream;
    let own_id = downstream.worker.request_id();
    let forwarding = downstream.forwarding();
    let id = forwarding
        .kept_request_id(&view)
        .unwrap_or(own_id.as_bytes());
    record.identify(id);
    let plan = RequestPlan {
        edits: &forward.filters.request_headers,
        rewrite: &forward.filters.rewrite,
        prefix_len: forward.prefix_len,
        forwarding,
        request_id: Some(id),
    };
    encode_request(&mut out, &view, &plan);
    let kind = work.request.body();
    let framing = match kind {
        BodyKind::Chunked => Framing::Chunked,
        _ => Framing::AsIs,
    };
    let decoder = BodyDecoder::new(kind, &client.downstream.worker.limits().head);
    Relay::new(out, buffer, work.request.len(), decoder, framing)
}

/// How an exchange ends in order.
enum End {
    /// The whole response has been sent; `keep` says what the client was told.
    Response { keep: bool },
    /// The upstream has switched protocols; what it sent after its head.
    Tunnel(Attempt, Buffer),
}

/// What an attempt has come to.
#[allow(
    clippy::large_enum_variant,
    reason = "taken apart at once, and for nearly every request the larger one"
)]
enum Reached {
    Answer(Attempt, Inbound),
    Again,
}

struct Exchange<'a> {
    client: &'a mut Client,
    work: &'a mut Workspace,
    upload: Relay,
    /// Whether the upload still has something to do.
    uploading: bool,
    /// When the exchange counts as stalled.
    stall_ms: u64,
    budget: Budget,
    cors: Vec<CorsLine<'static>>,
    answerable: bool,
    /// Whether the client has been told to go on.
    continued: bool,
}

impl Exchange<'_> {
    async fn run(
        &mut self,
        routing: &Routing,
        forward: Forward<'_>,
        record: &mut Record,
    ) -> Result<End, ProxyError> {
        record.asks(forward.label);
        let mut retries = Retries::new(
            &self.client.downstream.worker,
            forward.rule.map(|rule| &**rule),
        );
        let (attempt, inbound) = loop {
            let tried = self
                .reach(routing, forward.target, &mut retries, record)
                .await;
            match self.next_attempt(tried, &mut retries).await? {
                Reached::Answer(attempt, inbound) => break (attempt, inbound),
                Reached::Again => {}
            }
        };
        self.budget.response_began();
        self.respond(attempt, inbound, forward, record).await
    }

    /// One attempt: sends the request and waits for the head of a final response.
    async fn reach(
        &mut self,
        routing: &Routing,
        target: Target<'_>,
        retries: &mut Retries,
        record: &mut Record,
    ) -> Result<(Attempt, Inbound), ProxyError> {
        let worker = Rc::clone(&self.client.downstream.worker);
        record.attempts = retries.begin();
        self.budget.arm(&self.client.deadline, None);
        let begun = Attempt::begin(&worker, routing, target, self.needs(), retries);
        let mut attempt = self.budget.guard(&self.client.deadline, begun).await?;
        record.endpoint = Some(attempt.address());
        let waits = self.work.request.expects_continue() && !self.upload.is_sealed();
        if waits && !std::mem::replace(&mut self.continued, true) {
            self.client.send(CONTINUE).await.map_err(client_io)?;
        }
        let mut held = None;
        loop {
            match self.head(&mut attempt, held.take()).await {
                Ok(mut inbound) if self.work.response.is_informational() => {
                    self.pass_on(&mut inbound).await?;
                    held = Some(inbound.buffer);
                }
                Ok(inbound) => return Ok((attempt, inbound)),
                Err(no_head) if self.may_repeat(&attempt, &no_head, retries) => {
                    worker.counters.upstream_stale_retries.up();
                    self.upload.rewind();
                    self.uploading = true;
                    let afresh = Box::pin(attempt.afresh(&worker));
                    attempt = self.budget.guard(&self.client.deadline, afresh).await?;
                }
                Err(no_head) => {
                    retries.failed_at(attempt.address());
                    return Err(no_head.into_error());
                }
            }
        }
    }

    /// What an attempt has come to: the answer, or, after a pause, the next attempt.
    async fn next_attempt(
        &mut self,
        tried: Result<(Attempt, Inbound), ProxyError>,
        retries: &mut Retries,
    ) -> Result<Reached, ProxyError> {
        let longest = match &tried {
            Ok((_, inbound)) => retries.after_response(&self.work.response, inbound),
            Err(error) => retries.after_failure(error),
        };
        let Some(longest) = longest.filter(|_| self.upload.is_replayable()) else {
            return tried.map(|(attempt, inbound)| Reached::Answer(attempt, inbound));
        };
        let worker = Rc::clone(&self.client.downstream.worker);
        if let Ok((attempt, inbound)) = tried {
            retries.failed_at(attempt.address());
            let uploaded = self.upload.is_done();
            Download::discard(attempt, inbound, &self.work.response, &worker, uploaded);
        }
        self.budget.end_attempt();
        self.budget.arm(&self.client.deadline, None);
        let pause = retries.pause(&worker, longest);
        self.budget.guard(&self.client.deadline, pause).await?;
        self.budget.begin_attempt(self.client.deadline.timers());
        self.upload.rewind();
        self.uploading = true;
        self.stall_ms = 0;
        Ok(Reached::Again)
    }

    /// Whether a closed connection is no fault of the request's: the endpoint had closed an idle
    /// connection and saying it twice does no harm (RFC 9110 §9.2.2), or says that it has not
    /// processed the request; and everything that was sent is still in hand.
    fn may_repeat(&self, attempt: &Attempt, no_head: &NoHead, retries: &mut Retries) -> bool {
        let stale = attempt.connection.used && self.is_harmless();
        self.upload.is_replayable() && retries.may_repeat(no_head, stale)
    }

    fn needs(&self) -> Needs {
        Needs {
            repeatable: self.is_harmless(),
            upgrade: self.work.request.is_websocket(),
        }
    }

    /// Whether saying it twice does no harm.
    fn is_harmless(&self) -> bool {
        matches!(
            self.work.request.method(),
            Method::Get | Method::Head | Method::Options
        )
    }

    /// Sends the request and waits for a response's head; goes on sending the body meanwhile.
    async fn head(
        &mut self,
        attempt: &mut Attempt,
        mut held: Option<Buffer>,
    ) -> Result<Inbound, NoHead> {
        self.work.response.reset();
        poll_fn(|cx| self.poll_head(cx, attempt, &mut held)).await
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &mut Attempt,
        held: &mut Option<Buffer>,
    ) -> Poll<Result<Inbound, NoHead>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx, attempt) {
            return Poll::Ready(Err(NoHead::Failed(error)));
        }
        if let Poll::Ready(head) = self.poll_read_head(cx, attempt, held) {
            return Poll::Ready(head);
        }
        if !self.uploading
            && self
                .client
                .poll_left(cx, &mut self.upload.buffer)
                .is_ready()
        {
            let gone = ProxyError::new(Side::Downstream, Kind::Closed);
            return Poll::Ready(Err(NoHead::Failed(gone)));
        }
        self.poll_over(cx).map(|error| Err(NoHead::Failed(error)))
    }

    fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &mut Attempt,
        held: &mut Option<Buffer>,
    ) -> Poll<Result<Inbound, NoHead>> {
        let Workspace {
            request, response, ..
        } = &mut *self.work;
        let asked = Asked {
            head: request.method() == Method::Head,
            websocket: request.is_websocket(),
        };
        let worker = &self.client.downstream.worker;
        inbound::poll_head(
            cx,
            worker,
            &mut attempt.connection.stream,
            response,
            asked,
            held,
        )
    }

    /// Sends on what the client sends. An endpoint that takes no more may still answer.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &mut Attempt,
    ) -> Poll<Result<(), ProxyError>> {
        if !self.uploading {
            return Poll::Ready(Ok(()));
        }
        let sink = &mut attempt.connection.stream;
        let result = match ready!(self.upload.poll(cx, &mut self.client.stream, sink)) {
            Ok(()) | Err(RelayError::Sink(_)) => Ok(()),
            Err(RelayError::Source(error)) => Err(client_io(error)),
            Err(RelayError::Malformed(Violation::Truncated)) => {
                Err(ProxyError::new(Side::Downstream, Kind::Closed))
            }
            Err(RelayError::Malformed(violation)) => Err(ProxyError::downstream(violation)),
        };
        self.uploading = false;
        Poll::Ready(result)
    }

    /// Ready when the request's time is over, or the body has not moved for too long.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        let time = &self.client.downstream.worker.limits().time;
        let stalled = match (self.uploading, self.upload.is_writing()) {
            (true, true) => (Side::Upstream, Kind::WriteTimeout),
            _ => (Side::Downstream, Kind::BodyTimeout),
        };
        if self.uploading && self.upload.take_moved() {
            let timers = self.client.deadline.timers();
            self.stall_ms = if self.upload.is_writing() {
                timers.at(time.write_stall)
            } else {
                let received = self.upload.body_bytes();
                self.budget.body_stall_ms(timers, time, received)
            };
            self.budget.arm_at(&self.client.deadline, self.stall_ms);
        } else if !self.uploading && self.stall_ms != u64::MAX {
            self.stall_ms = u64::MAX;
            self.budget.arm(&self.client.deadline, None);
        }
        self.budget.poll_over(cx, &self.client.deadline, stalled)
    }

    /// Passes an informational response on. `100 Continue` is Sluice's own to say.
    #[cold]
    async fn pass_on(&mut self, inbound: &mut Inbound) -> Result<(), ProxyError> {
        let head = &self.work.response;
        if head.status() != 100 && !self.work.request.is_http10() {
            let mut out = Vec::new();
            encode_informational(&mut out, &head.view(inbound.buffer.filled()));
            self.client.send(&out).await.map_err(client_io)?;
            self.stall_ms = 0;
            self.budget.arm(&self.client.deadline, None);
        }
        inbound.buffer.consume(inbound.head_len);
        Ok(())
    }
}
