//! A forwarded request: head and body to the upstream, the response back, both at once.

mod response;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use gateway_model::head::Head;
use gateway_model::ir::Timeouts;
use gateway_model::snapshot::{CompiledFilters, CompiledRule};

use self::response::Answering;
use super::workspace::Workspace;
use crate::buffer::Buffer;
use crate::connection::attempt::{Attempt, Dial, Start};
use crate::connection::budget::Budget;
use crate::connection::client::Client;
use crate::connection::download::Download;
use crate::connection::inbound::{self, Inbound, NoHead, client_io};
use crate::connection::informational::Informational;
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
use crate::worker::Worker;

/// Where a request goes and what is changed on the way.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub(super) rule: Option<&'a CompiledRule>,
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
pub(super) enum End {
    /// The whole response has been sent; `keep` says what the client was told.
    Response { keep: bool },
    /// The upstream has switched protocols.
    Tunnel(Box<Switched>),
}

/// A connection on which something other than HTTP is spoken from now on.
pub(super) struct Switched {
    attempt: Attempt,
    /// What the upstream has sent after its head.
    early: Buffer,
}

/// A forwarded request until its response has been sent.
pub(super) struct Exchange<'a> {
    client: &'a mut Client,
    work: &'a mut Workspace,
    record: &'a mut Record,
    routing: &'a Routing,
    filters: &'a CompiledFilters,
    target: Target<'a>,
    upload: Relay,
    /// Whether the upload still has something to do.
    uploading: bool,
    /// What has come of a response's head; a buffer is kept here only while there is something in it.
    held: Option<Buffer>,
    /// When the exchange counts as stalled.
    stall_ms: u64,
    budget: Budget,
    retries: Retries,
    informational: Informational,
    cors: Vec<CorsLine<'static>>,
    answerable: bool,
    /// Whether the client has been told to go on.
    continued: bool,
}

/// What the first attempt has come to.
enum First {
    /// The response has been sent, or could not be.
    Sent(Result<End, ProxyError>),
    /// A part of the response could not be sent at once.
    Answering(Answering),
    /// A connection has to be made.
    Dial(Dial),
    /// There is a connection, and the client waits for leave to send a body.
    Expected(Attempt),
    /// A head that is not passed on at once, or none, on a connection that was there.
    Heard(Attempt, Result<Inbound, NoHead>),
    Failed(ProxyError),
}

impl<'a> Exchange<'a> {
    /// Begins to forward a request. `buffer` begins with its head.
    pub(super) fn begin(
        client: &'a mut Client,
        work: &'a mut Workspace,
        buffer: Buffer,
        routing: &'a Rc<Routing>,
        decision: &Decision<'_>,
        forward: Forward<'a>,
        record: &'a mut Record,
    ) -> Self {
        let rule = forward.rule;
        let view = work.request.view(buffer.filled());
        let cors = origin::response_lines(rule, &view);
        let copies = Copies::of(&client.downstream, routing, decision, &view);
        let retries = Retries::new(&client.downstream.worker, rule).of_method(view.method());
        let mut upload = begin_upload(client, work, buffer, &forward, record);
        upload.copies = copies;
        let worker = &client.downstream.worker;
        if Retries::keeps(rule) {
            upload.keep_written(worker.limits().upstream.retry_bytes);
        }
        let timeouts = rule.map_or_else(Timeouts::default, |rule| rule.timeouts);
        record.asks(forward.label);
        Self {
            budget: Budget::new(&worker.timers, &timeouts, &worker.limits().time, false),
            retries,
            informational: Informational::default(),
            client,
            work,
            record,
            routing,
            filters: forward.filters,
            target: forward.target,
            upload,
            uploading: true,
            held: None,
            stall_ms: 0,
            cors,
            answerable: true,
            continued: false,
        }
    }

    /// Forwards the request and sends the response.
    ///
    /// A request that finds a connection and whose response can be sent as soon as its head is there, as nearly
    /// all can, waits in this future alone, which holds little: what it takes to dial, to retry and to send what
    /// comes later is made when it is needed.
    pub(super) async fn run(&mut self) -> Result<End, ProxyError> {
        let first = match self.start() {
            Err(error) => First::Failed(error),
            Ok(Start::Dial(dial)) => First::Dial(dial),
            Ok(Start::Ready(attempt)) if self.is_awaited() => First::Expected(attempt),
            Ok(Start::Ready(attempt)) => {
                let mut attempt = Some(attempt);
                poll_fn(|cx| self.poll_first(cx, &mut attempt)).await
            }
        };
        match first {
            First::Sent(end) => end,
            first => Box::pin(self.go_on(first)).await,
        }
    }

    /// Begins an attempt, as far as nothing has to be waited for.
    fn start(&mut self) -> Result<Start, ProxyError> {
        self.record.attempts = self.retries.begin();
        self.budget.arm(&self.client.deadline, None);
        let needs = self.needs();
        let worker = &self.client.downstream.worker;
        let start = Attempt::start(worker, self.routing, self.target, needs, &mut self.retries)?;
        if let Start::Ready(attempt) = &start {
            self.begin_head(attempt);
        }
        Ok(start)
    }

    /// A response's head is awaited from now on.
    fn begin_head(&mut self, attempt: &Attempt) {
        self.record.endpoint = Some(attempt.address());
        self.held = None;
        self.work.response.reset();
    }

    /// Whether the client waits for leave to send its body.
    fn is_awaited(&self) -> bool {
        !self.continued && self.work.request.expects_continue() && !self.upload.is_sealed()
    }

    /// The whole of what nearly every request takes.
    fn poll_first(&mut self, cx: &mut Context<'_>, waiting: &mut Option<Attempt>) -> Poll<First> {
        let Some(attempt) = waiting else {
            return Poll::Pending;
        };
        let head = ready!(self.poll_head(cx, attempt));
        let Some(attempt) = waiting.take() else {
            return Poll::Pending;
        };
        let inbound = match head {
            Ok(inbound) if self.is_final(&inbound) => inbound,
            head => return Poll::Ready(First::Heard(attempt, head)),
        };
        let mut answering = self.answer(attempt, inbound);
        Poll::Ready(match self.poll_stream(cx, &mut answering) {
            Poll::Ready(streamed) => First::Sent(self.end(answering, streamed)),
            Poll::Pending => First::Answering(answering),
        })
    }

    /// Whether this is the response, no attempt comes after it, and nothing but it is left to be sent.
    fn is_final(&mut self, inbound: &Inbound) -> bool {
        let head = &self.work.response;
        let is_response = !head.is_informational() && !head.is_upgrade();
        is_response && self.upload.is_done() && self.retries.after_response(head, inbound).is_none()
    }

    /// Brings to its end what has been begun.
    async fn go_on(&mut self, first: First) -> Result<End, ProxyError> {
        let worker = Rc::clone(&self.client.downstream.worker);
        let reached = match first {
            First::Sent(end) => return end,
            First::Answering(answering) => return self.stream(answering).await,
            First::Failed(error) => Err(error),
            First::Dial(dial) => self.dial(&worker, dial).await,
            First::Expected(attempt) => self.hear(&worker, attempt, None).await,
            First::Heard(attempt, head) => self.hear(&worker, attempt, Some(head)).await,
        };
        let (attempt, inbound) = self.reach(&worker, reached).await?;
        self.respond(attempt, inbound).await
    }

    /// Sends the request, as often as it takes and may be, and waits for the head of a final response.
    async fn reach(
        &mut self,
        worker: &Rc<Worker>,
        mut tried: Result<(Attempt, Inbound), ProxyError>,
    ) -> Result<(Attempt, Inbound), ProxyError> {
        loop {
            let longest = match &tried {
                Ok((_, inbound)) => self.retries.after_response(&self.work.response, inbound),
                Err(error) => self.retries.after_failure(error),
            };
            let Some(longest) = longest.filter(|_| self.upload.is_replayable()) else {
                return tried;
            };
            if let Ok((attempt, inbound)) = tried {
                self.retries.failed_at(attempt.address());
                let uploaded = self.upload.is_done();
                Download::discard(attempt, inbound, &self.work.response, worker, uploaded);
            }
            self.budget.end_attempt();
            self.budget.arm(&self.client.deadline, None);
            let pause = self.retries.pause(worker, longest);
            self.budget.guard(&self.client.deadline, pause).await?;
            self.budget.begin_attempt(self.client.deadline.timers());
            self.upload.rewind();
            self.uploading = true;
            self.stall_ms = 0;
            tried = match self.start() {
                Ok(Start::Ready(attempt)) => self.hear(worker, attempt, None).await,
                Ok(Start::Dial(dial)) => self.dial(worker, dial).await,
                Err(error) => Err(error),
            };
        }
    }

    /// Makes the connection, and goes on.
    async fn dial(
        &mut self,
        worker: &Rc<Worker>,
        dial: Dial,
    ) -> Result<(Attempt, Inbound), ProxyError> {
        let dialled = Box::pin(dial.run(worker, &mut self.retries));
        let attempt = self.budget.guard(&self.client.deadline, dialled).await?;
        self.begin_head(&attempt);
        self.hear(worker, attempt, None).await
    }

    /// Waits for the head of a final response, of which `heard` is what came first.
    async fn hear(
        &mut self,
        worker: &Rc<Worker>,
        mut attempt: Attempt,
        mut heard: Option<Result<Inbound, NoHead>>,
    ) -> Result<(Attempt, Inbound), ProxyError> {
        if self.is_awaited() {
            self.continued = true;
            self.client.send(CONTINUE).await.map_err(client_io)?;
        }
        loop {
            let head = match heard.take() {
                Some(head) => head,
                None => poll_fn(|cx| self.poll_head(cx, &mut attempt)).await,
            };
            match head {
                Ok(inbound) if self.work.response.is_informational() => {
                    attempt.answers();
                    self.pass_on(inbound).await?;
                }
                Ok(inbound) => return Ok((attempt, inbound)),
                Err(no_head) if self.may_repeat(&attempt, &no_head) => {
                    worker.counters.upstream_stale_retries.up();
                    self.upload.rewind();
                    self.uploading = true;
                    let afresh = Box::pin(attempt.afresh(worker));
                    attempt = self.budget.guard(&self.client.deadline, afresh).await?;
                    self.begin_head(&attempt);
                }
                Err(no_head) => {
                    self.retries.failed_at(attempt.address());
                    return Err(no_head.into_error());
                }
            }
        }
    }

    /// Whether a closed connection is no fault of the request's: the endpoint had closed an idle
    /// connection and saying it twice does no harm (RFC 9110 §9.2.2), or says that it has not
    /// processed the request; and everything that was sent is still in hand.
    fn may_repeat(&mut self, attempt: &Attempt, no_head: &NoHead) -> bool {
        let stale = attempt.connection.used && self.is_harmless();
        self.upload.is_replayable() && self.retries.may_repeat(no_head, stale)
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
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &mut Attempt,
    ) -> Poll<Result<Inbound, NoHead>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx, attempt) {
            return Poll::Ready(Err(NoHead::Failed(error)));
        }
        if let Poll::Ready(head) = self.poll_read_head(cx, attempt) {
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
    ) -> Poll<Result<Inbound, NoHead>> {
        let Workspace {
            request, response, ..
        } = &mut *self.work;
        let asked = Asked {
            head: request.method() == Method::Head,
            websocket: request.is_websocket(),
        };
        let worker = &self.client.downstream.worker;
        let stream = &mut attempt.connection.stream;
        inbound::poll_head(cx, worker, stream, response, asked, &mut self.held)
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
        let stalled = match (self.uploading, self.upload.is_writing()) {
            (true, true) => (Side::Upstream, Kind::WriteTimeout),
            _ => (Side::Downstream, Kind::BodyTimeout),
        };
        if self.uploading && self.upload.take_moved() {
            self.arm_upload();
        } else if !self.uploading && self.stall_ms != u64::MAX {
            self.stall_ms = u64::MAX;
            self.budget.arm(&self.client.deadline, None);
        }
        self.budget.poll_over(cx, &self.client.deadline, stalled)
    }

    /// From now on the body has to move again.
    fn arm_upload(&mut self) {
        let time = &self.client.downstream.worker.limits().time;
        let timers = self.client.deadline.timers();
        self.stall_ms = if self.upload.is_writing() {
            timers.at(time.write_stall)
        } else {
            let received = self.upload.body_bytes();
            self.budget.body_stall_ms(timers, time, received)
        };
        self.budget.arm_at(&self.client.deadline, self.stall_ms);
    }

    /// Passes an informational response on, and awaits the next. `100 Continue` is Sluice's own to say.
    #[cold]
    async fn pass_on(&mut self, inbound: Inbound) -> Result<(), ProxyError> {
        let Inbound {
            mut buffer,
            head_len,
        } = inbound;
        let limits = &self.client.downstream.worker.limits().head;
        self.informational.count(head_len, limits)?;
        let head = &self.work.response;
        if head.status() != 100 && !self.work.request.is_http10() {
            let mut out = Vec::new();
            encode_informational(&mut out, &head.view(buffer.filled()));
            self.client.send(&out).await.map_err(client_io)?;
            // Sending has set the deadline to its own limit.
            match self.uploading {
                true => self.arm_upload(),
                false => self.budget.arm(&self.client.deadline, None),
            }
        }
        buffer.consume(head_len);
        self.held = Some(buffer).filter(|buffer| !buffer.is_empty());
        self.work.response.reset();
        Ok(())
    }
}
