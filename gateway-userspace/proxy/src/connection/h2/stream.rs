//! One HTTP/2 stream: from a request's head to the head of its response.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_model::head::Head;
use gateway_model::ir::Timeouts;
use gateway_model::snapshot::{CompiledFilters, CompiledRule};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};

use super::answer::{finish, inform, refuse, turn_away};
use super::body::{self, ResponseBody, Streamed};
use super::guard::{self, StreamState};
use super::upload::{Upload, UploadError};
use crate::buffer::Buffer;
use crate::connection::attempt::{Attempt, Dial, Start};
use crate::connection::budget::Budget;
use crate::connection::call_time;
use crate::connection::download::{self, Download};
use crate::connection::inbound::{self, Inbound, NoHead};
use crate::connection::informational::Informational;
use crate::connection::local::{self, Wanted};
use crate::connection::mirror::Copies;
use crate::connection::record::Record;
use crate::connection::retries::Retries;
use crate::cors::CorsLine;
use crate::downstream::{Downstream, Routing};
use crate::error::{Kind, ProxyError, Side};
use crate::h1::{
    Asked, BodyKind, RequestPlan, ResponseHead, encode_request, to_http, to_http_informational,
};
use crate::head::{H2Head, Source};
use crate::origin;
use crate::routing::{Act, Decision, decide};
use crate::upstream::{Needs, Target, UpstreamStream};
use crate::worker::Worker;

/// Serves one request, unless its client takes it back. The request is taken from where it waits.
pub(super) async fn serve(
    state: &StreamState,
    waiting: &RefCell<Option<Request<RecvStream>>>,
    respond: SendResponse<Bytes>,
) {
    let respond = RefCell::new(respond);
    let routing = state.session.downstream.routing();
    let Some(begun) = begin(state, &routing, waiting, &respond) else {
        return;
    };
    let response = match begun {
        Begun::Answered(response) => response,
        Begun::Forwarded(mut exchange) => {
            guard::step_back().await;
            match exchange.reach_unless_reset(&routing).await {
                Some(Ok((attempt, heard))) => exchange.respond(attempt, heard),
                Some(Err(error)) => exchange.fail(error),
                None => {
                    exchange.abandon();
                    Ok(None)
                }
            }
        }
    };
    let sent = match response {
        Ok(Some(rest)) => rest.send(state).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "http/2 stream ended early");
    }
    state.note_reset(&respond);
}

/// What becomes of a request once its head is judged.
enum Begun<'a> {
    Answered(body::Begun),
    /// Boxed: a task between two streams holds no room for it.
    Forwarded(Box<Exchange<'a>>),
}

/// Judges the head. Not part of the future: what the head takes is gone before anything is waited for.
fn begin<'a>(
    state: &'a StreamState,
    routing: &'a Rc<Routing>,
    waiting: &RefCell<Option<Request<RecvStream>>>,
    respond: &'a RefCell<SendResponse<Bytes>>,
) -> Option<Begun<'a>> {
    let (parts, body) = waiting.take()?.into_parts();
    let downstream = &state.session.downstream;
    let limits = &downstream.worker.limits().head;
    let head = match H2Head::check(&parts, limits, body.is_end_stream()) {
        Ok(head) => head,
        Err(violation) => {
            let refused = refuse(state, respond, &parts, violation);
            return Some(Begun::Answered(refused));
        }
    };
    let decision = decide(routing, downstream, &head);
    let began = state.began;
    let mut record = Record::begin(downstream, routing, &decision, &head, "HTTP/2", began);
    let wanted = Wanted::of(&head);
    let Act::Forward {
        filters,
        upstream,
        label,
    } = decision.action
    else {
        let answer = local::answer(downstream, &head, wanted, &decision, &mut record);
        let served = finish(state, respond, answer, wanted, record, decision.rule);
        return Some(Begun::Answered(served));
    };
    record.asks(label);
    let mut upload = begin_upload(downstream, &head, &decision, filters, body, &mut record);
    let head_len = upload.head_len();
    if !state.hold(head_len) {
        let served = turn_away(state, respond, head_len, wanted, record, decision.rule);
        return Some(Begun::Answered(served));
    }
    if head.expects_continue() {
        inform(respond, Response::builder().status(100).body(()));
    }
    upload.copy_to(Copies::of(downstream, routing, &decision, &head));
    let worker = &downstream.worker;
    if Retries::keeps(decision.rule.map(|rule| &**rule)) {
        upload.keep_sent(worker.limits().upstream.retry_bytes);
    }
    let limits = &worker.limits().time;
    let mut timeouts = decision
        .rule
        .map_or_else(Timeouts::default, |rule| rule.timeouts);
    if wanted.is_grpc() {
        timeouts = call_time::bounded(timeouts, limits, &head);
    }
    Some(Begun::Forwarded(Box::new(Exchange {
        state,
        respond,
        rule: decision.rule,
        filters,
        target: decision.target(upstream),
        upload,
        uploading: true,
        budget: Budget::new(&worker.timers, &timeouts, limits, wanted.is_grpc()),
        wanted,
        harmless: matches!(head.method(), "GET" | "HEAD" | "OPTIONS"),
        cors: origin::response_lines(decision.rule.map(|rule| &**rule), &head),
        partial: None,
        held: None,
        retries: Retries::new(worker, decision.rule.map(|rule| &**rule)).of_method(head.method()),
        informational: Informational::default(),
        record,
    })))
}

/// The request as the upstream is to see it.
fn begin_upload(
    downstream: &Downstream,
    head: &H2Head<'_>,
    decision: &Decision<'_>,
    filters: &CompiledFilters,
    body: RecvStream,
    record: &mut Record,
) -> Upload {
    let own_id = downstream.worker.request_id();
    let forwarding = downstream.forwarding();
    let id = forwarding
        .kept_request_id(head)
        .unwrap_or(own_id.as_bytes());
    record.identify(id);
    let plan = RequestPlan {
        edits: &filters.request_headers,
        rewrite: &filters.rewrite,
        prefix_len: decision.prefix_len,
        forwarding,
        request_id: Some(id),
    };
    let mut out = downstream.worker.take_vec();
    encode_request(&mut out, head, &plan);
    let limits = &downstream.worker.limits().head;
    Upload::new(out, head.body(), body, limits)
}

/// A forwarded request until its response begins.
struct Exchange<'a> {
    state: &'a StreamState,
    respond: &'a RefCell<SendResponse<Bytes>>,
    rule: Option<&'a Arc<CompiledRule>>,
    filters: &'a CompiledFilters,
    target: Target<'a>,
    upload: Upload,
    uploading: bool,
    budget: Budget,
    wanted: Wanted,
    /// Whether sending the request twice does no harm.
    harmless: bool,
    cors: Vec<CorsLine<'static>>,
    /// What has been parsed of a response's head, as long as a part of it is still to come.
    partial: Option<Box<ResponseHead>>,
    /// What has come of a response's head; a buffer is kept here only while there is something in it.
    held: Option<Buffer>,
    retries: Retries,
    informational: Informational,
    record: Record,
}

/// A response's head, and what was read with it.
struct Heard {
    head: Box<ResponseHead>,
    inbound: Inbound,
}

/// What the first attempt has come to.
enum First {
    /// A connection has to be made.
    Dial(Dial),
    /// An answer, or none, on a connection that was there.
    Heard(Attempt, Result<Heard, NoHead>),
    Failed(ProxyError),
}

impl Exchange<'_> {
    /// Waits for a response; nothing if the client resets the stream before.
    ///
    /// A request that finds a connection and is answered there at once, as nearly all are, waits in this future
    /// alone: what it takes to dial, to retry and to pass on more than one head is made when it is needed, so
    /// that the many streams that wait stay close together in memory.
    async fn reach_unless_reset(
        &mut self,
        routing: &Routing,
    ) -> Option<Result<(Attempt, Heard), ProxyError>> {
        let respond = self.respond;
        let first = match self.start(routing) {
            Err(error) => First::Failed(error),
            Ok(Start::Dial(dial)) => First::Dial(dial),
            Ok(Start::Ready(mut attempt)) => {
                let head = poll_fn(|cx| match self.poll_head(cx, &mut attempt) {
                    Poll::Ready(head) => Poll::Ready(Some(head)),
                    Poll::Pending => respond.borrow_mut().poll_reset(cx).map(|_| None),
                });
                match head.await? {
                    Ok(heard) if self.is_final(&heard) => return Some(Ok((attempt, heard))),
                    head => First::Heard(attempt, head),
                }
            }
        };
        let mut reached = Box::pin(self.reach(routing, first));
        poll_fn(|cx| match reached.as_mut().poll(cx) {
            Poll::Ready(reached) => Poll::Ready(Some(reached)),
            Poll::Pending => respond.borrow_mut().poll_reset(cx).map(|_| None),
        })
        .await
    }

    /// Begins an attempt, as far as nothing has to be waited for.
    fn start(&mut self, routing: &Routing) -> Result<Start, ProxyError> {
        self.record.attempts = self.retries.begin();
        self.budget.arm(&self.state.deadline, None);
        let worker = &self.state.session.downstream.worker;
        let needs = self.needs();
        let start = Attempt::start(worker, routing, self.target, needs, &mut self.retries)?;
        if let Start::Ready(attempt) = &start {
            self.begin_head(attempt);
        }
        Ok(start)
    }

    /// A response's head is awaited from now on.
    fn begin_head(&mut self, attempt: &Attempt) {
        self.record.endpoint = Some(attempt.address());
        self.partial = None;
        self.held = None;
    }

    /// Whether this is the response, and no attempt comes after it.
    fn is_final(&mut self, Heard { head, inbound }: &Heard) -> bool {
        !head.is_informational() && self.retries.after_response(head, inbound).is_none()
    }

    /// Sends the request, as often as it takes and may be, and waits for the head of a final response.
    async fn reach(
        &mut self,
        routing: &Routing,
        first: First,
    ) -> Result<(Attempt, Heard), ProxyError> {
        let worker = Rc::clone(&self.state.session.downstream.worker);
        let mut tried = self.go_on(&worker, first).await;
        loop {
            let longest = match &tried {
                Ok((_, heard)) => self.retries.after_response(&heard.head, &heard.inbound),
                Err(error) => self.retries.after_failure(error),
            };
            let Some(longest) = longest.filter(|_| self.upload.is_replayable()) else {
                return tried;
            };
            if let Ok((attempt, Heard { head, inbound })) = tried {
                self.retries.failed_at(attempt.address());
                let uploaded = self.upload.is_done();
                Download::discard(attempt, inbound, &head, &worker, uploaded);
                worker.put_response_head(head);
            }
            self.budget.end_attempt();
            self.budget.arm(&self.state.deadline, None);
            let pause = self.retries.pause(&worker, longest);
            self.budget.guard(&self.state.deadline, pause).await?;
            self.budget.begin_attempt(self.state.deadline.timers());
            self.upload.rewind();
            self.uploading = true;
            tried = match self.start(routing) {
                Ok(Start::Ready(attempt)) => self.hear(&worker, attempt, None).await,
                Ok(Start::Dial(dial)) => self.go_on(&worker, First::Dial(dial)).await,
                Err(error) => Err(error),
            };
        }
    }

    /// Brings an attempt that has been begun to its end.
    async fn go_on(
        &mut self,
        worker: &Rc<Worker>,
        first: First,
    ) -> Result<(Attempt, Heard), ProxyError> {
        match first {
            First::Failed(error) => Err(error),
            First::Heard(attempt, head) => self.hear(worker, attempt, Some(head)).await,
            First::Dial(dial) => {
                let dialled = Box::pin(dial.run(worker, &mut self.retries));
                let attempt = self.budget.guard(&self.state.deadline, dialled).await?;
                self.begin_head(&attempt);
                self.hear(worker, attempt, None).await
            }
        }
    }

    /// Waits for the head of a final response, of which `heard` is what came first.
    async fn hear(
        &mut self,
        worker: &Rc<Worker>,
        mut attempt: Attempt,
        mut heard: Option<Result<Heard, NoHead>>,
    ) -> Result<(Attempt, Heard), ProxyError> {
        loop {
            let head = match heard.take() {
                Some(head) => head,
                None => poll_fn(|cx| self.poll_head(cx, &mut attempt)).await,
            };
            match head {
                Ok(heard) if heard.head.is_informational() => {
                    attempt.answers();
                    self.pass_on(&heard)?;
                    let mut buffer = heard.inbound.buffer;
                    buffer.consume(heard.inbound.head_len);
                    self.held = Some(buffer).filter(|buffer| !buffer.is_empty());
                    worker.put_response_head(heard.head);
                }
                Ok(heard) => return Ok((attempt, heard)),
                Err(no_head) if self.may_repeat(&attempt, &no_head) => {
                    worker.counters.upstream_stale_retries.up();
                    self.upload.rewind();
                    self.uploading = true;
                    let afresh = Box::pin(attempt.afresh(worker));
                    attempt = self.budget.guard(&self.state.deadline, afresh).await?;
                    self.begin_head(&attempt);
                }
                Err(no_head) => {
                    self.retries.failed_at(attempt.address());
                    return Err(no_head.into_error());
                }
            }
        }
    }

    /// Passes an informational response on. `100 Continue` is Sluice's own to say.
    #[cold]
    fn pass_on(&mut self, Heard { head, inbound }: &Heard) -> Result<(), ProxyError> {
        let limits = &self.state.session.downstream.worker.limits().head;
        self.informational.count(inbound.head_len, limits)?;
        if head.status() != 100 {
            let head = to_http_informational(&head.view(inbound.buffer.filled()));
            inform(self.respond, Ok(head));
        }
        Ok(())
    }

    /// Whether the request can be sent once more without anybody noticing.
    fn may_repeat(&mut self, attempt: &Attempt, no_head: &NoHead) -> bool {
        let stale = attempt.connection.used && self.harmless;
        self.upload.is_replayable() && self.retries.may_repeat(no_head, stale)
    }

    fn needs(&self) -> Needs {
        Needs {
            repeatable: self.harmless,
            upgrade: false,
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        attempt: &mut Attempt,
    ) -> Poll<Result<Heard, NoHead>> {
        let stream = &mut attempt.connection.stream;
        if self.uploading
            && let Poll::Ready(sent) = self.upload.poll(cx, stream)
        {
            self.uploading = false;
            if self.upload.forget_large_head() {
                self.state.let_go();
            }
            if let Some(error) = sent.err().and_then(UploadError::fault) {
                return Poll::Ready(Err(NoHead::Failed(error)));
            }
        }
        if let Poll::Ready(heard) = self.poll_read_head(cx, stream) {
            return Poll::Ready(heard);
        }
        let worker = &self.state.session.downstream.worker;
        if self.uploading && self.upload.take_moved() {
            let time = &worker.limits().time;
            let timers = self.state.deadline.timers();
            let stall_ms = if self.upload.is_writing() {
                timers.at(time.write_stall)
            } else {
                let received = self.upload.received();
                self.budget.body_stall_ms(timers, time, received)
            };
            self.budget.arm_at(&self.state.deadline, stall_ms);
        } else if !self.uploading {
            self.budget.arm(&self.state.deadline, None);
        }
        let stalled = match self.upload.is_writing() {
            true => (Side::Upstream, Kind::WriteTimeout),
            false => (Side::Downstream, Kind::BodyTimeout),
        };
        let over = self.budget.poll_over(cx, &self.state.deadline, stalled);
        over.map(|error| Err(NoHead::Failed(error)))
    }

    /// Reads on. The storage of a head is lent as that of its bytes is: while there is a part of it.
    fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut UpstreamStream,
    ) -> Poll<Result<Heard, NoHead>> {
        let worker = &self.state.session.downstream.worker;
        let asked = Asked {
            head: self.wanted.is_head(),
            websocket: false,
        };
        let outbox = &self.state.session.outbox;
        if self.held.is_none() && !outbox.has_room() {
            // What comes with the head is to wait for others: let it be little.
            self.held = Some(Buffer::lend());
        }
        let partial = self.partial.take();
        let mut head = partial.unwrap_or_else(|| worker.take_response_head());
        match inbound::poll_head(cx, worker, stream, &mut head, asked, &mut self.held) {
            Poll::Ready(Ok(inbound)) => return Poll::Ready(Ok(Heard { head, inbound })),
            Poll::Ready(Err(no_head)) => return Poll::Ready(Err(no_head)),
            Poll::Pending => {}
        }
        match self.held {
            Some(_) => self.partial = Some(head),
            None => worker.put_response_head(head),
        }
        Poll::Pending
    }

    /// Begins the response. What there is of its body is sent with its head.
    fn respond(mut self: Box<Self>, attempt: Attempt, heard: Heard) -> body::Begun {
        let Heard {
            head: response,
            mut inbound,
        } = heard;
        let view = response.view(inbound.buffer.filled());
        let worker = &self.state.session.downstream.worker;
        let edits = &self.filters.response_headers;
        let head = to_http(&view, edits, &self.cors, &worker.date_value());
        inbound.buffer.consume(inbound.head_len);
        self.record.answered(response.status());
        self.record.bytes_received = self.upload.received();
        self.state.begins_sending();
        let uploaded = self.upload.is_done();
        if (uploaded || response.body() == BodyKind::None)
            && let Some(whole) = download::whole(&response, &mut inbound.buffer)
        {
            if uploaded && response.keep_alive() {
                attempt.keep(worker);
            }
            worker.put_response_head(response);
            self.upload.finish_copies();
            worker.put_vec(self.upload.into_storage());
            self.record.bytes_sent = whole.len() as u64;
            let rule = self.rule.map(|rule| &**rule);
            self.record.end(&self.state.session.downstream, rule);
            self.state.ended.set(true);
            let whole = ResponseBody::Whole(whole);
            return body::begin(self.state, self.respond, head, whole);
        }
        self.budget.response_began();
        let download = Download::new(attempt, inbound.buffer, &response, &worker.limits().head);
        worker.put_response_head(response);
        let streamed = Streamed {
            session: Rc::clone(&self.state.session),
            download: Some(download),
            upload: (!uploaded).then_some(self.upload),
            budget: self.budget,
            rule: self.rule.map(Arc::clone),
            record: Some(self.record),
            data: Bytes::new(),
        };
        let body = ResponseBody::Streamed(Box::new(streamed));
        body::begin(self.state, self.respond, head, body)
    }

    /// The client has taken the request back.
    fn abandon(mut self: Box<Self>) {
        self.record.bytes_received = self.upload.received();
        self.record.error = Some(ProxyError::new(Side::Downstream, Kind::Closed));
        let rule = self.rule.map(|rule| &**rule);
        self.record.end(&self.state.session.downstream, rule);
    }

    /// The answer when no response came.
    fn fail(mut self: Box<Self>, error: ProxyError) -> body::Begun {
        self.record.bytes_received = self.upload.received();
        let rule = self.rule.map(|rule| &**rule);
        let answer = local::of_rule(self.wanted.answer(&error), rule, self.cors);
        self.record.error = Some(error);
        finish(
            self.state,
            self.respond,
            answer,
            self.wanted,
            self.record,
            self.rule,
        )
    }
}
